"""/v1/images: for administrators, who bring images in, look at them, take them away, and give them on.

The service calls no registry and changes no image: a program does, one for each operation. What lists and
inspects reads the store, as every job does that names an image.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jail.engine import Engine
from jail.errors import ImageError, ImageNotFoundError
from jail.http import body, keys
from jail.http.operations import ARCHIVE, JSON, Download, Events, Operations, Result, Upload
from jail.http.problems import ProblemError
from jail.images import protocol, reference
from jail.images.names import refuse_name
from jail.images.protocol import Export, Import, Prune, Remove
from jail.images.store import Store
from jail.images.summary import Summary, summarize, summarize_all

IMAGES = "/v1/images"
PRUNE = f"{IMAGES}/prune"
ONE = f"{IMAGES}/{{reference}}"
ONE_ARCHIVE = f"{ONE}/archive"

ARCHIVES = (ARCHIVE, "application/octet-stream")
"""Media types of archives that are brought in, whichever their form and compression."""

# Both go on to the program in a packet, with more around it.
_PULL_BYTES_MAX = protocol.PACKET_BYTES // 2
_REFERENCE_LENGTH_MAX = protocol.PACKET_BYTES // 16

T = TypeVar("T")


class Pull(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image to be fetched: a reference as registries have it, REGISTRY/REPOSITORY[:TAG][@DIGEST].

    name: under which jobs find it; empty is the reference without its digest. platform: OS/ARCHITECTURE
    [/VARIANT]; empty is this host's. insecure: the registry speaks plain HTTP. user, password: its own.
    """

    pull: str
    name: str = ""
    platform: str = ""
    insecure: bool = False
    user: str = ""
    password: str = ""


class Images:
    """The endpoints of one engine's store."""

    def __init__(self, engine: Engine) -> None:
        """No operation is under way."""
        self._engine = engine
        self._operations = Operations(engine)

    def routes(self) -> list[Route]:
        """In the order in which they are to be looked through."""
        # A reference may have slashes.
        one, archive = (path.replace("}", ":path}") for path in (ONE, ONE_ARCHIVE))
        return [
            Route(IMAGES, self._list, methods=["GET"]),
            Route(IMAGES, self._add, methods=["POST"]),
            Route(PRUNE, self._prune, methods=["POST"]),
            Route(archive, self._export, methods=["GET"]),
            Route(one, self._inspect, methods=["GET"]),
            Route(one, self._remove, methods=["DELETE"]),
        ]

    async def _list(self, request: Request) -> Response:
        """GET /v1/images."""
        self._admit(request)
        return _json(await self._read(summarize_all))

    async def _inspect(self, request: Request) -> Response:
        """GET /v1/images/{reference}."""
        self._admit(request)
        return _json(await self._find(request))

    async def _add(self, request: Request) -> Events:
        """POST /v1/images: a pull, or the archive itself."""
        self._admit(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ARCHIVES:
            name = request.query_params.get("name", "")
            _check("name", refuse_name, name)
            return Upload(self._operations, Import(name), request)
        if kind != JSON:
            detail = f"Content-Type is {kind or 'missing'}; it has to be {JSON} or {' or '.join(ARCHIVES)}."
            raise ProblemError(415, detail, "Content-Type", {"Connection": "close"})
        asked = _pull(await body.read(request, _PULL_BYTES_MAX))
        return Events(self._operations, asked, request)

    async def _remove(self, request: Request) -> Result:
        """DELETE /v1/images/{reference}."""
        self._admit(request)
        return Result(self._operations, Remove(_reference(request)))

    async def _prune(self, request: Request) -> Result:
        """POST /v1/images/prune."""
        self._admit(request)
        nameless = request.query_params.get("nameless", "false")
        if nameless not in ("false", "true"):
            raise ProblemError(422, f"It is {nameless!r}; it may be true or false.", "nameless")
        return Result(self._operations, Prune(nameless == "true"))

    async def _export(self, request: Request) -> Response | Download:
        """GET /v1/images/{reference}/archive."""
        self._admit(request)
        if request.method == "HEAD":
            await self._find(request)
            return Response(media_type=ARCHIVE)
        return Download(self._operations, Export(_reference(request)))

    def _admit(self, request: Request) -> None:
        """Raises ProblemError 401 or 403 unless the caller is an administrator, from wherever."""
        settings = self._engine.settings
        if not settings.admin_keys_sha256:
            detail = "Nobody may administer images here: no keys for that are set in admin_keys_sha256."
            raise ProblemError(403, detail)
        if not keys.is_shown(request, settings.admin_keys_sha256):
            # To know it is no reason to be let in.
            keys.require(request, settings.keys_sha256)
            raise ProblemError(403, "This key is none of admin_keys_sha256: it may not administer images.")

    async def _find(self, request: Request) -> Summary:
        wanted = request.path_params["reference"]
        try:
            return await self._read(lambda store: summarize(store.find(wanted)))
        except ImageNotFoundError as error:
            raise ProblemError(404, error.cause) from None

    async def _read(self, read: Callable[[Store], T]) -> T:
        """What `read` finds, in a thread: it reads files. Raises ImageNotFoundError, ProblemError."""
        store = self._engine.sandboxes.store

        def found() -> T:
            with suppress(ImageError):
                return read(store)
            # An image may have gone while it was read.
            return read(store)

        try:
            return await asyncio.get_running_loop().run_in_executor(None, found)
        except ImageNotFoundError:
            raise
        except ImageError as error:
            raise ProblemError(500, str(error)) from None


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type=JSON)


def _reference(request: Request) -> str:
    """Raises ProblemError 404 for what is longer than the name of any image."""
    wanted: str = request.path_params["reference"]
    if len(wanted) > _REFERENCE_LENGTH_MAX:
        raise ProblemError(404, "There is no image of so long a name.")
    return wanted


def _pull(content: bytes) -> protocol.Pull:
    try:
        asked = msgspec.json.decode(content, type=Pull)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(422, str(error), "body") from None
    _check("pull", reference.parse, asked.pull)
    _check("name", refuse_name, asked.name)
    wanted = msgspec.structs.asdict(asked)
    return protocol.Pull(wanted.pop("pull"), **wanted)


def _check(field: str, refuse: Callable[[str], object], text: str) -> None:
    try:
        if text or field == "pull":
            refuse(text)
    except ImageError as error:
        raise ProblemError(422, str(error), field) from None
