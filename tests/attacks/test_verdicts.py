"""Attacks 116 to 128: hiding what was used, taking another's verdict, and telling one job from another."""

import os
import re
import shutil
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from errno import EPERM
from pathlib import Path

import httpx
import pytest

from jail.policy import numbers, text

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
# What the processes of a job take beside what it burns, on a machine with others on it.
SLACK_MS = 60
VULNERABILITIES = Path("/sys/devices/system/cpu/vulnerabilities")


@pytest.fixture
def holding(running):
    """A job that runs a Python script and then sleeps, as long as the context lasts."""

    def start(script):
        rest = "\nimport os\nos.execvp('sleep', ['sleep', '1000'])"
        return running({"argv": ["python3", "-ISc", script + rest]}, "sleep")

    return start


def test_time_of_processes_that_nobody_waited_for_counts(attack, built, slowness):
    """Attack 116. Four orphans burn 50 ms each, and the main process ends before them."""
    result = attack(
        argv=["./burn", "4", "50"], files={"burn": built("burn.c")}, limits={"cpus": 4, "wall_ms": 20_000}
    )
    assert result["status"] == "ok"
    assert 200 <= result["usage"]["cpu_ms"] < 200 + SLACK_MS * slowness


def test_time_of_processes_that_nobody_waited_for_is_limited(attack, built):
    """Attack 116. The main process itself uses none."""
    result = attack(
        argv=["./burn", "4", "-1"],
        files={"burn": built("burn.c")},
        limits={"cpus": 4, "cpu_ms": 200, "wall_ms": 20_000},
    )
    assert (result["status"], result["limit"]) == ("cpu_limit", "cpu_ms")


@pytest.mark.parametrize("way", ["map", "child", "file"])
def test_memory_that_was_held_for_a_moment_is_in_the_peak(attack, built, way):
    """Attack 117. Nine tenths of the limit, given back at once; in a child nobody waits for; in tmpfs."""
    flashed, limit = 57 * MIB, 64 * MIB
    result = attack(
        argv=["./flash", way, str(flashed)],
        files={"flash": built("flash.c")},
        limits={"memory_bytes": limit, "disk_bytes": limit},
    )
    assert result["status"] == "ok", result
    assert flashed <= result["usage"]["memory_peak_bytes"] <= limit
    assert result["usage"]["memory_source"] in ("memory.peak", "memory.max_usage_in_bytes")


def test_a_sleeper_shows_both_of_its_times(sh, slowness):
    """Attack 118."""
    usage = sh("exec sleep 0.15")["usage"]
    assert usage["wall_ms"] >= 150
    assert usage["cpu_ms"] < SLACK_MS * slowness


THREADS = """
import threading
for _ in range(16): threading.Thread(target=threading.Event().wait).start()
"""


@pytest.mark.parametrize("script", ["import time\ntime.sleep(1000)", THREADS], ids=["asleep", "threads"])
def test_idleness_is_ended_by_the_wall_limit_and_not_by_cpu_time(attack, slowness, script):
    """Attack 118."""
    wall_ms = round(200 * slowness)
    result = attack(argv=["python3", "-ISc", script], limits={"wall_ms": wall_ms, "cpu_ms": 10 * wall_ms})
    assert (result["status"], result["limit"]) == ("wall_limit", "wall_ms")
    assert result["usage"]["wall_ms"] >= wall_ms
    assert result["usage"]["cpu_ms"] < wall_ms


def test_nothing_that_an_earlier_job_used_is_charged_to_the_next(attack, built, slowness):
    """Attack 119. Every job has a cgroup of its own: one of many MiB, one of many ms, and a small one."""
    flash = {"argv": ["./flash", "map", str(200 * MIB)], "files": {"flash": built("flash.c")}}
    burn = {"argv": ["./burn", "8", "20"], "files": {"burn": built("burn.c")}, "limits": {"cpus": 4}}
    large, busy = attack(flash)["usage"], attack(burn)["usage"]
    small = attack(argv=["true"])["usage"]
    assert large["memory_peak_bytes"] > 200 * MIB
    assert busy["cpu_ms"] > 160
    assert small["memory_peak_bytes"] < 16 * MIB
    assert small["cpu_ms"] < SLACK_MS * slowness
    assert small["pids_peak"] in (None, 2)
    assert small["oom_kills"] == small["pids_limit_hits"] == small["throttled_ms"] == 0


LIMIT = 1000
STREAMS = [("stdout", ""), ("stderr", " >&2")]


