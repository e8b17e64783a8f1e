"""The way out of the hub, into a stand-in for the host's network and the internet.

On every address there somebody listens, the host's loopback included, and says its own name and the asker's:
so what is not reached is not for want of somebody to reach. Shown for each program that can be the way out.
"""

import asyncio
import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from jail.errors import HostError, SandboxError
from jail.network import addresses
from jail.network.client import Hub
from jail.network.offered import find_way
from jail.network.protocol import Allowed, Bounds
from jail.settings import EGRESS_PROGRAMS

OUTSIDE = str(Path(__file__).parent / "outside.py")
SLOTS = 64
IDENTITY = 1001
CONNECTIONS = 8
FAST = 100_000_000
DEADLINE_SECONDS = 60

NS_GET_USERNS = 0xB701  # <linux/nsfs.h>

TCP = ("198.51.100.2/32:443/tcp", "2001:db8::2/128:443/tcp")
ALL = (*TCP, "198.51.100.2/32:443/udp", "2001:db8::2/128:443/udp")

PRELUDE = """
SECONDS, SILENCE_SECONDS = 10, 0.3

def connected(address, port, kind="tcp", seconds=SECONDS, own=0):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(seconds)
    if own:
        made.bind(("", own))
    made.connect((address, port))
    return made

def reach(address, port, kind="tcp", seconds=SECONDS, said=b"hello", own=0):
    try:
        with connected(address, port, kind, seconds, own) as made:
            if kind == "udp":
                made.send(said)
            return made.recv(1000).decode().strip()
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return errno.errorcode[error.errno]

def measured(mode, seconds, count=1):
    made = [connected("198.51.100.2", 443) for _ in range(count)]
    poll = select.poll()
    by_number = {one.fileno(): one for one in made}
    for one in made:
        one.recv(1000)
        one.send(mode)
        one.setblocking(False)
        poll.register(one, select.POLLIN if mode == b"down" else select.POLLOUT)
    begun, passed, marks = time.monotonic(), 0, []
    while not marks or marks[-1][0] < seconds:
        for number, _ in poll.poll(1000):
            one = by_number[number]
            passed += len(one.recv(1 << 16)) if mode == b"down" else one.send(bytes(1 << 14))
        marks.append((time.monotonic() - begun, passed))
    # Without the first half second, in which queues fill.
    first = next(mark for mark in marks if mark[0] > 0.5)
    for one in made:
        one.close()
    return (marks[-1][1] - first[1]) / (marks[-1][0] - first[0])
"""


def destinations(texts: tuple[str, ...]) -> list[Allowed]:
    """From NETWORK:PORT/PROTOCOL."""
    found = re.findall(r"(\S+):(\d+)/(tcp|udp)", " ".join(texts))
    return [Allowed(network, int(port), protocol) for network, port, protocol in found]


class Outside:
    """A hub whose host's network is the stand-in, and what a test does with it."""

    def __init__(self, stand_ins: Any, outer: Any, bounds: Bounds, resolv: Path) -> None:
        self._stand_ins, self._outer, self._bounds, self._resolv = stand_ins, outer, bounds, resolv
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.hub = self.do(self._start())

    async def _start(self) -> Hub:
        return Hub(self._begin)

    def _begin(self, control: socket.socket) -> None:
        bounds = msgspec.json.encode(self._bounds).decode()
        hub = [sys.executable, "-P", "-m", "jail.network", str(SLOTS), str(IDENTITY), bounds]
        command = [sys.executable, "-P", OUTSIDE, str(self._resolv), *hub]
        self.process = self._stand_ins.begun(self._outer, command, stdin=control)

    def do(self, work: Any) -> Any:
        async def within() -> Any:
            return await asyncio.wait_for(work, DEADLINE_SECONDS)

        return self._runner.run(within())

    def close(self) -> None:
        self.hub.close()
        assert self.process.wait(DEADLINE_SECONDS) == 0
        self._runner.close()

    @contextmanager
    def member(self, slot: int) -> Iterator[Any]:
        """A stand-in for a sandbox, without a network."""
        made = self._stand_ins.Member(self._outer, slot)
        try:
            made.run(PRELUDE)
            yield made
        finally:
            made.close()

    def open(self, members: list[Any], to: tuple[str, ...]) -> Any:
        namespaces = {member.slot: member.namespace for member in members}
        return self.do(self.hub.open(namespaces, destinations(to)))

    @contextmanager
    def joined(self, slot: int, *to: str) -> Iterator[Any]:
        """One that may reach these; `segment` is its segment, closed in the end."""
        with self.member(slot) as made:
            made.segment = self.open([made], to)
            try:
                yield made
            finally:
                self.do(made.segment.close())

    def inside(self, *command: str) -> str:
        """What a command prints in the hub's network namespace, as root of it."""
        enter = [f"--user=/proc/{self.process.pid}/ns/user", f"--net=/proc/{self.process.pid}/ns/net"]
        return subprocess.run(
            ["nsenter", *enter, *command], capture_output=True, text=True, check=True
        ).stdout

    def descendants(self, *names: str) -> list[int]:
        """The processes that come from the hub and execute one of these."""
        found = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                if path.read_text().startswith(names) and self.process.pid in ancestors(
                    int(path.parent.name)
                ):
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    @property
    def way(self) -> int:
        """The process of the way out."""
        (found,) = self.descendants("slirp4netns", "pasta", "passt")
        return found


