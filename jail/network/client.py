"""The hub's client: segments are opened and closed, and ports of sandboxes dialled, from the event loop.

    hub = Hub(start)
    segment = await hub.open({3: descriptor, 7: another})
    ...
    traffic = await segment.close()
    hub.close()

A hub that is lost stays so, with all its segments, at once and for good: what is asked of it raises
SandboxError("network"), and a new Hub starts with a clean network namespace. It is lost when it has ended,
when it says what nobody understands, and when it does not answer in time. Then its socket is closed, which
ends it; one that does not run at all is killed with the keeper, its parent.
"""

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from typing import Any

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
"""Requests under way at once, each until it is answered: their packets fit into the socket's buffer."""

_LARGE_OUTSTANDING = 2
"""Of these, such as have destinations."""

_SLOW_OUTSTANDING = 32
"""Of these, such as wait for a sandbox or for the network outside."""

START_SECONDS = 60
"""How long a hub may take until it can serve: thousands of elements of its rules are loaded in that time."""

ANSWER_SECONDS = 20
"""How long it may take for an answer. A way out has 10 s; four addresses are dialled for 3 s each; of the
names that may be asked for at once the last is begun after 5 s, and has as long."""


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
        _, descriptor = await self._hub.ask(
            lambda number: Dial(number, self._number, slot, port), room=self._hub.slow
        )
        if descriptor is None:
            self._hub.lose()
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
        answer, _ = await self._hub.ask(self._end)
        if len(answer.traffic) != len(self.slots):
            self._hub.lose()
            raise SandboxError(STAGE, errno.EPROTO)
        return dict(zip(self.slots, answer.traffic, strict=True))

    def _end(self, number: int) -> Close:
        return Close(number, self._number)


class Hub:
    """One running hub. `lost` is set when it is of no more use, and was not told to end.

    Attributes: `words`, what it said last of what it cannot do, for the operator, else empty; `slow`, for
    this module: room for requests that may take long.
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
        self.slow = asyncio.Semaphore(_SLOW_OUTSTANDING)
        self._open: dict[int, Segment] = {}
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._read)
        with theirs:
            start(theirs)
        self._expect(self._ready, START_SECONDS)

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
            await self.ask(
                lambda number: Open(number, segment._number, slots, tuple(allowed)),
                tuple(namespaces.values()),
                room=self._large if allowed else None,
                undo=segment._end,
            )
        except BaseException:
            self._open.pop(segment._number, None)
            raise
        return segment

    async def resolve(self, host: str) -> tuple[tuple[str, ...], str]:
        """The addresses of a host, as the network outside knows it, or none and why. Raises SandboxError."""
        answer, _ = await self.ask(lambda number: Resolve(number, host), room=self.slow)
        return answer.addresses, answer.detail

    def close(self) -> None:
        """End it: with its network namespace goes all that is in it. What is still asked fails."""
        if self._socket.fileno() >= 0:
            self._end()

    def forget(self, segment: int) -> None:
        """For this module: a segment is being closed, and need not be told of a loss."""
        self._open.pop(segment, None)

    async def ask(
        self,
        request: Callable[[int], Request],
        descriptors: tuple[int, ...] = (),
        room: asyncio.Semaphore | None = None,
        undo: Callable[[int], Request] | None = None,
    ) -> tuple[Done, int | None]:
        """For this module: the answer to a request that is made with a number. Raises SandboxError.

        room: what it needs of its kind besides. undo: makes what is asked at once if the caller is cancelled;
        the hub may have done what was wanted, or be about to.
        """
        with ExitStack() as held:
            for needed in filter(None, (room, self._room)):
                await needed.acquire()
                held.callback(needed.release)
            await self.ready()
            asked = [self._send(request, descriptors)]
            # Until the hub has answered it is at work on it, whether or not somebody waits.
            give_back = held.pop_all().close
        try:
            await asyncio.wait(asked)
            return asked[0].result()
        except asyncio.CancelledError:
            asked[0].add_done_callback(_drop)
            if undo is not None:
                with suppress(SandboxError):
                    asked.append(self._send(undo))
            raise
        finally:
            asyncio.gather(*asked, return_exceptions=True).add_done_callback(lambda _: give_back())

    def _send(
        self, request: Callable[[int], Request], descriptors: tuple[int, ...] = ()
    ) -> "asyncio.Future[tuple[Done, int | None]]":
        """What is to be answered. Raises SandboxError."""
        number = next(self._numbers)
        try:
            socket.send_fds(self._socket, [msgspec.json.encode(request(number))], descriptors)
        except OSError as error:
            # Without descriptors it always has room: what is not closed would be the next one's.
            if not descriptors:
                self.lose()
            raise SandboxError(STAGE, error.errno or 0) from None
        answered = self._asked[number] = self._loop.create_future()
        self._expect(answered, ANSWER_SECONDS)
        return answered

    def _expect(self, answered: asyncio.Future[Any], seconds: float) -> None:
        """Lose the hub if that is not answered in time."""
        deadline = self._loop.call_later(seconds, self._expire, answered)
        answered.add_done_callback(lambda _: deadline.cancel())

    def _expire(self, answered: asyncio.Future[Any]) -> None:
        # It may be that it was we who did not run.
        self._read()
        if not answered.done():
            self.lose()

    def _read(self) -> None:
        """Take in what the hub has to say; an end of file is its death."""
        for packet, descriptors in received(self._socket, protocol.PACKET_BYTES, 1):
            try:
                answer = msgspec.json.decode(packet, type=Answer)
            except msgspec.DecodeError:
                # Among them is its end.
                for descriptor in descriptors:
                    os.close(descriptor)
                self.lose()
                return
            self._take(answer, descriptors[0] if descriptors else None)
            if self.lost.is_set():
                return

    def _take(self, answer: Answer, descriptor: int | None) -> None:
        if isinstance(answer, Ready):
            if self._ready.done():
                self.lose()
            else:
                self._ready.set_result(None)
            return
        if isinstance(answer, Refused) and not answer.number:
            self.words = answer.detail
            self._fail(SandboxError(STAGE, answer.error))
            self.lose()
            return
        if isinstance(answer, Lost):
            self.words = answer.detail
            for segment in filter(None, map(self._open.get, answer.segments)):
                segment.lost.set()
            return
        asked = self._asked.pop(answer.number, None)
        if asked is None:
            if descriptor is not None:
                os.close(descriptor)
            self.lose()
        elif isinstance(answer, Refused):
            self.words = answer.detail or self.words
            asked.set_exception(SandboxError(STAGE, answer.error))
        else:
            asked.set_result((answer, descriptor))

    def lose(self) -> None:
        """For this module: it is of no more use, and is to end. Again: nothing."""
        if self._socket.fileno() >= 0:
            self.lost.set()
            self._end()

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


def _drop(answered: "asyncio.Future[tuple[Done, int | None]]") -> None:
    """Nobody takes what has come with the answer."""
    if not answered.exception():
        _, descriptor = answered.result()
        if descriptor is not None:
            os.close(descriptor)
