"""/v1/problems: packages that callers send once, and the submissions that are judged by them.

A package is one of the caller's stored files, and its id is the digest: it counts for the same quota and goes
when they do. What takes a sandbox to know of it is remembered for as long as the service lives.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from jail.engine import Engine
from jail.errors import PackageError, StoredFileError
from jail.files import is_digest
from jail.http import body
from jail.http.files import Files
from jail.http.files import problem as stored_problem
from jail.http.problems import ProblemError
from jail.languages.definitions import Definitions
from jail.languages.expansion import Source
from jail.problems import files, job, package
from jail.problems.judge import Judge, Judged, Prepared, contents
from jail.problems.package import Problem
from jail.spec import Content

PROBLEMS = "/v1/problems"
ONE = f"{PROBLEMS}/{{id}}"
JUDGE = f"{ONE}/judge"
MEDIA_TYPE = "application/zip"

REMEMBERED_MAX = 32
"""Packages of which validators and time limits are remembered."""

REMEMBERED_BYTES_MAX = 64 << 20
"""Of all those validators together."""


class ProblemSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A package that was read and can be judged by.

    validator: "default", or "custom" for one of its own. time_limit_ms: None when it follows from how long
    its accepted submissions take, the first time that it is judged by.
    """

    id: str
    tests: int
    groups: tuple[str, ...]
    scoring: bool
    validator: str
    time_limit_ms: int | None
    memory_bytes: int | None


class SubmissionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A submission. source_name: the file that it becomes; not given, as the language says."""

    language: str
    source: str | Content
    source_name: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET


class _Remembered:
    """What is known of a package, once somebody has found out; until then others wait for the lock."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.problem: Problem | None = None
        self.prepared: Prepared | None = None
        self.bytes = 0
        self.digests: dict[str, str] = {}


class Packages:
    """The endpoints of one engine."""

    def __init__(
        self, engine: Engine, stored: Files, definitions: Definitions, record: Callable[[Any], None]
    ) -> None:
        """Nothing is remembered yet.

        stored: the endpoints of the store that packages are in. record: is told of every job's result.
        """
        self._engine = engine
        self._stored = stored
        self._definitions = definitions
        self._record = record
        self._desk = engine.means.files
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route(PROBLEMS, self._put, methods=["PUT"]),
            Route(ONE, self._remove, methods=["DELETE"]),
            Route(JUDGE, self._judge, methods=["POST"]),
        ]

    async def _put(self, request: Request) -> Response:
        """PUT /v1/problems: a package, as a zip archive."""
        owner = self._stored.admit(request)
        kept = await self._stored.keep(request, owner)
        try:
            async with self._opened(kept.digest, owner) as found:
                problem = await self._desk.do(package.read, found)
        except PackageError as error:
            if kept.is_new:
                await self._desk.do(self._desk.files.remove, kept.digest, owner)
            raise ProblemError(422, str(error), "body") from None
        content = msgspec.json.encode(_summary(kept.digest, problem))
        headers = {"Location": f"{PROBLEMS}/{kept.digest}"}
        return Response(content, 201 if kept.is_new else 200, headers, media_type="application/json")

    async def _remove(self, request: Request) -> Response:
        """DELETE /v1/problems/{id}."""
        owner, digest = self._stored.admit(request), _id(request)
        try:
            await self._desk.do(self._desk.files.remove, digest, owner)
        except StoredFileError:
            raise _unknown(digest) from None
        self._remembered.pop((owner, digest), None)
        return Response(status_code=204)

    async def _judge(self, request: Request) -> "_Answer":
        """POST /v1/problems/{id}/judge: one submission."""
        owner, digest = self._stored.admit(request), _id(request)
        content = await body.read(request, self._engine.settings.body_bytes)
        if self._engine.draining:
            detail = "The service is about to stop; another instance may take the submission."
            raise ProblemError(503, detail, headers={"Retry-After": "1"})
        try:
            asked = msgspec.json.decode(content, type=SubmissionRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProblemError(422, str(error), "body") from None
        return _Answer(lambda: self._judged(digest, owner, asked))

    async def _judged(self, digest: str, owner: str, asked: SubmissionRequest) -> Judged:
        """Raises ProblemError, SpecError."""
        source = Source(language=asked.language, source=asked.source, source_name=asked.source_name)
        try:
            async with self._opened(digest, owner) as found:
                known = self._known(digest, owner)
                known.problem = known.problem or await self._desk.do(package.read, found)
                held = contents(found, self._desk.files, owner, known.digests)
                judge = Judge(
                    self._engine, found, known.problem, self._definitions, held, owner, self._record
                )
                return await judge.judge_source(digest, source, await self._prepared(known, judge))
        except PackageError as error:
            raise ProblemError(422, str(error), "id") from None
        except StoredFileError as error:
            raise stored_problem(error) from None

    @asynccontextmanager
    async def _opened(self, digest: str, owner: str) -> AsyncIterator[files.Files]:
        """Raises ProblemError 404, PackageError."""
        async with AsyncExitStack() as open_now:
            try:
                descriptor = await open_now.enter_async_context(self._desk.reading(digest, owner))
            except StoredFileError:
                raise _unknown(digest) from None
            file = open_now.enter_context(os.fdopen(os.dup(descriptor), "rb"))
            yield open_now.enter_context(await self._desk.do(files.Archive, file))

    def _known(self, digest: str, owner: str) -> _Remembered:
        known = self._remembered.setdefault((owner, digest), _Remembered())
        self._remembered.move_to_end((owner, digest))
        self._forget()
        return known

    async def _prepared(self, known: _Remembered, judge: Judge) -> Prepared:
        """What is known of a package, found out by one caller at a time. Raises PackageError."""
        async with known.lock:
            if known.prepared is None:
                known.prepared, _ = await judge.prepare()
                known.bytes = len(msgspec.json.encode(known.prepared.checker))
        self._forget()
        return known.prepared

    def _forget(self) -> None:
        """Those that were used least recently, when they are too many."""
        while len(self._remembered) > 1 and (
            len(self._remembered) > REMEMBERED_MAX
            or sum(one.bytes for one in self._remembered.values()) > REMEMBERED_BYTES_MAX
        ):
            self._remembered.popitem(last=False)


class _Answer:
    """What becomes of a submission. A client that goes away ends the judging of it."""

    def __init__(self, judged: Callable[[], Coroutine[Any, Any, Judged]]) -> None:
        self._judged = judged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        judging = asyncio.create_task(self._judged())
        watch = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((judging, watch), return_when=asyncio.FIRST_COMPLETED)
            if judging.done():
                content = msgspec.json.encode(judging.result())
                await Response(content, media_type="application/json")(scope, receive, send)
        finally:
            watch.cancel()
            judging.cancel()
            await asyncio.wait((judging, watch))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _id(request: Request) -> str:
    digest: str = request.path_params["id"]
    if not is_digest(digest):
        raise _unknown(digest[:100])
    return digest


def _unknown(digest: str) -> ProblemError:
    return ProblemError(404, f"There is no problem {digest}; it may have been evicted: send it again.")


def _summary(digest: str, problem: Problem) -> ProblemSummary:
    cases = job.placed(problem.data)
    return ProblemSummary(
        id=digest,
        tests=len(cases),
        groups=tuple(dict.fromkeys(group for group, _ in cases)),
        scoring=problem.metadata.scoring,
        validator="custom" if problem.validator else "default",
        time_limit_ms=problem.metadata.time_limit_ms,
        memory_bytes=problem.metadata.memory_bytes,
    )