def status_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def status_field(pid: int, name: str) -> str:
    return re.search(rf"^{name}:\t(.*)$", status_of(pid), re.MULTILINE)[1]


def ancestors(pid: int) -> list[int]:
    found = []
    while pid:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


@pytest.fixture(scope="module", params=EGRESS_PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    try:
        return find_way(request.param)
    except HostError as lack:
        pytest.skip(str(lack))


@pytest.fixture(scope="module")
def making(stand_ins: Any, outer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outside]:
    resolv = tmp_path_factory.mktemp("outside") / "resolv.conf"
    resolv.write_text("nameserver 198.51.100.2\n")
    # As a host's is, whatever our umask.
    resolv.chmod(0o644)

    def make(program: str, **changed: int) -> Outside:
        bounds = Bounds(program, **{"bytes_per_s": FAST, "connections": CONNECTIONS, **changed})
        return Outside(stand_ins, outer, bounds, resolv)

    return make


@pytest.fixture(scope="module")
def outside(making: Callable[..., Outside], program: str) -> Iterator[Outside]:
    """A hub for all tests that leave it as it was."""
    made = making(program)
    yield made
    made.close()


@pytest.fixture
def make_outside(making: Callable[..., Outside], program: str) -> Iterator[Callable[..., Outside]]:
    """For a hub of a test's own."""
    with ExitStack() as undo:

        def make(**changed: int) -> Outside:
            made = making(program, **changed)
            undo.callback(made.close)
            return made

        yield make


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["198.51.100.2", "2001:db8::2"])
def test_what_is_allowed_is_reached(outside, address, kind):
    with outside.joined(3, *ALL) as member:
        said = member.value(f"reach({address!r}, 443, {kind!r})").split()
    # The internet sees the host, and nothing of what is behind it.
    assert said[:2] == [address, "2001:db8::1" if ":" in address else "198.51.100.1"]


NOT_ALLOWED = [
    # Another port, protocol, host.
    ("198.51.100.2", 444, "tcp"),
    ("198.51.100.2", 443, "udp"),
    ("198.51.100.3", 443, "tcp"),
    ("2001:db8::2", 444, "tcp"),
    ("2001:db8::2", 443, "udp"),
    ("2001:db8::3", 443, "tcp"),
    # Metadata; the host by its own addresses; a resolver.
    ("169.254.169.254", 443, "tcp"),
    ("198.51.100.1", 443, "tcp"),
    ("2001:db8::1", 443, "tcp"),
    ("198.51.100.2", 53, "udp"),
    # The hub; what slirp4netns and pasta are besides: the host's loopback, a resolver.
    ("10.106.0.1", 443, "tcp"),
    ("fd6a:6169:6c00::1", 443, "tcp"),
    ("10.107.0.100", 443, "tcp"),
    ("10.107.0.2", 443, "tcp"),
    ("10.107.0.3", 53, "udp"),
    ("fd00::2", 443, "tcp"),
    ("fd00::3", 53, "udp"),
    ("fd00::100", 443, "tcp"),
]


def test_nothing_else_is_reached(outside):
    with outside.joined(3, *TCP) as member:
        said = [
            member.value(f"reach({address!r}, {port}, {kind!r}, SILENCE_SECONDS)")
            for address, port, kind in NOT_ALLOWED
        ]
        assert said == ["nothing"] * len(NOT_ALLOWED)
        # It was not for want of a network.
        assert member.value("reach('198.51.100.2', 443)").startswith("198.51.100.2")


