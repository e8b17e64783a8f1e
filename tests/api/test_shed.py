"""What the service gives up before its first request, seen from outside and tried from inside."""

import asyncio
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from trial import trial

from jail import host, policy, shed
from jail.errors import HostError
from jail.policy import Verdict, compile_policy, load, numbers, simulate

KEY = "correct horse battery staple"
WRONG_KEY = "incorrect donkey capacitor paperclip"
SECRET = "hunter2-of-the-service"
SLEEPER = {"argv": ["sleep", "1000"]}

SHEDDING = "shed.shed(Path(sys.argv[1]), types.SimpleNamespace(bases=(), claimed=()))"
TRIAL = trial(SHEDDING)


@pytest.fixture
def attempt(environment, state):
    """Try statements in a process that has shed; their errno values, or 0."""

    def run(*statements):
        done = subprocess.run(
            [sys.executable, "-P", "-c", TRIAL, str(state)],
            input="\n".join(statements),
            env=environment,
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def program():
    directory = policy.shipped_directory() / shed.POLICY
    return compile_policy(load(shed.POLICY, directory), required={})


def test_every_thread_has_no_new_privs_and_one_filter(service):
    tasks = list(Path(f"/proc/{service.pid}/task").iterdir())
    texts = [(task / "status").read_text() for task in tasks]
    assert texts
    for text in texts:
        fields = dict(line.split(":\t", 1) for line in text.splitlines())
        assert (fields["NoNewPrivs"], fields["Seccomp"], fields["Seccomp_filters"]) == ("1", "2", "1")


@pytest.mark.parametrize("name", ["environ", "mem", "maps", "auxv", "syscall"])
@pytest.mark.parametrize("process", ["pid", "keeper"])
def test_another_process_of_the_same_user_cannot_look_into_it(service, process, name):
    with pytest.raises(PermissionError):
        Path(f"/proc/{getattr(service, process)}/{name}").read_bytes()


@pytest.mark.parametrize("process", ["pid", "keeper"])
def test_another_process_of_the_same_user_cannot_reach_its_descriptors(service, process):
    with pytest.raises(PermissionError):
        os.listdir(f"/proc/{getattr(service, process)}/fd")


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("execve", ()), ("execveat", ()), ("fork", ()), ("vfork", ()), ("clone", (signal.SIGCHLD,)),
        ("clone", (0x10000900 | 0x10000,)), ("clone", (0x20010900,)), ("unshare", ()), ("setns", ()),
        ("ptrace", ()), ("process_vm_readv", ()), ("process_vm_writev", ()), ("pidfd_getfd", ()),
        ("mount", ()), ("umount2", ()), ("pivot_root", ()), ("chroot", ()), ("open_tree", ()), ("fsopen", ()),
        ("bpf", ()), ("keyctl", ()), ("add_key", ()), ("request_key", ()), ("perf_event_open", ()),
        ("userfaultfd", ()), ("io_uring_setup", ()), ("io_uring_enter", ()), ("io_uring_register", ()),
        ("kill", ()), ("tkill", ()), ("tgkill", ()), ("prlimit64", ()), ("setuid", ()), ("setresuid", ()),
        ("socket", (2, 1)), ("socket", (16, 3)), ("socketpair", (2, 1)), ("bind", ()), ("connect", ()),
        ("sendto", (3, 0, 0, 0x20000000)), ("sendmsg", (3, 0, 1)), ("setsockopt", (3, 1, 26)),
        ("prctl", (4, 1)), ("prctl", (22, 2)), ("seccomp", ()), ("landlock_restrict_self", ()),
        ("fcntl", (3, 8)), ("ioctl", (0, 0x5412)), ("chmod", ()), ("renameat2", ()), ("symlink", ()),
    ],
)  # fmt: skip
def test_the_filter_refuses(program, call, args):
    if (number := numbers.number(call)) is None:
        pytest.skip(f"this architecture has no {call}")
    assert simulate(program, number, args) == (Verdict.ERRNO, errno.EPERM)


def test_the_filter_hides_clone3_as_an_older_kernel_would(program):
    assert simulate(program, numbers.number("clone3"), ()) == (Verdict.ERRNO, errno.ENOSYS)


def test_no_job_can_ask_for_the_filter_of_the_service(client):
    assert shed.POLICY not in policy.names()
    assert client.post("/v1/run", json={"argv": ["true"], "policy": shed.POLICY}).status_code == 422
    assert shed.POLICY not in client.get("/v1/capabilities").json()["policies"]


