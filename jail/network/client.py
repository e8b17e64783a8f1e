"""The hub's client: segments are opened and closed, and ports of sandboxes dialled, from the event loop.

    hub = Hub(start)
    segment = await hub.open({3: descriptor, 7: another})
    ...
    traffic = await segment.close()
    hub.close()

A hub that is lost stays so, with all its segments, at once and for good: what is asked of it raises
SandboxError("network"), and a new Hub starts with a clean network namespace.
"""

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext, suppress

import msgspec

from jail.errors import SandboxError
from jail.keeper import received
from jail.network import protocol
from jail.network.protocol import (
    Allowed,
    Answer,
    Close,
    Dial,
    Done,
    Lost,
    Open,
    Ready,
    Refused,
    Request,
    Resolve,
    Traffic,
)

STAGE = "network"
"""The stage of every SandboxError from here."""

_OUTSTANDING = 64
"""Requests under way at once: their packets always fit into the socket's buffer."""

_LARGE_OUTSTANDING = 2
"""Of these, such as have destinations."""


class Segment:
    """Sandboxes that reach each other and nobody else but what is allowed, until it is closed.

    Attributes: `slots`, of its members; `lost`, set when it is of no more use, for the loss of its way out or
    of the hub: it is to be closed all the same.
    """

    def __init__(self, hub: "Hub", number: int, slots: tuple[int, ...]) -> None:
        """To be had from Hub.open()."""
        self.slots = slots
        self.lost = asyncio.Event()
        self._hub = hub
        self._number = number
        self._closed: asyncio.Task[dict[int, Traffic]] | None = None

    async def dial(self, slot: int, port: int) -> socket.socket:
        """A connection to a TCP port in the sandbox of a member, at whichever of its addresses it is.

        It is the caller's, and does not block. Raises SandboxError: ECONNREFUSED when nobody listens, ENOENT
        when the slot is of no member or the segment is closed, ECANCELED when it is closed meanwhile.
        """
        _, descriptor = await self._hub.ask(lambda number: Dial(number, self._number, slot, port))
        if descriptor is None:
            raise SandboxError(STAGE, errno.EPROTO)
        return socket.socket(fileno=descriptor)

    async def close(self) -> dict[int, Traffic]:
        """Take it apart, and tell by slot what has passed. Again: the same answer, and nothing else.

        To be called when nothing lives in its sandboxes: then the counters are final, and before a slot is
        given to another sandbox. It goes on when the caller is cancelled. Raises SandboxError.
        """
        if self._closed is None:
            self._closed = asyncio.create_task(self._close())
            # It may be that nobody waits for it any more.
            self._closed.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._closed)

    async def _close(self) -> dict[int, Traffic]:
        self._hub.forget(self._number)
        answer, _ = await self._hub.ask(lambda number: Close(number, self._number))
        return dict(zip(self.slots, answer.traffic, strict=True))


