"""rtnetlink(7): the messages that the hub sends, encoded by pyroute2, and a socket to send many at once with.

pyroute2's own sockets send one message, wait for its answer and run an event loop for it. Here one send
has all messages of a segment, and the kernel, which works through them one after the other, answers to
the last, or to those that fail. A message with a value that differs from time to time has it in its
last four bytes: so it is encoded once (a third of a millisecond) and `with_last()` completes it.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    nlmsg,
)
from pyroute2.netlink.rtnl import (
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ifstatsmsg import ifstatsmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from jail.network import addresses

INSIDE = "eth0"
"""The name of a sandbox's end of its link."""

MTU = 1500

# struct nlmsghdr; the error that struct nlmsgerr begins with; ifinfomsg and if_stats_msg; struct nlattr.
_HEADER = struct.Struct("=IHHII")
_ERROR = struct.Struct("=i")
_LINK_BYTES, _STATS_BYTES = 16, 12
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 16

# <linux/rtnetlink.h>, <linux/if_link.h>: what pyroute2 has no names for, or under none that it promises.
_RTM_GETSTATS = 94
_STATS_LINK_64 = 1
_IFLA_OPERSTATE = 16
_OPERSTATE_UP = 6
_ADDRESSES_MADE_BY_NOBODY = 1  # IN6_ADDR_GEN_MODE_NONE
_IFA_F_NODAD = 0x02
# <linux/neighbour.h>: a static entry of a port's own.
_NUD_NOARP, _NTF_MASTER, _AF_BRIDGE = 0x40, 0x04, 7
_IFF_UP = 1

_INSIDE_INDEX = 2
_MAKE = NLM_F_CREATE | NLM_F_EXCL


class Socket:
    """A socket in the network namespace that the caller is in now, and of which it stays; close() it."""

    def __init__(self) -> None:
        """Open it. Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._number = 0

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> "Socket":
        """Nothing more to do."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        self.close()

    def do(self, messages: Sequence[bytes]) -> None:
        """Send them all, in order; the kernel goes on after one that fails. Raises OSError, the first."""
        last = self._send(messages, NLM_F_ACK)
        first_error = 0
        while True:
            for number, kind, body in self._receive():
                if kind == NLMSG_ERROR:
                    first_error = first_error or -_ERROR.unpack_from(body)[0]
                if number == last:
                    if first_error:
                        raise OSError(first_error, os.strerror(first_error))
                    return

    def ask(self, messages: Sequence[bytes]) -> list[bytes]:
        """The body of the one answer to each. Raises OSError."""
        self._send(messages, 0)
        answers: list[bytes] = []
        error = 0
        while len(answers) < len(messages):
            for _, kind, body in self._receive():
                answers.append(body)
                if kind == NLMSG_ERROR:
                    error = error or -_ERROR.unpack_from(body)[0]
        if error:
            raise OSError(error, os.strerror(error))
        return answers

    def _send(self, messages: Sequence[bytes], last_flags: int) -> int:
        """Number and send them; the number of the last."""
        packet = bytearray()
        for message in messages:
            self._number += 1
            length, kind, flags, _, port = _HEADER.unpack_from(message)
            flags |= last_flags if message is messages[-1] else 0
            packet += _HEADER.pack(length, kind, flags, self._number, port) + message[_HEADER.size :]
        self._socket.send(packet)
        return self._number

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, type and body of each message of one packet."""
        packet = self._socket.recv(_RECEIVE_BYTES)
        while packet:
            length, kind, _, number, _ = _HEADER.unpack_from(packet)
            yield number, kind, packet[_HEADER.size : length]
            packet = packet[length + 3 & ~3 :]


def with_last(message: bytes, value: int) -> bytes:
    """The message with that value in place of its last four bytes."""
    return message[:-4] + struct.pack("=I", value)


def new_bridge(index: int) -> bytes:
    """Make a bridge and raise it: it has a fixed address, and speaks no protocol of its own."""
    about = {"IFLA_BR_STP_STATE": 0, "IFLA_BR_MCAST_SNOOPING": 0}
    return _link(
        index,
        _MAKE,
        change=_IFF_UP,
        IFLA_IFNAME=f"b{index}",
        # Without one it takes that of a port, and a new one with every port that goes.
        IFLA_ADDRESS=f"02:00:00:00:{index >> 8 & 255:02x}:{index & 255:02x}",
        IFLA_LINKINFO=_kind("bridge", about),
    )


def new_pair(index: int, slot: int) -> bytes:
    """Make a slot's link, both ends down: its last is the descriptor of the namespace of eth0."""
    peer = _attributes(
        IFLA_IFNAME=INSIDE,
        IFLA_ADDRESS=addresses.mac(slot),
        IFLA_MTU=MTU,
        IFLA_NET_NS_FD=0,
    )
    about = {"VETH_INFO_PEER": {"index": _INSIDE_INDEX, **peer}}
    name = addresses.port(slot)
    return _link(index, _MAKE, IFLA_IFNAME=name, IFLA_MTU=MTU, IFLA_LINKINFO=_kind("veth", about))


