"""The way out of the hub: who may go where, how fast, and how many connections at once.

    sandbox eth0 ═══ p3 ─ bridge b1 ─ the hub's routes and rules ─ way ═══ slirp4netns or pasta ═══ host

A segment with egress is one without, and more: its bridge hands frames for its own address up to the hub,
which routes. A sandbox may send to what is in a set of the hub's rules by (bridge, network, protocol, port),
and that is looked up for every packet, not for the first alone; answers come in by the connections that the
kernel tracks. The set is filled before a member's link is up, and emptied when the segment is closed, with
all that is tracked of its members: who has their slots next inherits nothing. That an address is its
sender's own the rules of jail.network.rules see to, before.

Rates are those of each end of a sandbox's link, so traffic within the segment counts as well: what comes
faster waits in a queue, in the sandbox its sender too. Neither slirp4netns nor pasta copes with loss: so a
sandbox announces windows that the queue can hold.
"""

import math
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_network
from pathlib import Path

import msgspec

from jail.network import addresses, netlink, way
from jail.network.protocol import Allowed, Asked, Bounds, Told

_SYSCTLS = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}


WAY_SECONDS = 10
"""How long the way out may take to be there."""

_QUEUE_BYTES = 2 << 20
_WINDOWS = "4096 65536 262144"
"""tcp(7), tcp_rmem: eight connections at their fastest, or 32 that have just begun, fit into the queue."""

_BURST_BYTES_MIN = 16_000
_BURSTS_PER_SECOND = 200


