"""Attacks 67 to 82: taking more than one was given of processes, memory and what the kernel counts per user.

Where a job could starve the service of something, it takes all that it gets, calls itself "full COUNT" and
sleeps on; then this process, which has the service's user id, asks the kernel for the same.
"""

import ctypes
import fcntl
import http.client
import json
import os
import signal
import socket
import time
import urllib.parse
from contextlib import ExitStack, closing, contextmanager
from errno import EAGAIN, EPERM
from pathlib import Path

import pytest

from jail.limits import CEILINGS

MIB = 1 << 20
DEADLINE_SECONDS = 60
SCRATCH = ("/box", "/tmp", "/dev/shm")
LIBC = ctypes.CDLL(None, use_errno=True)

PRELUDE = """\
import ctypes, errno, fcntl, mmap, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)

def fill(take):
    # How often it could be done, and the errno of the refusal.
    count = 0
    while True:
        try: result = take()
        except OSError as error: return count, errno.errorcode[error.errno]
        if result == -1: return count, errno.errorcode[ctypes.get_errno()]
        count += 1

def hold(count):
    libc.prctl(15, f'full {count}'.encode())
    while True: signal.pause()

"""


def python(script, **fields):
    return {"argv": ["python3", "-ISc", PRELUDE + script], **fields}


@pytest.fixture
def told(attack):
    """What a Python script prints; it has to end well."""

    def run(script, **fields):
        result = attack(python(script, **fields))
        assert result["status"] == "ok", result
        return result["stdout"]["text"]

    return run


@pytest.fixture
def holding(target, processes):
    """Within its context jobs live that hold what they took; it gives how much each did."""

    def counts(service):
        names = map(processes.name, processes.jobs(service.supervisor))
        return sorted(int(name.split()[1]) for name in names if name.startswith("full "))

    @contextmanager
    def run(*bodies, service=target.service):
        place = urllib.parse.urlsplit(service.url).netloc
        with ExitStack() as ends:
            for body in bodies:
                # The end of the connection is the end of the job.
                connection = ends.enter_context(closing(http.client.HTTPConnection(place)))
                connection.request("POST", "/v1/run", json.dumps(body), {"Content-Type": "application/json"})
            end = time.monotonic() + DEADLINE_SECONDS
            while len(found := counts(service)) < len(bodies):
                assert time.monotonic() < end, "a job did not come to hold what it wanted"
            yield found

    return run


@pytest.mark.parametrize("kind", ["fork", "vfork", "threads"])
def test_a_bomb_is_refused_more_processes_than_its_limit(attack, built, slowness, kind):
    """Attack 67. The canary that the oracle runs afterwards is as fast as ever."""
    # Enough to come to 32: each of those that vfork waits for the next to be executed.
    limits = {"pids": 32, "cpu_ms": round(200 * slowness), "wall_ms": round(5000 * slowness)}
    result = attack(argv=["./bombs", kind], files={"bombs": built("bombs.c")}, limits=limits)
    assert result["status"] == "cpu_limit"
    assert set(result["stdout"]["text"].split()) == {f"{EAGAIN}"}
    assert result["usage"]["pids_limit_hits"] > 0
    assert result["usage"]["pids_peak"] in (None, 32)


def test_a_bomb_of_shells_is_refused_more_processes_than_its_limit(attack, slowness):
    """Attack 67."""
    limits = {"pids": 32, "cpu_ms": round(200 * slowness), "wall_ms": round(1000 * slowness)}
    result = attack(argv=["sh", "-c", "bomb() { bomb | bomb & }; bomb; exec sleep 1000"], limits=limits)
    assert result["status"] in ("cpu_limit", "wall_limit")
    assert result["usage"]["pids_limit_hits"] > 0
    assert result["usage"]["pids_peak"] in (None, 32)


def test_zombies_fill_the_limit_of_their_own_job_alone(target, holding, built):
    """Attack 68. Init and the parent are there beside them."""
    body = {
        "argv": ["./farm", "zombies", "5000"],
        "files": {"farm": built("farm.c")},
        "limits": {"pids": 64},
    }
    with holding(body) as counts:
        assert counts == [62]
        target.canary_ms()


