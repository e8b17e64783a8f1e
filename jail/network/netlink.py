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
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
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
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWQDISC,
    RTM_NEWROUTE,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ifstatsmsg import ifstatsmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

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
_NUD_PERMANENT = 0x80
# <linux/rtnetlink.h>
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_RTMGRP_LINK = 1
_TC_H_ROOT = 0xFFFFFFFF

# <linux/pkt_sched.h>: struct tc_tbf_qopt, whose rate and peak rate are struct tc_ratespec; struct tcmsg.
_TBF = struct.Struct("=BBHhHI 12x III")
_TC_LINKLAYER_ETHERNET = 1
_TCA_KIND, _TCA_OPTIONS, _TCA_TBF_PARMS, _TCA_TBF_BURST = 1, 2, 1, 6
_TC = struct.Struct("=B3xiIII")

# <linux/netlink.h>, <linux/netfilter/nfnetlink_conntrack.h>: a subsystem and its message; struct nfgenmsg.
_NETLINK_NETFILTER = 12
_CT_DELETE = 1 << 8 | 2
_CTA_MARK, _CTA_MARK_MASK = 8, 21
_NFGEN = struct.Struct("!BBH")

_FILTERING_SECONDS = 10

# <linux/netfilter/nf_tables.h>
INET, BRIDGE = 1, 7
_NFTABLES, _BATCH_BEGIN, _BATCH_END = 10, 16, 17
_NEW_ELEMENTS, _DELETE_ELEMENTS = _NFTABLES << 8 | 12, _NFTABLES << 8 | 14
_SET_TABLE, _SET_NAME, _SET_ELEMENTS, _LIST_ELEM = 1, 2, 3, 1
_ELEM_KEY, _ELEM_KEY_END, _DATA_VALUE = 1, 10, 1
_NESTED, _IFNAMSIZ = 1 << 15, 16
# struct rtmsg of <linux/rtnetlink.h>.
_TYPE_AT, _RTN_LOCAL = 7, 2

_INSIDE_INDEX = 2
_MAKE = NLM_F_CREATE | NLM_F_EXCL


class Socket:
    """A socket in the network namespace that the caller is in now, and of which it stays; close() it."""

    def __init__(self, groups: int = 0, protocol: int = socket.NETLINK_ROUTE) -> None:
        """Open it, to hear what is told to `groups` as well. Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.bind((0, groups))
        self._number = 0

    def set_patience(self, seconds: float) -> None:
        """Have what waits for an answer longer than that raise OSError."""
        self._socket.settimeout(seconds)

    def fileno(self) -> int:
        """Its descriptor, to poll."""
        return self._socket.fileno()

    def skip(self) -> None:
        """Take what was told to its groups, and forget it; a note that was lost is one of them."""
        with suppress(BlockingIOError, OSError):
            while self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT):
                pass

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
        numbers = self._send(messages, NLM_F_ACK)
        self._wait_for(numbers, numbers[-1])

    def transact(self, messages: Sequence[bytes]) -> None:
        """Send messages about tables of rules: all of them are carried out, or none. Raises OSError."""
        ends = [_nf(kind, socket.AF_UNSPEC, 0, resource=_NFTABLES) for kind in (_BATCH_BEGIN, _BATCH_END)]
        numbers = self._send([ends[0], *messages, ends[1]], NLM_F_ACK, len(messages))
        # The end itself is not answered by every kernel.
        self._wait_for(numbers, numbers[-2])

    def _wait_for(self, numbers: range, last: int) -> None:
        first_error = 0
        while True:
            for number, kind, body in self._answers(numbers):
                if kind == NLMSG_ERROR:
                    first_error = first_error or -_ERROR.unpack_from(body)[0]
                if number == last:
                    if first_error:
                        raise OSError(first_error, os.strerror(first_error))
                    return

    def ask(self, messages: Sequence[bytes]) -> list[bytes]:
        """The body of the one answer to each. Raises OSError."""
        numbers = self._send(messages, 0)
        answers: dict[int, bytes] = {}
        error = 0
        while len(answers) < len(messages):
            for number, kind, body in self._answers(numbers):
                answers[number] = body
                if kind == NLMSG_ERROR:
                    error = error or -_ERROR.unpack_from(body)[0]
        if error:
            raise OSError(error, os.strerror(error))
        return [answers[number] for number in numbers]

    def _send(self, messages: Sequence[bytes], flags_then: int, then: int = -1) -> range:
        """Number and send them, with more flags for the one at `then`; their numbers."""
        packet = bytearray()
        for index, message in enumerate(messages):
            self._number += 1
            length, kind, flags, _, port = _HEADER.unpack_from(message)
            flags |= flags_then if index == then % len(messages) else 0
            packet += _HEADER.pack(length, kind, flags, self._number, port) + message[_HEADER.size :]
        self._socket.send(packet)
        return range(self._number - len(messages) + 1, self._number + 1)

    def _answers(self, numbers: range) -> Iterator[tuple[int, int, bytes]]:
        """Number, type and body of each message of one packet that has one of these numbers.

        What belongs to others is left from one that failed while its answers were still to come.
        """
        packet = self._socket.recv(_RECEIVE_BYTES)
        while packet:
            length, kind, _, number, _ = _HEADER.unpack_from(packet)
            if number in numbers:
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
        IFLA_IFNAME=addresses.bridge(index),
        # Without one it takes that of a port, and a new one with every port that goes.
        IFLA_ADDRESS=addresses.bridge_mac(index),
        IFLA_LINKINFO=_kind("bridge", about),
    )


def new_pair(index: int, slot: int) -> bytes:
    """Make a slot's link, both ends down: its last is the descriptor of the namespace of eth0."""
    # Else as many as the host has processors, and the kernel describes each in /sys.
    queues = {"IFLA_NUM_TX_QUEUES": 1, "IFLA_NUM_RX_QUEUES": 1}
    peer = _attributes(
        IFLA_IFNAME=INSIDE,
        IFLA_ADDRESS=addresses.mac(slot),
        IFLA_MTU=MTU,
        **queues,
        IFLA_NET_NS_FD=0,
    )
    about = {"VETH_INFO_PEER": {"index": _INSIDE_INDEX, **peer}}
    return _link(
        index,
        _MAKE,
        IFLA_IFNAME=addresses.port(slot),
        IFLA_MTU=MTU,
        **queues,
        IFLA_LINKINFO=_kind("veth", about),
    )


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


