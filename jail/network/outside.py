"""What the hub needs of the host's network: a process that stayed there when the hub left.

The hub forks it before it makes itself a network namespace, where egress is switched on. It does two things,
on the hub's word alone:

- It starts the way out (jail.network.way), which has one foot in the host's network and one in the hub's.
- It asks for the addresses of names. What answers is not trusted, and libc reads it: each name is asked
  for in a child of its own, which first gives up every capability, all files but those it reads, and all
  system calls but those it needs (policies/service/resolver.toml). It says what it found through a pipe.

It and the way out are root of a user namespace of their own, made for them, in which the hub's network
namespace is the only thing there is; to the outer one, and to the host, they are an id that nobody else has.
So they have no power over the service, the hub and the sandboxes.

It talks with the hub over a SOCK_SEQPACKET pair, in JSON: Asked one way, Told the other. The end of that is
how it learns that the hub is gone, which may not signal it: each has an id of its own. Then it goes, and what
it started with it, by PDEATHSIG.
"""

# socket.getaddrinfo() imports it, in a child that reads no module any more.
import encodings.idna  # noqa: F401
import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from contextlib import suppress
from ipaddress import ip_address

import msgspec

from jail import shed
from jail.delegation import give_up_capabilities
from jail.libc import LIBC, check, mount, prctl
from jail.network import namespaces, way
from jail.network.protocol import Asked, Told
from jail.privileges import close_descriptors

RESOLVE_SECONDS = 5
"""How long one name may take."""

RESOLVERS_MAX = 16
"""How many names are asked for at once; further ones wait."""

ADDRESSES_MAX = 8
"""How many addresses of a name are taken: the first that the resolver gives."""

PACKET_BYTES_MAX = 1 << 14

# <linux/prctl.h>, <linux/sched.h>, <linux/mount.h>
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 1 << 14, 1 << 18

# Any directory that every host has: it is covered in our own mount namespace alone.
_PLACE = "/tmp"
_HUB = f"{_PLACE}/hub"

_WORDS_BYTES_MAX = 500


def stay(control: socket.socket, identity: int, landlock: bool) -> None:
    """Serve a hub, which is sent a network namespace first, until it is gone. Raises HostError, OSError.

    To be called in a child that the hub forks, as its only thread; it becomes that user and group. `landlock`
    is False only where the operator accepted that there is none.
    """
    _prepare(control, identity)
    _give_network(control)
    Outside(control, landlock).serve()


