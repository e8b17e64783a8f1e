"""A stand-in for a sandbox: a process with user and network namespaces of its own, that does as it is told.

It is root of its network namespace, which no job is: what the hub lets through it lets through to anybody.
Started with the descriptor of a user namespace to begin in, and a program to become there or nothing.
Each line of stdin is the text of a Python program; the line that answers it has the value of `result`.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def tell(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        raised = struct.unpack("16sH14x", flags)[1] | IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", raised))


def main(namespace: int, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    check(libc.setns(namespace, CLONE_NEWUSER))
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    if command:
        os.execv(command[0], command)
    os.close(namespace)
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    raise_loopback()
    tell("ready")
    known: dict[str, object] = {}
    for line in sys.stdin:
        known["result"] = None
        try:
            exec(json.loads(line), known)
            answer = known["result"]
        except Exception as error:
            answer = {"error": repr(error)}
        tell(answer)


main(int(sys.argv[1]), sys.argv[2:])
