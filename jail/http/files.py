"""/v1/files: what callers send once and name in many jobs.

Bodies pass to and from a disk in pieces, and no more of one is held than is written or read at once. Threads
wait for the disk, never the event loop; and nobody else waits for a caller who sends or takes nothing.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from jail.engine import Engine
from jail.errors import (
    FileDigestError,
    FileInUseError,
    FileNotStoredError,
    FilesDiskFullError,
    FilesFullError,
    FileTooLargeError,
    StoredFileError,
)
from jail.files import Desk, Incoming, Kept, Stored, is_digest
from jail.files.desk import PIECE_BYTES
from jail.http import keys
from jail.http.problems import ProblemError

FILES = "/v1/files"
ONE = f"{FILES}/{{digest}}"

MEDIA_TYPE = "application/octet-stream"

IDLE_SECONDS = 60
"""For the next piece to come, and for whatever is sent to be taken."""

RETRY_SECONDS = 5

_READ_BYTES = 1 << 18

# A connection whose body was not read cannot carry another request.
_CLOSE = {"Connection": "close"}

_STATUSES: dict[type[StoredFileError], int] = {
    FileNotStoredError: 404,
    FileInUseError: 409,
    FileTooLargeError: 413,
    FileDigestError: 422,
    FilesFullError: 429,
    FilesDiskFullError: 507,
}


class StoredName(msgspec.Struct, frozen=True):
    """A file that is stored now: `file` is what jobs name it by."""

    file: str
    bytes: int


class StoredSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """One that the caller can use. used_s: when it last was, in seconds since 1970; not of published ones."""

    file: str
    bytes: int
    used_s: int | None = None
    published: bool = False


class StoredList(msgspec.Struct, frozen=True):
    """The caller's own files and those that the operator has published."""

    files: tuple[StoredSummary, ...]


class Files:
    """The endpoints of one engine's store."""

    def __init__(self, engine: Engine) -> None:
        """No upload is under way."""
        self._engine = engine
        self._desk = engine.means.files
        self._store = self._desk.files

    def routes(self) -> list[Route]:
        """In the order in which they are to be looked through."""
        return [
            Route(FILES, self._list, methods=["GET"]),
            Route(FILES, self._put, methods=["PUT"]),
            Route(ONE, self._put, methods=["PUT"]),
            Route(ONE, self._get, methods=["GET"]),
            Route(ONE, self._remove, methods=["DELETE"]),
        ]

    async def _list(self, request: Request) -> Response:
        """GET /v1/files."""
        owner = self.admit(request)
        return Response(await self._desk.do(self._listed, owner), media_type="application/json")

    def _listed(self, owner: str) -> bytes:
        return msgspec.json.encode(StoredList(tuple(map(_summary, self._store.stored(owner)))))

    async def _put(self, request: Request) -> Response:
        """PUT /v1/files and /v1/files/{digest}."""
        owner = self.admit(request)
        kept = await self.keep(request, owner, _digest(request) if "digest" in request.path_params else "")
        content = msgspec.json.encode(StoredName(kept.digest, kept.bytes))
        headers = {"Location": f"{FILES}/{kept.digest}"}
        return Response(content, 201 if kept.is_new else 200, headers, media_type="application/json")

    async def keep(self, request: Request, owner: str, wanted: str = "") -> Kept:
        """Have the body of a request in the store; nothing of it stays otherwise. Raises ProblemError.

        wanted: the digest that it has to have, if that is known.
        """
        if self._engine.draining:
            detail = "The service is about to stop; another instance may take the file."
            raise ProblemError(503, detail, headers={"Retry-After": "1", **_CLOSE})
        length = request.headers.get("content-length")
        async with self._receiving(owner, None if length is None else int(length)) as incoming:
            return await self._receive(request, incoming, wanted)

    @asynccontextmanager
    async def _receiving(self, owner: str, length: int | None) -> AsyncIterator[Incoming]:
        """A file on its way. Raises ProblemError, also for what is raised in the context."""
        incoming = None
        try:
            incoming = await self._desk.have(Incoming.close, self._store.begin, owner, length)
            yield incoming
        except StoredFileError as error:
            raise problem(error, _CLOSE) from None
        finally:
            if incoming is not None:
                self._desk.begin(incoming.close)

    async def _receive(self, request: Request, incoming: Incoming, wanted: str) -> Kept:
        """The whole body, in pieces that are worth a thread's while."""
        piece = bytearray()
        more = True
        while more:
            chunk, more = await _chunk(request)
            piece += chunk
            if len(piece) >= PIECE_BYTES or not more:
                await self._desk.do(incoming.write, piece)
                piece = bytearray()
        return await self._desk.do(incoming.keep, wanted)

    async def _get(self, request: Request) -> "Response | _Download":
        """GET and HEAD of /v1/files/{digest}."""
        owner, digest = self.admit(request), _digest(request)
        if request.method == "HEAD":
            size = await self._desk.do(self._store.find, digest, owner)
            if size is None:
                raise ProblemError(404, f"There is no file {digest}.")
            return Response(headers={"Content-Length": str(size)}, media_type=MEDIA_TYPE)
        return _Download(self._desk, digest, owner)

    async def _remove(self, request: Request) -> Response:
        """DELETE /v1/files/{digest}."""
        owner, digest = self.admit(request), _digest(request)
        try:
            await self._desk.do(self._store.remove, digest, owner)
        except FileInUseError as error:
            raise problem(error) from None
        except FileNotStoredError as error:
            if await self._desk.do(self._store.find, digest, owner) is not None:
                raise ProblemError(403, "The file is published: only the operator removes it.") from None
            raise problem(error) from None
        return Response(status_code=204)

    def admit(self, request: Request) -> str:
        """Whose files the caller's are. Raises ProblemError 401, 501."""
        if digests := self._engine.settings.keys_sha256:
            keys.require(request, digests)
        if not self._engine.stores:
            detail = "This host stores no files: its Landlock is of before Linux 5.19."
            raise ProblemError(501, detail, headers=_CLOSE)
        # Until callers are told apart, all of them are one.
        return ""


