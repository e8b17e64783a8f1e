"""Attacks 9 to 11, 20, 22, 24 to 27, 29 and 30: the set-up, and what lies in the root."""

import ctypes
import os
import shutil
import socket
import tempfile
import threading
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from jail.image import MOUNT_POINTS

EPERM = 1
RENAME_EXCHANGE = 2
HIGH_BITS = (0, 1 << 32, -1 << 32, 0x7FFFFFFF << 32)


class OwnImage:
    """The image of a service of the tests' own: its root can be tampered with, as no job can."""

    def __init__(self, state, client):
        (self.root,) = [path for path in state.rglob("root") if (path / "proc").is_dir()]
        self._client = client

    def run(self, *argv):
        """The answer of a job."""
        return self._client.post("/v1/run", json={"argv": argv}).json()

    def mend(self):
        """Make every mount point an empty directory."""
        for path in (self.root / name for name in MOUNT_POINTS):
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.exists():
                shutil.rmtree(path)
            path.mkdir(mode=0o755)


@pytest.fixture(scope="module")
def own_image(service_class):
    with ExitStack() as undo:
        # As that of whoever makes an image: sandboxes read it.
        undo.callback(os.umask, os.umask(0o022))
        # Sandboxes have to reach it, and pytest's own directories are closed to them.
        state = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="jail-state-")))
        state.chmod(0o711)
        # Of what was made ahead of time the root was mounted before it was tampered with.
        none_ready = {"JAIL_READY_MIN": "0", "JAIL_READY_MAX": "0"}
        settings = {"JAIL_SLOTS": "1", "JAIL_STATE": str(state), **none_ready}
        running = undo.enter_context(closing(service_class(settings)))
        client = undo.enter_context(httpx.Client(base_url=running.url, timeout=60))
        yield OwnImage(state, client)


@pytest.fixture
def image(own_image):
    yield own_image
    own_image.mend()


def put_link(path, goal):
    path.symlink_to(goal)


def put_file(path, _goal):
    path.touch()


@pytest.mark.parametrize(
    ("name", "stage"), [("dev", "dev"), ("proc", "proc"), ("tmp", "scratch"), ("box", "scratch")]
)
@pytest.mark.parametrize("put", [put_link, put_file])
def test_a_mount_point_that_is_no_directory_stops_the_set_up(image, tmp_path, name, stage, put):
    """Attacks 9 and 10. In the image, for no job can shape a mount point."""
    (image.root / name).rmdir()
    put(image.root / name, tmp_path)
    result = image.run("echo", "ran")
    assert (result["status"], result["stdout"]["text"]) == ("sandbox_error", "")
    assert result["detail"].startswith(f"stage {stage}, ENOTDIR")


@pytest.mark.parametrize("put", [put_link, put_file])
def test_devices_of_an_image_are_covered(image, canary_file, put):
    """Attack 9."""
    for name in ("null", "zero", "console", "tty", "shm"):
        put(image.root / "dev" / name, canary_file)
    result = image.run("sh", "-c", "echo changed > /dev/null; stat -c %F /dev/null; ls /dev")
    kind, *names = result["stdout"]["text"].splitlines()
    assert kind == "character special file"
    links = ["fd", "stderr", "stdin", "stdout"]
    assert names == sorted([*links, "full", "lent-stdin", "null", "random", "shm", "urandom", "zero"])


@contextmanager
def exchanging(first, second):
    """Another thread exchanges the two, and stops."""
    libc, enough = ctypes.CDLL(None, use_errno=True), threading.Event()
    arguments = -1, os.fsencode(first), -1, os.fsencode(second), RENAME_EXCHANGE

    def exchange():
        while not enough.is_set():
            assert libc.renameat2(*arguments) == 0, os.strerror(ctypes.get_errno())

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_a_mount_point_that_becomes_a_link_during_the_set_up_is_not_followed(image, tmp_path):
    """Attack 10. Of two threads, one exchanges /tmp with a link while the other has sandboxes made."""
    libc, enough = ctypes.CDLL(None), threading.Event()
    put_link(image.root / "link", "usr")

    def exchange():
        names = [os.fsencode(image.root / name) for name in ("tmp", "link")]
        while not enough.is_set():
            libc.renameat2(-1, names[0], -1, names[1], RENAME_EXCHANGE)

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    try:
        results = [image.run("stat", "-f", "-c", "%T", "/usr") for _ in range(20)]
    finally:
        enough.set()
        exchanging.join()
        (image.root / "link").unlink() if (image.root / "link").is_symlink() else (
            image.root / "link"
        ).rmdir()
    # Had it been followed, a tmpfs would lie on /usr, and there would be no program to say so.
    answers = {(result["status"], result["stdout"]["text"]) for result in results}
    assert answers <= {("ok", "overlayfs\n"), ("sandbox_error", "")}


