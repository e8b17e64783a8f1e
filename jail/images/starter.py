"""Starts unpackers for a process that is about to give up starting anything.

An unpacker under that process's filter and Landlock could not mount. So a fork of it that keeps what it has
waits for "here is the socket for one", a byte and a descriptor, and runs the same program each time.
"""

import os
import socket
import subprocess
from collections.abc import Callable, Collection
from typing import NoReturn

from jail.libc import prctl
from jail.privileges import close_descriptors, die_with

_START, _KILL = b"s", b"k"

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>

Run = Callable[[socket.socket], subprocess.Popen[bytes]]


class Starter:
    """One unpacker at a time: what a subprocess.Popen would be, for jail.images.unpacker."""

    def __init__(self, run: Run, needs: Collection[int]) -> None:
        """Fork what starts them, by `run`, which needs these descriptors. Raises OSError.

        It ends with this process, and what it started with it.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        if not os.fork():
            _stay(theirs, parent, run, needs)
        theirs.close()

    def start(self, control: socket.socket) -> "Starter":
        """Start one with `control`, which remains the caller's, as its stdin. Raises OSError."""
        socket.send_fds(self._socket, [_START], [control.fileno()])
        return self

    def kill(self) -> None:
        """End it, whatever it is doing. Raises OSError."""
        self._socket.send(_KILL)

    def wait(self) -> None:
        """Come back when it has ended, once it was killed. Raises OSError."""
        self._socket.recv(1)


def _stay(control: socket.socket, parent: int, run: Run, needs: Collection[int]) -> NoReturn:
    running: subprocess.Popen[bytes] | None = None
    try:
        die_with(parent)
        prctl(_PR_SET_DUMPABLE, 0)
        close_descriptors({control.fileno(), *needs})
        while True:
            kind, descriptors, _, _ = socket.recv_fds(control, 1, 1, socket.MSG_CMSG_CLOEXEC)
            if running is not None:
                running.kill()
                running.wait()
                running = None
            if not kind:
                break
            for descriptor in descriptors:
                with socket.socket(fileno=descriptor) as theirs:
                    running = run(theirs)
            if kind == _KILL:
                control.send(_KILL)
    finally:
        os._exit(0)
