"""The hub: it joins the sandboxes of a job to a segment of their own, and takes the segment apart.

    service ── SOCK_SEQPACKET ── hub ──┬── bridge b1 ──┬── p3 ════ eth0 in the sandbox of slot 3
                                       │               └── p7 ════ eth0 in the sandbox of slot 7
                                       └── bridge b2 ── …

One request at a time, in the order in which they come, with two exceptions. A connection that is being
made waits in the loop. And to delete a link costs the kernel some twenty milliseconds, for one as for a
hundred: a thread does that, for all that have piled up since, so that no request waits for it; only a slot
whose link is still there does.

The hub holds the descriptor of a sandbox's network namespace for as long as its segment is open: so its
counters are there to be read when nothing lives in it any more.
"""

import errno
import itertools
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import msgspec

from jail.network import addresses, netlink
from jail.network.burial import Burial, Undertaker
from jail.network.egress import Egress
from jail.network.namespaces import Home
from jail.network.protocol import (
    MEMBERS_MAX,
    PACKET_BYTES,
    Allowed,
    Answer,
    Asked,
    Bounds,
    Close,
    Dial,
    Done,
    Lost,
    Open,
    Ready,
    Refused,
    Request,
    Resolve,
    Told,
    Traffic,
)
from jail.network.watch import Watch

SPARE_BRIDGES = 16
"""How many bridges are there before they are needed; more come and go with jobs."""

# Above what the kernel gives out by itself, one after the other.
_FIRST_BRIDGE = 1 << 16
_FIRST_PORT = 1 << 24

_UP_SECONDS = 5
_LOOK_AGAIN_SECONDS = 0.0005

_DIALLED = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_DIAL_AGAIN = 1  # a SYN, after 1 s; the kernel waits for two more


class RefusedError(Exception):
    """A request that cannot be carried out. Attribute `error`: an errno."""

    def __init__(self, error: int) -> None:
        """Take the errno."""
        super().__init__(os.strerror(error))
        self.error = error


class Segment(msgspec.Struct):
    """What is joined: a bridge by its index, and by slot the descriptors of network namespaces.

    allowed: what it may reach outside; dials: connections into it that are being made, and for whom.
    """

    bridge: int
    namespaces: dict[int, int]
    allowed: tuple[Allowed, ...] = ()
    dials: dict[socket.socket, Dial] = msgspec.field(default_factory=dict)

    @property
    def ports(self) -> dict[int, int]:
        """The indices of its members' links in the hub, by slot."""
        return {slot: _port(slot) for slot in self.namespaces}


class Messages(msgspec.Struct, frozen=True):
    """What is sent for a slot, encoded. `pair` lacks its namespace, `port` its bridge; see with_last().

    `inside` and `route` are for the sandbox.
    """

    pair: bytes
    port: bytes
    rest: tuple[bytes, ...]
    inside: tuple[bytes, ...]
    route: bytes


