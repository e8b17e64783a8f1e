"""What may pass in the hub, as text for nft(8): nothing but what is shown here.

Three walls, the first of which would do. A segment is a bridge of its own, and no frame leaves a bridge:
the hub routes nothing, has no address, and drops what is meant for it. Ports of a bridge are locked to
the one MAC address that they have, and learn none. And in these tables a frame passes only if it has the
addresses of the slot whose port it came in by: no one can speak, answer or advertise for another.

All slots are in the sets from the start, so nothing is loaded when a job waits. nft's own words are
explained in nft(8); offsets of RFC 4861: a target is 8 bytes into a neighbour message, and of the one
option that fits into what is let through, the address is 26.
"""

from collections.abc import Callable, Iterable, Iterator

from jail.network import addresses, way
from jail.network.protocol import Bounds

PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where nft is looked for: the hub has no environment."""

# What nft sends at once has to fit into its socket's buffer, of some 200 KB by default: 230 bytes a slot.
_SLOTS_AT_ONCE = 512

_TABLES = """\
table bridge jail {
    set ipv4_sources { typeof iifname . ether saddr . ip saddr; }
    set ipv6_sources { typeof iifname . ether saddr . ip6 saddr; }
    set arp_senders { typeof iifname . ether saddr . arp saddr ether . arp saddr ip; }
    set nd_targets { typeof iifname . @th,64,128; }
    set nd_links { typeof iifname . @th,208,48; }

    chain from_arp {
        arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation { request, reply } \
iifname . ether saddr . arp saddr ether . arp saddr ip @arp_senders accept
    }
    chain from_ipv4 {
        iifname . ether saddr . ip saddr != @ipv4_sources drop
        udp sport { 67, 68 } drop
        udp dport { 67, 68 } drop
        ip protocol { tcp, udp } accept
        icmp type { echo-request, echo-reply, destination-unreachable, time-exceeded, \
parameter-problem } accept
    }
    chain from_ipv6 {
        iifname . ether saddr . ip6 saddr != @ipv6_sources drop
        udp sport { 546, 547 } drop
        udp dport { 546, 547 } drop
        meta l4proto { tcp, udp } accept
        ip6 nexthdr icmpv6 goto icmpv6_alone
    }
    chain icmpv6_alone {
        icmpv6 type { echo-request, echo-reply, destination-unreachable, packet-too-big, time-exceeded, \
parameter-problem } accept
        icmpv6 type nd-neighbor-solicit ip6 length 32 iifname . @th,208,48 @nd_links accept
        icmpv6 type nd-neighbor-advert iifname . @th,64,128 @nd_targets goto advertised
    }
    chain advertised {
        ip6 length 24 accept
        ip6 length 32 iifname . @th,208,48 @nd_links accept
    }
    chain prerouting {
        type filter hook prerouting priority -300; policy drop;
        ether type vmap { arp : goto from_arp, ip : goto from_ipv4, ip6 : goto from_ipv6 }
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        iifname "p*" oifname "p*" accept
    }
    chain input { type filter hook input priority 0; policy drop; }
    chain output { type filter hook output priority 0; policy drop; }
}
table inet jail {
    chain input { type filter hook input priority 0; policy drop; }
    chain forward { type filter hook forward priority 0; policy drop; }
    chain output { type filter hook output priority 0; policy drop; }
}
"""

_EGRESS = """\
table bridge jail {{
    set outward {{ type ifname; }}
    chain input {{ iifname @outward meta pkttype host ether type {{ ip, ip6 }} accept; }}
    chain output {{ oifname @outward ether type {{ ip, ip6 }} accept; }}
}}
table inet jail {{
    map ipv4_marks {{ type ipv4_addr : mark; }}
    map ipv6_marks {{ type ipv6_addr : mark; }}
    set ipv4_tcp {{ type ifname . ipv4_addr . inet_service; flags interval; }}
    set ipv4_udp {{ type ifname . ipv4_addr . inet_service; flags interval; }}
    set ipv6_tcp {{ type ifname . ipv6_addr . inet_service; flags interval; }}
    set ipv6_udp {{ type ifname . ipv6_addr . inet_service; flags interval; }}
    set connections {{ type mark; size {slots}; flags dynamic; }}

    chain input {{ iifname "{way}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept; }}
    chain output {{ oifname "{way}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept; }}
    chain admitted {{
        ct state established accept
        add @connections {{ ct mark ct count over {connections} }} drop
        accept
    }}
    chain outward {{
        iifname . ip daddr . tcp dport @ipv4_tcp ct mark set ip saddr map @ipv4_marks goto admitted
        iifname . ip daddr . udp dport @ipv4_udp ct mark set ip saddr map @ipv4_marks goto admitted
        iifname . ip6 daddr . tcp dport @ipv6_tcp ct mark set ip6 saddr map @ipv6_marks goto admitted
        iifname . ip6 daddr . udp dport @ipv6_udp ct mark set ip6 saddr map @ipv6_marks goto admitted
    }}
    chain forward {{
        iifname "{way}" oifname "b*" ct direction reply ct state {{ established, related }} accept
        iifname "b*" oifname "{way}" ct direction original ct state {{ new, established }} goto outward
    }}
    chain leave {{ type nat hook postrouting priority 100; policy accept; oifname "{way}" masquerade; }}
}}
"""
"""What is added where egress is switched on. See jail.network.egress.

An answer is known by its connection; what goes out is looked up, packet for packet. Each protocol has sets of
its own: among ranges, Linux 7.3 refuses to look up a field of one byte that nftables 1.0.6 has loaded.
"""


# Bits of a payload have no type: they are compared with plain numbers.
_SETS: dict[str, tuple[Callable[[int], object], ...]] = {
    "ipv4_sources": (addresses.port, addresses.mac, addresses.ipv4),
    "ipv6_sources": (addresses.port, addresses.mac, addresses.ipv6),
    "arp_senders": (addresses.port, addresses.mac, addresses.mac, addresses.ipv4),
    "nd_targets": (addresses.port, lambda slot: hex(int(addresses.ipv6(slot)))),
    "nd_links": (addresses.port, lambda slot: hex(addresses.mac_number(slot))),
}


def transactions(slots: int, bounds: Bounds | None = None) -> Iterator[str]:
    """The tables of a hub for slots 0 to `slots` - 1: each text is for nft once, in order.

    With bounds, those of egress as well.
    """
    tables = _TABLES
    if bounds is not None:
        tables += _EGRESS.format(way=way.DEVICE, connections=bounds.connections, slots=slots)
    for first in range(0, slots, _SLOTS_AT_ONCE):
        some = range(first, min(first + _SLOTS_AT_ONCE, slots))
        marks = _marks(some) if bounds is not None else ()
        yield ("" if first else tables) + "".join((*_elements(some), *marks))


def _elements(slots: Iterable[int]) -> Iterator[str]:
    for name, parts in _SETS.items():
        listed = ", ".join(" . ".join(str(part(slot)) for part in parts) for slot in slots)
        yield f"add element bridge jail {name} {{ {listed} }}\n"


def _marks(slots: Iterable[int]) -> Iterator[str]:
    for name, address in (("ipv4_marks", addresses.ipv4), ("ipv6_marks", addresses.ipv6)):
        listed = ", ".join(f"{address(slot)} : {addresses.mark(slot)}" for slot in slots)
        yield f"add element inet jail {name} {{ {listed} }}\n"
