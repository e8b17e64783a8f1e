"""Who reaches whom, what is counted, and that nothing is left."""

import asyncio
import errno
import json
import os
import signal

import pytest

from jail.errors import SandboxError
from jail.network.client import Segment
from jail.network.protocol import Close, Traffic

FAMILIES = {"AF_INET": "ipv4", "AF_INET6": "ipv6"}

families = pytest.mark.parametrize("family", FAMILIES)


def listen(member, family, kind="STREAM", address=""):
    """Have a member serve on port 80 of every address, or of one: it sends back what it is sent, reversed."""
    any_address = {"AF_INET": "0.0.0.0", "AF_INET6": "::"}[family]
    member.run(f"""
server = socket.socket(socket.{family}, socket.SOCK_{kind})
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(({address or any_address!r}, 80))
server.settimeout(SECONDS)
{"server.listen()" if kind == "STREAM" else ""}
""")


ANSWER_STREAM = """
peer, address = server.accept()
peer.sendall(peer.recv(100)[::-1])
peer.close()
result = address[0]
"""
ANSWER_DGRAM = """
data, address = server.recvfrom(100)
server.sendto(data[::-1], address)
result = address[0]
"""


def ask(member, family, kind, address):
    """What a member is answered to "hello", or the name of an errno."""
    return member.run(f"""
with socket.socket(socket.{family}, socket.SOCK_{kind}) as asking:
    asking.settimeout(SECONDS)
    try:
        asking.connect(({address!r}, 80))
        asking.sendall(b"hello")
        result = asking.recv(100).decode()
    except OSError as error:
        result = errno.errorcode.get(error.errno, "silence")
""")


def exchange(asking, answering, family="AF_INET", kind="STREAM"):
    listen(answering, family, kind)
    answering.begin(ANSWER_STREAM if kind == "STREAM" else ANSWER_DGRAM)
    answered = ask(asking, family, kind, getattr(answering, FAMILIES[family]))
    came_from = answering.end()
    answering.run("server.close()")
    return answered, came_from


@families
@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
def test_members_of_a_segment_reach_each_other(scene, family, kind):
    one, other = scene.members(0, 63)
    for asking, answering in ((one, other), (other, one)):
        assert exchange(asking, answering, family, kind) == ("olleh", getattr(asking, FAMILIES[family]))


def test_a_segment_has_room_for_sixteen(scene):
    members = scene.members(*range(16))
    assert exchange(members[0], members[15]) == ("olleh", members[0].ipv4)
    assert exchange(members[14], members[7], "AF_INET6") == ("olleh", members[14].ipv6)


def test_a_member_has_its_two_addresses_and_no_way_out(scene):
    (member,) = scene.members(5)
    shown = "__import__('subprocess').run(['ip', *{!r}], capture_output=True, text=True).stdout"
    told = member.value(shown.format(["-br", "address", "show", "eth0"]))
    assert told.split()[2:] == [f"{member.ipv4}/16", f"{member.ipv6}/64"]
    assert "default" not in member.value(shown.format(["route"]))
    assert "default" not in member.value(shown.format(["-6", "route"]))


QUICKLY_NOBODY = """
for family in ("ipv4", "ipv6"):
    with open(f"/proc/sys/net/{family}/neigh/eth0/retrans_time_ms", "w") as milliseconds:
        milliseconds.write("20")
"""


@families
def test_a_member_of_another_segment_is_not_reached(scene, family):
    one, other = scene.members(1, 2)
    stranger, _ = scene.members(3, 4)
    for asking, answering in ((stranger, one), (one, stranger)):
        listen(answering, family)
        asking.run(QUICKLY_NOBODY)
        # Nobody says that they have that address.
        assert ask(asking, family, "STREAM", getattr(answering, FAMILIES[family])) == "EHOSTUNREACH"
    assert exchange(other, one, family)[0] == "olleh"


LISTEN_TO_EVERYTHING = """
everything = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
everything.bind(("eth0", 0))
everything.setsockopt(263, 1, struct.pack("IHHQ", 2, 1, 0, 0))  # PACKET_MR_PROMISC
everything.settimeout(SECONDS)
"""
SHOUT = """
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as shouting:
    shouting.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    shouting.sendto({word!r}, ("10.106.255.255", 9))
    shouting.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton({ipv4!r}))
    shouting.sendto({word!r}, ("224.0.0.251", 9))
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as shouting:
    shouting.sendto({word!r}, ("ff02::1", 9, 0, 2))
"""
HEARD = """
result = []
while result.count({last!r}) < 3:
    frame = everything.recv(2048)
    result += [word for word in {words!r} if word.encode() in frame]
"""