def get_route_to_itself(slot: int) -> bytes:
    """In a sandbox: ask for the way to its own address of IPv6: see is_local()."""
    address = addresses.ipv6(slot)
    destination = _attributes(RTA_DST=str(address))
    return _encoded(
        rtmsg(), RTM_GETROUTE, 0, destination, family=socket.AF_INET6, dst_len=address.max_prefixlen
    )


def is_local(answer: bytes) -> bool:
    """Whether what comes to that address is taken in: as with is_up(), the kernel sees to it later."""
    return answer[_TYPE_AT] == _RTN_LOCAL


def move_to_group(index: int, group: int) -> bytes:
    """Put a link in a group of links."""
    return _link(index, IFLA_GROUP=group)


def delete_group(group: int) -> bytes:
    """Delete every link of a group at once: that costs what one does."""
    return _encoded(ifinfmsg(), RTM_DELLINK, 0, _attributes(IFLA_GROUP=group))


def filtering() -> Socket:
    """A socket for tables of rules, and for the connections that the kernel tracks."""
    made = Socket(protocol=_NETLINK_NETFILTER)
    # A batch that the kernel cannot take at all is not answered where it is waited for.
    made.set_patience(_FILTERING_SECONDS)
    return made


def forget_connections(mark: int) -> bytes:
    """Track none any more that bears that mark. One message, however many there are."""
    about = _attribute(_CTA_MARK, struct.pack("!I", mark))
    about += _attribute(_CTA_MARK_MASK, struct.pack("!I", 0xFFFFFFFF))
    return _nf(_CT_DELETE, socket.AF_UNSPEC, 0, about)


def set_elements(
    table: tuple[int, str], name: str, keys: Sequence[tuple[bytes, bytes | None]], added: bool
) -> bytes:
    """Add elements to a set of a table, by family and name, or take them away, as transact() does.

    keys: a key each, and for a range the last one as well, with fields as key_field() makes them.
    """
    elements = b""
    for first, last in keys:
        element = _attribute(_ELEM_KEY | _NESTED, _attribute(_DATA_VALUE, first))
        if last is not None:
            element += _attribute(_ELEM_KEY_END | _NESTED, _attribute(_DATA_VALUE, last))
        elements += _attribute(_LIST_ELEM | _NESTED, element)
    family, table_name = table
    body = _attribute(_SET_TABLE, table_name.encode() + b"\0") + _attribute(_SET_NAME, name.encode() + b"\0")
    body += _attribute(_SET_ELEMENTS | _NESTED, elements)
    kind, mode = (_NEW_ELEMENTS, NLM_F_CREATE) if added else (_DELETE_ELEMENTS, 0)
    return _nf(kind, family, mode, body)


def key_field(value: bytes) -> bytes:
    """A field of a key: what has no whole number of registers of four bytes is filled up."""
    return value + bytes(-len(value) % 4)


def key_name(link: str) -> bytes:
    """The name of a link as a field of a key."""
    return link.encode().ljust(_IFNAMSIZ, b"\0")


def watch_links() -> Socket:
    """A socket that is told of links that come, change and go."""
    return Socket(_RTMGRP_LINK)


def find_link(name: str) -> bytes:
    """Ask for a link by its name: see index_of()."""
    return _encoded(ifinfmsg(), RTM_GETLINK, 0, _attributes(IFLA_IFNAME=name))


def index_of(answer: bytes) -> int:
    """The index of the link that was asked for."""
    return struct.unpack_from("=4xi", answer)[0]