def test_init_reaps_the_orphans_of_a_job_that_waits_for_none(attack, built):
    """Attack 68. Two thousand of them in a job of at most 64 processes."""
    body = {"argv": ["./farm", "orphans", "2000"], "files": {"farm": built("farm.c")}}
    result = attack(body, limits={"pids": 64, "cpu_ms": CEILINGS.cpu_ms, "wall_ms": CEILINGS.wall_ms})
    assert (result["status"], result["stdout"]["text"]) == ("ok", "2000 0\n")


@pytest.mark.parametrize(
    ("children", "mib"), [(0, 128), (10, 20)], ids=["itself, twice the limit", "ten children, a third each"]
)
def test_a_memory_bomb_is_killed_as_a_whole_and_told_as_such(attack, built, children, mib):
    """Attacks 69 and 70. The parent ignores SIGCHLD and would sleep on."""
    result = attack(
        argv=["./hog", f"{children}", f"{mib}"],
        files={"hog": built("hog.c")},
        limits={"memory_bytes": 64 * MIB, "wall_ms": 20_000},
    )
    assert (result["status"], result["limit"]) == ("memory_limit", "memory_bytes")
    assert 60 * MIB < result["usage"]["memory_peak_bytes"] <= 64 * MIB


CHARGED = {
    "memfd": "grow(os.memfd_create('x'))",
    "shared memory": (
        "libc.shmat.restype = ctypes.c_void_p\n"
        "place = libc.shmat(libc.shmget(0, 96 * MIB, 0o1600), 0, 0)\n"
        "ctypes.memset(place, 1, 96 * MIB)"
    ),
    "anonymous shared mapping": "mmap.mmap(-1, 96 * MIB).write(bytes(96 * MIB))",
    "message queues": (
        "text = ctypes.create_string_buffer(8 + 8192); text[0] = 1\n"
        "while True:\n"
        "    queue = libc.msgget(0, 0o600)\n"
        "    while libc.msgsnd(queue, text, 8192, 0o4000) == 0: pass"
    ),
    "semaphores": "while libc.semget(0, 32000, 0o600) != -1: pass",
    "pipes": (
        "while True:\n"
        "    _, end = os.pipe(); os.set_blocking(end, False); fcntl.fcntl(end, 1031, MIB >> 4)\n"
        "    os.write(end, bytes(MIB >> 4))"
    ),
}


@pytest.mark.parametrize("kind", CHARGED)
def test_memory_of_every_kind_is_charged_to_the_job(attack, kind):
    """Attack 71."""
    grow = "MIB = 1 << 20\ndef grow(file):\n    for _ in range(96): os.write(file, bytes(MIB))\n"
    result = attack(
        python(
            grow + CHARGED[kind] + "\nprint('survived')",
            limits={"memory_bytes": 32 * MIB, "open_files": 4096, "disk_bytes": 256 * MIB},
        )
    )
    assert (result["status"], result["limit"]) == ("memory_limit", "memory_bytes")
    assert result["stdout"]["text"] == ""


@pytest.mark.parametrize("place", SCRATCH)
def test_a_scratch_directory_is_full_before_memory_is(told, place):
    """Attack 71."""
    script = f"file = os.open('{place}/f', 65)\nprint(fill(lambda: os.write(file, bytes(1 << 16))))"
    limits = {"memory_bytes": 64 * MIB, "disk_bytes": 8 * MIB}
    assert told(script, limits=limits) == "(128, 'ENOSPC')\n"


def test_no_posix_message_queue_can_be_made(told):
    """Attack 71. RLIMIT_MSGQUEUE is 0; the kernel answers EMFILE."""
    script = "print(fill(lambda: libc.mq_open(b'/q', 0o102, 0o600, None)))"
    assert told(script) == "(0, 'EMFILE')\n"


MAKE = {
    "files": "os.close(os.open(name, os.O_CREAT))",
    "directories": "os.mkdir(name)",
    "symbolic links": "os.symlink('x', name)",
    "long symbolic links": "os.symlink('x' * 4000, name)",
    "fifos": "os.mkfifo(name)",
    "hard links": "os.link('first', name)",
    "sockets": "socket.socket(socket.AF_UNIX).bind(name)",
}


@pytest.mark.parametrize("kind", MAKE)
def test_inodes_of_every_kind_are_limited_before_memory_is(told, kind):
    """Attack 72. Each directory is an inode of its own limit."""
    script = (
        "numbers = iter(range(100_000))\n"
        "def make():\n"
        f"    name = str(next(numbers)); {MAKE[kind]}\n"
        "for place in ('/box', '/tmp', '/dev/shm'):\n"
        "    os.chdir(place); os.close(os.open('first', os.O_CREAT)); print(*fill(make))\n"
    )
    lines = told(script, limits={"memory_bytes": 64 * MIB, "files": 1000}).splitlines()
    assert lines == ["998 ENOSPC"] * 3


