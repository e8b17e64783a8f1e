"""The way out of the hub, into a stand-in for the host's network and the internet.

Whatever is written to who asks is written by servers that listen on every address there, loopback included:
so what is not reached is not for want of somebody to reach.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import uvloop

from jail.network import way
from jail.network.client import Hub
from jail.network.protocol import Allowed, Bounds

OUTSIDE = str(Path(__file__).parent / "outside.py")
SLOTS = 64
CONNECTIONS = 8
RATE = 1_000_000

REACH = """
def reach(address, port, kind="tcp", seconds=SECONDS, said=b"hello"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    with made:
        made.settimeout(seconds)
        try:
            made.connect((address, port))
            if kind == "udp":
                made.send(said)
            return made.recv(1000).decode().strip()
        except TimeoutError:
            return "nothing"
        except OSError as error:
            return errno.errorcode[error.errno]
"""


def allowed(*texts: str) -> list[Allowed]:
    """From NETWORK:PORT/PROTOCOL."""
    found = []
    for text in texts:
        place, _, protocol = text.rpartition("/")
        network, _, port = place.rpartition(":")
        found.append(Allowed(network, int(port), protocol))
    return found


class Outside:
    """A hub whose host's network is the stand-in, and what a test does with it."""

    def __init__(self, module, outer, runner, undo: ExitStack, bounds: Bounds, resolv: Path) -> None:
        self._module, self._outer, self._runner, self._undo = module, outer, runner, undo
        self._bounds, self._resolv = bounds, resolv
        self.hub = self.do(self._start())

    async def _start(self) -> Hub:
        return Hub(self._begin)

    def _begin(self, control: socket.socket) -> None:
        hub = [sys.executable, "-P", "-m", "jail.network", str(SLOTS)]
        hub.append(msgspec.json.encode(self._bounds).decode())
        command = [sys.executable, "-P", OUTSIDE, str(self._resolv), *hub]
        self.process = self._module.begun(self._outer, command, stdin=control)

    def do(self, work):
        async def within():
            return await asyncio.wait_for(work, 60)

        return self._runner.run(within())

    def member(self, slot: int):
        made = self._module.Member(self._outer, slot)
        self._undo.callback(made.close)
        made.run(REACH)
        return made

    def open(self, *members, to: tuple[str, ...] = ()):
        return self.do(self.hub.open({member.slot: member.namespace for member in members}, allowed(*to)))

    def joined(self, slot: int, *to: str):
        """A stand-in for a sandbox that may reach these."""
        made = self.member(slot)
        self.open(made, to=to)
        return made

    def inside(self, *command: str) -> str:
        """What a command prints in the hub's network namespace, as root of it."""
        enter = [f"--user=/proc/{self.process.pid}/ns/user", f"--net=/proc/{self.process.pid}/ns/net"]
        return subprocess.run(
            ["nsenter", *enter, *command], capture_output=True, text=True, check=True
        ).stdout

    def way(self) -> list[int]:
        """The processes of the way out."""
        found = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                if path.read_text().startswith(("slirp4netns", "pasta", "passt")):
                    pid = int(path.parent.name)
                    if self.process.pid in ancestors(pid):
                        found.append(pid)
            except OSError:
                continue
        return found


def ancestors(pid: int) -> list[int]:
    found = []
    while pid:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


@pytest.fixture(params=way.PROGRAMS)
def program(request) -> str:
    found = way.find(request.param)
    if found is None:
        pytest.skip(f"{request.param} is not installed")
    if not os.access(way.TUN, os.R_OK | os.W_OK):
        pytest.skip(f"{way.TUN} is not open to this user")
    return found


@pytest.fixture
def make_outside(request, outer, tmp_path) -> Iterator:
    """Make hubs with bounds of one's own; each ends well."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 198.51.100.2\noptions timeout:1 attempts:1\n")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, ExitStack() as undo:
        runner.get_loop()

        def make(program: str, **changed) -> Outside:
            bounds = Bounds(program, **{"bytes_per_s": 100_000_000, "connections": CONNECTIONS, **changed})
            made = Outside(request.getfixturevalue("stand_ins"), outer, runner, undo, bounds, resolv)

            def end() -> None:
                made.hub.close()
                assert made.process.wait(30) == 0

            undo.callback(end)
            return made

        yield make


@pytest.fixture
def outside(make_outside, program) -> Outside:
    return make_outside(program)


DESTINATIONS = ("198.51.100.2/32:443/tcp", "2001:db8::2/128:443/tcp", "198.51.100.2/32:443/udp")
DESTINATIONS += ("2001:db8::2/128:443/udp",)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["198.51.100.2", "2001:db8::2"])
def test_what_is_allowed_is_reached(outside, address, kind):
    member = outside.joined(3, f"{address}/{128 if ':' in address else 32}:443/{kind}")
    said = member.value(f"reach({address!r}, 443, {kind!r})").split()
    # The internet sees the host, and nothing of what is behind it.
    assert said[:2] == [address, "2001:db8::1" if ":" in address else "198.51.100.1"]


@pytest.mark.parametrize(
    ("address", "port", "kind"),
    [
        # Another port, protocol, host.
        ("198.51.100.2", 444, "tcp"),
        ("198.51.100.2", 443, "udp"),
        ("198.51.100.3", 443, "tcp"),
        ("2001:db8::2", 444, "tcp"),
        ("2001:db8::3", 443, "tcp"),
        # Metadata; the host by its own addresses; names.
        ("169.254.169.254", 443, "tcp"),
        ("198.51.100.1", 443, "tcp"),
        ("2001:db8::1", 443, "tcp"),
        ("198.51.100.2", 53, "udp"),
        # The hub, and what slirp4netns and pasta are besides: the host's loopback, a resolver.
        ("10.106.0.1", 443, "tcp"),
        ("10.107.0.100", 443, "tcp"),
        ("10.107.0.2", 443, "tcp"),
        ("10.107.0.3", 53, "udp"),
        ("fd00::2", 443, "tcp"),
        ("fd00::3", 53, "udp"),
        ("fd00::100", 443, "tcp"),
    ],
)
def test_nothing_else_is_reached(outside, address, port, kind):
    member = outside.joined(3, "198.51.100.2/32:443/tcp", "2001:db8::2/128:443/tcp")
    assert member.value(f"reach({address!r}, {port}, {kind!r}, SILENCE_SECONDS)") == "nothing"
    assert member.value("reach('198.51.100.2', 443)").startswith("198.51.100.2")


@pytest.mark.parametrize("address", ["10.107.0.2", "fd00::2"])
def test_the_way_out_does_not_lead_to_the_hosts_loopback_by_itself(outside, address):
    member = outside.joined(3, f"{address}:443/tcp", f"{address}:443/udp", *DESTINATIONS)
    member.value("reach('198.51.100.2', 443)")
    for kind in ("tcp", "udp"):
        said = member.value(f"reach({address!r}, 443, {kind!r}, 1)")
        assert said in ("nothing", "ECONNREFUSED", "ENETUNREACH", "ECONNRESET")