@pytest.mark.parametrize(("stream", "redirection"), STREAMS)
@pytest.mark.parametrize("count", [LIMIT - 1, LIMIT, LIMIT + 1])
def test_output_is_whole_or_said_to_be_cut(sh, stream, redirection, count):
    """Attack 120. Cut where the caller asked for that, and then only the end is missing."""
    script = f"(head -c {count} /dev/zero | tr '\\0' x){redirection}"
    result = sh(script, limits={f"{stream}_bytes": LIMIT}, on_output_limit="truncate")
    kept = min(count, LIMIT)
    assert result["status"] == "ok"
    assert result[stream] == {"text": "x" * kept, "bytes": count, "truncated": count > LIMIT}


@pytest.mark.parametrize(("stream", "redirection"), STREAMS)
@pytest.mark.parametrize("count", [LIMIT - 1, LIMIT, LIMIT + 1])
def test_too_much_output_is_no_success(sh, stream, redirection, count):
    """Attack 120. Where the caller did not ask for it to be cut."""
    script = f"(head -c {count} /dev/zero | tr '\\0' x){redirection}"
    result = sh(script, limits={f"{stream}_bytes": LIMIT})
    excess = count > LIMIT
    assert (result["status"], result["limit"]) == (
        ("output_limit", f"{stream}_bytes") if excess else ("ok", None)
    )
    assert (result[stream]["bytes"], result[stream]["truncated"]) == (count, excess)


@pytest.mark.parametrize("count", [LIMIT - 1, LIMIT, LIMIT + 1])
def test_an_output_file_comes_back_whole_or_not_at_all(sh, count):
    """Attack 120."""
    result = sh(f"head -c {count} /dev/zero > out", outputs=["out"], limits={"output_bytes": LIMIT})
    errors = [error["path"] for error in result["output_errors"]]
    if count > LIMIT:
        assert (result["outputs"], errors) == ({}, ["out"])
    else:
        assert (b64decode(result["outputs"]["out"]["base64"]), errors) == (b"\0" * count, [])


LOCKS = """
import errno, fcntl, os, struct
def attempt(call, *arguments):
    try: call(*arguments); return 'granted'
    except OSError as error: return errno.errorcode[error.errno]
fd = os.open('/usr/bin/env', os.O_RDONLY)
os.set_inheritable(fd, True)
whole = struct.pack('hhqqi4x', fcntl.F_RDLCK, 0, 0, 0, 0)
told = [attempt(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
        attempt(fcntl.fcntl, fd, 37, whole),
        attempt(fcntl.lockf, fd, fcntl.LOCK_SH | fcntl.LOCK_NB),
        attempt(fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_RDLCK),
        attempt(fcntl.fcntl, fd, fcntl.F_NOTIFY, fcntl.DN_ACCESS)]
print(*told, flush=True)
"""


def test_locks_on_a_shared_file_are_each_jobs_own(python, holding):
    """Attack 121. Of flock(2), of open descriptions, of records; leases."""
    alone = python(LOCKS)
    with holding(LOCKS):
        beside = python(LOCKS)
    assert alone.startswith("granted granted granted ")
    assert beside == alone


WATCH = """
import ctypes, os, select
fd = ctypes.CDLL(None).inotify_init1(os.O_NONBLOCK)
assert ctypes.CDLL(None).inotify_add_watch(fd, b'/usr/bin/env', 0xfff) > 0
print(*select.select([fd], [], [], 0.1)[0])
open('/usr/bin/env').close()
print(*select.select([fd], [], [], 0.1)[0])
"""


def test_what_one_job_reads_is_no_event_for_another(python, running):
    """Attack 121. A watch on a file of the image sees the job open it, and not its neighbour."""
    reader = {"argv": ["sh", "-c", "while :; do read line < /usr/bin/env; done"]}
    with running(reader, "sh"):
        assert python(WATCH) == "\n3\n"


SCRATCH = ("/dev/shm", "/tmp", "/box")


def test_scratch_directories_are_each_jobs_own(sh, holding):
    """Attack 122."""
    write = "".join(f"open('{place}/name', 'w').write('secret')\n" for place in SCRATCH)
    with holding(write):
        seen = sh(f"find {' '.join(SCRATCH)} -mindepth 1")
    assert (seen["status"], seen["stdout"]["text"]) == ("ok", "")


NAMESPACES = """
import os
for name in os.listdir('/proc/self/ns'): print(name, os.readlink(f'/proc/self/ns/{name}'), flush=True)
"""


