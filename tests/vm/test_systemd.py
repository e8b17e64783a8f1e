"""The units of deploy/systemd, put in place as docs/systemd.md says, under a systemd as it is."""

import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENT = CHECKOUT / "docs/systemd.md"
URL = "http://127.0.0.1:8099"
USERS_URL = "http://127.0.0.1:8100"
DROP_INS = Path("/run/systemd/system")
SETTINGS = Path("/etc/jail/jail.toml")

# What is emulated can take its time.
SECONDS = 120


def command(*words, **more):
    """Its output. Raises CalledProcessError."""
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=600, **more)
    return done.stdout.strip()


def systemctl(*words):
    return command("systemctl", *words)


def show(name, unit="jail.service"):
    """A property of a unit."""
    return systemctl("show", "--value", "-p", name, unit)


def main_process():
    return int(show("MainPID"))


def run(*argv, url=URL, **more):
    """A job's answer; whoever waits at the socket is served once the service is there."""
    return httpx.post(f"{url}/v1/run", json={"argv": argv, **more}, timeout=SECONDS).json()


def says_hello(url=URL):
    return run("echo", "hello", url=url)["stdout"]["text"] == "hello\n"


@contextmanager
def drop_in(unit, *lines):
    """Change a unit until the end of the context. It takes effect when it is started anew."""
    directory = DROP_INS / f"{unit}.d"
    directory.mkdir(parents=True)
    (directory / "test.conf").write_text("\n".join((*lines, "")))
    systemctl("daemon-reload")
    try:
        yield
    finally:
        shutil.rmtree(directory)
        systemctl("daemon-reload")


@contextmanager
def settings(text):
    """Other settings until the end of the context. They take effect when it is started anew."""
    SETTINGS.write_text(text)
    try:
        yield
    finally:
        SETTINGS.write_text("")


@pytest.fixture(scope="module")
def enabled(installed):
    systemctl("enable", "jail.service")
    yield
    systemctl("disable", "--now", "jail.service", "jail.socket")


@pytest.fixture(autouse=True)
def serves(enabled):
    """Before each test it runs with the shipped settings, and after each it answers."""
    systemctl("restart", "jail.service")
    yield
    # Shown when the test has failed.
    sys.stdout.write(command("journalctl", "-u", "jail.service", "-o", "cat", "-n", "40"))
    assert says_hello()


def test_installing_again_changes_nothing(install):
    names = ("/etc/subuid", "/etc/subgid", "/etc/passwd")
    files = [Path(name).read_text() for name in names]
    assert [len(re.findall("^jail:", text, re.MULTILINE)) for text in files] == [1, 1, 1]
    process = main_process()
    install()
    assert [Path(name).read_text() for name in names] == files
    assert main_process() == process


def test_it_is_ready_when_systemctl_comes_back():
    systemctl("stop", "jail.service", "jail.socket")
    systemctl("start", "jail.service")
    assert httpx.get(f"{URL}/readyz", timeout=SECONDS).status_code == 200
    assert (show("ActiveState"), show("SubState")) == ("active", "running")


def test_the_first_caller_starts_it():
    systemctl("stop", "jail.service")
    assert says_hello()
    assert show("ActiveState") == "active"