@pytest.mark.parametrize(
    "statement",
    [
        "os.execv('/bin/true', ['true'])",
        "os.fork() or os._exit(9)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socket(socket.AF_INET)",
        "os.kill(os.getppid(), 0)",
        f"call({numbers.number('ptrace')}, 0, 0, 0, 0)",
        # With nothing to mount: EFAULT, were it not for the filter.
        f"call({numbers.number('mount')}, 0, 0, 0, 0, 0)",
        f"call({numbers.number('unshare')}, 0)",
        f"call({numbers.number('prctl')}, 4, 1, 0, 0, 0)",
    ],
)
def test_a_process_that_has_shed_cannot(attempt, statement):
    assert attempt(statement) == [errno.EPERM]


def test_landlock_leaves_no_file_outside(attempt, tmp_path):
    (tmp_path / "file").write_text("mine")
    outside = [
        "open('/etc/passwd').close()",
        "open('/bin/true', 'rb').close()",
        "os.listdir('/')",
        f"open('{tmp_path}/file').close()",
        f"open('{tmp_path}/file', 'a').close()",
        f"open('{tmp_path}/new', 'w').close()",
        f"os.unlink('{tmp_path}/file')",
        f"os.mkdir('{tmp_path}/new')",
        # Of the same user, and dumpable.
        "open(f'/proc/{os.getppid()}/environ').close()",
    ]
    assert attempt(*outside) == [errno.EACCES] * len(outside)


def test_the_parent_of_workers_has_no_file_but_code(environment, state):
    done = subprocess.run(
        [sys.executable, "-P", "-c", trial("shed.shed_files()"), str(state)],
        input="import wave\nos.listdir(sys.argv[1])\nos.listdir('/proc')\nos.fork() or os._exit(9)",
        env=environment,
        capture_output=True,
        text=True,
        cwd="/",
        check=True,
    )
    assert json.loads(done.stdout) == [0, errno.EACCES, errno.EACCES, errno.EPERM]


def test_code_state_and_its_own_figures_can_still_be_read(attempt, state):
    inside = [
        "import wave",
        # Of the standard library, and of C.
        "import _lsprof",
        f"open('{state}/new', 'w').close()",
        f"os.mkdir('{state}/directory')",
        f"os.rmdir('{state}/directory')",
        f"os.unlink('{state}/new')",
        "os.listdir('/proc/self/fd')",
        "open('/proc/self/limits').close()",
        f"assert os.cpu_count() == {os.cpu_count()}",
    ]
    assert attempt(*inside) == [0] * len(inside)


def test_a_thread_that_is_started_later_works_and_has_shed_too(attempt):
    refused = "open('/etc/passwd')"
    thread = f"threading.Thread(target=lambda: [seen.append(1), {refused}, seen.append(2)])"
    statements = [
        "seen = []; threading.excepthook = lambda told: seen.append(told.exc_type)",
        f"thread = {thread}; thread.start(); thread.join()",
        "assert seen == [1, PermissionError]",
    ]
    assert attempt(*statements) == [0, 0, 0]


def test_with_a_thread_that_would_keep_everything_nothing_is_shed(environment, state):
    script = (
        "import sys, threading, types; from pathlib import Path; from jail import shed\n"
        "waits = threading.Event(); threading.Thread(target=waits.wait).start()\n"
        "shed._THREADS_SECONDS = 0\n"
        "try: shed.shed(Path(sys.argv[1]), types.SimpleNamespace(bases=(), claimed=()))\n"
        "except shed.HostError as error: sys.stdout.write(error.cause)\n"
        "waits.set()"
    )
    command = [sys.executable, "-P", "-c", script, str(state)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout == "The service has threads before it serves."


def test_a_kernel_without_landlock_is_refused():
    with pytest.raises(HostError, match="no Landlock"):
        shed._restrict_files(0, [])


@pytest.mark.parametrize("step", ["_LANDLOCK_RESTRICT_SELF", "_SECCOMP_SET_MODE_FILTER", "_PR_SET_DUMPABLE"])
def test_a_service_that_cannot_shed_does_not_start_and_says_why(service_class, state, step):
    # A number that the kernel does not know.
    script = f"from jail import shed; shed.{step} = 9999\nfrom jail.cli import main; main(['serve'])"
    with pytest.raises(RuntimeError, match="cannot shed what it does not need") as refused:
        service_class({"JAIL_STATE": str(state)}, ("-c", script))
    assert '"ready"' not in str(refused.value)
    assert "Traceback" not in str(refused.value)
    instances = state / "instances"
    assert not instances.exists() or not list(instances.iterdir())


def test_without_landlock_the_rest_is_shed_all_the_same(environment, state):
    script = trial(SHEDDING.replace("claimed=())", "claimed=()), landlock=False"))
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(state)],
        input="open('/etc/passwd').close()\nos.fork() or os._exit(9)",
        env=environment,
        capture_output=True,
        text=True,
        cwd="/",
        check=True,
    )
    assert json.loads(done.stdout) == [0, errno.EPERM]