def own_namespaces(pid):
    return {path.name: os.readlink(path) for path in Path(f"/proc/{pid}/ns").iterdir()}


def test_every_namespace_is_each_jobs_own(python, target, processes):
    """Attack 122. Of two jobs at once; nor is any the supervisor's or this process's."""

    def read(told):
        return dict(line.split() for line in told.splitlines())

    waiting = ["python3", "-ISc", NAMESPACES + "import time\ntime.sleep(1000)"]
    body = {"argv": waiting, "limits": {"wall_ms": 1000}}
    with ThreadPoolExecutor(1) as other:
        begun = other.submit(httpx.post, f"{target.service.url}/v1/run", json=body, timeout=60)
        # Or the numbers of its namespaces are not taken yet.
        while "python3" not in map(processes.name, processes.descendants(target.service.supervisor)):
            assert not begun.done()
        job = read(python(NAMESPACES))
        assert not begun.done()
        neighbour = read(begun.result().json()["stdout"]["text"])
    assert job.keys() == neighbour.keys() >= {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}
    for pid in (target.service.supervisor, os.getpid()):
        assert not job.items() & own_namespaces(pid).items()
    assert not job.items() & neighbour.items()


IPC = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def said(result): return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def test_objects_of_system_v_are_each_jobs_own(python, holding):
    """Attack 122. Memory, semaphores and message queues, by key."""
    make = IPC + "create = 0o1666\n"
    calls = ["libc.shmget(4242, 4096, {0})", "libc.semget(4242, 1, {0})", "libc.msgget(4242, {0})"]
    create = "".join(f"assert {call.format('create')} >= 0\n" for call in calls)
    find = "".join(f"print(said({call.format('0')}))\n" for call in calls)
    with holding(make + create):
        assert python(IPC + find).split() == ["ENOENT"] * 3


def test_keys_are_refused_to_every_job(probe, sh):
    """Attack 123. By the filter: the kernel would make a key and find it."""
    session = -3
    calls = [
        ("add_key", "=user", "=x", "=y", 1, session),
        ("request_key", "=user", "=x", 0, session),
        ("keyctl", 10, session, "=user", "=x", 0),
        ("keyctl", 1, 0),
    ]
    assert {outcome.errno for outcome in probe(*calls)} == {EPERM}
    assert sh("cat /proc/keys /proc/key-users")["stdout"]["text"] == ""


@pytest.fixture
def with_keys(tmp_path_factory):
    """A directory of policies as shipped, whose default allows the calls of keys(7)."""
    directory = tmp_path_factory.mktemp("policies")
    shutil.copytree(text.shipped_directory(), directory, dirs_exist_ok=True)
    part = directory / "parts" / "base.toml"
    part.write_text(part.read_text().replace('    "exit",\n', '    "exit", "add_key", "keyctl",\n', 1))
    return directory