def raise_port(index: int) -> bytes:
    """Give a link to a bridge, and raise it: its last is the bridge's index."""
    return _link(index, change=_IFF_UP, IFLA_MASTER=0)


def lock_port(index: int) -> bytes:
    """Let only frames from an address that the bridge knows at this port in, and only those for one out."""
    about = {"IFLA_BRPORT_LEARNING": 0, "IFLA_BRPORT_UNICAST_FLOOD": 0, "IFLA_BRPORT_LOCKED": 1}
    data = _attributes(**about)
    return _link(
        index,
        IFLA_LINKINFO=_attributes(IFLA_INFO_SLAVE_KIND="bridge", IFLA_INFO_SLAVE_DATA=data),
    )


def know_address(index: int, slot: int) -> bytes:
    """Have the bridge know the slot's address at that port."""
    return _encoded(
        ndmsg(),
        RTM_NEWNEIGH,
        _MAKE,
        _attributes(NDA_LLADDR=addresses.mac(slot)),
        family=_AF_BRIDGE,
        ifindex=index,
        state=_NUD_NOARP,
        flags=_NTF_MASTER,
    )


def raise_inside(slot: int) -> list[bytes]:
    """In a sandbox: raise eth0 with the slot's two addresses and no other, in use at once."""
    nobody = _attributes(IFLA_INET6_ADDR_GEN_MODE=_ADDRESSES_MADE_BY_NOBODY)
    return [
        # By itself: what a link does when it is raised is settled before.
        _link(_INSIDE_INDEX, IFLA_AF_SPEC=_attributes(AF_INET6=nobody)),
        _link(_INSIDE_INDEX, change=_IFF_UP),
        _address(
            socket.AF_INET,
            addresses.IPV4.prefixlen,
            IFA_LOCAL=str(addresses.ipv4(slot)),
            IFA_ADDRESS=str(addresses.ipv4(slot)),
            IFA_BROADCAST=str(addresses.IPV4.broadcast_address),
        ),
        _address(
            socket.AF_INET6,
            addresses.IPV6.prefixlen,
            IFA_ADDRESS=str(addresses.ipv6(slot)),
            IFA_FLAGS=_IFA_F_NODAD,
        ),
    ]


def move_to_group(index: int, group: int) -> bytes:
    """Put a link in a group of links."""
    return _link(index, IFLA_GROUP=group)


def delete_group(group: int) -> bytes:
    """Delete every link of a group at once: that costs what one does."""
    return _encoded(ifinfmsg(), RTM_DELLINK, 0, _attributes(IFLA_GROUP=group))


def get_link(index: int) -> bytes:
    """Ask for a link: see is_up()."""
    return _encoded(ifinfmsg(), RTM_GETLINK, 0, _attributes(), index=index)


def is_up(answer: bytes) -> bool:
    """Whether a link carries frames, which is some time after it was raised: the kernel does it later."""
    return _found(answer[_LINK_BYTES:], _IFLA_OPERSTATE)[0] == _OPERSTATE_UP


def get_counters(index: int) -> bytes:
    """Ask for a link's counters: see counters()."""
    mask = 1 << _STATS_LINK_64 - 1
    return _encoded(ifstatsmsg(), _RTM_GETSTATS, 0, _attributes(), ifindex=index, filter_mask=mask)


def counters(answer: bytes) -> tuple[int, int, int, int]:
    """The packets received and sent, and the bytes received and sent: so struct rtnl_link_stats64 begins."""
    return struct.unpack_from("=4Q", _found(answer[_STATS_BYTES:], _STATS_LINK_64))


def _found(attributes: bytes, wanted: int) -> bytes:
    """The value of an attribute. Raises OSError if it is not there."""
    while attributes:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == wanted:
            return attributes[_ATTRIBUTE.size : length]
        attributes = attributes[length + 3 & ~3 :]
    raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))


def _attributes(**values: Any) -> dict[str, Any]:
    return {"attrs": list(values.items())}


def _kind(kind: str, about: dict[str, Any]) -> dict[str, Any]:
    return _attributes(IFLA_INFO_KIND=kind, IFLA_INFO_DATA=_attributes(**about))


def _link(index: int, mode: int = 0, change: int = 0, **attributes: Any) -> bytes:
    """A message about a link; it sets the flags `change`."""
    fields = {"index": index, "flags": change, "change": change}
    return _encoded(ifinfmsg(), RTM_NEWLINK, mode, _attributes(**attributes), **fields)


def _address(family: int, length: int, **attributes: Any) -> bytes:
    fields = {"family": family, "prefixlen": length, "index": _INSIDE_INDEX}
    return _encoded(ifaddrmsg(), RTM_NEWADDR, _MAKE, _attributes(**attributes), **fields)


def _encoded(message: nlmsg, kind: int, mode: int, attributes: dict[str, Any], **fields: int) -> bytes:
    for name, value in (fields | attributes).items():
        message[name] = value
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | mode
    message.encode()
    return bytes(message.data)