@pytest.mark.parametrize("address", ["10.107.0.2", "fd00::2"])
def test_the_way_out_does_not_lead_to_the_hosts_loopback_whatever_the_rules_say(outside, address):
    with outside.joined(3, f"{address}:443/tcp", f"{address}:443/udp", *ALL) as member:
        assert member.value("reach('198.51.100.2', 443)").startswith("198.51.100.2")
        for kind in ("tcp", "udp"):
            said = member.value(f"reach({address!r}, 443, {kind!r}, 1)")
            assert said in ("nothing", "ECONNREFUSED", "ENETUNREACH", "ECONNRESET")


@pytest.mark.parametrize("address", ["10.107.0.3", "fd00::3"])
def test_the_way_out_is_no_resolver_whatever_the_rules_say(outside, address):
    question = b"\1\0\1\0\0\1\0\0\0\0\0\0\4both\7example\0\0\1\0\1"
    with outside.joined(3, f"{address}:53/udp", "198.51.100.2:53/udp") as member:
        ask = "reach({!r}, 53, 'udp', SILENCE_SECONDS, {!r}) {} 'nothing'"
        assert member.run(f"result = {ask.format(address, question, '==')}")
        # Whoever is allowed to ask one is answered, though not in words.
        member.run(f"made = connected('198.51.100.2', 53, 'udp'); made.send({question!r})")
        assert member.value("len(made.recv(1000))") > len(question)


def test_a_segment_of_two_has_the_way_out_and_each_other_and_one_without_has_neither(outside):
    with outside.member(3) as one, outside.member(4) as other, outside.member(5) as third:
        both = outside.open([one, other], TCP)
        alone = outside.open([third], ())
        for member in (one, other):
            assert member.value("reach('198.51.100.2', 443)").startswith("198.51.100.2")
        one.run("server = socket.create_server(('', 80))")
        other.run(f"made = connected({one.ipv4!r}, 80)")
        assert one.value("server.accept()[1][0]") == other.ipv4
        for address in ("198.51.100.2", "2001:db8::2", one.ipv4, one.ipv6):
            reached = third.value(f"reach({address!r}, 443, 'tcp', SILENCE_SECONDS)")
            assert reached in ("nothing", "ENETUNREACH", "EHOSTUNREACH")
        for segment in (both, alone):
            outside.do(segment.close())