KEYS = f"""
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
ADD, KEYCTL, SEARCH = {numbers.number("add_key")}, {numbers.number("keyctl")}, 10
def said(result): return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def test_a_keyring_is_each_jobs_own_behind_the_filter_too(service_class, running, with_keys):
    """Attack 123. Under a policy that allows keys: of the session (-3), the user (-4), its session (-5)."""
    if not Path("/proc/keys").exists():
        pytest.skip("the host's kernel has no keys")
    add = "assert libc.syscall(ADD, b'user', b'jail-attack', b'secret', 6, ctypes.c_int({})) > 0\n"
    search = "print(said(libc.syscall(KEYCTL, SEARCH, ctypes.c_int({}), b'user', b'jail-attack', 0)))\n"
    rings = (-3, -4, -5)
    write = KEYS + "".join(add.format(ring) for ring in rings) + "os.execvp('sleep', ['sleep', '99'])"
    read = KEYS + "".join(search.format(ring) for ring in rings)
    service = service_class({"JAIL_SLOTS": "2", "JAIL_POLICIES": str(with_keys)})
    with closing(service), running({"argv": ["python3", "-ISc", write]}, "sleep", service):
        body = {"argv": ["python3", "-ISc", read]}
        result = httpx.post(f"{service.url}/v1/run", json=body, timeout=60).json()
    assert result["stdout"]["text"].split() == ["ENOKEY"] * 3, result


def test_names_of_the_host_are_not_there(sh):
    """Attack 124. A fixed name in every job, and no id of the machine."""
    told = sh("hostname; uname -n; cat /etc/hostname /proc/sys/kernel/hostname /proc/sys/kernel/domainname")
    assert told["stdout"]["text"] == "jail\n" * 4 + "(none)\n"
    ids = "/etc/machine-id /var/lib/dbus/machine-id /sys/class/dmi /sys/devices /proc/cmdline"
    # A compiler of Debian's keeps a part of itself in /var.
    found = "find /sys /var -path /var/lib/ghc -prune -o ! -type d -print"
    assert sh(f"cat {ids} 2>/dev/null; {found} 2>/dev/null; true")["stdout"]["text"] == ""


SHOWN = {
    "kernel version": "/proc/version",
    "boot id": "/proc/sys/kernel/random/boot_id",
    "processors": "/proc/cpuinfo",
    "load": "/proc/loadavg",
    "memory": "/proc/meminfo",
    "uptime": "/proc/uptime",
}


@pytest.fixture(scope="module")
def not_stopped():
    """The paragraphs of SECURITY.md on what is not stopped, each as one line, by their bold beginnings."""
    section = (ROOT / "SECURITY.md").read_text().partition("## What is not stopped")[2].partition("\n## ")[0]
    points = [" ".join(point.split()) for point in re.split(r"^- ", section, flags=re.MULTILINE)[1:]]
    return {re.match(r"\*\*(.+?)\*\*|[^.:]+", point)[0].strip("*.: "): point for point in points}


@pytest.mark.parametrize("what", SHOWN)
def test_what_a_job_sees_of_the_host_is_documented(sh, not_stopped, what):
    """Attack 124."""
    assert sh(f"cat {SHOWN[what]}")["stdout"]["bytes"] > 0
    assert what in not_stopped["What the host looks like"]


BIND = """
import socket
found = socket.socket(socket.AF_UNIX)
found.bind(b'\\0jail-attack')
found.listen()
found.set_inheritable(True)
"""
CONNECT = """
import errno, socket
try: socket.socket(socket.AF_UNIX).connect(b'\\0jail-attack')
except OSError as error: print(errno.errorcode[error.errno])
print(open('/proc/net/unix').read().count('jail-attack'))
"""


def test_an_abstract_socket_is_each_jobs_own(python, holding):
    """Attack 125."""
    with holding(BIND):
        assert python(CONNECT) == "ECONNREFUSED\n0\n"
    # The listener, and what it has not accepted yet.
    assert python(BIND + CONNECT) == "2\n"


def test_the_services_port_is_not_there(python, target):
    """Attack 126. Its loopback is another than the service's."""
    port = int(target.service.url.rpartition(":")[2])
    told = python(
        "import errno, socket\n"
        "for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::ffff:127.0.0.1')):\n"
        f"    try: print('connected', socket.create_connection((host, {port})))\n"
        "    except OSError as error: print(errno.errorcode[error.errno])\n"
        "for table in ('tcp', 'tcp6', 'udp', 'raw', 'unix'):\n"
        "    try: print(len(open(f'/proc/net/{table}').readlines()) - 1)\n"
        "    except FileNotFoundError: print(0)"
    ).split()
    assert told == ["ECONNREFUSED"] * 2 + ["0"] * 5


def test_no_socket_or_pipe_of_the_host_is_there(sh):
    """Attack 126. A memory file and two pipes are what the job is given, and all there is."""
    find = "find / \\( -type s -o -type p \\) ! -path '/proc/*' 2>/dev/null"
    found = sh(f"{find}; ls /proc/$$/fd; readlink /proc/$$/fd/*")["stdout"]["text"].splitlines()
    assert found[:3] == ["0", "1", "2"]
    assert [re.sub(r"\d+", "N", name) for name in found[3:6]] == (
        ["/memfd:stdin (deleted)", "pipe:[N]", "pipe:[N]"]
    )


def test_what_processors_leak_between_jobs_is_documented(python, not_stopped, record_property):
    """Attack 127. Recorded: what this host's processors are open to, and what the kernel does about it.

    A job can switch none of that off: attack 62.
    """
    if not VULNERABILITIES.is_dir():
        pytest.skip("the host's kernel does not tell what its processors are open to")
    for path in VULNERABILITIES.iterdir():
        record_property(path.name, path.read_text().strip())
    status = python("print(open('/proc/self/status').read())")
    record_property("speculation", [line for line in status.splitlines() if line.startswith("Spec")])
    point = not_stopped["Processors shared by jobs"]
    assert "/sys/devices/system/cpu/vulnerabilities" in point
    assert "SMT" in point


def test_what_the_time_of_a_verdict_tells_is_documented(not_stopped):
    """Attack 128."""
    assert "load" in not_stopped["The timing of verdicts"]
