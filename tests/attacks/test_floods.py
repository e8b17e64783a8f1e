"""Attacks 83 to 97: floods of output, files, work and connections."""

import ctypes
import functools
import os
import time
import zipfile
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from errno import EACCES, EOPNOTSUPP, EPERM, errorcode
from gzip import compress
from io import BytesIO
from pathlib import Path

import httpx
import pytest

MIB = 1 << 20
SCRATCH = ("/box", "/tmp", "/dev/shm")
LIBC = ctypes.CDLL(None, use_errno=True)
CACHESTAT = 451
SOON_MS = 5000
# One number has two names.
UNSUPPORTED = errorcode[EOPNOTSUPP]
CHURN_JOBS = 1000
CHURN_JOBS_PER_SECOND = 20


@pytest.fixture
def python(attack):
    """The result of a Python script; it has to end well."""

    def run(script, **fields):
        prelude = "import ctypes, errno, fcntl, os, socket, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        result = attack(argv=["python3", "-ISc", prelude + script], **fields)
        assert result["status"] == "ok", result
        return result

    return run


def peak_bytes(pid):
    """The most memory that a process has had at once."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def test_a_gibibyte_on_both_streams_is_counted_and_not_kept(serve, slowness):
    """Attack 83. Alternately, to a caller who wants to know how much it was."""
    # Of its own: what another has had before is in its peak, and nobody else can reset that.
    service = serve(JAIL_SLOTS="1")
    before = peak_bytes(service.pid)
    script = "import os\ntext = bytes(1 << 20)\nfor _ in range(512): os.write(1, text); os.write(2, text)"
    limits = {"stdout_bytes": MIB, "stderr_bytes": MIB, "cpu_ms": 60_000, "wall_ms": 600_000}
    body = {"argv": ["python3", "-ISc", script], "on_output_limit": "truncate", "limits": limits}
    result = httpx.post(f"{service.url}/v1/run", json=body, timeout=120 * slowness).json()
    for stream in ("stdout", "stderr"):
        assert (result[stream]["bytes"], result[stream]["truncated"]) == (512 * MIB, True)
        assert result[stream]["text"] == "\0" * MIB
    # Both streams, escaped in JSON, and the answer once more.
    assert peak_bytes(service.pid) - before < 64 * MIB


@pytest.mark.parametrize("redirection", ["", " >&2"], ids=["stdout", "stderr"])
def test_a_flood_ends_its_job(attack, redirection):
    """Attack 83."""
    result = attack(argv=["sh", "-c", f"yes{redirection}"])
    assert result["status"] == "output_limit"
    assert result["usage"]["wall_ms"] < SOON_MS


@pytest.mark.parametrize(
    "holder", ["sleep 100 & sleep 100 2>&1 &", "setsid sleep 100 & (trap '' HUP TERM; sleep 100) &"]
)
def test_an_answer_waits_for_the_main_process_alone(attack, holder):
    """Attack 84. What is left holds both streams open, in other sessions too."""
    result = attack(argv=["sh", "-c", f"{holder} echo done"])
    assert (result["status"], result["stdout"]["text"]) == ("ok", "done\n")
    assert result["usage"]["wall_ms"] < SOON_MS


def test_a_sparse_terabyte_is_no_output(target, python):
    """Attack 85. Neither one nor many, and a small file beside them is."""
    names = [f"sparse{n}" for n in range(200)]
    script = (
        "for n in range(200): os.truncate(os.open(f'sparse{n}', os.O_CREAT | os.O_RDWR), 1 << 40)\n"
        "open('small', 'w').write('text')"
    )
    result = python(script, outputs=[*names, "small"])
    assert list(result["outputs"]) == ["small"]
    assert [error["path"] for error in result["output_errors"]] == names
    assert all("output_bytes" in error["reason"] for error in result["output_errors"])


def test_outputs_share_one_limit_of_bytes(python):
    """Attack 85. Sparse files that fit one by one."""
    script = "for n in range(20): os.truncate(os.open(f'{n}', os.O_CREAT | os.O_RDWR), 1 << 20)"
    names = [f"{n}" for n in range(20)]
    result = python(script, outputs=names, limits={"output_bytes": 4 * MIB})
    assert list(result["outputs"]) == names[:4]
    assert [error["path"] for error in result["output_errors"]] == names[4:]


def test_a_directory_of_many_files_is_no_output(python):
    """Attack 85. Only what is named comes back; nothing is listed, walked or matched."""
    script = "os.mkdir('many')\nfor n in range(2000): open(f'many/{n}', 'w').close()"
    result = python(script, outputs=["many", "many/*?"])
    assert result["outputs"] == {}
    assert [error["path"] for error in result["output_errors"]] == ["many"]


def test_an_output_too_deep_is_refused_before_anything_runs(target):
    """Attack 85."""
    answer = target.client.post("/v1/run", json={"argv": ["true"], "outputs": ["d/" * 1000 + "file"]})
    assert (answer.status_code, answer.json()["field"]) == (422, "outputs[0]")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_compressed_request_is_not_unpacked(target, encoding):
    """Attack 86. 64 MiB in 300 KB are read as they came, and are no JSON."""
    body = compress(b'{"argv": ["true"], "stdin": "' + b" " * (64 * MIB) + b'"}', 1)
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    answer = target.client.post("/v1/run", content=body, headers=headers)
    assert answer.status_code in (415, 422)


def zip_bomb():
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(64 * MIB))
        archive.writestr("../../out", b"out")
        for number in range(1000):
            archive.writestr(f"empty{number}", b"")
    return b64encode(packed.getvalue()).decode()


def test_an_archive_is_a_file_like_any_other(python):
    """Attack 86. It comes in and goes out as it is."""
    bomb = {"base64": zip_bomb()}
    result = python("print(*os.listdir())", files={"a.zip": bomb}, outputs=["a.zip"])
    assert result["stdout"]["text"] == "a.zip\n"
    assert result["outputs"]["a.zip"]["base64"] == bomb["base64"]


@pytest.mark.parametrize(("levels", "length"), [(3000, 1), (5000, 200)])
@pytest.mark.parametrize("place", ["/box", "/tmp"])
def test_a_deep_tree_is_gone_with_its_sandbox(python, place, levels, length):
    """Attack 87. The oracle looks for what is left."""
    script = (
        f"os.chdir('{place}')\n"
        f"for _ in range({levels}): os.mkdir('d' * {length}); os.chdir('d' * {length})\n"
        "open('deepest', 'w').close(); print(os.listdir())"
    )
    outputs = ["/".join("d" * length for _ in range(depth)) for depth in (1, 20)]
    result = python(script, outputs=[*outputs, f"{outputs[-1]}/none?"], limits={"files": 8192})
    assert result["stdout"]["text"] == "['deepest']\n"
    assert result["outputs"] == {}


def test_modes_of_zero_hold_nobody_up(python):
    """Attack 88. The supervisor has authority over the job's files, and the mount goes as a whole."""
    script = (
        "for place in ('/box', '/tmp', '/dev/shm'):\n"
        "    os.chdir(place); os.makedirs('a/b'); open('a/b/file', 'w').write('text')\n"
        "    for name in ('a/b/file', 'a/b', 'a'): os.chmod(name, 0)\n"
        "os.chmod('/box', 0)"
    )
    result = python(script, outputs=["a/b/file"])
    assert result["outputs"]["a/b/file"] == {"base64": b64encode(b"text").decode(), "bytes": 4, "mode": 0}