class _Download:
    """A file as an answer. Of a caller who takes none of it for long, or has gone, the connection is cut."""

    def __init__(self, desk: Desk, digest: str, owner: str) -> None:
        self._desk = desk
        self._digest = digest
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ProblemError."""
        gone = asyncio.create_task(_disconnected(receive))
        try:
            async with self._desk.reading(self._digest, self._owner) as descriptor:
                await self._send(descriptor, send, gone)
        except StoredFileError as error:
            raise problem(error) from None
        except TimeoutError:
            pass
        finally:
            gone.cancel()

    async def _send(self, descriptor: int, send: Send, gone: asyncio.Task[None]) -> None:
        left = os.fstat(descriptor).st_size
        # Whatever it says that it is: nobody is to show it in our name.
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"x-content-type-options", b"nosniff")]
        headers.append((b"content-length", b"%d" % left))
        await _patiently(send, {"type": "http.response.start", "status": 200, "headers": headers})
        more = True
        while more and not gone.done():
            piece = await self._read(descriptor)
            left -= len(piece)
            more = bool(piece) and left > 0
            await _patiently(send, {"type": "http.response.body", "body": piece, "more_body": more})

    async def _read(self, descriptor: int) -> bytes:
        reading = self._desk.begin(os.read, descriptor, _READ_BYTES)
        try:
            return await asyncio.shield(reading)
        finally:
            # Its number must not be another's while a thread still reads it.
            await asyncio.wait([reading])


async def _patiently(send: Send, message: Message) -> None:
    """Raises TimeoutError when the caller does not take it."""
    async with asyncio.timeout(IDLE_SECONDS):
        await send(message)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _chunk(request: Request) -> tuple[bytes, bool]:
    """What comes next of a body, and whether there is more. Raises ProblemError."""
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            message = await request.receive()
    except TimeoutError:
        detail = f"Nothing of the body came for {IDLE_SECONDS} s."
        raise ProblemError(408, detail, "body", _CLOSE) from None
    if message["type"] == "http.disconnect":
        raise ProblemError(400, "The client went away before its body was whole.")
    return message["body"], message["more_body"]


def _digest(request: Request) -> str:
    digest: str = request.path_params["digest"]
    if not is_digest(digest):
        detail = 'It is no digest: those are "sha256:" and 64 hexadecimal digits, in lower case.'
        raise ProblemError(422, detail, "digest", _CLOSE)
    return digest


def _summary(stored: Stored) -> StoredSummary:
    return StoredSummary(stored.digest, stored.bytes, stored.used_s or None, stored.published)


def problem(error: StoredFileError, headers: dict[str, str] | None = None) -> ProblemError:
    """What a caller is told of it."""
    status = _STATUSES[type(error)]
    headers = dict(headers or {})
    if status in (409, 429, 507):
        headers["Retry-After"] = str(RETRY_SECONDS)
    return ProblemError(status, str(error), "body" if status in (413, 422) else None, headers)
