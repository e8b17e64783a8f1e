"""What the service and the hub say to each other: packets of JSON on a SOCK_SEQPACKET pair.

The service asks; each request has a number, which its answer bears. Answers may come in another order.
The hub's first packet is unasked: Ready or Refused with number 0.
"""

import msgspec

MEMBERS_MAX = 16
"""Sandboxes of one segment."""

PACKET_BYTES = 8192
"""More than any packet has: that of MEMBERS_MAX members and their counters is a quarter of it."""


class Open(msgspec.Struct, frozen=True, tag="open", forbid_unknown_fields=True):
    """Make a segment of that number for these slots; with it come their network namespaces, in order.

    Answered with Done once every member can reach every other.
    """

    number: int
    segment: int
    slots: tuple[int, ...]


class Close(msgspec.Struct, frozen=True, tag="close", forbid_unknown_fields=True):
    """Take a segment apart. Answered with Done and its counters."""

    number: int
    segment: int


class Dial(msgspec.Struct, frozen=True, tag="dial", forbid_unknown_fields=True):
    """Connect to a TCP port in a member from within it. Answered with Done and the connected socket."""

    number: int
    slot: int
    port: int


Request = Open | Close | Dial


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
    """A request was carried out. `traffic`: of a segment's slots, in order."""

    number: int
    traffic: tuple[Traffic, ...] = ()


class Refused(msgspec.Struct, frozen=True, tag="refused", forbid_unknown_fields=True):
    """A request was not, and left nothing: an errno, and what there is to say besides."""

    number: int
    error: int
    detail: str = ""


Answer = Ready | Done | Refused