def test_inodes_that_are_more_than_memory_are_charged_to_the_job(attack):
    """Attack 72."""
    script = "for n in range(65_000): os.mkdir(f'/tmp/{n}')"
    limits = {"memory_bytes": 16 * MIB, "files": 65_536, "wall_ms": 20_000}
    assert attack(python(script, limits=limits))["status"] == "memory_limit"


def test_files_of_the_request_are_charged_to_the_job(attack):
    """Attack 73. Init writes them, from within the job's cgroup."""
    result = attack(
        argv=["cat", "big"],
        files={"big": "x" * (24 * MIB)},
        limits={"memory_bytes": 16 * MIB, "disk_bytes": 64 * MIB, "stdout_bytes": 1},
        on_output_limit="truncate",
    )
    assert (result["status"], result["limit"]) == ("memory_limit", "memory_bytes")
    assert result["stdout"]["bytes"] == 0


def big_files(total_bytes):
    """Files of the image, out of the page cache, so that the job is the first to read them."""
    found = []
    for path in sorted(Path("/usr/lib").glob("*/lib*.so.*")) + sorted(Path("/usr/bin").iterdir()):
        if total_bytes <= 0:
            return found
        if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
            continue
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        total_bytes -= path.stat().st_size
        found.append(str(path))
    pytest.skip("the host's /usr has less than what is to be read")


def test_reading_more_than_the_memory_limit_is_no_offence(attack):
    """Attack 74. The peak has the page cache in it, as its source says; the maximum RSS has not."""
    # Not a small limit: what is being read ahead cannot be given up, and the kernel then kills after all.
    limit = 64 * MIB
    result = attack(
        argv=["cat", *big_files(2 * limit)],
        limits={"memory_bytes": limit, "stdout_bytes": 1},
        on_output_limit="truncate",
    )
    usage = result["usage"]
    assert result["status"] == "ok"
    assert result["stdout"]["bytes"] >= 2 * limit
    assert usage["memory_source"] in ("memory.peak", "memory.max_usage_in_bytes")
    assert usage["max_rss_bytes"] < 8 * MIB < usage["memory_peak_bytes"] <= limit


def test_reads_of_the_image_are_told_where_the_host_counts_them(attack):
    """Attack 94. They are not limited, as SECURITY.md says."""
    result = attack(argv=["cat", *big_files(8 * MIB)], limits={"stdout_bytes": 1}, on_output_limit="truncate")
    read_bytes = result["usage"]["io_read_bytes"]
    if read_bytes is None:
        pytest.skip("the host does not count what is read from a disk")
    assert result["status"] == "ok"
    assert read_bytes > 0


def test_swap_is_no_way_round_the_memory_limit(target, holding, processes, cgroups_of):
    """Attack 75. Cgroup v2 forbids it; v1 counts it, or the host has none, or the operator knows."""
    with holding(python("hold(0)", limits={"memory_bytes": 64 * MIB})):
        (job,) = processes.jobs(target.service.supervisor)
        cgroups = cgroups_of(target.service.pid, job)
        assert cgroups
        forbidden = [path / "memory.swap.max" for path in cgroups]
        together = [path / "memory.memsw.limit_in_bytes" for path in cgroups]
        limits = [int(path.read_text()) for path in (*forbidden, *together) if path.exists()]
        assert all(limit in (0, 64 * MIB) for limit in limits)
    swapless = len(Path("/proc/swaps").read_text().splitlines()) == 1
    degraded = target.attack({"argv": ["true"]})["sandbox"]["degraded"]
    assert limits or swapless or "swap" in degraded


LOCKS = """
import struct
COMMANDS = (fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW)
def lock(region):
    if region % 100 == 0:
        os.dup2(os.open(f'f{region}', os.O_RDWR | os.O_CREAT), 200 + region // 100)
    what = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 2 * (region % 100), 1, 0)
    fcntl.fcntl(200 + region // 100, COMMANDS[region % 4], what)
region = iter(range(100_000))
for _ in COMMANDS: print(*fill(lambda: lock(next(region))))
"""


