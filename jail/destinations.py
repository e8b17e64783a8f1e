"""Destinations: what a job may ask to reach outside, and what it is refused whoever asks.

A job names hosts and networks, each with a port and a protocol. Two questions are put to each. Does the
operator offer it (`Offer`)? And is it of the internet at large: an address that means something on the
service's own host or network is refused (`refusal`), whatever form it hides in, unless the operator excepts
its range by name. ipaddress knows which addresses are private, but as of the day of its release: the table
here is the registries', and a test holds them against each other.

Networks are whole or refused: none is cut to what of it is allowed.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

import msgspec

AddressRange = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Protocol = Literal["tcp", "udp"]

PORT_MAX = 65535

OWN = tuple(map(ipaddress.ip_network, ("10.106.0.0/15", "fd6a:6169:6c00::/48", "fd00::/64")))
"""What the networks of sandboxes, and the way out of them, are made of. See jail.network."""

_NEVER = {
    "0.0.0.0/8": "this network (RFC 791)",
    "127.0.0.0/8": "loopback (RFC 1122)",
    "224.0.0.0/4": "multicast (RFC 1112)",
    "255.255.255.255/32": "limited broadcast (RFC 919)",
    "::/127": "unspecified and loopback (RFC 4291)",
    "::/96": "IPv4-compatible (RFC 4291)",
    "::ffff:0:0/96": "IPv4-mapped (RFC 4291)",
    "fe80::/10": "link-local (RFC 4291)",
    "ff00::/8": "multicast (RFC 4291)",
}
_UNLESS_LISTED = {
    # IANA IPv4 Special-Purpose Address Registry (RFC 6890), but for what is reachable globally.
    "10.0.0.0/8": "private (RFC 1918)",
    "100.64.0.0/10": "shared, of providers (RFC 6598)",
    "169.254.0.0/16": "link-local, and metadata of clouds (RFC 3927)",
    "172.16.0.0/12": "private (RFC 1918)",
    "192.0.0.0/24": "protocol assignments (RFC 6890)",
    "192.0.2.0/24": "documentation (RFC 5737)",
    "192.88.99.0/24": "6to4 relays (RFC 7526)",
    "192.168.0.0/16": "private (RFC 1918)",
    "198.18.0.0/15": "benchmarks (RFC 2544)",
    "198.51.100.0/24": "documentation (RFC 5737)",
    "203.0.113.0/24": "documentation (RFC 5737)",
    "240.0.0.0/4": "reserved (RFC 1112)",
    # In no registry: a public address that each virtual machine of Azure reaches its host by (WireServer).
    "168.63.129.16/32": "metadata of a cloud",
    # IANA IPv6 Address Space: 2000::/3 is global unicast, and nothing else is.
    "::/3": "not global unicast (RFC 4291)",
    "4000::/2": "not global unicast (RFC 4291)",
    "8000::/1": "not global unicast: unique local, metadata of clouds, reserved (RFC 4291, RFC 4193)",
    # IANA IPv6 Special-Purpose Address Registry, of what is within 2000::/3.
    "2001::/23": "protocol assignments, Teredo (RFC 2928, RFC 4380)",
    "2001:db8::/32": "documentation (RFC 3849)",
    "2002::/16": "6to4 (RFC 3056)",
    "3fff::/20": "documentation (RFC 9637)",
}


def _table(rows: dict[str, str]) -> tuple[tuple[AddressRange, str], ...]:
    return tuple((ipaddress.ip_network(text), why) for text, why in rows.items())


NEVER = _table(_NEVER) + tuple((network, "jail's own") for network in OWN)
"""What no operator can except: it leads to the host that runs jail, to many at once, or nowhere."""

UNLESS_LISTED = _table(_UNLESS_LISTED)
"""What leads nowhere but to the operator's own: refused unless listed."""

# Where IPv6 addresses hold one of IPv4: the range, how many bits come before it, what it is xored with.
_EMBEDDED = tuple(
    (ipaddress.ip_network(text), before, mask)
    for text, before, mask in (
        ("64:ff9b::/96", 96, 0),  # NAT64 (RFC 6052)
        ("2002::/16", 16, 0),  # 6to4 (RFC 3056)
        ("2001::/32", 32, 0),  # Teredo's server (RFC 4380)
        ("2001::/32", 96, 0xFFFFFFFF),  # and its client
    )
)


class Destination(msgspec.Struct, frozen=True):
    """A host by its name, or a network; the other is None."""

    host: str | None
    network: AddressRange | None
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        """As Offer.parse() reads it."""
        place = self.host or (f"[{self.network}]" if self.network.version == 6 else self.network)
        return f"{place}:{self.port}/{self.protocol}"