def _prepare(control: socket.socket, identity: int) -> None:
    """Keep nothing of the hub's, and have a place that only we see, for its namespace. Raises OSError."""
    # While it can read the policy: as another user it reaches no file that is not everybody's.
    shed.prepare(shed.RESOLVER)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    close_descriptors([control.fileno()])
    _be_root_apart(identity)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    mount("", "/", "", _MS_REC | _MS_PRIVATE)
    mount("tmpfs", _PLACE, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    os.close(os.open(_HUB, os.O_CREAT | os.O_CLOEXEC, 0o600))


def _be_root_apart(identity: int) -> None:
    """Be that user and group, and as such root of new namespaces. Raises OSError."""
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)
    check(LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "unshare")
    # Else these files were those of whom we were.
    prctl(_PR_SET_DUMPABLE, 1)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {identity} 1"),
        ("gid_map", f"0 {identity} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    prctl(_PR_SET_DUMPABLE, 0)


def _give_network(control: socket.socket) -> None:
    """Send the hub a new network namespace that is ours. Raises OSError."""
    pid = os.fork()
    if pid:
        if os.waitpid(pid, 0)[1]:
            raise ChildProcessError("there is no network namespace for the hub")
        return
    status = 1
    try:
        namespaces.leave_for_new()
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        socket.send_fds(control, [b"n"], [namespace])
        status = 0
    finally:
        os._exit(status)


class Outside:
    """The process's loop."""

    def __init__(self, control: socket.socket, landlock: bool) -> None:
        """Take the end of the socket that is not the hub's."""
        self._control = control
        self._landlock = landlock
        self._waiting: deque[Asked] = deque()
        self._resolvers: dict[int, _Resolver] = {}
        self._way: subprocess.Popen | None = None
        self._bound = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._hear)

    def serve(self) -> None:
        """Do what the hub asks for until it is gone. Raises OSError."""
        while self._control.fileno() >= 0:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            for resolver in list(self._resolvers.values()):
                if time.monotonic() >= resolver.deadline:
                    self._answer(resolver, Told("resolved", resolver.number, error="no answer in time"))
            while self._waiting and len(self._resolvers) < RESOLVERS_MAX:
                self._resolve(self._waiting.popleft())

    def _patience(self) -> float | None:
        deadline = min((resolver.deadline for resolver in self._resolvers.values()), default=None)
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def _hear(self) -> None:
        packet, descriptors, _, _ = socket.recv_fds(
            self._control, PACKET_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC
        )
        if not packet:
            self._control.close()
            return
        asked = msgspec.json.decode(packet, type=Asked)
        if asked.host:
            self._waiting.append(asked)
        elif not asked.program and self._way:
            self._way.kill()
        for descriptor in descriptors:
            try:
                self._start(asked.program, descriptor)
            finally:
                os.close(descriptor)

    def _tell(self, told: Told) -> None:
        # When the hub is gone the next look at the socket says so.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(msgspec.json.encode(told))

    def _start(self, program: str, namespace: int) -> None:
        """Start the way out into that network namespace, or say that it has ended already."""
        try:
            if not self._bound:
                # pasta gives up what it would need to open it in the hub's own /proc.
                mount(f"/proc/self/fd/{namespace}", _HUB, "", _MS_BIND)
                self._bound = True
            reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            with open(writing, "wb", buffering=0) as errors:
                self._way = subprocess.Popen(
                    way.command(program, _HUB),
                    env={},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    preexec_fn=_die_with_us,
                )
        except (OSError, subprocess.SubprocessError) as error:
            self._tell(Told("ended", error=f"{program}: {error}"))
            return
        ended = os.pidfd_open(self._way.pid)
        self._selector.register(ended, selectors.EVENT_READ, lambda: self._way_ended(ended, reading))

    def _way_ended(self, ended: int, reading: int) -> None:
        self._selector.unregister(ended)
        os.close(ended)
        status = self._way.wait()
        self._way = None
        with open(reading, "rb", buffering=0) as errors:
            words = (errors.read(1 << 16) or b"")[-_WORDS_BYTES_MAX:].decode(errors="replace").strip()
        self._tell(Told("ended", error=f"it ended with {status}: {words}"))

    def _resolve(self, asked: Asked) -> None:
        resolver = _Resolver(asked, self._landlock)
        self._resolvers[resolver.reading] = resolver
        self._selector.register(resolver.reading, selectors.EVENT_READ, lambda: self._resolved(resolver))

    def _resolved(self, resolver: "_Resolver") -> None:
        self._answer(resolver, resolver.told())

    def _answer(self, resolver: "_Resolver", told: Told) -> None:
        del self._resolvers[resolver.reading]
        self._selector.unregister(resolver.reading)
        resolver.close()
        self._tell(told)


class _Resolver:
    """A child that asks for the addresses of one host. `reading`: where it answers, and ends."""

    def __init__(self, asked: Asked, landlock: bool) -> None:
        self.number = asked.number
        self.deadline = time.monotonic() + RESOLVE_SECONDS
        self.reading, writing = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if not self._pid:
            _ask(asked.host, writing, landlock)
        os.close(writing)
        self._process = os.pidfd_open(self._pid)

    def told(self) -> Told:
        """What it says, as far as it makes sense: whatever answered it may have taken it over."""
        try:
            found = msgspec.json.decode(os.read(self.reading, PACKET_BYTES_MAX), type=Told)
            addresses = tuple(str(ip_address(text)) for text in found.addresses[:ADDRESSES_MAX])
        except (ValueError, OSError):
            return Told("resolved", self.number, error="the resolver failed")
        return Told("resolved", self.number, addresses, found.error[:_WORDS_BYTES_MAX])

    def close(self) -> None:
        """End it, if it has not ended."""
        os.close(self.reading)
        signal.pidfd_send_signal(self._process, signal.SIGKILL)
        os.close(self._process)
        os.waitpid(self._pid, 0)


def _ask(host: str, writing: int, landlock: bool) -> None:
    """In the child: answer, and end."""
    try:
        _die_with_us()
        close_descriptors([writing])
        give_up_capabilities()
        shed.shed_for_resolver(landlock)
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            told = Told("resolved", addresses=tuple(dict.fromkeys(entry[4][0] for entry in found)))
        except OSError as error:
            told = Told("resolved", error=error.strerror or "unknown")
        os.write(writing, msgspec.json.encode(told))
    finally:
        os._exit(0)


def _die_with_us() -> None:
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
