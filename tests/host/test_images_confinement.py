"""What the program of images gives up before it hears a registry or reads an archive, tried from inside."""

import errno
import json
import subprocess
import sys

import pytest
from trial import trial

from jail import policy, shed
from jail.policy import Verdict, compile_policy, load, numbers, simulate

# As the program does, in the store that it is given.
TRIAL = trial("os.chdir(sys.argv[1]); shed.shed_for_images(Path(sys.argv[1]), pulls=sys.argv[2] == 'pull')")

BOTH = pytest.mark.parametrize("operation", ["pull", "images"])


@pytest.fixture
def attempt(environment, tmp_path):
    """Try statements in the store's directory; their errno values, or 0."""
    store = tmp_path / "store"
    for name in ("blobs", "incoming"):
        (store / name).mkdir(parents=True)
    (tmp_path / "file").write_text("mine")

    def run(operation, *statements):
        done = subprocess.run(
            [sys.executable, "-P", "-c", TRIAL, store, operation],
            input="\n".join(statements),
            env=environment,
            capture_output=True,
            text=True,
            cwd="/",
            check=True,
        )
        return json.loads(done.stdout)

    return run


@BOTH
def test_it_starts_traces_and_signals_nobody(attempt, operation):
    statements = [
        "os.execv('/bin/true', ['true'])",
        "os.fork() or os._exit(9)",
        "os.kill(os.getppid(), 0)",
        f"call({numbers.number('ptrace')}, 0, 0, 0, 0)",
        f"call({numbers.number('mount')}, 0, 0, 0, 0, 0)",
        f"call({numbers.number('unshare')}, 0)",
        f"call({numbers.number('setns')}, 0, 0)",
        f"call({numbers.number('prctl')}, 4, 1, 0, 0, 0)",
        "os.setxattr('.', 'user.overlay.opaque', b'y')",
        "os.mkfifo('fifo')",
        "os.chown('.', 0, 0)",
        "os.link('blobs', 'link')",
    ]
    assert attempt(operation, *statements) == [errno.EPERM] * len(statements)


@BOTH
def test_nothing_outside_the_store_is_written(attempt, operation):
    statements = [
        "open('../file', 'a')",
        "open('../new', 'w')",
        "os.unlink('../file')",
        "os.mkdir('../new')",
        "os.rename('../file', 'stolen')",
        "open('/etc/new', 'w')",
        "open(f'/proc/{os.getppid()}/mem', 'wb')",
    ]
    assert set(attempt(operation, *statements)) <= {errno.EACCES, errno.EXDEV}


@BOTH
def test_what_is_of_others_is_not_read(attempt, operation, state):
    statements = [f"os.listdir('{state}')", "open('../file')", "open(f'/proc/{os.getppid()}/environ')"]
    assert attempt(operation, *statements) == [errno.EACCES] * 3


@BOTH
def test_the_store_is_kept_and_threads_work(attempt, operation):
    statements = [
        "open('incoming/blob', 'w').write('x')",
        "os.rename('incoming/blob', 'blobs/blob')",
        "os.symlink('blobs', 'link')",
        "os.mkdir('incoming/one'); os.rmdir('incoming/one')",
        "os.fsync(os.open('blobs/blob', os.O_RDWR))",
        "seen = []; thread = threading.Thread(target=seen.append, args=[1]); thread.start(); thread.join()",
        "assert seen == [1]",
        "import wave",
    ]
    assert attempt(operation, *statements) == [0] * len(statements)


def test_only_a_pull_calls_others_and_nobody_is_called_by_them(attempt):
    call = "socket.create_connection(('127.0.0.1', 1), timeout=9)"
    listen = "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()"
    raw = "socket.socket(socket.AF_INET, socket.SOCK_RAW)"
    refused = [errno.EPERM] * 3
    assert attempt("images", call, listen, raw) == refused
    found = attempt("pull", call, listen, raw)
    assert found[0] == errno.ECONNREFUSED
    assert found[1] in (errno.EPERM, errno.EACCES)
    assert found[2] == errno.EPERM


def test_a_pull_reads_what_finds_addresses(attempt):
    assert attempt("pull", "open('/etc/hosts')", "socket.getaddrinfo('localhost', 80)") == [0, 0]
    assert attempt("images", "open('/etc/hosts')") == [errno.EACCES]


@pytest.mark.parametrize("name", [shed.IMAGES, shed.PULL])
@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("execve", ()), ("execveat", ()), ("fork", ()), ("vfork", ()), ("clone", (17,)), ("bpf", ()),
        ("process_vm_readv", ()), ("pidfd_getfd", ()), ("pidfd_send_signal", ()), ("tgkill", ()),
        ("open_tree", ()), ("keyctl", ()), ("io_uring_setup", ()), ("userfaultfd", ()), ("mknodat", ()),
        ("listen", ()), ("accept4", ()), ("setuid", ()), ("fcntl", (3, 8)), ("fcntl", (3, 15)),
        ("sendto", (3, 0, 0, 0x20000000)), ("socket", (16, 3, 9)), ("seccomp", ()), ("setxattr", ()),
    ],
)  # fmt: skip
def test_its_filters_refuse(name, call, args):
    if (number := numbers.number(call)) is None:
        pytest.skip(f"this architecture has no {call}")
    program = compile_policy(load(name, policy.shipped_directory() / shed.POLICY), required={})
    assert simulate(program, number, args) == (Verdict.ERRNO, errno.EPERM)