class Offer(msgspec.Struct, frozen=True):
    """Destinations that the operator offers. Each of host and network None: any.

    host: a name; with a leading dot, all beneath it. ports: the first and the last.
    """

    host: str | None
    network: AddressRange | None
    ports: tuple[int, int]
    protocol: Protocol

    def covers(self, wanted: Destination) -> bool:
        """Whether all of what is wanted is offered here."""
        first, last = self.ports
        if wanted.protocol != self.protocol or not first <= wanted.port <= last:
            return False
        if self.host is None and self.network is None:
            return True
        if wanted.host is None:
            return self.network is not None and _is_within(wanted.network, self.network)
        if self.host is None or not self.host.startswith("."):
            return wanted.host == self.host
        return wanted.host.endswith(self.host)


_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"({_LABEL}\.)*{_LABEL}")
_OFFER = re.compile(
    r"(?P<place>\[[^\]]*\]|[^:\[\]]+):(?P<first>\d+|\*)(-(?P<last>\d+))?/(?P<protocol>tcp|udp)", re.ASCII
)


def parse_host(text: str) -> str:
    """The name of a host in lower case, as RFC 1123 has it and no resolver takes it for an address.

    Raises ValueError.
    """
    name = text.lower()
    if not _NAME.fullmatch(name) or len(name) > 253:
        raise ValueError(f"{text!r} is not the name of a host; international ones are written as xn--…")
    # inet_aton(3) takes 1, 0x7f.1 and 0177.1 for addresses.
    if name.rpartition(".")[2].isdigit() or re.fullmatch("0x[0-9a-f]*", name.rpartition(".")[2]):
        raise ValueError(f"{text!r} is an address, not a name: write it as a cidr")
    return name


def parse_network(text: str) -> AddressRange:
    """A network in CIDR notation, or one address. Raises ValueError."""
    # Zones have a meaning on one host alone; a prefix length is no mask.
    if not re.fullmatch(r"[0-9a-fA-F:.]+(/\d{1,3})?", text, re.ASCII):
        raise ValueError(f"{text!r} is no network in CIDR notation")
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no network in CIDR notation: {error}") from None


def parse_offer(text: str) -> Offer:
    """What a line of the operator's offers. Raises ValueError.

    PLACE:PORT/PROTOCOL; a place is a name, *.NAME for all beneath it, a network ([IPv6]), or * for any; a
    port is a number, FIRST-LAST or *.
    """
    found = _OFFER.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not PLACE:PORT/PROTOCOL, as example.org:443/tcp or [2001:db8::/32]:*/udp"
        )
    first, last = _ports(text, found["first"], found["last"])
    made = partial(Offer, ports=(first, last), protocol=found["protocol"])
    place = found["place"]
    if place == "*":
        return made(None, None)
    if place.startswith("["):
        return made(None, parse_network(place[1:-1]))
    if re.fullmatch("[0-9./]+", place):
        return made(None, parse_network(place))
    if place.startswith("*."):
        return made(f".{parse_host(place[2:])}", None)
    return made(parse_host(place), None)


def parse_exception(text: str) -> AddressRange:
    """A range that an operator lets jobs reach, whatever it is. Raises ValueError."""
    network = parse_network(text)
    if why := never(network):
        raise ValueError(f"{network} cannot be listed: {why}")
    return network


def _ports(text: str, first: str, last: str | None) -> tuple[int, int]:
    if first == "*" and last is None:
        return 1, PORT_MAX
    found = int(first.replace("*", "0")), int(last or first.replace("*", "0"))
    if not 1 <= found[0] <= found[1] <= PORT_MAX:
        raise ValueError(f"{text!r}: a port is 1 to {PORT_MAX}, a range not empty")
    return found


def refusal(wanted: AddressRange, excepted: Iterable[AddressRange] = ()) -> str | None:
    """Why no job may reach a network, or a part of it; None if it may.

    `excepted`: ranges that the operator lets jobs reach all the same, NEVER's aside.
    """
    excepted = tuple(excepted)
    for network, why in NEVER:
        if _overlap(wanted, network):
            return f"{network} is {why}"
    if not any(_is_within(wanted, network) for network in excepted):
        for network, why in UNLESS_LISTED:
            if _overlap(wanted, network):
                return f"{network} is {why}"
    for inner in _embedded(wanted):
        if why := refusal(inner, excepted):
            return f"it holds {inner}, and {why}"
    return None


def never(network: AddressRange) -> str | None:
    """Why an operator cannot except a range; None if that is possible."""
    for refused, why in NEVER:
        # What is wider than one of these may be listed: they are refused first.
        if _is_within(network, refused):
            return f"{refused} is {why}"
    return None


def _overlap(one: AddressRange, other: AddressRange) -> bool:
    return one.version == other.version and one.overlaps(other)


def _is_within(inner: AddressRange, outer: AddressRange) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)


def _embedded(wanted: AddressRange) -> Iterable[IPv4Network]:
    """The addresses of IPv4 that those of an IPv6 network stand for."""
    for network, before, mask in _EMBEDDED:
        if _overlap(wanted, network):
            known = min(32, max(0, wanted.prefixlen - before))
            bits = (int(wanted.network_address) >> (96 - before) & 0xFFFFFFFF) ^ mask
            yield ipaddress.IPv4Network((bits >> (32 - known) << (32 - known), known))
