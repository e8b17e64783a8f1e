"""What no member may say: as root of its network namespace, with raw frames, which no job can send.

The other member of the segment listens to every frame that comes out of its link.
"""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from jail.network import addresses

VILLAIN, VICTIM, ABSENT = 1, 2, 3

TCP, UDP, ICMP, ICMPV6, FRAGMENT, HOP_BY_HOP = 6, 17, 1, 58, 44, 0
ALL_NODES = IPv6Address("ff02::1")
ANYBODY = "ff:ff:ff:ff:ff:ff"

OWN_MAC, OTHER_MAC = addresses.mac(VILLAIN), addresses.mac(ABSENT)
OWN_IPV4, OTHER_IPV4, TO_IPV4 = map(addresses.ipv4, (VILLAIN, ABSENT, VICTIM))
OWN_IPV6, OTHER_IPV6, TO_IPV6 = map(addresses.ipv6, (VILLAIN, ABSENT, VICTIM))
TO_MAC = addresses.mac(VICTIM)

MARK = b"frame to look for"


def raw(mac):
    return bytes.fromhex(mac.replace(":", ""))


def frame(kind, payload, source=OWN_MAC, to=TO_MAC):
    return raw(to) + raw(source) + struct.pack("!H", kind) + payload


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ipv4(payload=MARK, source=OWN_IPV4, to=TO_IPV4, protocol=UDP, ether=OWN_MAC, to_ether=TO_MAC, offset=0):
    def header(check):
        about = (0x45, 0, 20 + len(payload), 1, offset, 64, protocol, check)
        return struct.pack("!BBHHHBBH", *about) + source.packed + to.packed

    return frame(0x0800, header(checksum(header(0))) + payload, ether, to_ether)


def ipv6(payload=MARK, source=OWN_IPV6, to=TO_IPV6, following=UDP, ether=OWN_MAC, to_ether=TO_MAC):
    header = struct.pack("!IHBB", 6 << 28, len(payload), following, 255) + source.packed + to.packed
    return frame(0x86DD, header + payload, ether, to_ether)


def ports(source, to, payload=MARK):
    return struct.pack("!HHHH", source, to, 8 + len(payload), 0) + payload


def icmp(kind, rest=MARK):
    return struct.pack("!BBH", kind, 0, 0) + rest


def arp(ether=OWN_MAC, link=OWN_MAC, address=OWN_IPV4, operation=2, hardware=1, to=TO_MAC):
    body = struct.pack("!HHBBH", hardware, 0x0800, 6, 4, operation) + raw(link) + address.packed
    return frame(0x0806, body + raw(TO_MAC) + TO_IPV4.packed, ether, to)