def test_a_member_cannot_use_what_another_segment_is_allowed(outside):
    """By its address, nor by the hub's: who is root in there can send what it likes."""
    with outside.joined(3, "198.51.100.2/32:443/udp") as one, outside.joined(4, *TCP) as other:
        assert one.value("reach('198.51.100.2', 443, 'udp')").startswith("198.51.100.2")
        other.run("made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
        # IP_TRANSPARENT: the sender may say that it is whoever it likes.
        other.run("made.setsockopt(socket.SOL_IP, 19, 1)")
        other.run(f"made.bind(({one.ipv4!r}, 6000)); made.sendto(b'hello', ('198.51.100.2', 443))")
        one.run("held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); held.bind(('', 6000))")
        assert one.value("select.select([held], [], [], SILENCE_SECONDS)[0]") == []
        assert [line for line in tracked(outside, one.slot) if "sport=6000" in line] == []
        assert one.value("reach('198.51.100.2', 443, 'udp')").startswith("198.51.100.2")


FRAME = """
def sent(source, target):
    \"\"\"A datagram to port 443 from port 6000, in a frame to whoever is the way out.\"\"\"
    gateway = next(line.split()[3] for line in open("/proc/net/arp") if line.startswith("10.106.0.1 "))
    ethernet = bytes.fromhex((gateway + MAC).replace(":", "")) + b"\\x08\\x00"
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 33, 1, 0, 64, 17, 0)
    ip += socket.inet_aton(source) + socket.inet_aton(target)
    total = sum(struct.unpack("!10H", ip))
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    udp = struct.pack("!HHHH", 6000, 443, 13, 0) + b"hello"
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(ethernet + ip[:10] + struct.pack("!H", total) + ip[12:] + udp)
"""


def test_the_hub_leads_from_no_segment_to_another_though_it_routes(outside):
    """Nor for who sends frames of its own making, by the hub's address, in whoever's name."""
    to = "198.51.100.2/32:443/udp"
    with outside.joined(3, to) as one, outside.joined(4, to) as other:
        one.run(f"MAC = {one.mac!r}")
        one.run(FRAME)
        one.run("held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); held.bind(('', 6000))")
        other.run("held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); held.bind(('', 443))")
        other.run("answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); answers.bind(('', 6000))")
        # A frame that is as it should be gets there.
        one.run(f"sent({one.ipv4!r}, '198.51.100.2')")
        assert one.value("held.recv(1000).decode()").startswith("198.51.100.2")
        one.run(f"sent({one.ipv4!r}, {other.ipv4!r})")
        one.run(f"sent({other.ipv4!r}, '198.51.100.2')")
        assert other.value("select.select([held, answers], [], [], SILENCE_SECONDS)[0]") == []
        assert [line for line in tracked(outside, other.slot) if "sport=6000" in line] == []


def test_who_has_the_slot_next_inherits_nothing(outside):
    with outside.joined(3, *ALL) as first:
        for address in ("198.51.100.2", "2001:db8::2"):
            for kind in ("tcp", "udp"):
                assert first.value(f"reach({address!r}, 443, {kind!r})").startswith(address)
        # From a port of which the far end knows that it will be answered on.
        assert first.value("reach('198.51.100.2', 443, 'udp', said=b'again', own=5000)").endswith("again")
    assert tracked(outside, 3) == []
    with outside.joined(3, "198.51.100.3:443/udp") as second:
        second.run("held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); held.bind(('', 5000))")
        for address in ("198.51.100.2", "2001:db8::2"):
            for kind in ("tcp", "udp"):
                assert second.value(f"reach({address!r}, 443, {kind!r}, SILENCE_SECONDS)") == "nothing"
        # Somebody else has the first's far end speak once more.
        with outside.joined(4, "198.51.100.2:443/udp") as other:
            assert other.value("reach('198.51.100.2', 443, 'udp', said=b'now')").endswith("now")
        assert second.value("select.select([held], [], [], SILENCE_SECONDS)[0]") == []
        assert second.value("reach('198.51.100.3', 443, 'udp')").startswith("198.51.100.3")


def test_an_answer_that_comes_late_is_let_in_while_its_connection_lives(outside):
    """So that the test before this one is about something."""
    with outside.joined(3, "198.51.100.2:443/udp") as first:
        first.run("made = connected('198.51.100.2', 443, 'udp'); made.send(b'again'); made.recv(1000)")
        with outside.joined(4, "198.51.100.2:443/udp") as other:
            other.value("reach('198.51.100.2', 443, 'udp', said=b'now')")
        assert first.value("made.recv(1000).decode()") == "later\n"


def tracked(outside: Outside, slot: int) -> list[str]:
    """The connections that the hub's kernel tracks of a slot."""
    lines = outside.inside("cat", "/proc/net/nf_conntrack").splitlines()
    return [line for line in lines if f" mark={addresses.mark(slot)} " in f"{line} "]


def test_nothing_of_a_segment_stays(outside):
    with outside.joined(3, *TCP) as warm:
        assert warm.value("reach('198.51.100.2', 443)")
    before = state(outside)
    with outside.joined(7, *ALL) as member:
        for address in ("198.51.100.2", "2001:db8::2"):
            assert member.value(f"reach({address!r}, 443)").startswith(address)
        assert tracked(outside, 7)
        assert state(outside) != before
    assert state(outside) == before
    assert tracked(outside, 7) == []


def state(outside: Outside) -> dict[str, str]:
    """Rules, routes and neighbours of the hub; links are gone some time later."""
    nft = ["/usr/sbin/nft", "list", "ruleset"]
    rules = re.sub(r"set connections \{.*?\n\t\}", "", outside.inside(*nft), flags=re.DOTALL)
    ip = {
        name: "\n".join(
            line
            for line in outside.inside("/usr/sbin/ip", *name.split()).splitlines()
            if "dev b" in line or name == "rule"
        )
        for name in ("-4 route", "-6 route", "-4 neigh", "-6 neigh", "rule")
    }
    return {"rules": rules, **ip}


def test_a_destination_may_stand_twice_and_in_another(outside):
    to = (
        "198.51.100.0/24:443/tcp",
        "198.51.100.2/32:443/tcp",
        "198.51.100.2/32:443/tcp",
        "2001:db8::/32:443/tcp",
    )
    with outside.joined(3, *to) as member:
        for address in ("198.51.100.2", "198.51.100.3", "2001:db8::3"):
            assert member.value(f"reach({address!r}, 443)").startswith(address)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_no_more_connections_than_the_operator_allows(outside, kind):
    with outside.joined(3, *ALL) as member:
        had = member.run(f"""
result, held = [], []
for _ in range({CONNECTIONS} + 3):
    try:
        made = connected("198.51.100.2", 443, {kind!r}, SILENCE_SECONDS)
        made.send(b"hello")
        result.append(bool(made.recv(1000)))
    except TimeoutError:
        result.append(False)
    held.append(made)
""")
        assert had == [True] * CONNECTIONS + [False] * 3
        # Of both protocols and versions together.
        assert member.value("reach('2001:db8::2', 443, 'tcp', SILENCE_SECONDS)") == "nothing"
        with outside.joined(4, *TCP) as other:
            assert other.value("reach('198.51.100.2', 443)").startswith("198.51.100.2")


@pytest.mark.parametrize("mode", ["down", "up"])
def test_a_sandbox_is_as_fast_as_the_operator_allows(make_outside, mode):
    rate = 2_000_000
    outside = make_outside(bytes_per_s=rate)
    with outside.joined(3, *TCP) as member:
        found = member.value(f"measured({mode.encode()!r}, 3)")
    # Frames have headers that a stream has not.
    assert 0.85 * rate < found < 1.05 * rate


def test_what_passed_is_counted(outside):
    with outside.member(3) as member:
        segment = outside.open([member], TCP)
        for _ in range(3):
            member.run("made = connected('198.51.100.2', 443); made.send(bytes(10_000)); made.recv(100)")
            member.run("made.shutdown(socket.SHUT_WR); made.recv(100)")
        traffic = outside.do(segment.close())[3]
    assert 30_000 < traffic.sent_bytes < 40_000
    assert 3 * len("198.51.100.2 198.51.100.1\n") < traffic.received_bytes < 10_000
    assert 9 <= traffic.sent_packets < 100


def test_the_way_out_that_is_killed_is_told_and_begun_anew(make_outside):
    outside = make_outside()
    with outside.joined(3, *TCP) as member, outside.member(4) as isolated:
        alone = outside.open([isolated], ())
        assert member.value("reach('198.51.100.2', 443)").startswith("198.51.100.2")
        os.kill(outside.way, signal.SIGKILL)
        outside.do(member.segment.lost.wait())
        assert not alone.lost.is_set()
        assert not outside.hub.lost.is_set()
        assert member.value("reach('198.51.100.2', 443, 'tcp', SILENCE_SECONDS)") != "198.51.100.2"
        outside.do(alone.close())
    with outside.joined(5, *TCP) as another:
        assert another.value("reach('198.51.100.2', 443)").startswith("198.51.100.2")
        assert another.value("reach('2001:db8::2', 443)").startswith("2001:db8::2")


def test_the_way_out_is_begun_at_the_first_need_and_ends_with_the_hub(make_outside, processes):
    outside = make_outside()
    with outside.member(3) as member:
        outside.do(outside.open([member], ()).close())
        assert outside.descendants("slirp4netns", "pasta", "passt") == []
        outside.do(outside.open([member], TCP).close())
    pid = outside.way
    outside.process.kill()
    outside.process.wait()
    processes.wait_for_end([pid])
    outside.process = subprocess.Popen(["true"])


def test_two_that_need_the_way_out_at_once_get_one(make_outside):
    outside = make_outside()
    with outside.member(3) as one, outside.member(4) as other:

        async def both() -> Any:
            opening = [outside.hub.open({m.slot: m.namespace}, destinations(TCP)) for m in (one, other)]
            return await asyncio.gather(*opening)

        segments = outside.do(both())
        for member in (one, other):
            assert member.value("reach('198.51.100.2', 443)").startswith("198.51.100.2")
        assert outside.way
        for segment in segments:
            outside.do(segment.close())


def test_the_way_out_has_no_file_and_no_power(outside):
    """But for files it was given, and low ports, which it cannot use as long as nothing is forwarded."""
    with outside.joined(3, *TCP):
        # It confines itself once its device is there, its filter last.
        end = time.monotonic() + DEADLINE_SECONDS
        while status_field(outside.way, "Seccomp") != "2":
            assert time.monotonic() < end
        status = {name: status_field(outside.way, name) for name in ("CapEff", "NoNewPrivs")}
        bind_low_ports, trace = 1 << 10, 1 << 19 | 1 << 21
        assert int(status["CapEff"], 16) & ~(bind_low_ports | trace) == 0
        assert status["NoNewPrivs"] == "1"


def test_who_is_outside_has_power_over_the_hubs_network_and_nothing_else(outside):
    with outside.joined(3, *TCP):
        way = outside.way
        beside = ancestors(way)[0]
        own, hub, there, started = (
            status_field(pid, "Uid") for pid in (os.getpid(), outside.process.pid, beside, way)
        )
        assert there == started
        assert len({own, hub, there}) == 3
        user = os.readlink(f"/proc/{beside}/ns/user")
        assert user != os.readlink(f"/proc/{outside.process.pid}/ns/user")
        assert os.readlink(f"/proc/{way}/ns/user") == user
        mapped = Path(f"/proc/{beside}/uid_map").read_text().split()
        assert (mapped[0], mapped[2]) == ("0", "1")
        network = os.open(f"/proc/{outside.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        owner = fcntl.ioctl(network, NS_GET_USERNS)
        try:
            assert f"user:[{os.stat(owner).st_ino}]" == user
        finally:
            os.close(network)
            os.close(owner)


def test_a_program_that_is_not_there_is_told_to_who_needs_it(making):
    outside = making("/nowhere/slirp4netns")
    try:
        with outside.member(3) as member:
            with pytest.raises(SandboxError) as refused:
                outside.open([member], TCP)
            assert refused.value.error == errno.ENETUNREACH
            assert "/nowhere/slirp4netns" in outside.hub.words
            # Who does not need it goes on.
            outside.do(outside.open([member], ()).close())
    finally:
        outside.close()


def test_a_hub_without_egress_has_no_way_out(scene):
    member = scene.member(3)
    with pytest.raises(SandboxError) as refused:
        scene.do(scene.hub.open({3: member.namespace}, destinations(TCP)))
    assert refused.value.error == errno.EOPNOTSUPP
    with pytest.raises(SandboxError) as refused:
        scene.do(scene.hub.resolve("both.example"))
    assert refused.value.error == errno.EOPNOTSUPP


@pytest.fixture(scope="module")
def resolving(making: Callable[..., Outside]) -> Iterator[Outside]:
    made = making("/nowhere/slirp4netns")
    yield made
    made.close()


def test_a_name_is_asked_for_in_the_hosts_network(resolving):
    found, why = resolving.do(resolving.hub.resolve("both.example"))
    assert sorted(found) == ["198.51.100.2", "2001:db8::2"]
    assert why == ""


@pytest.mark.parametrize("host", ["nobody.example", "x" * 63 + ".example"])
def test_a_name_that_nobody_has_is_told(resolving, host):
    found, why = resolving.do(resolving.hub.resolve(host))
    assert found == ()
    assert "not known" in why or "No address" in why


def test_a_name_that_gets_no_answer_takes_no_longer_than_it_may(resolving):
    begun = time.monotonic()
    found, why = resolving.do(resolving.hub.resolve("silent.example"))
    assert (found, why) == ((), "no answer in time")
    assert 4 < time.monotonic() - begun < 20


def test_many_names_are_asked_for_at_once_and_in_any_order(resolving):
    async def all_of_them() -> Any:
        names = ["both.example", "metadata.example", "nobody.example"] * 20
        return names, await asyncio.gather(*(resolving.hub.resolve(name) for name in names))

    names, found = resolving.do(all_of_them())
    counts = {"both.example": 2, "metadata.example": 1, "nobody.example": 0}
    assert [len(addresses) for addresses, _ in found] == [counts[name] for name in names]
    assert resolving.descendants("python") == resolving.descendants("python")


def test_who_asks_for_a_name_has_given_up_everything_else(resolving):
    async def look() -> dict[str, str]:
        asked = asyncio.create_task(resolving.hub.resolve("silent.example"))
        while True:
            await asyncio.sleep(0.01)
            for pid in resolving.descendants("python"):
                status = status_of(pid)
                if re.search(r"^Seccomp:\t2$", status, re.MULTILINE):
                    asked.cancel()
                    return dict(line.split(":\t") for line in status.splitlines())

    status = resolving.do(look())
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert json.dumps(status)
