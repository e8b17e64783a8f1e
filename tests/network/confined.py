"""In the hub's place: what becomes of attempts that it has no cause to make, once it is confined, or without.

    python confined.py ID SERVICE SANDBOX FILE     as root of the outer user namespace

ID: whom to become, 0 for nobody else; SERVICE, SANDBOX: process ids; FILE: of the service's. Standard input
is the network namespace of the sandbox. It writes in JSON the errno of each attempt, 0 where it succeeded.
"""

import ctypes
import errno
import fcntl
import json
import os
import sys
from collections.abc import Callable
from functools import partial

from jail.network import confinement

NEWNET, NEWUSER, NEWNS = 0x40000000, 0x10000000, 0x00020000
PTRACE_SEIZE = 0x4206
NS_GET_USERNS = 0xB701

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def outcome(attempt: Callable[[], object]) -> int:
    """Of an attempt in a child, which keeps what it gained to itself."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        attempt()
    except OSError as error:
        os._exit(error.errno or errno.EIO)
    except BaseException:
        os._exit(255)
    os._exit(0)


def trace(pid: int) -> None:
    check(libc.ptrace(PTRACE_SEIZE, pid, None, None))


def enter(kind: int) -> None:
    check(libc.setns(0, kind))


def enter_owner(kind: int) -> None:
    """The user namespace that the network namespace belongs to."""
    check(libc.setns(fcntl.ioctl(0, NS_GET_USERNS), kind))


def main(identity: int, service: int, sandbox: int, file: str) -> None:
    if identity:
        confinement.give_up(identity)
    attempts = {
        "trace the service": partial(trace, service),
        "trace a sandbox": partial(trace, sandbox),
        "signal the service": partial(os.kill, service, 0),
        "signal a sandbox": partial(os.kill, sandbox, 0),
        "read a sandbox's memory": partial(open, f"/proc/{sandbox}/mem", "rb"),
        "see a sandbox's files": partial(os.listdir, f"/proc/{sandbox}/root/"),
        "open a sandbox's namespace": partial(open, f"/proc/{sandbox}/ns/user", "rb"),
        "open the service's file": partial(open, file, "rb"),
        "be root of the outer namespace": partial(os.setresuid, 0, 0, 0),
        "be a sandbox's user": partial(os.setresuid, 1, 1, 1),
        "be root of a sandbox": partial(enter_owner, NEWUSER),
        "be root of a sandbox, unsaid": partial(enter_owner, 0),
        "enter a network, unsaid": partial(enter, 0),
        "enter a network": partial(enter, NEWNET),
    }
    sys.stdout.write(json.dumps({name: outcome(attempt) for name, attempt in attempts.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