NAMES = [
    "new\nline", "\t\x01\x1f\x7f", "-rf", "--", "...", " ", "~", "*", "x" * 255, "ü" * 127, "\u202e\ufeff",
    '"\\', "$(id)", "a?b", "con:", "\U0001f4a3",
]  # fmt: skip


def test_strange_names_come_and_go_unchanged(python):
    """Attack 89."""
    script = "for name in os.listdir(): open(name, 'wb').write(os.fsencode(name))"
    files = dict.fromkeys(NAMES, "")
    result = python(script, files=files, outputs=NAMES)
    assert {name: b64decode(file["base64"]).decode() for name, file in result["outputs"].items()} == {
        name: name for name in NAMES
    }


@pytest.mark.parametrize("name", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xae", b"\x80" * 255])
def test_names_that_are_not_utf8_are_no_trouble(python, name):
    """Attack 89. No request can name them; the directory that they are in goes as others do."""
    script = f"name = {name!r}\nos.mkdir(name); open(name + b'/' + name, 'w').close()\nos.write(1, name)"
    result = python(script, outputs=["none?"])
    assert b64decode(result["stdout"]["base64"]) == name


def test_file_attributes_are_refused_by_the_filter(probe):
    """Attack 90. The kernel would answer EBADF to the ioctl(), and EFAULT, ENOENT or EINVAL to quotactl()."""
    set_flags, set_xattr = 0x40086602, 0x401C5820
    outcomes = probe(
        ("ioctl", -1, set_flags, 0),
        ("ioctl", -1, set_xattr, 0),
        ("quotactl", -1, 0, 0, 0),
        ("quotactl_fd", -1, -1, 0, 0),
    )
    assert {outcome.errno for outcome in outcomes} == {EPERM}


def test_attributes_of_privilege_cannot_be_set_and_others_hold_no_output_back(python):
    """Attack 90."""
    script = (
        "open('out', 'w').write('text')\n"
        "names = ('trusted.overlay.opaque', 'security.capability', 'security.ima', 'user.overlay.opaque')\n"
        "for name in names:\n"
        "    try: os.setxattr('out', name, b'y'); print('set')\n"
        "    except OSError as error: print(errno.errorcode[error.errno])\n"
        "# Nobody may read: user::---, group::---, other::---.\n"
        "entries = b''.join(kind.to_bytes(2, 'little') + bytes(2) + b'\\xff' * 4 for kind in (1, 4, 0x20))\n"
        "libc.setxattr(b'out', b'system.posix_acl_access', b'\\2\\0\\0\\0' + entries, 4 + len(entries), 0)"
    )
    result = python(script, outputs=["out"])
    told = result["stdout"]["text"].split()
    assert "set" not in told[:3]
    # From Linux 6.6 on tmpfs has attributes of users.
    assert told[3] in ("set", UNSUPPORTED)
    assert b64decode(result["outputs"]["out"]["base64"]) == b"text"


def test_attributes_of_files_are_limited_too(attack):
    """Attack 90. They count as inodes do, and as memory."""
    script = (
        "import errno, os\n"
        "count = 0\n"
        "try:\n"
        "    for n in range(60_000):\n"
        "        if n % 100 == 0: path = f'/tmp/{n}'; os.mkdir(path)\n"
        "        os.setxattr(path, f'user.{n}', bytes(4000)); count += 1\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
        "else: print('none')"
    )
    limits = {"memory_bytes": 64 * MIB, "files": 1000}
    result = attack(argv=["python3", "-ISc", script], limits=limits)
    refused = result["status"] == "ok" and result["stdout"]["text"] in ("ENOSPC\n", f"{UNSUPPORTED}\n")
    assert refused or result["status"] == "memory_limit"


def test_every_directory_that_can_be_written_is_full_at_its_limit(python):
    """Attack 91. There are three, none on a disk; ten times the limit goes into each."""
    script = (
        "for line in open('/proc/self/mountinfo'):\n"
        "    fields, _, about = (part.split() for part in line.partition(' - '))\n"
        "    place, wrote = fields[4], 0\n"
        "    if 'rw' not in fields[5].split(',') or not os.path.isdir(place): continue\n"
        "    try:\n"
        "        with open(f'{place}/f', 'wb', 0) as file:\n"
        "            for _ in range(160): wrote += file.write(bytes(1 << 16))\n"
        "    except OSError as error: print(place, about[0], wrote, errno.errorcode[error.errno])\n"
        "    else: print(place, about[0], wrote)"
    )
    result = python(script, limits={"disk_bytes": MIB, "memory_bytes": 64 * MIB})
    lines = sorted(result["stdout"]["text"].splitlines())
    assert lines == sorted(f"{place} tmpfs {MIB} ENOSPC" for place in SCRATCH)


def test_what_else_can_be_written_is_a_harmless_device(python):
    """Attack 91. Null, zero, full and the two of randomness, some of them in front of what is masked."""
    script = (
        "import stat\n"
        "for line in open('/proc/self/mountinfo'):\n"
        "    place, options = line.split()[4:6]\n"
        "    if 'rw' not in options.split(',') or os.path.isdir(place): continue\n"
        "    about = os.stat(place); print(stat.S_ISCHR(about.st_mode), os.major(about.st_rdev))"
    )
    assert set(python(script)["stdout"]["text"].splitlines()) == {"True 1"}


SPIN = "../host/programs/spin.c"


def test_many_threads_have_the_processors_of_their_limit_together(attack, built):
    """Attack 92."""
    limits = {"cpus": 0.5, "wall_ms": 1000, "cpu_ms": 10_000}
    result = attack(argv=["./spin", "8"], files={"spin": built(SPIN)}, limits=limits)
    assert result["status"] == "wall_limit"
    # Half of the time, and what one more period of 100 ms allows.
    assert result["usage"]["cpu_ms"] < 0.5 * result["usage"]["wall_ms"] + 100


def test_many_processes_have_one_limit_of_cpu_time(attack, built):
    """Attack 92. RLIMIT_CPU would be of each."""
    script = "for n in 1 2 3 4; do ./spin 2 & done; wait"
    result = attack(argv=["sh", "-c", script], files={"spin": built(SPIN)}, limits={"cpu_ms": 200, "cpus": 4})
    assert (result["status"], result["limit"]) == ("cpu_limit", "cpu_ms")
    assert 200 <= result["usage"]["cpu_ms"] < 1000


def test_real_time_and_higher_priorities_are_refused(probe):
    """Attack 93. The kernel would answer EINVAL to all but the ioprio_set()s: ESRCH and 0."""
    fifo, round_robin, deadline, reset_on_fork, high_bit = 1, 2, 6, 1 << 30, 1 << 32
    policies = [fifo, round_robin, deadline, fifo | reset_on_fork, fifo | high_bit]
    calls = [("sched_setscheduler", 0, policy, "@4") for policy in policies]
    calls += [
        ("sched_setattr", 0, 0, 0),
        ("ioprio_set", 1, 4_000_000, 1 << 13),
        ("ioprio_set", 1, 0, 2 << 13),
    ]
    assert {outcome.errno for outcome in probe(*calls)} == {EPERM}


def test_niceness_only_rises(probe):
    """Attack 93. By the kernel: RLIMIT_NICE is 0, and its resource limit cannot be raised."""
    nicer, less_nice = ("setpriority", 0, 0, 5), ("setpriority", 0, 0, -1)
    outcomes = probe(less_nice, nicer, less_nice, ("setrlimit", 13, "=" + "\x28" * 16))
    assert [outcome.errno for outcome in outcomes] == [EACCES, 0, EACCES, EPERM]


def test_a_storm_of_writes_reaches_no_disk(attack):
    """Attack 94. All that a job can write is memory; what it reads of the image is not limited."""
    script = (
        "import os\n"
        "for place in ('/box', '/tmp', '/dev/shm'):\n"
        "    file = os.open(f'{place}/f', os.O_CREAT | os.O_RDWR)\n"
        "    for _ in range(2000): os.pwrite(file, bytes(4096), 0); os.fsync(file); os.fdatasync(file)\n"
    )
    result = attack(argv=["python3", "-ISc", script])
    assert result["status"] == "ok"
    assert result["usage"]["io_write_bytes"] in (None, 0)


def dirty_pages(file):
    """Pages of an open file that wait to be written to disk, as cachestat(2) tells."""
    everything, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    if LIBC.syscall(CACHESTAT, file.fileno(), everything, found, 0):
        pytest.skip("the host's kernel has no cachestat(2)")
    return found[1]


@pytest.fixture
def unwritten(canary_file):
    """A file of the host, on the disk of the image, that waits to be written."""
    path = canary_file.with_suffix(".dirty")
    if canary_file.stat().st_dev != Path("/usr").stat().st_dev:
        pytest.skip("the host has /usr on another disk than /var/tmp")
    with path.open("wb+") as file:
        path.unlink()
        file.write(bytes(4 * MIB))
        file.flush()
        yield file


def test_a_job_cannot_make_the_host_write_its_disk(probe, python, unwritten):
    """Attack 95. Neither sync(2), which the filter refuses, nor by way of a file of the image."""
    if not dirty_pages(unwritten):
        pytest.skip("the host's file system writes at once")
    assert [outcome.errno for outcome in probe(("sync",))] == [EPERM]
    python(
        "for path in ('/', '/usr', '/usr/bin/env'):\n"
        "    file = os.open(path, 0); libc.syncfs(file)\n"
        "    try: os.fsync(file)\n"
        "    except OSError: pass"
    )
    assert dirty_pages(unwritten) > 0


def test_randomness_is_not_used_up(python):
    """Attack 95."""
    python(
        "blocking = os.open('/dev/random', 0)\n"
        "for _ in range(200): os.getrandom(1 << 16, 2); os.read(blocking, 1 << 16)"
    )
    assert len(os.getrandom(4096, os.GRND_NONBLOCK | os.GRND_RANDOM)) > 0


def test_the_pool_of_randomness_cannot_be_fed(attack):
    """Attack 95. Writing to it is anyone's right and changes no estimate; the ioctls are refused."""
    script = (
        "import errno, fcntl, os\n"
        "for request in (0x5201, 0x40085203, 0x5204, 0x5206, 0x5207):\n"
        "    try: fcntl.ioctl(os.open('/dev/random', 0), request, bytes(16)); print('done')\n"
        "    except OSError as error: print(errno.errorcode[error.errno])"
    )
    assert attack(argv=["python3", "-ISc", script])["stdout"]["text"].split() == ["EPERM"] * 5


def test_a_hundred_thousand_peers_fill_no_table_of_the_host(target, python):
    """Attack 96. They are all beyond the loopback interface, or there is no way to them."""
    result = python(
        "from struct import pack\n"
        "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for n in range(100_000):\n"
        "    peer = socket.inet_ntoa(pack('!I', 0x7f000001 + n))\n"
        "    try: udp.sendto(b'x', (peer, 1024 + n % 60_000))\n"
        "    except ConnectionRefusedError: pass\n"
        "refused = set()\n"
        "for n in range(1000):\n"
        "    try: udp.sendto(b'x', (socket.inet_ntoa(pack('!I', 0x0a000001 + n)), 9))\n"
        "    except OSError as error: refused.add(errno.errorcode[error.errno])\n"
        "print(refused)\n"
        "print(*open('/proc/net/arp').readlines()[1:])",
        limits={"cpu_ms": 60_000},
    )
    assert result["stdout"]["text"].splitlines()[0] == "{'ENETUNREACH'}"
    assert result["stdout"]["text"].splitlines()[1:] == [""]


def test_connections_of_a_job_are_limited_by_its_open_files(target, python):
    """Attack 96. Those that are over leave no more than the kernel keeps for a minute of one namespace."""
    result = python(
        "server = socket.create_server(('127.0.0.1', 0), backlog=64)\n"
        "for _ in range(5000):\n"
        "    with socket.create_connection(server.getsockname()), server.accept()[0]: pass\n"
        "print('done')",
        limits={"memory_bytes": 64 * MIB, "open_files": 16},
    )
    assert result["stdout"]["text"] == "done\n"
    target.canary_ms()


def interfaces():
    return [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]


def test_many_jobs_one_after_the_other_leave_no_network_behind(target, slowness):
    """Attack 97. Each has a network namespace of its own, which the kernel removes when it comes to it."""
    count = round(CHURN_JOBS / min(slowness, 10))
    before = interfaces()
    began = time.monotonic()
    with httpx.Client(base_url=target.service.url, timeout=60) as client, ThreadPoolExecutor(2) as callers:
        post = functools.partial(client.post, "/v1/run", json={"argv": ["true"]})
        answers = list(callers.map(lambda _: post().json()["status"], range(count)))
    assert answers == ["ok"] * count
    assert count / (time.monotonic() - began) > CHURN_JOBS_PER_SECOND / slowness
    assert interfaces() == before