def test_the_environment_is_forgotten_where_the_kernel_shows_it_too(environment):
    script = (
        "import os, sys; from jail import shed\n"
        "shed.forget_environment()\n"
        "shown = open('/proc/self/environ', 'rb').read()\n"
        "sys.stdout.write(f'{sorted(os.environ)} {shown.strip(bytes(1))}')"
    )
    secrets = {"JAIL_KEYS_SHA256": "0" * 64, "SECRET": SECRET}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**environment, **secrets},
        capture_output=True,
        text=True,
        cwd="/",
        check=True,
    )
    assert done.stdout == "['PATH'] b''"


def test_what_the_host_has_is_still_told_after_shedding(client):
    assert client.get("/v1/capabilities").json()["landlock_abi"] == host.landlock_abi()


def test_a_service_that_has_shed_replaces_its_supervisor(serve, jail, executing):
    service = serve()

    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            post = asyncio.create_task(client.post("/v1/run", json=SLEEPER))
            killed = service.supervisor
            await executing(killed, "sleep")
            os.kill(killed, signal.SIGKILL)
            lost = (await post).json()
            following = (await client.post("/v1/run", json={"argv": ["echo", "next"]})).json()
            return lost, following, killed

    lost, following, killed = jail.do(scene())
    assert lost["status"] == "sandbox_error"
    assert following["stdout"]["text"] == "next\n"
    assert service.supervisor != killed


# Whatever loses its parent comes to be its child, as it does in a container whose first process it is.
FIRST_PROCESS = """
import ctypes
from jail.cli import main
assert not ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
main(["serve"], prog_name="jail")
"""


def test_what_a_lost_supervisor_leaves_does_not_stay_where_the_service_is_the_first_process(
    service_class, processes, eventually
):
    with closing(service_class({}, ("-c", FIRST_PROCESS))) as service:
        keeper, killed = service.keeper, service.supervisor
        inits = processes.children(killed)
        assert inits
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not any(map(processes.name, inits)))
        eventually(lambda: processes.children(service.pid) == [keeper])
        eventually(lambda: httpx.get(f"{service.url}/readyz").status_code == 200)


def test_a_service_whose_keeper_is_killed_answers_what_runs_and_stops(
    serve, state, jail, executing, processes, cgroups_named
):
    service = serve(JAIL_STATE=str(state))
    (instance,) = (state / "instances").iterdir()

    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            post = asyncio.create_task(client.post("/v1/run", json=SLEEPER))
            await executing(service.supervisor, "sleep")
            family = processes.descendants(service.pid)
            os.kill(service.keeper, signal.SIGKILL)
            return (await post).json(), family

    result, family = jail.do(scene())
    assert result["status"] == "sandbox_error"
    assert service.wait() == 1
    processes.wait_for_end(family)
    assert not instance.exists()
    assert not cgroups_named(instance.name)
    assert "The keeper was lost" in "".join(service.log)
    assert "Traceback" not in "".join(service.log)


def test_no_key_and_nothing_of_the_environment_is_ever_logged(service_class, eventually):
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    settings = {"JAIL_KEYS_SHA256": digest, "SECRET": SECRET}
    # A defect of ours, so that its trace is logged.
    broken = (
        "import jail.engine; jail.engine.Engine.pin = lambda *_: [][0]\n"
        "from jail.cli import main; main(['serve'], prog_name='jail')"
    )
    service = service_class(settings, ("-c", broken))
    with closing(service):
        for scheme in ("Bearer", "Basic"):
            for key in (KEY, WRONG_KEY):
                headers = {"Authorization": f"{scheme} {key}", "X-Other": SECRET}
                body = {"argv": ["true"], "env": {"KEY": key}}
                # Each on a connection of its own: after a defect the server closes it.
                answer = httpx.post(f"{service.url}/v1/run", json=body, headers=headers)
                assert answer.status_code == (500 if (scheme, key) == ("Bearer", KEY) else 401)
        httpx.get(f"{service.url}/metrics", headers={"Authorization": b"Bearer \xff" + KEY.encode()})
        eventually(lambda: any('"defect"' in line for line in service.log))
    log = "".join(service.log)
    assert "IndexError" in log
    for hidden in (KEY, WRONG_KEY, SECRET, digest, "authorization"):
        assert hidden.lower() not in log.lower()
