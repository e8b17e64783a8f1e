"""The service manager, if one started us: what it hands over, and what it is told.

The protocols are those of sd_listen_fds(3) and sd_notify(3), and this is all of them that a service needs.
Both are read from the environment before that is emptied, and the socket to the manager is connected before
this process sheds its right to connect one (jail.shed). None of it is inherited by what we start.

What the watchdog is told. A sign of life comes from the event loop; if there are workers, from all of theirs,
by way of the parent: so a loop that stands still is ended and started anew. It does not depend on whether
sandboxes can be made: what keeps us from that is mostly a want of the host's, which a new start does not end,
while it does end the jobs that run. Callers are told `sandbox_error` then. A supervisor that is lost is
replaced, and without a keeper the service stops by itself.
"""

import os
import socket
from contextlib import suppress

from jail.errors import HostError

# SD_LISTEN_FDS_START
_FIRST = 3

# sd_watchdog_enabled(3) asks for half. A third: a sign of life of a worker goes by way of its parent.
_SIGNS_EACH_TIME = 3


def listeners() -> list[socket.socket]:
    """The listening sockets that it opened for this process; none if it opened none. Raises HostError."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = _number("LISTEN_FDS")
    return [_listener(descriptor) for descriptor in range(_FIRST, _FIRST + count)]


def _listener(descriptor: int) -> socket.socket:
    try:
        # It came without this, else it would not have come at all.
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        accepts = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        is_tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
        if is_tcp and accepts:
            return found
    except OSError:
        # No socket, or not even open.
        pass
    raise HostError(
        f"Descriptor {descriptor}, from the service manager, is not a listening TCP socket.",
        "In jail.socket: ListenStream=HOST:PORT, and Accept=no.",
    )


class Notices:
    """What the service manager is told; without one, nothing.

    Attribute: `sign_of_life_s`, how often it is to be given one, in seconds; None, not at all.
    """

    def __init__(self) -> None:
        """Connect to the one that the environment names. Raises HostError."""
        address = os.environ.get("NOTIFY_SOCKET")
        self.sign_of_life_s = _watchdog_s() / _SIGNS_EACH_TIME or None if address else None
        self._socket = _connect(address) if address else None

    def ready(self) -> None:
        """Requests are answered from now on."""
        # Waits until it can be heard: it is said once, and whoever does not hear it ends us.
        self._tell("READY=1", 0)

    def alive(self) -> None:
        """The event loop turns; of every worker, if there are some."""
        self._tell("WATCHDOG=1")

    def stopping(self, grace_s: float) -> None:
        """No more jobs are taken, and all will have ended after that long, in seconds."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(grace_s * 10**6)}")

    def close(self) -> None:
        """Leave the telling to another process, which has the same socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, notice: str, flags: int = socket.MSG_DONTWAIT) -> None:
        if self._socket is not None:
            # What it does not hear it concludes by itself, from its own clocks.
            with suppress(OSError):
                self._socket.send(notice.encode(), flags)


def _connect(address: str) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # unix(7): an abstract name begins with a zero byte.
        connected.connect(f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError as error:
        connected.close()
        raise HostError(
            f"NOTIFY_SOCKET={address} cannot be connected to: {error.strerror}.",
            "Start it by its service manager, or without that variable.",
        ) from None
    return connected


def _watchdog_s() -> float:
    """After how long without a sign of life it takes us for hung; 0, never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    return _number("WATCHDOG_USEC") / 10**6


def _number(name: str) -> int:
    text = os.environ.get(name, "0")
    if not text.isdecimal():
        raise HostError(f"{name} = {text!r} is no number.", "Leave it to the service manager.")
    return int(text)
