"""A stand-in for the host's network and for the internet, in which a program is then run.

    python outside.py RESOLV COMMAND...     as root of a user namespace

The host's network has one way out, and a loopback on which something listens; the internet has hosts with
addresses that look like any. On each listens a server that says its own name, of TCP and of UDP.
"""

import ctypes
import os
import selectors
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

NEWNET, NEWNS = 0x40000000, 0x00020000
BIND, REC, PRIVATE = 4096, 1 << 14, 1 << 18
SET_PDEATHSIG, SIGKILL = 1, 9
IP = "/usr/sbin/ip"

INTERNET = ("198.51.100.2", "198.51.100.3", "169.254.169.254", "2001:db8::2", "2001:db8::3")
HOSTS = ("127.0.0.1", "198.51.100.1", "::1", "2001:db8::1")
PORTS = (443, 444)
NAMES = {
    "both.example": ("198.51.100.2", "2001:db8::2"),
    "private.example": ("198.51.100.2", "10.0.0.1"),
    "metadata.example": ("169.254.169.254",),
}

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = (*(ctypes.c_char_p,) * 3, ctypes.c_ulong, ctypes.c_char_p)


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True)


class Servers:
    """All servers of a network namespace, in one process. Who connects is told who answered, and who asked.

    One that sends "down" or "up" has bytes sent, or taken, until it has enough.
    """

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        # The kernel asks whether who dies may signal us, and the hub ends as somebody who may not.
        parent = os.pidfd_open(os.getppid())
        self.selector.register(parent, selectors.EVENT_READ, lambda _: os._exit(0))

    def listen(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for port in PORTS:
            streams = socket.create_server((address, port), family=family, backlog=1000)
            self.selector.register(streams, selectors.EVENT_READ, self.accept)
            packets = socket.socket(family, socket.SOCK_DGRAM)
            packets.bind((address, port))
            self.selector.register(packets, selectors.EVENT_READ, self.answer)

    def resolve(self, address: str) -> None:
        """Answer questions about NAMES, of which there is one that gets no answer: silent.example."""
        packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        packets.bind((address, 53))
        self.selector.register(packets, selectors.EVENT_READ, self.name)

    def accept(self, listening: socket.socket) -> None:
        made, peer = listening.accept()
        made.setblocking(False)
        made.sendall(f"{made.getsockname()[0]} {peer[0]}\n".encode())
        self.selector.register(made, selectors.EVENT_READ, self.serve)

    def serve(self, made: socket.socket) -> None:
        try:
            said = made.recv(1 << 16)
            if said == b"down":
                self.selector.modify(made, selectors.EVENT_WRITE, self.fill)
        except OSError:
            said = b""
        if not said:
            self.selector.unregister(made)
            made.close()

    def fill(self, made: socket.socket) -> None:
        try:
            made.send(bytes(1 << 16))
        except OSError:
            self.selector.unregister(made)
            made.close()

    def answer(self, packets: socket.socket) -> None:
        said, peer = packets.recvfrom(1 << 16)
        packets.sendto(f"{packets.getsockname()[0]} {peer[0]} {said.decode()}\n".encode(), peer)
        if said.startswith(b"again"):
            # Unasked, once more.
            self.later = (packets, peer)
        if said == b"now":
            held, to = self.later
            held.sendto(b"later\n", to)

    def name(self, packets: socket.socket) -> None:
        asked, peer = packets.recvfrom(1 << 16)
        end = asked.index(b"\0", 12) + 5
        labels, at = [], 12
        while asked[at]:
            labels.append(asked[at + 1 : at + 1 + asked[at]].decode())
            at += 1 + asked[at]
        name, kind = ".".join(labels), struct.unpack(">H", asked[end - 4 : end - 2])[0]
        if name == "silent.example":
            return
        family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
        found = [text for text in NAMES.get(name, ()) if (":" in text) == (family == socket.AF_INET6)]
        records = b"".join(
            struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(packed)) + packed
            for packed in (socket.inet_pton(family, text) for text in found)
        )
        code = 0x8180 if name in NAMES else 0x8183
        head = asked[:2] + struct.pack(">HHHHH", code, 1, len(found), 0, 0)
        packets.sendto(head + asked[12:end] + records, peer)

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data(key.fileobj)


def child(serve: Callable[[], None]) -> int:
    """Fork a process that dies with this one and serves; its process id."""
    pid = os.fork()
    if not pid:
        libc.prctl(SET_PDEATHSIG, SIGKILL)
        for descriptor in (0, 1):
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        serve()
    return pid


class Signal:
    """From one process to another, once."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC)

    def give(self) -> None:
        os.write(self._writing, b"x")

    def wait(self) -> None:
        assert os.read(self._reading, 1)


def internet(apart: Signal, linked: Signal, ready: Signal) -> None:
    """In a child: be all hosts of it, once the link from the host's network is there."""
    check(libc.unshare(NEWNET))
    apart.give()
    linked.wait()
    for address in INTERNET:
        add_address(address, "eth0", whole=True)
    ip("link", "set", "eth0", "up")
    add_address("198.51.100.254", "eth0")
    add_address("2001:db8::fe", "eth0")
    servers = Servers()
    for address in INTERNET:
        servers.listen(address)
    servers.resolve("198.51.100.2")
    ready.give()
    servers.run()


def host(ready: Signal) -> None:
    servers = Servers()
    for address in HOSTS:
        servers.listen(address)
    ready.give()
    servers.run()


def add_address(address: str, link: str, whole: bool = False) -> None:
    version = 6 if ":" in address else 4
    length = {4: 32, 6: 128}[version] if whole else {4: 24, 6: 64}[version]
    ip("addr", "add", f"{address}/{length}", "dev", link, *(["nodad"] if version == 6 else []))


def begin(resolv: str) -> None:
    """Move into such a network. `resolv` takes the place of /etc/resolv.conf there."""
    check(libc.unshare(NEWNET | NEWNS))
    check(libc.mount(b"", b"/", b"", REC | PRIVATE, None))
    check(libc.mount(resolv.encode(), b"/etc/resolv.conf", b"", BIND, None))
    ip("link", "set", "lo", "up")
    apart, linked, there, here = Signal(), Signal(), Signal(), Signal()
    pid = child(lambda: internet(apart, linked, there))
    apart.wait()
    ip("link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    add_address("198.51.100.1", "uplink")
    add_address("2001:db8::1", "uplink")
    ip("link", "set", "uplink", "up")
    linked.give()
    there.wait()
    ip("route", "add", "default", "via", "198.51.100.254")
    ip("-6", "route", "add", "default", "via", "2001:db8::fe")
    child(lambda: host(here))
    here.wait()


if __name__ == "__main__":
    begin(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])