def test_what_a_member_shouts_is_heard_in_its_segment_alone(scene):
    one, other = scene.members(1, 2)
    (stranger,) = scene.members(3)
    one.run(LISTEN_TO_EVERYTHING)
    stranger.run(SHOUT.format(word=b"from a stranger", ipv4=stranger.ipv4))
    other.run(SHOUT.format(word=b"from a friend", ipv4=other.ipv4))
    one.begin(HEARD.format(words=["from a stranger", "from a friend"], last="from a friend"))
    assert one.end() == ["from a friend"] * 3


def test_what_members_say_to_each_other_a_third_does_not_hear(scene):
    one, other, third = scene.members(1, 2, 3)
    third.run(LISTEN_TO_EVERYTHING)
    exchange(one, other, "AF_INET", "DGRAM")
    one.run(SHOUT.format(word=b"at last", ipv4=one.ipv4))
    third.begin(HEARD.format(words=["hello", "olleh", "at last"], last="at last"))
    assert third.end() == ["at last"] * 3


def received(scene):
    """How many packets the hub itself has received, of both families."""
    ipv4 = scene.inside("cat", "/proc/net/snmp").splitlines()[1].split()[3]
    ipv6 = scene.inside("cat", "/proc/net/snmp6").splitlines()[0].split()[1]
    return int(ipv4), int(ipv6)


