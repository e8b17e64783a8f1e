"""Operations on images as answers to requests: an operation ends with its connection, whoever cuts that.

What takes long tells its progress as events, JSON in lines or, to who asks for text/event-stream, server-sent
events (HTML, section 9.2); the last is `done` or `failed`, and the status is 200 in either case. What does
not is answered when it has ended, by a problem if it failed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import structlog
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from jail.engine import Engine
from jail.errors import SandboxError
from jail.http.problems import ProblemError
from jail.images import protocol
from jail.images.client import Operation
from jail.images.protocol import Answer, Done, Failed, Kind, Progress

AT_ONCE = 4
"""Operations of one worker's."""

RETRY_SECONDS = 5

IDLE_SECONDS = 60
"""For the next piece of an archive to come, and for whatever is sent to be taken."""

JSON, LINES, EVENTS, ARCHIVE = (
    "application/json",
    "application/x-ndjson",
    "text/event-stream",
    "application/x-tar",
)

_STOPS = "The service is about to stop."

_STATUSES: dict[Kind, int] = {"image": 422, "not_found": 404, "in_use": 409, "full": 507}


class Operations:
    """Those of one engine, AT_ONCE at most."""

    def __init__(self, engine: Engine) -> None:
        """None is under way."""
        self._engine = engine
        self._under_way = 0
        self._log = structlog.get_logger().bind()

    @asynccontextmanager
    async def begin(self, asked: protocol.Request) -> AsyncIterator[Operation]:
        """One that is under way until the context ends. Raises ProblemError 503."""
        if self._engine.draining:
            raise _later(_STOPS)
        if self._under_way >= AT_ONCE:
            raise _later(f"{AT_ONCE} operations on images are under way already.")
        self._under_way += 1
        try:
            operation = Operation(self._engine.sandboxes.keeper.start_images, asked)
            try:
                yield operation
            finally:
                await operation.close()
        finally:
            self._under_way -= 1

    async def stopped(self) -> None:
        """Come back when the service waits for none any longer."""
        await self._engine.drained.wait()

    def record(self, asked: protocol.Request, answer: Answer | None) -> None:
        """Log how one ended. None: its caller went away, or its program did."""
        names = [getattr(asked, field, "") for field in ("reference", "name")]
        self._log.info(
            "images",
            operation=type(asked).__name__.lower(),
            image=" ".join(filter(None, names)) or None,
            outcome=type(answer).__name__.lower() if answer else "cancelled",
            cause=answer.cause if isinstance(answer, Failed) else None,
        )


class Result:
    """What an operation answers when it has ended; of one that takes a moment."""

    def __init__(self, operations: Operations, asked: protocol.Request) -> None:
        """Take what is to be done once this is called."""
        self._operations = operations
        self._asked = asked
        self._last: Done | Failed | None = None
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do it. Raises ProblemError."""
        async with self._operations.begin(self._asked) as operation:
            parts = self._attend(operation, receive), self._tell(operation, send), self._operations.stopped()
            tasks = [asyncio.create_task(part) for part in parts]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        self._operations.record(self._asked, self._last)
        for task in tasks:
            # A caller who takes nothing any more is cut.
            with suppress(TimeoutError, asyncio.CancelledError):
                task.result()
        if not self._begun and not tasks[2].cancelled():
            raise _later(_STOPS)

    async def _attend(self, _operation: Operation, receive: Receive) -> None:
        """Come back when the caller has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _tell(self, operation: Operation, send: Send) -> None:
        answer = await self._next(operation)
        if isinstance(answer, Failed):
            raise _problem(answer)
        await self._begin(send, JSON)
        await _patiently(send, _body(msgspec.json.encode(answer)))

    async def _begin(self, send: Send, media_type: str, closes: bool = False) -> None:
        self._begun = True
        headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
        if closes:
            headers.append((b"connection", b"close"))
        await _patiently(send, {"type": "http.response.start", "status": 200, "headers": headers})

    async def _next(self, operation: Operation) -> Answer:
        """What the program says, but for progress. Raises ProblemError 503 when it has ended without."""
        while isinstance(answer := await self._any(operation), Progress):
            pass
        return answer

    async def _any(self, operation: Operation) -> Answer:
        try:
            answer = await operation.answer()
        except SandboxError as error:
            raise _later(f"The program that keeps images has ended: {error}.") from None
        if isinstance(answer, (Done, Failed)):
            self._last = answer
        return answer


class Events(Result):
    """What an operation answers that takes long: events."""

    def __init__(self, operations: Operations, asked: protocol.Request, request: Request) -> None:
        """Take the request, too, which says in what form it wants them."""
        super().__init__(operations, asked)
        self._form = EVENTS if EVENTS in request.headers.get("accept", "") else LINES
        self._has_all = True

    async def _tell(self, operation: Operation, send: Send) -> None:
        while self._last is None:
            answer = await self._answer(operation)
            # Before it has sent all, a caller may not be ready to read.
            if isinstance(answer, Progress) and not self._has_all:
                continue
            if not self._begun:
                await self._begin(send, self._form, closes=not self._has_all)
            await _patiently(send, _body(self._event(answer), more=self._last is None))

    async def _answer(self, operation: Operation) -> Answer:
        try:
            return await self._any(operation)
        except ProblemError as error:
            if not self._begun:
                raise
            self._last = Failed("host", error.detail, "Try again; the service's log may say more.")
            return self._last

    def _event(self, answer: Answer) -> bytes:
        raw = msgspec.json.encode(answer)
        if self._form == LINES:
            return raw + b"\n"
        return b"event: %b\ndata: %b\n\n" % (type(answer).__name__.lower().encode(), raw)


class Upload(Events):
    """The same of one whose request has an archive as its body."""

    def __init__(self, operations: Operations, asked: protocol.Import, request: Request) -> None:
        """Nothing of it is read yet."""
        super().__init__(operations, asked, request)
        self._has_all = False

    async def _attend(self, operation: Operation, receive: Receive) -> None:
        wanted = True
        while (message := await self._receive(receive))["type"] != "http.disconnect":
            if wanted and not self._has_all:
                wanted = await self._pass_on(operation, message)

    async def _receive(self, receive: Receive) -> Message:
        """The next piece. A caller who sends none for long has gone."""
        try:
            async with asyncio.timeout(None if self._has_all else IDLE_SECONDS):
                return await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}

    async def _pass_on(self, operation: Operation, message: Message) -> bool:
        """Whether the program wants more: it may know already what to answer."""
        with suppress(SandboxError):
            await operation.write(message["body"])
            if not message["more_body"]:
                operation.finish()
                self._has_all = True
            return True
        return False


class Download(Result):
    """What an operation answers whose answer is an archive. One that fails on the way is cut."""

    async def _tell(self, operation: Operation, send: Send) -> None:
        answer = await self._next(operation)
        if isinstance(answer, Failed):
            raise _problem(answer)
        await self._begin(send, ARCHIVE)
        with suppress(SandboxError, ProblemError):
            while piece := await operation.read():
                await _patiently(send, _body(piece, more=True))
            if isinstance(await self._next(operation), Done):
                await _patiently(send, _body(b""))


async def _patiently(send: Send, message: Message) -> None:
    """Raises TimeoutError when the caller does not take it."""
    async with asyncio.timeout(IDLE_SECONDS):
        await send(message)


def _body(piece: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": more}


def _problem(failed: Failed) -> ProblemError:
    return ProblemError(_STATUSES.get(failed.kind, 500), f"{failed.cause} {failed.cure}")


def _later(detail: str) -> ProblemError:
    return ProblemError(503, detail, headers={"Retry-After": str(RETRY_SECONDS)})