class Egress:
    """The way out, from the first need of it on.

    Attributes: `outside`, the socket of jail.network.outside, to poll; `is_open`, whether the way is there
    now; `links`, a descriptor to poll while it is about to be, else None.
    """

    def __init__(self, links: netlink.Socket, outside: socket.socket, bounds: Bounds) -> None:
        """Take a socket in the hub's network namespace, and that of `outside`. Raises OSError."""
        self._netlink = links
        self.outside = outside
        self._bounds = bounds
        self.is_open = False
        self._coming: netlink.Socket | None = None
        self._deadline: float | None = None
        self._filter = netlink.filtering()
        for name, value in _SYSCTLS.items():
            _set(name, value)

    def ask(self, asked: Asked) -> None:
        """Ask for a host's addresses. Raises OSError."""
        self.outside.send(msgspec.json.encode(asked))

    @property
    def is_begun(self) -> bool:
        """Whether it is about to be there."""
        return self._coming is not None

    @property
    def links(self) -> int | None:
        """See above."""
        return self._coming.fileno() if self._coming else None

    def begin(self) -> int:
        """Have the way out made; the descriptor to poll. Raises OSError."""
        self._coming = netlink.watch_links()
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            packet = msgspec.json.encode(Asked(program=self._bounds.program))
            socket.send_fds(self.outside, [packet], [namespace])
        finally:
            os.close(namespace)
        self._deadline = time.monotonic() + WAY_SECONDS
        return self._coming.fileno()

    def patience_ms(self) -> int | None:
        """When to look at the clock again; None for never."""
        if self._deadline is None:
            return None
        return max(0, math.ceil((self._deadline - time.monotonic()) * 1000))

    def check_deadline(self) -> None:
        """Have a way out ended that does not come to be. Raises OSError."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            self.outside.send(msgspec.json.encode(Asked()))

    def look(self) -> bool:
        """Links have changed: whether the way out is there, and carries what it is given. Raises OSError."""
        self._coming.skip()
        try:
            (answer,) = self._netlink.ask([netlink.find_link(way.DEVICE)])
        except OSError:
            return False
        self._stop_looking()
        index = netlink.index_of(answer)
        _set(f"ipv6/conf/{way.DEVICE}/disable_ipv6", "0")
        self._netlink.do(
            [
                *netlink.raise_link(index, way.MTU),
                *(netlink.add_address(index, address) for address in way.ADDRESSES),
                *(netlink.add_default_route(index, gateway) for gateway in way.GATEWAYS),
            ]
        )
        self.is_open = True
        return True

    def hear(self) -> Told:
        """What `outside` has to say. Raises OSError when it has ended, which is a defect of ours."""
        packet = self.outside.recv(1 << 16)
        if not packet:
            raise OSError("what the hub left in the host's network has ended")
        told = msgspec.json.decode(packet, type=Told)
        if told.what == "ended":
            # Its device and the routes by it are gone with it.
            self.is_open = False
            self._stop_looking()
        return told

    def _stop_looking(self) -> None:
        self._deadline = None
        if self._coming is not None:
            self._coming.close()
            self._coming = None

    def allow(self, bridge: int, members: Mapping[int, int], allowed: Iterable[Allowed]) -> None:
        """Let the members of a segment, ports by slot, go where it is allowed. Raises OSError."""
        self._load(True, bridge, members, allowed)
        try:
            self._connect(bridge, members)
        except OSError:
            self.forbid(bridge, members, allowed)
            raise

    def _connect(self, bridge: int, members: Mapping[int, int]) -> None:
        _set(f"ipv6/conf/{addresses.bridge(bridge)}/disable_ipv6", "0")
        self._netlink.do([message for slot in members for message in netlink.route_slot(bridge, slot)])

    def limit(self, port: int) -> bytes:
        """Limits what a sandbox is sent, for a port that is not raised yet: then nobody waits for it."""
        return netlink.limit_rate(port, self._bounds.bytes_per_s, self._burst_bytes, _QUEUE_BYTES)

    def limit_inside(self) -> bytes:
        """The same for what it sends, in its network namespace."""
        return netlink.limit_rate_inside(self._bounds.bytes_per_s, self._burst_bytes, _QUEUE_BYTES)

    @property
    def _burst_bytes(self) -> int:
        return max(_BURST_BYTES_MIN, self._bounds.bytes_per_s // _BURSTS_PER_SECOND)

    def lead_out(self, bridge: int) -> list[bytes]:
        """What there is to do last in the network namespace of a member. Raises OSError."""
        _set("ipv4/tcp_rmem", _WINDOWS)
        return netlink.lead_out(bridge)

    def forbid(self, bridge: int, members: Mapping[int, int], allowed: Iterable[Allowed]) -> None:
        """Leave nothing of what was allowed, nor of the connections that were made. Raises OSError."""
        self._load(False, bridge, members, allowed)
        # A route that is not there any more is what is wanted.
        with suppress(OSError):
            self._netlink.do(
                [message for slot in members for message in netlink.route_slot(bridge, slot, added=False)]
            )
        self._filter.do([netlink.forget_connections(addresses.mark(slot)) for slot in members])
        _set(f"ipv6/conf/{addresses.bridge(bridge)}/disable_ipv6", "1")

    def _load(self, added: bool, bridge: int, members: Mapping[int, int], allowed: Iterable[Allowed]) -> None:
        ports = [(netlink.key_name(addresses.port(slot)), None) for slot in members]
        messages = [netlink.set_elements((netlink.BRIDGE, "jail"), "outward", ports, added)]
        for name, keys in _keys(addresses.bridge(bridge), allowed):
            messages.append(netlink.set_elements((netlink.INET, "jail"), name, keys, added))
        self._filter.transact(messages)


def _keys(bridge: str, allowed: Iterable[Allowed]) -> Iterable[tuple[str, list[tuple[bytes, bytes]]]]:
    """By the name of the set, the ranges; no two of them overlap, which the kernel would refuse."""
    by_set: dict[str, dict[int, list[IPv4Network | IPv6Network]]] = {}
    for one in allowed:
        network = ip_network(one.network)
        by_port = by_set.setdefault(f"ipv{network.version}_{one.protocol}", {})
        by_port.setdefault(one.port, []).append(network)
    for name, by_port in by_set.items():
        yield (
            name,
            [
                (_key(bridge, network[0], port), _key(bridge, network[-1], port))
                for port, networks in by_port.items()
                for network in collapse_addresses(networks)
            ],
        )


def _key(bridge: str, address: IPv4Address | IPv6Address, port: int) -> bytes:
    """As the sets ipv4_tcp and the like have it: jail.network.rules."""
    fields = (netlink.key_name(bridge), address.packed, port.to_bytes(2, "big"))
    return b"".join(map(netlink.key_field, fields))


def _set(name: str, value: str) -> None:
    """A setting of the network namespace that we are in. Without IPv6 there is none to set."""
    path = Path("/proc/sys/net", name)
    if path.exists() or not name.startswith("ipv6/"):
        path.write_text(value)