def test_an_image_with_a_proc_of_its_own_gets_the_kernels(image):
    """Attack 11. What the set-up writes goes to procfs, as the limits of nesting show."""
    settings = image.root / "proc/sys/user"
    settings.mkdir(parents=True)
    (image.root / "proc/self").mkdir()
    (settings / "max_user_namespaces").write_text("fake\n")
    result = image.run("sh", "-c", "stat -f -c %T /proc /proc/self/; cat /proc/sys/user/max_user_namespaces")
    assert result["stdout"]["text"] == "proc\nproc\n0\n"
    assert (settings / "max_user_namespaces").read_text() == "fake\n"


def test_a_file_of_the_image_cannot_be_linked_or_changed(python):
    """Attack 20."""
    path = Path("/usr/bin/env").resolve()
    before, content = path.stat(), sha256(path.read_bytes()).digest()
    told = python(
        f"path = {str(path)!r}\n"
        "for place in ('/box/x', '/tmp/x', '/dev/shm/x'): print(answer(os.link, path, place))\n"
        "for call, *rest in ((os.chmod, 0o777), (os.utime,), (os.truncate, 0), (os.chown, 1000, 1000),\n"
        "                    (os.setxattr, 'user.x', b''), (os.unlink,), (os.open, os.O_WRONLY)):\n"
        "    print(answer(call, path, *rest))"
    ).split()
    assert told[:3] == ["EXDEV"] * 3
    assert set(told[3:]) <= {"EROFS", "EPERM", "EACCES"}
    after = path.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (
        before.st_mode,
        before.st_mtime_ns,
        before.st_nlink,
    )
    assert sha256(path.read_bytes()).digest() == content


def test_set_id_bits_on_an_own_file_gain_nothing(attack):
    """Attack 22."""
    script = "cp /usr/bin/id id; chmod 6755 id; ./id -u; ./id -g; ./id -un"
    assert attack(argv=["sh", "-c", script])["stdout"]["text"] == "1000\n1000\njail\n"


def test_no_mount_honours_set_id_bits(attack):
    """Attack 22. Save those of one device each, which cannot be executed."""
    lines = attack(argv=["cat", "/proc/self/mountinfo"])["stdout"]["text"].splitlines()
    mounts = [line.split() for line in lines]
    whole = [fields for fields in mounts if fields[3] == "/"]
    assert [fields[4] for fields in whole if "nosuid" not in fields[5].split(",")] == []
    assert {fields[3] for fields in mounts} <= {"/", "/null", "/zero", "/full", "/random", "/urandom"}


SET_ID_PROGRAMS = """
import subprocess
for name in os.listdir('/usr/bin'):
    path = f'/usr/bin/{name}'
    if not os.path.isfile(path) or not os.stat(path).st_mode & 0o6000: continue
    running = subprocess.Popen([path], stdin=-1, stdout=-3, stderr=-3)
    fields = dict(line.split(':', 1) for line in open(f'/proc/{running.pid}/status'))
    print(*(word for name in ('Uid', 'Gid', 'CapPrm', 'CapEff') for word in fields[name].split()))
    running.kill(); running.communicate()
"""


def test_a_set_id_program_of_the_image_gains_nothing(python):
    """Attack 22."""
    told = python(SET_ID_PROGRAMS, limits={"cpu_ms": 5000})
    if not told:
        pytest.skip("the host has no set-id program in /usr/bin")
    assert set(told.splitlines()) == {" ".join(8 * ["1000"] + 2 * ["0" * 16])}


def test_a_file_cannot_be_given_capabilities(python):
    """Attack 22. By the kernel: the filter lets extended attributes be set."""
    told = python(
        "open('x', 'w').close()\n"
        "value = b'\\x01\\0\\0\\x02' + b'\\xff' * 16\n"
        "for name in ('security.capability', 'trusted.overlay.opaque'):\n"
        "    print(answer(os.setxattr, 'x', name, value))"
    )
    assert told.split() == ["EPERM"] * 2