def test_systemctl_shows_what_the_document_says():
    (block,) = re.findall(r"```ini\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names = [line.partition("=")[0] for line in block.splitlines()]
    told = systemctl("show", *(f"-p{name}" for name in names), "jail.service").splitlines()
    assert sorted(told) == sorted(block.splitlines())


def test_the_score_of_its_security_is_that_of_the_document():
    told = command("systemd-analyze", "security", "--no-pager", "jail.service")
    (score,) = re.findall(r"exposure level for jail.service: ([\d.]+ \w+)", told)
    text = DOCUMENT.read_text()
    assert f"exposure level for jail.service: {score}" in text
    lowering = {name.partition("=")[0] for name in re.findall(r"^✗ (\S+)", told, re.MULTILINE)}
    assert {name for name in lowering if f"`{name}=" not in text} == set()


def test_the_service_is_in_a_leaf_of_what_was_delegated_to_it():
    unit = Path("/sys/fs/cgroup/system.slice/jail.service")
    assert not (unit / "cgroup.procs").read_text()
    assert str(main_process()) in (unit / "service/cgroup.procs").read_text().split()
    assert {"cpu", "io", "memory", "pids"} <= set((unit / "cgroup.subtree_control").read_text().split())
    assert run("true")["usage"]["memory_source"] == "memory.peak"


def test_it_has_neither_the_hosts_network_nor_its_capabilities():
    process = Path(f"/proc/{main_process()}")
    assert os.readlink(process / "ns/net") != os.readlink("/proc/self/ns/net")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    # CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID and CAP_SYS_ADMIN: 1, 6, 7, 21.
    assert (int(status["CapBnd"], 16), int(status["CapEff"], 16)) == (0x2000C2, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert show("NRestarts") == "0"


def test_a_job_that_is_ended_for_its_memory_is_no_end_of_the_service():
    process = main_process()
    job = run("python3", "-c", "b'x' * (1 << 30)", limits={"memory_bytes": 1 << 26})
    assert (job["status"], job["limit"]) == ("memory_limit", "memory_bytes")
    assert says_hello()
    assert (main_process(), show("NRestarts")) == (process, "0")


def test_restarts_under_load_lose_no_request(load_on):
    with load_on(URL, 4) as load:
        for _ in range(3):
            before = load.answered
            while load.answered < before + 8:
                os.sched_yield()
            systemctl("restart", "jail.service")
    load.check()


def test_a_job_may_end_before_the_service_does_however_long_systemd_would_wait():
    assert show("TimeoutStopUSec") == "5s"
    with settings("drain_ms = 60000"), ThreadPoolExecutor(1) as thread:
        systemctl("restart", "jail.service")
        job = thread.submit(run, "sh", "-c", "sleep 8; echo done")
        while not jobs():
            os.sched_yield()
        systemctl("restart", "jail.service")
        assert job.result()["stdout"]["text"] == "done\n"
    assert show("Result") == "success"


def jobs():
    """Processes in sandboxes that execute sleep."""
    found = Path("/sys/fs/cgroup/system.slice/jail.service/sandboxes").glob("*/*/cgroup.procs")
    pids = [pid for place in found for pid in place.read_text().split()]
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]


def test_a_service_that_is_killed_is_started_anew_and_leaves_nothing():
    process = main_process()
    cgroup = Path("/sys/fs/cgroup/system.slice/jail.service")
    os.kill(process, signal.SIGKILL)
    assert says_hello()
    assert show("NRestarts") == "1"
    assert main_process() != process
    for place in (cgroup / "sandboxes", Path("/var/lib/jail/instances")):
        assert len([path for path in place.iterdir() if path.is_dir()]) == 1


def test_a_service_without_a_keeper_is_started_anew():
    command("sh", "-c", f"kill -KILL $(cat /proc/{main_process()}/task/*/children)")
    process = main_process()
    while main_process() == process:
        os.sched_yield()
    assert says_hello()
    assert show("NRestarts") == "1"


def test_a_service_that_stands_still_is_started_anew_by_the_watchdog():
    with drop_in("jail.service", "[Service]", "WatchdogSec=6s"):
        systemctl("restart", "jail.service")
        process = main_process()
        os.kill(process, signal.SIGSTOP)
        assert says_hello()
        assert main_process() != process
        assert "Watchdog timeout" in command("journalctl", "-u", "jail.service", "-o", "cat")


def test_a_worker_that_stands_still_has_the_whole_service_started_anew():
    listens = ("[Socket]", "ReusePort=yes", "ListenStream=", *["ListenStream=127.0.0.1:8099"] * 2)
    watched = ("[Service]", "WatchdogSec=6s", "Environment=JAIL_WORKERS=2")
    try:
        with drop_in("jail.socket", *listens), drop_in("jail.service", *watched):
            systemctl("stop", "jail.service", "jail.socket")
            systemctl("start", "jail.service")
            process = main_process()
            worker = int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])
            os.kill(worker, signal.SIGSTOP)
            while main_process() == process:
                os.sched_yield()
            assert says_hello()
            assert httpx.get(f"{URL}/v1/capabilities", timeout=SECONDS).json()["workers"] == 2
    finally:
        systemctl("stop", "jail.service", "jail.socket")
        systemctl("start", "jail.service")


@pytest.fixture
def user():
    """An ordinary user with a session manager, and nothing else; what it may do, as a function."""
    command("useradd", "--create-home", "--shell", "/bin/bash", "alice")
    # For a login, which starts the same.
    command("loginctl", "enable-linger", "alice")
    number = command("id", "-u", "alice")
    systemctl("start", f"user@{number}.service")
    session = {"XDG_RUNTIME_DIR": f"/run/user/{number}", "HOME": "/home/alice", "PATH": os.environ["PATH"]}
    yield lambda *words: command(
        "setpriv", "--reuid=alice", "--regid=alice", "--init-groups", *words, env=session
    )
    command("loginctl", "disable-linger", "alice")
    systemctl("stop", f"user@{number}.service")


def test_a_user_has_a_service_of_its_own_without_root(user):
    place = "/home/alice/.config/systemd/user/jail-user.socket.d"
    user("mkdir", "-p", place)
    user("sh", "-c", f"printf '[Socket]\\nListenStream=\\nListenStream=127.0.0.1:8100\\n' >{place}/port.conf")
    user("systemctl", "--user", "daemon-reload")
    user("systemctl", "--user", "enable", "--now", "jail-user.socket")
    assert says_hello(USERS_URL)
    user("systemctl", "--user", "restart", "jail-user.service")
    assert says_hello(USERS_URL)
    pid = int(user("systemctl", "--user", "show", "--value", "-p", "MainPID", "jail-user.service"))
    os.kill(pid, signal.SIGKILL)
    assert says_hello(USERS_URL)
    assert user("systemctl", "--user", "show", "--value", "-p", "NRestarts", "jail-user.service") == "1"
    job = run("python3", "-c", "b'x' * (1 << 30)", url=USERS_URL, limits={"memory_bytes": 1 << 26})
    assert job["status"] == "memory_limit"
    user("systemctl", "--user", "stop", "jail-user.socket", "jail-user.service")