def test_record_locks_are_limited(told, slowness):
    """Attack 76. No cgroup is charged for their memory: the supervisor counts them (native/listener.c).

    The commands in turn: one that is not counted would let more come through, and each is refused in the end.
    """
    cpu_ms = min(round(20_000 * slowness), CEILINGS.cpu_ms)
    limits = {"cpu_ms": cpu_ms, "wall_ms": CEILINGS.wall_ms, "open_files": 2048}
    assert told(LOCKS, limits=limits).splitlines() == ["65536 ENOLCK"] + ["0 ENOLCK"] * 3


def test_locks_of_open_files_are_limited_by_their_number(told):
    """Attack 76. flock(2): one for each open file, however often it is asked for."""
    script = (
        "files = []\n"
        "def lock():\n"
        "    files.append(os.open(f'{len(files)}', os.O_CREAT))\n"
        "    fcntl.flock(files[-1], fcntl.LOCK_EX)\n"
        "print(fill(lock)[1])"
    )
    assert told(script) == "EMFILE\n"


def test_file_notification_is_limited_and_the_service_still_has_it(holding, target, told):
    """Attack 77. By the job's user namespace, far below what its open files would allow."""
    limits = {"open_files": 1024}
    with holding(python("hold(fill(libc.inotify_init)[0])", limits=limits)) as counts:
        assert counts == [16]
        descriptor = LIBC.inotify_init()
        assert descriptor >= 0
        os.close(descriptor)
    watches = (
        "place = libc.inotify_init()\n"
        "def watch():\n"
        "    name = f'{len(kept)}'.encode(); os.mkdir(name); kept.append(name)\n"
        "    return libc.inotify_add_watch(place, name, 2)\n"
        "kept = []; print(fill(watch))\n"
    )
    assert told(watches) == "(1024, 'ENOSPC')\n"


def test_many_jobs_at_once_leave_half_of_file_notification_to_the_service(holding, serve):
    """Attack 77. What they have counts for the service's user as well, whose maximum is 128 by default."""
    maximum = int(Path("/proc/sys/user/max_inotify_instances").read_text())
    slots = maximum // 16 + 1
    if slots > 16:
        pytest.skip("the host lets a user have more of inotify than sixteen jobs can")
    body = python("hold(fill(libc.inotify_init)[0])", limits={"memory_bytes": 64 * MIB})
    with holding(*[body] * slots, service=serve(JAIL_SLOTS=f"{slots}")) as counts:
        assert sum(counts) == maximum // 2
        descriptor = LIBC.inotify_init()
        assert descriptor >= 0
        os.close(descriptor)


def test_fanotify_is_refused_by_the_filter(probe):
    """Attack 77. The kernel would answer EINVAL."""
    assert [outcome.errno for outcome in probe(("fanotify_init", -1, 0))] == [EPERM]


def test_directory_notification_is_limited_by_open_files(told):
    """Attack 77. One for each open directory (F_NOTIFY), of the job's own memory."""
    script = (
        "kept = []\n"
        "def watch():\n"
        "    kept.append(os.open('/box', 0)); fcntl.fcntl(kept[-1], fcntl.F_NOTIFY, fcntl.DN_CREATE)\n"
        "print(fill(watch)[1], len(kept))"
    )
    assert told(script, limits={"open_files": 64}) == "EMFILE 61\n"


def test_descriptors_in_flight_are_limited_and_the_service_still_sends(holding, target):
    """Attack 78. The canary's sandbox is started with descriptors in flight."""
    script = (
        "kept = []\n"
        "def send():\n"
        "    if len(kept) < 20: kept.append(socket.socketpair())\n"
        "    kept.append(kept.pop(0)); kept[-1][0].setblocking(False)\n"
        "    try: socket.send_fds(kept[-1][0], [b'x'], [1] * 50)\n"
        "    except BlockingIOError: pass\n"
        "count, refusal = fill(send)\n"
        "if refusal == 'ETOOMANYREFS': hold(count)"
    )
    with holding(python(script)) as (count,):
        assert count >= 5
        first, second = socket.socketpair()
        with first, second:
            socket.send_fds(first, [b"x"], [0] * 250)
            _, descriptors, _, _ = socket.recv_fds(second, 1, 250)
        assert len(descriptors) == 250
        for descriptor in descriptors:
            os.close(descriptor)
        target.canary_ms()