def test_there_is_no_sys(python):
    """Attack 24. Nor a mount of its kind anywhere."""
    told = python(
        "kinds = {line.split()[2] for line in open('/proc/self/mounts')}\n"
        "print(os.path.lexists('/sys'), *sorted(kinds))"
    )
    assert told == "False devtmpfs overlay proc tmpfs\n"


def test_the_devices_are_five_and_harmless(python):
    """Attack 25."""
    told = python(
        "import stat\n"
        "for folder, _, names in os.walk('/dev'):\n"
        "    for name in names:\n"
        "        path = f'{folder}/{name}'\n"
        "        about = os.lstat(path)\n"
        "        if stat.S_ISLNK(about.st_mode): continue\n"
        "        opened = isinstance(answer(os.open, path, os.O_RDWR), int)\n"
        "        number = os.major(about.st_rdev), os.minor(about.st_rdev)\n"
        "        print(path, stat.S_ISCHR(about.st_mode), *number, opened)"
    )
    assert sorted(told.splitlines()) == [
        "/dev/full True 1 7 True",
        # An empty file of nobody's, for a stdin that is lent to be seen there.
        "/dev/lent-stdin False 0 0 False",
        "/dev/null True 1 3 True",
        "/dev/random True 1 8 True",
        "/dev/urandom True 1 9 True",
        "/dev/zero True 1 5 True",
    ]


@pytest.mark.parametrize("number", [0x5412, 0x541C, 0x540E], ids=["TIOCSTI", "TIOCLINUX", "TIOCSCTTY"])
def test_nothing_can_be_typed_into_a_terminal(probe, number):
    """Attacks 26 and 27. By the filter: the kernel would answer ENOTTY, and EBADF for descriptor -1."""
    requests = [number | high for high in HIGH_BITS]
    calls = [("ioctl", fd, request, "=x") for request in requests for fd in (0, 1, 2, -1)]
    assert [outcome.errno for outcome in probe(*calls)] == [EPERM] * len(calls)


def test_there_is_no_terminal_to_open(python):
    """Attacks 26 and 27."""
    told = python(
        "for name in ('tty', 'tty0', 'console', 'ptmx', 'pts/ptmx'):\n"
        "    print(answer(os.open, f'/dev/{name}', os.O_RDWR))\n"
        "print(*(os.isatty(fd) for fd in range(3)), os.getsid(0) == os.getpid())"
    )
    assert told == "ENOENT\n" * 5 + "False False False True\n"


def test_a_crash_leaves_no_core(attack, built):
    """Attack 29. A limit of 1 stops a dump into a pipe too: fs/coredump.c."""
    script = "./crash; ls -A; ls -A /tmp"
    result = attack(argv=["sh", "-c", script], files={"crash": built("crash.c")})
    assert result["stdout"]["text"] == "1 1 11 0\ncrash\n"


def test_a_crash_starts_no_program_of_the_host(attack, built):
    """Attack 29. "Core dumped" is told of every dump that was made, whoever took it."""
    if not Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
        pytest.skip("the host's kernel.core_pattern is no pipe, and a test may not change it")
    result = attack(argv=["./crash"], files={"crash": built("crash.c")})
    assert result["stdout"]["text"] == "1 1 11 0\n"


def test_there_is_no_socket_of_the_host(attack):
    """Attack 30."""
    script = "find / -path /proc -prune -o -type s -print 2>/dev/null"
    result = attack(argv=["sh", "-c", script], limits={"cpu_ms": 5000})
    assert result["stdout"]["text"] == ""


def test_no_socket_of_the_host_can_be_reached_by_its_path(python):
    """Attack 30."""
    told = python(
        "import socket\n"
        "known = '/run/systemd/private', '/run/dbus/system_bus_socket', '/run/docker.sock', '/dev/log'\n"
        "for path in known:\n"
        "    print(answer(socket.socket(socket.AF_UNIX).connect, path))"
    )
    assert told == "ENOENT\n" * 4


def test_no_socket_of_the_host_can_be_reached_by_an_abstract_name(python):
    """Attack 30. The network namespace has names of its own."""
    name = f"\0jail-attack-30-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen()
        told = python(f"import socket\nprint(answer(socket.socket(socket.AF_UNIX).connect, {name!r}))")
    assert told == "ECONNREFUSED\n"
