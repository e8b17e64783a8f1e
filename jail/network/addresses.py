"""Which addresses a slot has: on eth0 in its sandbox, and in the names of the hub's end.

They follow from the slot's number alone, so that the hub's rules can be there before any sandbox is.
Nothing outside the hub ever sees them: 10.106.0.0/16 of RFC 1918, a /64 of RFC 4193, and locally
administered MAC addresses.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPV4 = IPv4Network("10.106.0.0/16")
IPV6 = IPv6Network("fd6a:6169:6c00::/64")
"""The networks that every segment has, each for itself."""

_MAC = 0x026A61690000

GATEWAYS = (IPV4[1], IPV6[1])
"""By these a sandbox names the hub as its way out. Nobody has them: they lead to the bridge's MAC address."""

# The network's own address, and the gateway.
_FIRST = 2

SLOTS_MAX = IPV4.num_addresses - _FIRST - 1
"""How many slots there are addresses for: the last one is for broadcasts."""


def number(slot: int) -> int:
    """The number that all addresses of a slot end with."""
    return _FIRST + slot


def ipv4(slot: int) -> IPv4Address:
    """The sandbox's address, in IPV4."""
    return IPV4[number(slot)]


def ipv6(slot: int) -> IPv6Address:
    """The sandbox's address, in IPV6; it has no link-local one."""
    return IPV6[number(slot)]


def mac(slot: int) -> str:
    """The address of the sandbox's eth0, as six pairs of digits with colons."""
    return mac_number(slot).to_bytes(6, "big").hex(":")


def mac_number(slot: int) -> int:
    """The same as a number of 48 bits."""
    return _MAC + number(slot)


def hosts(named: Mapping[str, int]) -> str:
    """Where each of these names is, by slot: lines of /etc/hosts."""
    return "".join(f"{ipv4(slot)} {name}\n{ipv6(slot)} {name}\n" for name, slot in named.items())


def port(slot: int) -> str:
    """The name of the link in the hub whose other end is the sandbox's eth0."""
    return f"p{slot}"


def bridge(index: int) -> str:
    """The name of the bridge of that index in the hub."""
    return f"b{index}"


def bridge_mac(index: int) -> str:
    """The MAC address of that bridge."""
    return f"02:00:00:00:{index >> 8 & 255:02x}:{index & 255:02x}"


def mark(slot: int) -> int:
    """The mark of the connections that a slot's sandbox makes to the outside; 0 is that of no slot."""
    return number(slot)