def pipe_bytes():
    """How much a new pipe of this process holds."""
    ends = os.pipe()
    found = fcntl.fcntl(ends[0], fcntl.F_GETPIPE_SZ)
    for end in ends:
        os.close(end)
    return found


def test_pipes_are_small_for_a_job_that_has_many_and_not_for_the_service(holding, target):
    """Attack 79. fs.pipe-user-pages-soft counts by user id, and the job's is its own."""
    before = pipe_bytes()
    script = (
        "kept = []\n"
        "def enlarge():\n"
        "    kept.append(os.pipe()); fcntl.fcntl(kept[-1][0], fcntl.F_SETPIPE_SZ, 1 << 20)\n"
        "refusal = fill(enlarge)[1]\n"
        "for _ in range(1400): kept.append(os.pipe())\n"
        "if refusal == 'EPERM': hold(fcntl.fcntl(kept[-1][0], fcntl.F_GETPIPE_SZ))"
    )
    with holding(python(script, limits={"open_files": 4096, "memory_bytes": 256 * MIB})) as (smallest,):
        assert smallest < before
        assert pipe_bytes() == before
        target.canary_ms()


def make_timer():
    """A POSIX timer of this process, made and deleted; 0, or -1 as timer_create(2) tells it."""
    timer = ctypes.c_void_p()
    result = LIBC.timer_create(1, None, ctypes.byref(timer))
    return result or LIBC.timer_delete(timer)


def queue_signal():
    """A signal that this process sends itself, with a value, and takes; as sigqueue(3) tells it."""
    before = signal.signal(signal.SIGRTMIN, lambda *_: None)
    try:
        return LIBC.sigqueue(os.getpid(), signal.SIGRTMIN, ctypes.c_void_p(1))
    finally:
        signal.signal(signal.SIGRTMIN, before)


TAKE_SIGNALS = {
    "signals": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])\n"
        "take = lambda: libc.sigqueue(os.getpid(), signal.SIGRTMIN, ctypes.c_void_p(1))\n"
    ),
    "timers": "take = lambda: libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p()))\n",
}


@pytest.mark.parametrize("kind", TAKE_SIGNALS)
def test_signals_and_timers_are_limited_and_the_service_still_has_them(holding, kind):
    """Attack 80. RLIMIT_SIGPENDING is of both, and counted by user id."""
    script = TAKE_SIGNALS[kind] + "count, refusal = fill(take)\nif refusal == 'EAGAIN': hold(count)"
    with holding(python(script)) as counts:
        assert counts == [256]
        assert make_timer() == 0
        assert queue_signal() == 0


def test_two_jobs_at_once_have_all_the_processes_of_their_limits(holding, built):
    """Attack 81. Init and the parent are there beside them."""
    body = {
        "argv": ["./farm", "sleepers", "5000"],
        "files": {"farm": built("farm.c")},
        "limits": {"pids": 500},
    }
    with holding(body, body) as counts:
        assert counts == [498, 498]


def test_two_hundred_processes_may_fill_their_tables_and_the_service_still_opens(holding, target):
    """Attack 82. Each of them is refused at its own limit; memory is the limit of them all."""
    script = (
        "take = lambda: os.open('/dev/null', 0) and None\n"
        "ready, tell = os.pipe()\n"
        "for number in range(200):\n"
        "    if os.fork() == 0:\n"
        "        os.write(tell, b'x' if fill(take)[1] == 'EMFILE' else b'')\n"
        "        while True: signal.pause()\n"
        "while number >= 0: number -= len(os.read(ready, 200))\n"
        "hold(200)"
    )
    limits = {"open_files": 1000, "pids": 256, "memory_bytes": 1024 * MIB, "cpu_ms": 60_000}
    with holding(python(script, limits=limits)):
        Path("/dev/null").open().close()
        target.canary_ms()


def test_open_files_of_all_processes_are_charged_to_the_job(attack):
    """Attack 82."""
    script = (
        "for number in range(200):\n"
        "    if os.fork() == 0:\n"
        "        fill(lambda: os.open('/dev/null', 0) and None)\n"
        "        while True: signal.pause()\n"
        "while True: signal.pause()\n"
    )
    limits = {"open_files": 4096, "pids": 256, "memory_bytes": 64 * MIB, "cpu_ms": 60_000}
    assert attack(python(script, limits=limits))["status"] == "memory_limit"