def test_the_hub_has_no_address_and_takes_nothing_in(scene):
    one, other = scene.members(1, 2)
    bridge = next(
        line.split()[2]
        for line in scene.inside("ip", "-br", "link").splitlines()
        if line.split()[1] == "UP" and line.startswith("b")
    )
    one.run(SHOUT.format(word=b"anybody?", ipv4=one.ipv4))
    one.run(f"""
def checksum(header):
    total = sum(struct.unpack("!10H", header))
    return 0xFFFF - (total % 0xFFFF)
header = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0,
                               socket.inet_aton({one.ipv4!r}), socket.inet_aton("127.0.0.1")))
header[10:12] = struct.pack("!H", checksum(bytes(header)))
frame = bytes.fromhex({(bridge + one.mac).replace(":", "")!r}) + b"\\x08\\0" + header
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
    raw.bind(("eth0", 0))
    result = raw.send(bytes(frame) + struct.pack("!HHHH", 1, 1, 8, 0))
""")
    assert exchange(one, other)[0] == "olleh"
    assert received(scene) == (0, 0)
    assert scene.inside("ip", "-o", "address") == ""
    assert scene.inside("ip", "route") == scene.inside("ip", "-6", "route") == ""
    assert scene.inside("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"


def test_the_counters_are_those_of_what_was_sent(scene):
    sending, receiving = made = [scene.member(1), scene.member(2)]
    segment = scene.open(*made)
    count, payload, headers = 50, 1000, 14 + 20 + 8
    listen(receiving, "AF_INET", "DGRAM")
    receiving.begin("""
result = 0
while result < 50:
    server.recv(2000)
    result += 1
""")
    sending.run(f"""
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as data:
    for _ in range({count}):
        data.sendto(bytes({payload}), ({receiving.ipv4!r}, 80))
""")
    assert receiving.end() == count
    traffic = scene.do(segment.close())
    sent, received = traffic[1], traffic[2]
    # Besides there are ARP, and what the kernel reports of groups.
    slack_packets, slack_bytes = 16, 16 * 100
    for seen in (sent.sent_packets, received.received_packets):
        assert count <= seen <= count + slack_packets
    for seen in (sent.sent_bytes, received.received_bytes):
        assert count * (payload + headers) <= seen <= count * (payload + headers) + slack_bytes
    assert received.sent_packets <= slack_packets
    assert sent.received_packets <= slack_packets


def test_the_counters_come_when_nothing_lives_any_more(scene):
    one, other = made = scene.member(1), scene.member(2)
    segment = scene.open(*made)
    exchange(one, other)
    for member in made:
        member.die()
        os.close(member.namespace)
        member.namespace = -1
    traffic = scene.do(segment.close())
    assert min(traffic[1].sent_packets, traffic[2].sent_packets) > 3


def test_close_again_and_it_is_the_same(scene):
    made = scene.member(1), scene.member(2)
    segment = scene.open(*made)
    first = scene.do(segment.close())
    scene.settle()
    assert scene.do(segment.close()) is first


def test_a_slot_is_taken_again_at_once(scene):
    for _ in range(5):
        one, other = made = scene.member(1), scene.member(2)
        segment = scene.open(*made)
        assert exchange(one, other)[0] == "olleh"
        scene.do(segment.close())


def refused(scene, work):
    with pytest.raises(SandboxError) as error:
        scene.do(work)
    assert error.value.stage == "network"
    return error.value.error


def test_what_cannot_be_opened_is_refused_and_harms_nobody(scene):
    one, other = scene.members(1, 2)
    third = scene.member(3)
    null = os.open("/dev/null", os.O_RDONLY)
    attempts = [
        ({}, errno.EINVAL),
        (dict.fromkeys(range(3, 20), third.namespace), errno.EINVAL),
        ({3: null}, errno.EINVAL),
        ({3: third.namespace, 4: null}, errno.EINVAL),
        ({3: third.namespace, 4: third.namespace}, errno.EEXIST),
        ({3: third.namespace, 1: third.namespace}, errno.EEXIST),
        ({64: third.namespace}, errno.ERANGE),
        ({-1: third.namespace}, errno.ERANGE),
    ]
    for namespaces, error in attempts:
        assert refused(scene, scene.hub.open(namespaces)) == error
        assert exchange(one, other)[0] == "olleh"
    os.close(null)
    scene.settle(1, 2)
    fourth = scene.member(4)
    scene.open(third, fourth)
    assert exchange(third, fourth)[0] == "olleh"


def test_a_hub_without_room_for_descriptors_refuses_and_goes_on(scene):
    one, other = made = [scene.member(1), scene.member(2)]
    scene.do(scene.hub.ready())
    held = scene.settle()
    # Room for one of the two.
    with scene.at_most_descriptors(held + 1):
        assert refused(scene, scene.hub.open({m.slot: m.namespace for m in made})) == errno.EMFILE
    assert scene.settle() == held
    scene.open(*made)
    assert exchange(one, other)[0] == "olleh"


def test_a_segment_that_is_not_there_cannot_be_closed(scene):
    assert refused(scene, scene.hub.ask(lambda number: Close(number, 7))) == errno.ENOENT
    assert refused(scene, Segment(scene.hub, 8, (1,)).close()) == errno.ENOENT


def test_who_does_not_wait_any_more_has_opened_nothing(scene):
    members = [scene.member(slot) for slot in range(1, 5)]

    async def cancel(turns):
        opening = asyncio.create_task(scene.hub.open({m.slot: m.namespace for m in members}))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    scene.do(scene.hub.ready())
    for turns in range(6):
        # So it is cancelled before there is an answer.
        scene.process.send_signal(signal.SIGSTOP)
        scene.do(cancel(turns))
        scene.process.send_signal(signal.SIGCONT)
        scene.settle()
    scene.open(*members)
    assert exchange(members[0], members[3])[0] == "olleh"


def test_many_segments_at_once(scene):
    members = [scene.member(slot) for slot in range(24)]

    async def open_all():
        pairs = [members[n : n + 2] for n in range(0, len(members), 2)]
        opened = (scene.hub.open({m.slot: m.namespace for m in pair}) for pair in pairs)
        return await asyncio.gather(*opened)

    segments = scene.do(open_all())
    assert {link for link in scene.links() if link.startswith("p")} == {f"p{slot}" for slot in range(24)}
    assert exchange(members[22], members[23])[0] == "olleh"

    async def close_all():
        return await asyncio.gather(*(segment.close() for segment in segments))

    assert all(isinstance(one, Traffic) for told in scene.do(close_all()) for one in told.values())
    scene.settle()


def test_two_hundred_segments_leave_nothing(scene):
    pairs = [(scene.member(slot), scene.member(slot + 1)) for slot in range(0, 8, 2)]
    held = None
    for number in range(200):
        pair = pairs[number % len(pairs)]
        segment = scene.open(*pair)
        if number % 20 == 0:
            assert exchange(*pair, list(FAMILIES)[number // 20 % 2])[0] == "olleh"
        scene.do(segment.close())
        held = held or scene.settle()
    assert scene.settle() == held
    for command in (["ip", "neigh"], ["ip", "route"], ["ip", "-6", "route"], ["ip", "-o", "address"]):
        assert scene.inside(*command) == ""
    assert "dev p" not in scene.inside("bridge", "fdb")


@families
@pytest.mark.parametrize("where", ["every address", "loopback", "its own"])
def test_a_port_inside_is_dialled_wherever_it_listens(scene, family, where):
    one = scene.member(1)
    segment = scene.open(one)
    loopback = {"AF_INET": "127.0.0.1", "AF_INET6": "::1"}[family]
    address = {"every address": "", "loopback": loopback, "its own": getattr(one, FAMILIES[family])}[where]
    listen(one, family, address=address)
    one.begin(ANSWER_STREAM)
    with scene.do(segment.dial(1, 80)) as dialled:
        dialled.settimeout(10)
        dialled.sendall(b"hello")
        assert dialled.recv(100) == b"olleh"
    one.end()


def test_a_port_where_nobody_listens_refuses(scene):
    """On each of its own addresses, so all are in use as soon as its segment is there."""
    for slot in range(16):
        segment = scene.open(scene.member(slot))
        assert refused(scene, segment.dial(slot, 81)) == errno.ECONNREFUSED
    assert refused(scene, segment.dial(0, 80)) == errno.ENOENT


TAKES_ONE = "server = socket.create_server(('127.0.0.1', 80), backlog=0)"


def test_a_server_that_takes_nobody_more_holds_up_nobody_else(scene):
    one = scene.member(1)
    full = scene.open(one)
    one.run(TAKES_ONE)
    with scene.do(full.dial(1, 80)):
        third = scene.member(3)

        async def dial_while_opening():
            dialling = asyncio.create_task(full.dial(1, 80))
            segment = await scene.hub.open({3: third.namespace})
            assert not dialling.done()
            await segment.close()
            with pytest.raises(SandboxError) as error:
                await dialling
            return error.value.error

        assert scene.do(dial_while_opening()) == errno.ETIMEDOUT


def test_a_segment_that_is_closed_takes_its_dials_along(scene):
    """Whoever has the slot next is not connected with."""
    one = scene.member(1)
    segment = scene.open(one)
    one.run(TAKES_ONE)

    async def dial_and_close():
        dialling = asyncio.create_task(segment.dial(1, 80))
        closing = asyncio.create_task(segment.close())
        with pytest.raises(SandboxError) as error:
            await dialling
        await closing
        return error.value.error

    with scene.do(segment.dial(1, 80)):
        assert scene.do(dial_and_close()) == errno.ECANCELED
    successor = scene.member(1)
    listen(successor, "AF_INET")
    other = scene.open(successor)
    assert refused(scene, segment.dial(1, 80)) == errno.ENOENT
    scene.do(other.dial(1, 80)).close()


def test_a_late_refusal_is_followed_by_the_next_address(scene):
    """The server that took nobody more is gone when it is asked again; another listens elsewhere."""
    one = scene.member(1)
    segment = scene.open(one)
    one.run(TAKES_ONE)
    one.run(f"other = socket.create_server(({one.ipv4!r}, 80))")

    async def dial_while_it_goes():
        dialling = asyncio.create_task(segment.dial(1, 80))
        third = scene.member(3)
        # Answered after the dial was begun.
        await scene.hub.open({3: third.namespace})
        one.run("server.close()")
        return await dialling

    with scene.do(segment.dial(1, 80)), scene.do(dial_while_it_goes()) as dialled:
        assert dialled.getpeername() == (one.ipv4, 80)


IN_FLIGHT = 200
# Descriptors that nobody has taken in count for all processes of the user.
SEND_DESCRIPTORS = f"""
import socket, sys
ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for _ in range({IN_FLIGHT}):
    socket.send_fds(ends[0], [b"x"], [0])
print(flush=True)
sys.stdin.read()
"""


def test_a_connection_that_cannot_be_handed_over_is_refused(scene):
    one, third = scene.member(1), scene.member(3)
    segment = scene.open(one)
    one.run(TAKES_ONE)

    async def dial_while_too_many_are_on_their_way():
        dialling = asyncio.create_task(segment.dial(1, 80))
        # Answered after the dial was begun.
        await scene.hub.open({3: third.namespace})
        holding = scene.as_hub(SEND_DESCRIPTORS)
        with scene.at_most_descriptors(IN_FLIGHT // 2):
            one.run("server.listen(10)")
            with pytest.raises(SandboxError) as error:
                await dialling
        holding.kill()
        holding.communicate()
        return error.value.error

    with scene.do(segment.dial(1, 80)):
        assert scene.do(dial_while_too_many_are_on_their_way()) == errno.ETOOMANYREFS
    scene.do(segment.dial(1, 80)).close()


def test_ports_are_locked_to_their_one_address(scene):
    """The bridge's own wall, beneath the rules."""
    one, other = scene.members(1, 2)
    told = json.loads(scene.inside("bridge", "-j", "-d", "link"))
    ports = {port["ifname"]: port for port in told if port["ifname"].startswith("p")}
    assert set(ports) == {"p1", "p2"}
    for port in ports.values():
        assert (port["locked"], port["learning"], port["flood"]) == (True, False, False)
    known = json.loads(scene.inside("bridge", "-j", "fdb"))
    static = {(entry["mac"], entry["ifname"]) for entry in known if entry.get("state") == "static"}
    assert static == {(one.mac, "p1"), (other.mac, "p2")}


def test_every_chain_in_the_hub_drops_by_default(scene):
    scene.do(scene.hub.ready())
    told = json.loads(scene.inside("nft", "-j", "list", "chains"))["nftables"]
    chains = [entry["chain"] for entry in told if "hook" in entry.get("chain", {})]
    assert {chain["policy"] for chain in chains} == {"drop"}
    hooks = {(chain["family"], chain["hook"]) for chain in chains}
    assert hooks == {
        *(("bridge", hook) for hook in ("prerouting", "input", "forward", "output")),
        *(("inet", hook) for hook in ("input", "forward", "output")),
    }
