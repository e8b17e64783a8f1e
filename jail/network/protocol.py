"""What the service and the hub say to each other: packets of JSON on a SOCK_SEQPACKET pair.

The service asks; each request has a number, which its answer bears. Answers may come in another order.
The hub's first packet is unasked: Ready or Refused with number 0.
"""

from typing import Literal

import msgspec

MEMBERS_MAX = 16
"""Sandboxes of one segment."""

ALLOWED_MAX = 256
"""Destinations outside of one segment."""

PACKET_BYTES = 1 << 15
"""More than any packet has: that of MEMBERS_MAX members, their counters and ALLOWED_MAX destinations."""


class Allowed(msgspec.Struct, frozen=True, array_like=True):
    """A destination outside: a network in CIDR notation, a port and a protocol."""

    network: str
    port: int
    protocol: Literal["tcp", "udp"]


class Bounds(msgspec.Struct, frozen=True):
    """What the operator sets of egress. program: the path of the way out's; the others are of each sandbox.

    bytes_per_s: in each direction. connections: at once; of UDP each pair of ports is one for a while.
    landlock: whether the kernel has it.
    """

    program: str
    bytes_per_s: int
    connections: int
    landlock: bool = True


class Open(msgspec.Struct, frozen=True, tag="open", forbid_unknown_fields=True):
    """Make a segment of that number for these slots; with it come their network namespaces, in order.

    allowed: what its members may reach outside; with any, it has the way out. Answered with Done once every
    member can reach every other.
    """

    number: int
    segment: int
    slots: tuple[int, ...]
    allowed: tuple[Allowed, ...] = ()


class Close(msgspec.Struct, frozen=True, tag="close", forbid_unknown_fields=True):
    """Take a segment apart. Answered with Done and its counters."""

    number: int
    segment: int


class Dial(msgspec.Struct, frozen=True, tag="dial", forbid_unknown_fields=True):
    """Connect to a TCP port in a member of a segment from within it. Answered with Done and the socket."""

    number: int
    segment: int
    slot: int
    port: int


class Resolve(msgspec.Struct, frozen=True, tag="resolve", forbid_unknown_fields=True):
    """Ask for a host's addresses, in the network that the hub was started in. Answered with Done and them."""

    number: int
    host: str


Request = Open | Close | Dial | Resolve


class Traffic(msgspec.Struct, frozen=True, array_like=True):
    """What passed the link of a sandbox, from its own view, as its kernel counts.

    Frames and their bytes, with the 14 of the Ethernet header and without a checksum: of all protocols,
    so ARP, neighbour discovery and reports of multicast groups are among them; a segment of TCP that the
    kernel did not need to cut counts once. What was sent counts whether or not it was let through.
    """

    sent_bytes: int = 0
    sent_packets: int = 0
    received_bytes: int = 0
    received_packets: int = 0


class Ready(msgspec.Struct, frozen=True, tag="ready", forbid_unknown_fields=True):
    """The hub has its rules and waits for requests."""


class Done(msgspec.Struct, frozen=True, tag="done", forbid_unknown_fields=True):
    """A request was carried out. `traffic`: of a segment's slots, in order.

    addresses: of a host; when there are none, `detail` says why.
    """

    number: int
    traffic: tuple[Traffic, ...] = ()
    addresses: tuple[str, ...] = ()
    detail: str = ""


class Refused(msgspec.Struct, frozen=True, tag="refused", forbid_unknown_fields=True):
    """A request was not, and left nothing: an errno, and what there is to say besides."""

    number: int
    error: int
    detail: str = ""


class Lost(msgspec.Struct, frozen=True, tag="lost", forbid_unknown_fields=True):
    """Unasked: these segments have lost their way out, for that reason. They are still to be closed."""

    segments: tuple[int, ...]
    detail: str


Answer = Ready | Done | Refused | Lost


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the hub asks of jail.network.outside: a way out by that program, a host's addresses, or its end.

    number: of the question about a host, by which its answer is known.
    """

    program: str = ""
    host: str = ""
    number: int = 0


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it is told: the addresses of a host, or `error` why there are none; that the way out has ended."""

    what: Literal["resolved", "ended"]
    number: int = 0
    addresses: tuple[str, ...] = ()
    error: str = ""
