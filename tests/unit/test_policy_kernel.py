"""The default policy in the kernel: a child loads it and says what the calls answer.

Any process may load a filter once it has given up gaining privileges, so this needs no sandbox.
"""

import errno
import json
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jail import policy as policies
from jail.policy import numbers

POLICIES = Path(__file__).parents[2] / "policies"
PROGRAM = policies.compile_policy(policies.load("default", POLICIES))

# Reads the filter and one call from its arguments; prints the errno, 0 for success.
CHILD = """
import ctypes, json, os, sys
program, call = bytes.fromhex(sys.argv[1]), json.loads(sys.argv[2])
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
PR_SET_SECCOMP, MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
filter = Program(len(program) // 8, program)
assert libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(filter), 0, 0) == 0
ctypes.set_errno(0)
libc.syscall(*[ctypes.c_ulong(value % 2**64) for value in call])
print(ctypes.get_errno())
"""


def attempt(call, *args):
    number = call if isinstance(call, int) else numbers.number(call)
    command = [sys.executable, "-I", "-c", CHILD, PROGRAM.hex(), json.dumps([number, *args])]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("call", "args", "code"),
    [
        ("getpid", [], 0),
        ("socket", [1, 1, 0], 0),
        ("personality", [0xFFFFFFFF], 0),
        ("unshare", [0x10000000], errno.EPERM),
        ("clone", [0x10000000 | signal.SIGCHLD], errno.EPERM),
        ("clone", [1 << 32 | 0x10000000 | signal.SIGCHLD], errno.EPERM),
        ("socket", [40, 1, 0], errno.EPERM),
        ("socket", [1 << 32 | 40, 1, 0], errno.EPERM),
        ("ioctl", [0, 0x5412, 0], errno.EPERM),
        ("ioctl", [0, -1 << 32 | 0x5412, 0], errno.EPERM),
        ("personality", [0x0040000], errno.EPERM),
        ("open_by_handle_at", [-1, 0, 0], errno.EPERM),
        ("clone3", [0, 0], errno.ENOSYS),
        ("io_uring_setup", [1, 0], errno.ENOSYS),
        (10_000, [], errno.ENOSYS),
    ],
)
def test_kernel_answers_as_the_policy_says(call, args, code):
    child = attempt(call, *args)

    assert (child.returncode, child.stdout) == (0, f"{code}\n"), child.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has an x32 entry")
def test_kernel_kills_what_comes_through_the_x32_entry():
    child = attempt(0x40000000 | numbers.number("getpid"))

    assert child.returncode == -signal.SIGSYS
