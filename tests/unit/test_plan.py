"""What crosses to init: the layout of a plan, and seals that hold."""

import errno
import fcntl
import mmap
import os
import struct

import pytest
from offered import Offered

from jail import plan, spec
from jail.errors import SandboxError
from jail.limits import CEILINGS, Limits
from jail.spec import FileContent, Request, Rules
from jail.supervisor import HOSTS_BYTES_MAX

pytestmark = pytest.mark.usefixtures("leaks_nothing")

RULES = Rules(
    defaults=Limits(),
    ceilings=CEILINGS,
    images=Offered(),
    policies=("default",),
    processes=1,
    memory_bytes=CEILINGS.memory_bytes,
)
# struct file in native/message.h: uint64_t bytes, uint32_t mode, uint32_t path_bytes.
FILE = struct.Struct("=QII")


def job(**fields):
    return spec.validate(Request(**{"argv": ["true"], **fields}), RULES).processes[0]


def take_apart(packed, arguments, variables, files):
    """Read a plan as native/setup.c does."""
    strings = []
    for _ in range(arguments + variables + 2):
        string, _, packed = packed.partition(b"\0")
        strings.append(string)
    found = []
    for _ in range(files):
        size, mode, path_bytes = FILE.unpack_from(packed)
        path, packed = packed[FILE.size : FILE.size + path_bytes], packed[FILE.size + path_bytes :]
        found.append((path, mode, packed[:size]))
        packed = packed[size:]
    assert packed == b""
    return strings[:arguments], strings[arguments:-2], strings[-2:], found


def test_a_plan_is_arguments_variables_the_search_path_the_directory_and_files():
    found = job(
        argv=["sh", "-c", "", "é"],
        env={"X": "", "PATH": "/bin:/a b"},
        files={
            "a.txt": "é",
            "d/run": FileContent(base64="AP8A", executable=True),
            "empty": "",
        },
    )
    arguments, variables, path, files = take_apart(plan.pack(found), 4, len(found.env), 3)
    assert arguments == [b"sh", b"-c", b"", "é".encode()]
    assert variables == [b"PATH=/bin:/a b", b"HOME=/box", b"LANG=C.UTF-8", b"X="]
    assert path == [b"/bin:/a b", b"/box"]
    assert files == [
        (b"a.txt\0", 0o644, "é".encode()),
        (b"d/run\0", 0o755, b"\0\xff\0"),
        (b"empty\0", 0o644, b""),
    ]


def test_a_plan_without_files_ends_with_the_directory():
    found = job()
    assert take_apart(plan.pack(found), 1, len(found.env), 0)[2:] == (
        [spec.DEFAULT_ENV["PATH"].encode(), b"/box"],
        [],
    )


def test_a_plan_with_names_ends_with_them():
    found = job(files={"a.txt": "é"})
    assert plan.pack(found, b"127.0.0.1 x\n") == plan.pack(found) + b"127.0.0.1 x\n"


def test_more_names_than_there_may_be_are_refused():
    plan.pack(job(), bytes(HOSTS_BYTES_MAX))
    with pytest.raises(SandboxError) as refused:
        plan.pack(job(), bytes(HOSTS_BYTES_MAX + 1))
    assert (refused.value.stage, refused.value.error) == ("hosts", errno.E2BIG)


@pytest.fixture
def sealed():
    descriptor = plan.sealed("test", b"content")
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 3_000_000], ids=len)
def test_sealed_bytes_are_read_from_their_beginning(content):
    descriptor = plan.sealed("test", content)
    with os.fdopen(descriptor, "rb") as file:
        assert file.read() == content


def test_sealed_bytes_are_not_inherited(sealed):
    assert not os.get_inheritable(sealed)


def test_every_seal_is_set(sealed):
    assert fcntl.fcntl(sealed, fcntl.F_GET_SEALS) == (
        fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    )


CHANGES = {
    "write": lambda descriptor: os.write(descriptor, b"X"),
    "write at its end": lambda descriptor: os.pwrite(descriptor, b"X", 7),
    "shrink": lambda descriptor: os.ftruncate(descriptor, 0),
    "grow": lambda descriptor: os.ftruncate(descriptor, 100),
    "allocate": lambda descriptor: os.posix_fallocate(descriptor, 0, 100),
    "seal": lambda descriptor: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0),
    "map": lambda descriptor: mmap.mmap(descriptor, 7, prot=mmap.PROT_WRITE),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_sealed_bytes_cannot_be_changed(sealed, change):
    with pytest.raises(PermissionError):
        change(sealed)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_sealed_bytes_cannot_be_changed_by_one_who_opens_them_again(sealed, change):
    again = os.open(f"/proc/self/fd/{sealed}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            change(again)
    finally:
        os.close(again)


def test_sealed_bytes_cannot_be_emptied_by_opening_them(sealed):
    with pytest.raises(PermissionError):
        os.close(os.open(f"/proc/self/fd/{sealed}", os.O_WRONLY | os.O_TRUNC))
    assert os.read(sealed, 100) == b"content"


def test_bytes_that_cannot_be_sealed_leave_no_descriptor(monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.EINVAL, "no seals here")

    monkeypatch.setattr(plan.fcntl, "fcntl", refuse)
    with pytest.raises(OSError, match="no seals"):
        plan.sealed("test", b"content")
