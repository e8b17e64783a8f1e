"""What may pass in the hub, as text for nft(8): nothing but what is shown here.

Three walls, the first of which would do. A segment is a bridge of its own, and no frame leaves a bridge:
the hub routes nothing, has no address, and drops what is meant for it. Ports of a bridge are locked to
the one MAC address that they have, and learn none. And in these tables a frame passes only if it has the
addresses of the slot whose port it came in by: no one can speak, answer or advertise for another.

All slots are in the sets from the start, so nothing is loaded when a job waits. nft's own words are
explained in nft(8); offsets of RFC 4861: a target is 8 bytes into a neighbour message, the one option
that Linux puts there 24 bytes, and its address 26.
"""

from collections.abc import Callable

from jail.network import addresses

_TABLES = """\
table bridge jail {{
    set ipv4_sources {{ typeof iifname . ether saddr . ip saddr; elements = {{ {ipv4_sources} }}; }}
    set ipv6_sources {{ typeof iifname . ether saddr . ip6 saddr; elements = {{ {ipv6_sources} }}; }}
    set arp_senders {{
        typeof iifname . ether saddr . arp saddr ether . arp saddr ip; elements = {{ {arp_senders} }};
    }}
    set nd_targets {{ typeof iifname . @th,64,128; elements = {{ {nd_targets} }}; }}
    set nd_links {{ typeof iifname . @th,208,48; elements = {{ {nd_links} }}; }}

    chain from_arp {{
        arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation {{ request, reply }} \
iifname . ether saddr . arp saddr ether . arp saddr ip @arp_senders accept
    }}
    chain from_ipv4 {{
        iifname . ether saddr . ip saddr != @ipv4_sources drop
        udp sport {{ 67, 68 }} drop
        udp dport {{ 67, 68 }} drop
        ip protocol {{ tcp, udp }} accept
        icmp type {{ echo-request, echo-reply, destination-unreachable, time-exceeded, \
parameter-problem }} accept
    }}
    chain from_ipv6 {{
        iifname . ether saddr . ip6 saddr != @ipv6_sources drop
        udp sport {{ 546, 547 }} drop
        udp dport {{ 546, 547 }} drop
        meta l4proto {{ tcp, udp }} accept
        ip6 nexthdr icmpv6 goto icmpv6_alone
    }}
    chain icmpv6_alone {{
        icmpv6 type {{ echo-request, echo-reply, destination-unreachable, packet-too-big, time-exceeded, \
parameter-problem }} accept
        icmpv6 type nd-neighbor-solicit ip6 length 32 @th,192,16 0x0101 iifname . @th,208,48 @nd_links accept
        icmpv6 type nd-neighbor-advert iifname . @th,64,128 @nd_targets goto advertised
    }}
    chain advertised {{
        ip6 length 24 accept
        ip6 length 32 @th,192,16 0x0201 iifname . @th,208,48 @nd_links accept
    }}
    chain prerouting {{
        type filter hook prerouting priority -300; policy drop;
        ether type vmap {{ arp : goto from_arp, ip : goto from_ipv4, ip6 : goto from_ipv6 }}
    }}
    chain forward {{
        type filter hook forward priority 0; policy drop;
        iifname "p*" oifname "p*" accept
    }}
    chain input {{ type filter hook input priority 0; policy drop; }}
    chain output {{ type filter hook output priority 0; policy drop; }}
}}
table inet jail {{
    chain input {{ type filter hook input priority 0; policy drop; }}
    chain forward {{ type filter hook forward priority 0; policy drop; }}
    chain output {{ type filter hook output priority 0; policy drop; }}
}}
"""


def ruleset(slots: int) -> str:
    """The tables of a hub for slots 0 to `slots` - 1, of at least one."""

    def elements(*parts: Callable[[int], object]) -> str:
        return ", ".join(" . ".join(str(part(slot)) for part in parts) for slot in range(slots))

    port, mac = addresses.port, addresses.mac
    return _TABLES.format(
        ipv4_sources=elements(port, mac, addresses.ipv4),
        ipv6_sources=elements(port, mac, addresses.ipv6),
        arp_senders=elements(port, mac, mac, addresses.ipv4),
        # Bits of a payload have no type: they are compared with plain numbers.
        nd_targets=elements(port, lambda slot: hex(int(addresses.ipv6(slot)))),
        nd_links=elements(port, lambda slot: hex(addresses.mac_number(slot))),
    )