def raise_link(index: int, mtu: int) -> list[bytes]:
    """Raise a link that has no address of its own making."""
    nobody = _attributes(IFLA_INET6_ADDR_GEN_MODE=_ADDRESSES_MADE_BY_NOBODY)
    return [
        _link(index, IFLA_AF_SPEC=_attributes(AF_INET6=nobody), IFLA_MTU=mtu),
        _link(index, change=_IFF_UP),
    ]


def add_address(index: int, found: IPv4Interface | IPv6Interface) -> bytes:
    """Give a link an address, in use at once."""
    local = {"IFA_LOCAL": str(found.ip)} if found.version == 4 else {"IFA_FLAGS": _IFA_F_NODAD}
    about = {"index": index, "family": _family(found), "prefixlen": found.network.prefixlen}
    return _encoded(ifaddrmsg(), RTM_NEWADDR, _MAKE, _attributes(IFA_ADDRESS=str(found.ip), **local), **about)


def add_default_route(index: int, gateway: IPv4Address | IPv6Address) -> bytes:
    """Send what has no other route to a gateway on a link."""
    attributes = _attributes(RTA_OIF=index, RTA_GATEWAY=str(gateway))
    return _route(RTM_NEWROUTE, _MAKE, gateway, 0, _RT_SCOPE_UNIVERSE, attributes)


def route_slot(index: int, slot: int, added: bool = True) -> list[bytes]:
    """In the hub: lead to a slot's addresses by the bridge of that index, or not any more.

    Nobody is asked who has them: they are known.
    """
    found = (addresses.ipv4(slot), addresses.ipv6(slot))
    kinds = (RTM_NEWROUTE, RTM_NEWNEIGH, _MAKE) if added else (RTM_DELROUTE, RTM_DELNEIGH, 0)
    messages = []
    for address in found:
        to = _attributes(RTA_OIF=index, RTA_DST=str(address))
        messages.append(_route(kinds[0], kinds[2], address, address.max_prefixlen, _RT_SCOPE_LINK, to))
        messages.append(_neighbour(kinds[1], kinds[2], index, address, addresses.mac(slot)))
    return messages


def lead_out(bridge: int) -> list[bytes]:
    """In a sandbox: have the hub's bridge for a way out."""
    mac = addresses.bridge_mac(bridge)
    return [
        message
        for gateway in addresses.GATEWAYS
        for message in (
            _neighbour(RTM_NEWNEIGH, _MAKE, _INSIDE_INDEX, gateway, mac),
            add_default_route(_INSIDE_INDEX, gateway),
        )
    ]


def limit_rate(index: int, bytes_per_s: int, burst_bytes: int, queue_bytes: int) -> bytes:
    """Let so much out by a link: tc-tbf(8). What comes faster waits, as much as the queue holds."""
    linklayer = _TC_LINKLAYER_ETHERNET
    parameters = _TBF.pack(0, linklayer, 0, 0, 0, bytes_per_s, queue_bytes, 0, 0)
    options = _attribute(_TCA_TBF_PARMS, parameters) + _attribute(
        _TCA_TBF_BURST, struct.pack("=I", burst_bytes)
    )
    body = _TC.pack(socket.AF_UNSPEC, index, 0, _TC_H_ROOT, 0)
    body += _attribute(_TCA_KIND, b"tbf\0") + _attribute(_TCA_OPTIONS, options)
    return _HEADER.pack(_HEADER.size + len(body), RTM_NEWQDISC, NLM_F_REQUEST | _MAKE, 0, 0) + body


def limit_rate_inside(bytes_per_s: int, burst_bytes: int, queue_bytes: int) -> bytes:
    """In a sandbox: the same for what it sends."""
    return limit_rate(_INSIDE_INDEX, bytes_per_s, burst_bytes, queue_bytes)


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


def _family(found: IPv4Interface | IPv6Interface | IPv4Address | IPv6Address) -> int:
    return socket.AF_INET if found.version == 4 else socket.AF_INET6


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _nf(kind: int, family: int, mode: int, body: bytes = b"", resource: int = 0) -> bytes:
    """A message of nfnetlink."""
    body = _NFGEN.pack(family, 0, resource) + body
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | mode, 0, 0) + body


def _route(
    kind: int,
    mode: int,
    address: IPv4Address | IPv6Address,
    length: int,
    scope: int,
    attributes: dict[str, Any],
) -> bytes:
    about = {"family": _family(address), "dst_len": length, "table": _RT_TABLE_MAIN, "scope": scope}
    return _encoded(rtmsg(), kind, mode, attributes, **about, proto=_RTPROT_STATIC, type=_RTN_UNICAST)


def _neighbour(kind: int, mode: int, index: int, address: IPv4Address | IPv6Address, mac: str) -> bytes:
    about = {"family": _family(address), "ifindex": index, "state": _NUD_PERMANENT}
    return _encoded(ndmsg(), kind, mode, _attributes(NDA_DST=str(address), NDA_LLADDR=mac), **about)


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
