"""One HTTP request, forwarded to a program in a sandbox, and its answer, which may be anything.

The program is hostile. The head of its answer is bounded in bytes, in number and in time. Its body passes as
it comes: no more of it is held than was read at once, and more is read only when the caller has taken that.
What is no answer becomes a 502 or a 504; once an answer has begun, its connection is cut.

h11 reads what the program says, and is strict about what HTTP/1.1 is. What we say in turn is put together
anew.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator

import h11
from starlette.types import Receive, Scope, Send

from jail.http import passing
from jail.http.passing import Place
from jail.http.problems import ProblemError
from jail.published import Connection

HEAD_BYTES = 16_384
"""The most for status line and headers, for trailers, and for what stands before a chunk."""

HEADERS = 100

INTERIM_ANSWERS = 8
"""1xx: they are left out."""

WAIT_SECONDS = 60
"""For the head of an answer, once the request is taken; then for each piece of it, to come and be taken."""

# A chunk of one byte takes six on the wire, and as long to read as one of thousands: others have their turn.
_EVENTS_AT_ONCE = 64

_BODYLESS = (204, 304)


class _NoAnswerError(Exception):
    """What the program said is none that can be passed on; the text says why."""


class Exchange:
    """A request and its answer, over a connection that is given back afterwards."""

    def __init__(self, scope: Scope, place: Place, connection: Connection, wait_s: float) -> None:
        """Take the request, where it is for, and how long to wait: WAIT_SECONDS."""
        self._scope = scope
        self._place = place
        self._connection = connection
        self._wait_s = wait_s
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self._begun = False
        self._gone = False

    async def run(self, receive: Receive, send: Send) -> None:
        """Forward it. Raises ProblemError 400, 502, 504 where nothing of an answer has been sent."""
        head = self._head()
        attending = None
        try:
            async with asyncio.timeout(self._wait_s) as self._clock:
                await self._connection.write(head)
                attending = asyncio.create_task(self._attend(receive))
                await self._download(send)
        except TimeoutError:
            detail = f"The program gave no answer within {self._wait_s} s."
            self._fail(ProblemError(504, detail))
        except (h11.RemoteProtocolError, OSError, _NoAnswerError) as error:
            self._fail(ProblemError(502, f"The program gave no answer that can be passed on: {error}."))
        finally:
            if attending:
                attending.cancel()

    def _fail(self, error: ProblemError) -> None:
        """Where an answer has begun there is no room for another: it gets no end, and the server cuts it."""
        if not (self._begun or self._gone):
            raise error

    def _head(self) -> bytes:
        headers = passing.to_program(self._scope["headers"], self._place)
        try:
            asked = h11.Request(method=self._scope["method"], target=self._place.target, headers=headers)
            return self._parser.send(asked)
        except h11.LocalProtocolError as error:
            raise ProblemError(400, f"The request is not of a kind that can be passed on: {error}.") from None

    def _go_on(self) -> None:
        self._clock.reschedule(asyncio.get_running_loop().time() + self._wait_s)

    async def _attend(self, receive: Receive) -> None:
        """Send the body on, as far as the program takes it, until the caller has gone: then close."""
        wanted = True
        while (message := await receive())["type"] != "http.disconnect":
            # The program may have answered, and closed its side, before it had it all.
            wanted = wanted and await self._upload(message["body"], message["more_body"])
        self._gone = True
        self._connection.abort()

    async def _upload(self, data: bytes, more: bool) -> bool:
        """Send a piece of the body; whether there is to be another."""
        sent = self._parser.send(h11.Data(data=data)) if data else b""
        if not more:
            sent += self._parser.send(h11.EndOfMessage())
        try:
            await self._connection.write(sent)
        except OSError:
            return False
        self._go_on()
        return more

    async def _download(self, send: Send) -> None:
        answer = await self._answer()
        headers = self._headers(answer)
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        self._begun = True
        async for data in self._pieces():
            self._go_on()
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self) -> h11.Response:
        for _ in range(INTERIM_ANSWERS + 1):
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                self._parser.receive_data(await self._connection.read(HEAD_BYTES))
            if isinstance(event, h11.Response):
                return event
        raise _NoAnswerError(f"more than {INTERIM_ANSWERS} interim answers")

    def _headers(self, answer: h11.Response) -> list[tuple[bytes, bytes]]:
        # ASGI servers know no others.
        if answer.status_code > 599:
            raise _NoAnswerError(f"status {answer.status_code}")
        told = list(answer.headers)
        if len(told) > HEADERS:
            raise _NoAnswerError(f"{len(told)} headers; the maximum is {HEADERS}")
        try:
            passed = passing.to_caller(told, self._place)
        except ValueError as error:
            raise _NoAnswerError(error) from None
        return [*passed, *_length(answer.status_code, told)]

    async def _pieces(self) -> AsyncIterator[bytes]:
        """The body, in pieces of what was read at once. It ends where the program has said that it does."""
        piece = bytearray()
        for count in itertools.count(1):
            event = self._parser.next_event()
            if isinstance(event, h11.Data):
                piece += event.data
            elif event is not h11.NEED_DATA:
                break
            else:
                if piece:
                    yield bytes(piece)
                    piece.clear()
                self._parser.receive_data(await self._connection.read())
            if count % _EVENTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        if piece:
            yield bytes(piece)


def _length(status: int, headers: passing.Headers) -> list[tuple[bytes, bytes]]:
    """How long the body is, where it is that which says so: RFC 9112, section 6.3."""
    told = dict(headers)
    if status in _BODYLESS or b"transfer-encoding" in told or b"content-length" not in told:
        return []
    return [(b"content-length", told[b"content-length"])]