def neighbour(kind, target, *options):
    """A neighbour solicitation (135) or advertisement (136) with options, each a type and its bytes."""
    body = struct.pack("!I", 0x60000000 if kind == 136 else 0) + target.packed
    for option, value in options:
        body += struct.pack("!BB", option, (2 + len(value)) // 8) + value
    return icmp(kind, body)


def solicit(link=OWN_MAC):
    return neighbour(135, TO_IPV6, (1, raw(link)))


def advertise(target=OWN_IPV6, link=OWN_MAC):
    return neighbour(136, target, (2, raw(link)))


def extended(header, payload, **others):
    """With one more header of that number before ICMPv6."""
    return ipv6(struct.pack("!BB", ICMPV6, 0) + b"\x01\x04\0\0\0\0" + payload, following=header, **others)


def fragment(payload, following, offset, more):
    return struct.pack("!BBHI", following, 0, offset << 3 | more, 7) + payload


ROUTER = struct.pack("!BBHII", 64, 0, 1800, 0, 0)

PASSES = {
    "UDP over IPv4": ipv4(ports(1000, 1001)),
    "UDP over IPv6": ipv6(ports(1000, 1001)),
    "UDP over IPv4 to everybody": ipv4(ports(1000, 1001), to=IPv4Address("10.106.255.255"), to_ether=ANYBODY),
    "TCP over IPv6": ipv6(ports(1000, 1001), following=TCP),
    "a later fragment": ipv4(MARK + bytes(7), offset=185),
    "a fragment of IPv6": ipv6(fragment(ports(1000, 1001), UDP, 0, 1), following=FRAGMENT),
    "an ICMP echo": ipv4(icmp(8), protocol=ICMP),
    "an ICMPv6 echo": ipv6(icmp(128), following=ICMPV6),
    "its own ARP": arp(),
    "its own question": ipv6(solicit(), following=ICMPV6),
    "its own advertisement": ipv6(advertise(), following=ICMPV6),
    "its own advertisement without a link": ipv6(neighbour(136, OWN_IPV6), following=ICMPV6),
}
"""The same builders make what does pass: else nothing would follow from a frame that does not arrive."""

DROPPED = {
    "another's MAC address": ipv4(ports(1000, 1001), ether=OTHER_MAC),
    "the victim's MAC address": ipv4(ports(1000, 1001), ether=TO_MAC),
    "no MAC address": ipv4(ports(1000, 1001), ether="00:00:00:00:00:00"),
    "another's IPv4 address": ipv4(ports(1000, 1001), source=OTHER_IPV4),
    "the victim's IPv4 address": ipv4(ports(1000, 1001), source=TO_IPV4),
    "no IPv4 address": ipv4(ports(1000, 1001), source=IPv4Address(0)),
    "loopback's IPv4 address": ipv4(ports(1000, 1001), source=IPv4Address("127.0.0.1")),
    "another's IPv4 and MAC address": ipv4(ports(1000, 1001), source=OTHER_IPV4, ether=OTHER_MAC),
    "another's IPv6 address": ipv6(ports(1000, 1001), source=OTHER_IPV6),
    "no IPv6 address": ipv6(ports(1000, 1001), source=IPv6Address(0)),
    "a link-local address": ipv6(ports(1000, 1001), source=IPv6Address("fe80::1")),
    "another's IPv6 and MAC address": ipv6(ports(1000, 1001), source=OTHER_IPV6, ether=OTHER_MAC),
    "ARP for another": arp(address=OTHER_IPV4),
    "ARP for another, asking": arp(address=OTHER_IPV4, operation=1, to=ANYBODY),
    "ARP for the victim": arp(address=TO_IPV4, to=ANYBODY),
    "ARP with another's link": arp(link=OTHER_MAC),
    "ARP from another's MAC": arp(ether=OTHER_MAC),
    "ARP of another kind": arp(operation=3),
    "ARP of other hardware": arp(hardware=6),
    "an advertisement for another": ipv6(advertise(OTHER_IPV6), following=ICMPV6),
    "an advertisement for the victim": ipv6(advertise(TO_IPV6), to=ALL_NODES, following=ICMPV6),
    "an advertisement of another's link": ipv6(advertise(link=OTHER_MAC), following=ICMPV6),
    "an advertisement for another without a link": ipv6(neighbour(136, OTHER_IPV6), following=ICMPV6),
    "an advertisement with another link behind its own": ipv6(
        neighbour(136, OWN_IPV6, (2, raw(OWN_MAC)), (2, raw(OTHER_MAC))), following=ICMPV6
    ),
    "an advertisement with a link behind a nonce": ipv6(
        neighbour(136, OWN_IPV6, (14, bytes(6)), (2, raw(OTHER_MAC))), following=ICMPV6
    ),
    "a question of another's link": ipv6(solicit(OTHER_MAC), following=ICMPV6),
    "a question from nobody": ipv6(neighbour(135, OWN_IPV6), source=IPv6Address(0), following=ICMPV6),
    "a router's advertisement": ipv6(icmp(134, ROUTER), to=ALL_NODES, following=ICMPV6),
    "a router's advertisement to one": ipv6(icmp(134, ROUTER), following=ICMPV6),
    "a question for routers": ipv6(icmp(133, bytes(4)), following=ICMPV6),
    "an ICMPv6 redirect": ipv6(icmp(137, bytes(36)), following=ICMPV6),
    "a report of groups": ipv6(icmp(143, bytes(4)), to=ALL_NODES, following=ICMPV6),
    "a router behind another header": extended(HOP_BY_HOP, icmp(134, ROUTER)),
    "a router behind options": extended(60, icmp(134, ROUTER)),
    "an advertisement behind options": extended(60, advertise()),
    "an echo behind options": extended(60, icmp(128)),
    "an echo in a fragment": ipv6(fragment(icmp(128), ICMPV6, 0, 0), following=FRAGMENT),
    "an advertisement in a fragment": ipv6(fragment(advertise(), ICMPV6, 0, 0), following=FRAGMENT),
    "a router cut before its type": ipv6(fragment(b"", ICMPV6, 0, 1), following=FRAGMENT),
    "an ICMP redirect": ipv4(icmp(5), protocol=ICMP),
    "an ICMP router": ipv4(icmp(9), protocol=ICMP),
    "from a port of DHCP": ipv4(ports(67, 1000)),
    "to a port of DHCP": ipv4(ports(1000, 68)),
    "from a port of DHCPv6": ipv6(ports(547, 1000)),
    "to a port of DHCPv6": ipv6(ports(1000, 546)),
    "DHCP, asking": ipv4(ports(68, 67), to_ether=ANYBODY),
    "DHCP, answering": ipv4(ports(67, 68)),
    "DHCPv6, asking": ipv6(ports(546, 547)),
    "DHCPv6, answering": ipv6(ports(547, 546)),
    "IP in IP": ipv4(protocol=4),
    "IPv6 in IP": ipv4(protocol=41),
    "GRE": ipv4(protocol=47),
    "IGMP": ipv4(icmp(22), protocol=2),
    "SCTP": ipv6(ports(1000, 1001), following=132),
    "a tag of a VLAN": frame(0x8100, struct.pack("!HH", 5, 0x0800) + ipv4(ports(1000, 1001))[14:]),
    "a tag of a provider's VLAN": frame(0x88A8, struct.pack("!HH", 5, 0x0800) + ipv4(ports(1000, 1001))[14:]),
    "PPPoE": frame(0x8864, bytes(8) + MARK),
    "a bridge's own protocol": frame(38, MARK + bytes(21), to="01:80:c2:00:00:00"),
    "LLDP": frame(0x88CC, MARK, to="01:80:c2:00:00:0e"),
    "no protocol known": frame(0x1234, MARK),
}

LISTEN = """
listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
listening.bind(("eth0", 0))
listening.setsockopt(263, 1, struct.pack("IHHQ", 2, 1, 0, 0))  # PACKET_MR_PROMISC of <linux/if_packet.h>
listening.settimeout(SECONDS)
"""
SEND = """
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
    raw.bind(("eth0", 0))
    for each in {frames}:
        raw.send(each)
"""
SEEN = """
frames, last = {frames}, {last}
result = []
while True:
    frame = listening.recv(2048)
    if frame == last:
        break
    # What a driver takes out of a frame it tells of elsewhere: a VLAN's tag.
    result += [n for n, each in enumerate(frames) if frame in (each, each[:12] + each[16:])]
"""

LAST = ipv4(ports(2000, 2001))


@pytest.fixture
def seen(scene):
    """Which of the frames that the villain sends the victim sees, by their numbers."""
    villain, victim = scene.members(VILLAIN, VICTIM)
    victim.run(LISTEN)

    def send(frames):
        villain.run(SEND.format(frames=[*frames, LAST]))
        return victim.run(SEEN.format(frames=frames, last=LAST))

    return send


def test_what_is_a_members_own_passes(seen):
    names = list(PASSES)
    # Some of it the kernel says by itself, too.
    assert {names[n] for n in seen(list(PASSES.values()))} == set(names)


def test_what_is_not_is_dropped(seen):
    names = list(DROPPED)
    assert [names[n] for n in seen(list(DROPPED.values()))] == []


def test_a_frame_with_anothers_address_does_not_draw_that_ones_frames(scene):
    villain, victim, robbed = scene.members(VILLAIN, VICTIM, ABSENT)
    villain.run(LISTEN)
    stolen = [
        ipv4(ports(1000, 1001), source=OTHER_IPV4, ether=OTHER_MAC, to_ether=ANYBODY),
        arp(ether=OTHER_MAC),
    ]
    villain.run(SEND.format(frames=stolen * 3))
    robbed.run(
        "got = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); got.bind(('', 9)); got.settimeout(SECONDS)"
    )
    victim.run(f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto({MARK!r}, ({str(OTHER_IPV4)!r}, 9))")
    assert robbed.value("got.recv(100).decode()").encode() == MARK
    last = ipv4(ports(2000, 2001), source=TO_IPV4, to=OWN_IPV4, ether=TO_MAC, to_ether=OWN_MAC)
    victim.run(SEND.format(frames=[last]))
    assert (
        villain.run(f"""
result, last = [], {last}
while (frame := listening.recv(2048)) != last:
    result += [frame.hex()] if {MARK} in frame and frame[6:12] == {raw(TO_MAC)} else []
""")
        == []
    )


@pytest.mark.parametrize("source", [OTHER_IPV6, TO_IPV6, IPv6Address("fe80::1"), IPv6Address("2001:db8::1")])
def test_an_address_that_a_socket_asks_for_without_having_it_is_of_no_use(scene, source):
    """IPV6_FREEBIND needs no privilege: this much any job can do."""
    villain, victim = scene.members(VILLAIN, VICTIM)
    victim.run(LISTEN)
    villain.run(f"""
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as false:
    false.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND of <linux/in6.h>
    false.bind(({str(source)!r}, 5000, 0, 2))
    sent = false.sendto({MARK!r}, ({str(TO_IPV6)!r}, 9))
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as honest:
    honest.sendto(b"the last", ({str(TO_IPV6)!r}, 9))
""")
    assert (
        victim.run(f"""
result = 0
while b"the last" not in (frame := listening.recv(2048)):
    result += {MARK!r} in frame
""")
        == 0
    )


def test_the_victims_notions_of_its_neighbours_stay_true(scene):
    villain, victim, other = scene.members(VILLAIN, VICTIM, ABSENT)
    hello = "socket.socket(socket.{0}, socket.SOCK_DGRAM).sendto(b'', ({1!r}, 9))"
    victim.run(hello.format("AF_INET", other.ipv4))
    victim.run(hello.format("AF_INET6", other.ipv6))
    lies = [
        arp(address=OTHER_IPV4),
        arp(address=OTHER_IPV4, operation=1, to=ANYBODY),
        ipv6(advertise(OTHER_IPV6), following=ICMPV6),
        ipv6(advertise(OTHER_IPV6), to=ALL_NODES, following=ICMPV6, to_ether="33:33:00:00:00:01"),
    ]
    victim.run(LISTEN)
    villain.run(SEND.format(frames=[*lies * 3, LAST]))
    victim.run(SEEN.format(frames=[], last=LAST))
    told = victim.value(
        "__import__('subprocess').run(['ip', 'neigh'], capture_output=True, text=True).stdout"
    )
    known = {line.split()[0]: line.split()[4] for line in told.splitlines() if "lladdr" in line}
    assert known.pop(str(OTHER_IPV4)) == known.pop(str(OTHER_IPV6)) == OTHER_MAC
    assert set(known.values()) <= {OWN_MAC}
