"""Starts unpackers for a process that is about to give up starting anything.

An unpacker under that process's filter and Landlock could not mount. So a fork that keeps what it has waits
for "here is the socket for one", one byte and one descriptor, and runs the same program each time.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import NoReturn

from jail.privileges import die_with

_START, _END = b"s", b"e"

Run = Callable[[socket.socket], subprocess.Popen[bytes]]


class Starter:
    """One unpacker at a time, started and ended in this process's stead."""

    def __init__(self, run: Run) -> None:
        """Fork what is to start them, by `run`, and end with this process. Raises OSError."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        if not os.fork():
            self._socket.close()
            _stay(theirs, parent, run)
        theirs.close()

    def start(self, control: socket.socket) -> "Starter":
        """Start an unpacker with `control`, which remains the caller's, as its stdin. Raises OSError."""
        socket.send_fds(self._socket, [_START], [control.fileno()])
        return self

    def end(self) -> None:
        """End it, and come back when it has. Raises OSError."""
        self._socket.send(_END)
        self._socket.recv(1)


def _stay(control: socket.socket, parent: int, run: Run) -> NoReturn:
    running: subprocess.Popen[bytes] | None = None
    try:
        die_with(parent)
        while packet := _next(control):
            kind, descriptors = packet
            if running is not None:
                running.send_signal(signal.SIGKILL)
                running.wait()
                running = None
            if kind == _END:
                control.send(_END)
            for descriptor in descriptors:
                with socket.socket(fileno=descriptor) as theirs:
                    running = run(theirs)
    finally:
        os._exit(0)


def _next(control: socket.socket) -> tuple[bytes, list[int]] | None:
    packet, descriptors, _, _ = socket.recv_fds(control, 1, 1, socket.MSG_CMSG_CLOEXEC)
    return (packet, descriptors) if packet else None