class Hub:
    """One running hub. `lost` is set when it has ended, and was not told to.

    Attribute `words`: what it said last of what it cannot do, for the operator; else empty.
    """

    def __init__(self, start: Callable[[socket.socket], object]) -> None:
        """Have `start` start its program with a socket, which it must not keep.

        From the event loop's thread. What `start` raises comes out here.
        """
        self.lost = asyncio.Event()
        self.words = ""
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._asked: dict[int, asyncio.Future[tuple[Done, int | None]]] = {}
        self._numbers = itertools.count(1)
        self._segments = itertools.count(1)
        self._room = asyncio.Semaphore(_OUTSTANDING)
        self._large = asyncio.Semaphore(_LARGE_OUTSTANDING)
        self._open: dict[int, Segment] = {}
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._read)
        with theirs:
            start(theirs)

    async def ready(self) -> None:
        """Wait until it can serve. open() does so, too. Raises SandboxError."""
        await asyncio.shield(self._ready)

    async def open(self, namespaces: Mapping[int, int], allowed: Collection[Allowed] = ()) -> Segment:
        """Join sandboxes to a segment of their own: by slot, descriptors of their network namespaces.

        With `allowed`, ALLOWED_MAX at most, they have a way out to these destinations and no other.

        Those remain the caller's. When it returns, each member has eth0 with its addresses
        (jail.network.addresses) and reaches the others. Raises SandboxError; then there is nothing of it.
        """
        slots = tuple(namespaces)
        if not 0 < len(slots) <= protocol.MEMBERS_MAX or len(allowed) > protocol.ALLOWED_MAX:
            raise SandboxError(STAGE, errno.EINVAL)
        segment = Segment(self, next(self._segments), slots)
        self._open[segment._number] = segment
        try:
            async with self._large if allowed else nullcontext():
                await self.ask(
                    lambda number: Open(number, segment._number, slots, tuple(allowed)),
                    tuple(namespaces.values()),
                )
        except BaseException as error:
            self._open.pop(segment._number, None)
            if isinstance(error, asyncio.CancelledError):
                self._forsake(segment)
            raise
        return segment

    async def resolve(self, host: str) -> tuple[tuple[str, ...], str]:
        """The addresses of a host, as the network outside knows it, or none and why. Raises SandboxError."""
        answer, _ = await self.ask(lambda number: Resolve(number, host))
        return answer.addresses, answer.detail

    def close(self) -> None:
        """End it: with its network namespace goes all that is in it. What is still asked fails."""
        if not self.lost.is_set():
            self._end()

    def forget(self, segment: int) -> None:
        """For this module: a segment is being closed, and need not be told of a loss."""
        self._open.pop(segment, None)

    async def ask(
        self, request: Callable[[int], Request], descriptors: tuple[int, ...] = ()
    ) -> tuple[Done, int | None]:
        """For this module: the answer to a request that is made with a number. Raises SandboxError."""
        await self.ready()
        async with self._room:
            number = next(self._numbers)
            answered = self._loop.create_future()
            self._send(request(number), descriptors)
            self._asked[number] = answered
            return await answered

    def _send(self, request: Request, descriptors: tuple[int, ...]) -> None:
        try:
            socket.send_fds(self._socket, [msgspec.json.encode(request)], descriptors)
        except OSError as error:
            raise SandboxError(STAGE, error.errno or 0) from None

    def _forsake(self, segment: Segment) -> None:
        """Whoever wanted it is gone; the hub may have opened it, or be about to."""
        with suppress(SandboxError):
            self._send(Close(next(self._numbers), segment._number), ())

    def _read(self) -> None:
        """Take in what the hub has to say; an end of file is its death."""
        for packet, descriptors in received(self._socket, protocol.PACKET_BYTES, 1):
            if not packet:
                self._lose()
                return
            answer = msgspec.json.decode(packet, type=Answer)
            self._take(answer, descriptors[0] if descriptors else None)

    def _take(self, answer: Answer, descriptor: int | None) -> None:
        if isinstance(answer, Ready):
            self._ready.set_result(None)
            return
        if isinstance(answer, Refused) and not answer.number:
            self.words = answer.detail
            self._fail(SandboxError(STAGE, answer.error))
            return
        if isinstance(answer, Lost):
            self.words = answer.detail
            for segment in filter(None, map(self._open.get, answer.segments)):
                segment.lost.set()
            return
        asked = self._asked.pop(answer.number, None)
        if asked is None or asked.done():
            # Of one that was forsaken.
            if descriptor is not None:
                os.close(descriptor)
        elif isinstance(answer, Refused):
            self.words = answer.detail or self.words
            asked.set_exception(SandboxError(STAGE, answer.error))
        else:
            asked.set_result((answer, descriptor))

    def _lose(self) -> None:
        self._end()
        self.lost.set()

    def _end(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._fail(SandboxError(STAGE))
        for segment in self._open.values():
            segment.lost.set()

    def _fail(self, error: SandboxError) -> None:
        """There will be no more answers. What it was that failed first stays."""
        if self._ready.done() and not self._ready.exception():
            self._ready = self._loop.create_future()
        for waiting in (self._ready, *self._asked.values()):
            if not waiting.done():
                waiting.set_exception(error)
                # It may be that nobody waits for it.
                waiting.exception()
        self._asked.clear()