class Hub:
    """All segments. To be made in the hub's network namespace, once its rules are there."""

    def __init__(
        self, control: socket.socket, slots: int, egress: tuple[socket.socket, Bounds] | None = None
    ) -> None:
        """Be ready to serve `control`, for slots 0 to `slots` - 1.

        egress: the socket of jail.network.outside, and bounds, where there may be a way out. Raises OSError.
        """
        self._control = control
        self._slots = slots
        self._home = Home()
        self._links = netlink.Socket()
        self._egress = Egress(self._links, *egress) if egress else None
        self._undertaker = Undertaker()
        self._segments: dict[int, Segment] = {}
        self._places: dict[int, int] = {}
        self._waiting: list[tuple[Open, list[int]]] = []
        self._dying: set[int] = set()
        self._bridges: list[int] = []
        # Of segments that are closed: free as soon as their ports are gone.
        self._bridges_to_come = 0
        self._bridge_numbers = itertools.count(_FIRST_BRIDGE)
        self._messages: dict[int, Messages] = {}
        self._watch = Watch()
        self._ended = False
        while self._has_too_few_bridges():
            self._bridges.append(self._make_bridge())

    def serve(self) -> None:
        """Carry out what is asked until the service closes its end. What it raises is a defect."""
        self._watch.add(self._control.fileno(), select.POLLIN, self._hear)
        self._watch.add(self._undertaker.done, select.POLLIN, self._forget)
        if self._egress:
            self._watch.add(self._egress.outside.fileno(), select.POLLIN, self._hear_outside)
        self._answer(Ready())
        while not self._ended:
            was_ready = self._watch.wait(self._patience_ms())
            if not was_ready and self._has_too_few_bridges():
                self._bridges.append(self._make_bridge())
            if self._egress:
                self._egress.check_deadline()

    def _has_too_few_bridges(self) -> bool:
        return len(self._bridges) + self._bridges_to_come < SPARE_BRIDGES

    def _patience_ms(self) -> int | None:
        if self._has_too_few_bridges():
            return 0
        return self._egress.patience_ms() if self._egress else None

    def _hear(self) -> None:
        kept = socket.MSG_CMSG_CLOEXEC
        packet, descriptors, flags, _ = socket.recv_fds(self._control, PACKET_BYTES, MEMBERS_MAX, kept)
        if not packet:
            self._ended = True
            return
        if flags & socket.MSG_TRUNC:
            raise ValueError("a request is longer than any can be")
        request = msgspec.json.decode(packet, type=Request)
        if flags & socket.MSG_CTRUNC:
            # There was no room for all of them.
            _close_all(descriptors)
            self._answer(Refused(request.number, errno.EMFILE))
            return
        self._carry_out(request, descriptors)

    def _carry_out(self, request: Request, descriptors: list[int]) -> None:
        with self._refusing(request):
            match request:
                case Open():
                    self._open(request, descriptors)
                case Close():
                    self._close(request)
                case Dial():
                    self._dial(request)
                case Resolve():
                    self._way_out().ask(Asked(host=request.host, number=request.number))

    @contextmanager
    def _refusing(self, request: Request) -> Iterator[None]:
        """What is raised within the context answers the request."""
        try:
            yield
        except RefusedError as refusal:
            self._answer(Refused(request.number, refusal.error))
        except OSError as error:
            self._answer(Refused(request.number, error.errno or errno.EIO, str(error)))

    def _answer(self, answer: Answer, descriptors: Sequence[int] = ()) -> None:
        packet = msgspec.json.encode(answer)
        try:
            socket.send_fds(self._control, [packet], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            self._ended = True

    def _open(self, request: Open, descriptors: list[int]) -> None:
        try:
            self._check(request, descriptors)
            is_early = any(_port(slot) in self._dying for slot in request.slots)
            if is_early or (request.allowed and not self._is_way_open()):
                self._waiting.append((request, descriptors))
                return
            bridge = self._bridges.pop() if self._bridges else self._make_bridge()
            segment = Segment(bridge, dict(zip(request.slots, descriptors, strict=True)))
            try:
                self._join(segment, request.allowed)
            except OSError:
                self._forbid(segment)
                self._bury(segment)
                raise
        except (OSError, RefusedError):
            _close_all(descriptors)
            raise
        self._segments[request.segment] = segment
        self._places |= dict.fromkeys(request.slots, request.segment)
        self._answer(Done(request.number))

    def _check(self, request: Open, descriptors: list[int]) -> None:
        """Raises RefusedError for what would do harm to another segment, or to the hub."""
        slots = request.slots
        if not slots or len(descriptors) != len(slots) or len(set(slots)) != len(slots):
            raise RefusedError(errno.EINVAL)
        if not all(0 <= slot < self._slots for slot in slots):
            raise RefusedError(errno.ERANGE)
        if request.segment in self._segments or any(slot in self._places for slot in slots):
            raise RefusedError(errno.EEXIST)

    def _way_out(self) -> Egress:
        """Raises RefusedError where egress is not switched on."""
        if self._egress is None:
            raise RefusedError(errno.EOPNOTSUPP)
        return self._egress

    def _is_way_open(self) -> bool:
        """If it is not, it will be, or not: then those that wait are told. Raises RefusedError, OSError."""
        egress = self._way_out()
        if not egress.is_open and not egress.is_begun:
            links = egress.begin()
            self._watch.add(links, select.POLLIN, lambda: self._look_for_way(links))
        return egress.is_open

    def _look_for_way(self, links: int) -> None:
        if self._way_out().look():
            self._watch.remove(links)
            self._try_again()

    def _hear_outside(self) -> None:
        egress = self._way_out()
        links = egress.links
        told = egress.hear()
        if told.what == "resolved":
            self._answer(Done(told.number, addresses=told.addresses, detail=told.error))
            return
        if links is not None:
            self._watch.remove(links)
        self._lose_way(told)

    def _lose_way(self, told: Told) -> None:
        """Who waits for it is refused; who uses it is told. The next need of it begins another."""
        waiting, self._waiting = self._waiting, []
        for request, descriptors in waiting:
            if request.allowed:
                _close_all(descriptors)
                self._answer(Refused(request.number, errno.ENETUNREACH, told.error))
            else:
                self._waiting.append((request, descriptors))
        using = tuple(number for number, segment in self._segments.items() if segment.allowed)
        if using:
            self._answer(Lost(using, told.error))

    def _make_bridge(self) -> int:
        bridge = next(self._bridge_numbers)
        self._links.do([netlink.new_bridge(bridge)])
        return bridge

    def _join(self, segment: Segment, allowed: tuple[Allowed, ...]) -> None:
        """Raises OSError; then any part of it may be there."""
        egress = self._way_out() if allowed else None
        # A port is raised before the end in the sandbox: that end can send as soon as it is up.
        messages = []
        for slot, namespace in segment.namespaces.items():
            pair, *rest = self._of(slot, namespace, segment.bridge)
            messages += [pair, *([egress.limit(_port(slot))] if egress else []), *rest]
        self._links.do(messages)
        if egress:
            egress.allow(segment.bridge, segment.ports, allowed)
            segment.allowed = allowed
        with ExitStack() as opened:
            inside = {}
            for slot, namespace in segment.namespaces.items():
                with self._home.inside(namespace):
                    inside[slot] = opened.enter_context(netlink.Socket())
                    first, last = (
                        ([egress.limit_inside()], egress.lead_out(segment.bridge)) if egress else ([], [])
                    )
                inside[slot].do([*first, *self._messages[slot].inside, *last])
            for slot, links in inside.items():
                _wait(links, [self._messages[slot].route], netlink.is_local)
        _wait(self._links, [netlink.get_link(_port(slot)) for slot in segment.namespaces], netlink.is_up)

    def _of(self, slot: int, namespace: int, bridge: int) -> tuple[bytes, ...]:
        port = _port(slot)
        if slot not in self._messages:
            self._messages[slot] = Messages(
                netlink.new_pair(port, slot),
                netlink.raise_port(port),
                (netlink.lock_port(port), netlink.know_address(port, slot)),
                tuple(netlink.raise_inside(slot)),
                netlink.get_route_to_itself(slot),
            )
        known = self._messages[slot]
        return netlink.with_last(known.pair, namespace), netlink.with_last(known.port, bridge), *known.rest

    def _close(self, request: Close) -> None:
        if self._give_up(request.segment):
            self._answer(Done(request.number))
            return
        if request.segment not in self._segments:
            raise RefusedError(errno.ENOENT)
        segment = self._segments.pop(request.segment)
        for slot in segment.namespaces:
            del self._places[slot]
        try:
            self._hang_up(segment)
            traffic = self._traffic(segment)
        finally:
            self._forbid(segment)
            self._bury(segment)
            _close_all(segment.namespaces.values())
        self._answer(Done(request.number, traffic))

    def _forbid(self, segment: Segment) -> None:
        """What stays allowed would be the next job's: a hub that cannot take it away ends."""
        if not segment.allowed:
            return
        try:
            self._way_out().forbid(segment.bridge, segment.ports, segment.allowed)
        except OSError as error:
            raise SystemExit(f"The hub cannot take away what a job was allowed: {error}") from error

    def _give_up(self, segment: int) -> bool:
        """Whether it was still waiting to be opened: now it is not."""
        for waiting in self._waiting:
            request, descriptors = waiting
            if request.segment == segment:
                self._waiting.remove(waiting)
                _close_all(descriptors)
                self._answer(Refused(request.number, errno.ECANCELED))
                return True
        return False

    def _traffic(self, segment: Segment) -> tuple[Traffic, ...]:
        """Of its members in order; what our end has received they have sent."""
        answers = self._links.ask([netlink.get_counters(_port(slot)) for slot in segment.namespaces])
        found = map(netlink.counters, answers)
        return tuple(Traffic(rx_bytes, rx, tx_bytes, tx) for rx, tx, rx_bytes, tx_bytes in found)

    def _bury(self, segment: Segment) -> None:
        links = tuple(map(_port, segment.namespaces))
        self._dying.update(links)
        self._bridges_to_come += 1
        self._undertaker.bury(Burial(links, segment.bridge))

    def _forget(self) -> None:
        """Some links are deleted: their slots are free, and the bridges that they were on."""
        for burial in self._undertaker.gone():
            self._dying.difference_update(burial.links)
            if burial.bridge:
                self._bridges_to_come -= 1
                self._put_back(burial.bridge)
        self._try_again()

    def _try_again(self) -> None:
        waiting, self._waiting = self._waiting, []
        for request, descriptors in waiting:
            self._carry_out(request, descriptors)

    def _put_back(self, bridge: int) -> None:
        """Use a bridge again: with its ports went all that it knew."""
        if self._has_too_few_bridges():
            self._bridges.append(bridge)
        else:
            self._undertaker.bury(Burial((bridge,)))

    def _dial(self, request: Dial) -> None:
        segment = self._segments.get(request.segment)
        if segment is None or request.slot not in segment.namespaces:
            raise RefusedError(errno.ENOENT)
        self._dial_next(segment, request, list(_own_addresses(request.slot)), errno.ECONNREFUSED)

    def _dial_next(self, segment: Segment, request: Dial, left: list[tuple[int, str]], error: int) -> None:
        """Go on with the addresses that are left, after that error."""
        while left and error == errno.ECONNREFUSED:
            family, address = left.pop(0)
            made = self._socket_inside(segment.namespaces[request.slot], family)
            error = made.connect_ex((address, request.port))
            if error == errno.EINPROGRESS:
                segment.dials[made] = request
                self._watch.add(made.fileno(), select.POLLOUT, partial(self._dialled, segment, made, left))
                return
            with made:
                if not error:
                    self._answer(Done(request.number), [made.fileno()])
                    return
        raise RefusedError(error)

    def _socket_inside(self, namespace: int, family: int) -> socket.socket:
        with self._home.inside(namespace):
            made = socket.socket(family, _DIALLED)
        # So the kernel gives up by itself, after some seconds, where a server takes nobody more.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, _DIAL_AGAIN)
        return made

    def _dialled(self, segment: Segment, made: socket.socket, left: list[tuple[int, str]]) -> None:
        """The connection is there, or cannot be."""
        request = segment.dials.pop(made)
        self._watch.remove(made.fileno())
        with self._refusing(request):
            with made:
                error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not error:
                    self._answer(Done(request.number), [made.fileno()])
                    return
            self._dial_next(segment, request, left, error)

    def _hang_up(self, segment: Segment) -> None:
        """Make no connection any more: who has its slots next is another."""
        for made in segment.dials:
            self._watch.remove(made.fileno())
            made.close()
        for request in segment.dials.values():
            self._answer(Refused(request.number, errno.ECANCELED))


def _port(slot: int) -> int:
    """The index of a slot's link in the hub."""
    return _FIRST_PORT + slot


def _wait(links: netlink.Socket, questions: Sequence[bytes], is_so: Callable[[bytes], bool]) -> None:
    """Ask until the kernel has done what it has put off; frames are lost until then. Raises OSError.

    It does it at the next occasion, or, since Linux 6.8, when it is asked for a link.
    """
    deadline = time.monotonic() + _UP_SECONDS
    while not all(map(is_so, links.ask(questions))):
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        time.sleep(_LOOK_AGAIN_SECONDS)


def _own_addresses(slot: int) -> Iterator[tuple[int, str]]:
    """Where a server in a sandbox may listen."""
    yield socket.AF_INET, "127.0.0.1"
    yield socket.AF_INET, str(addresses.ipv4(slot))
    yield socket.AF_INET6, "::1"
    yield socket.AF_INET6, str(addresses.ipv6(slot))


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
