"""GET /v1/languages: what an image has, which versions, and what a trivial program costs there."""

from collections.abc import Callable

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route

from jail.http.problems import ProblemError
from jail.languages.toolchains import Told, Toolchains, UnansweredError

LANGUAGES = "/v1/languages"


class LanguageList(msgspec.Struct, frozen=True):
    """All languages that are known, and what the image has of each."""

    image: str
    languages: tuple[Told, ...]


class Languages:
    """The endpoint."""

    def __init__(self, toolchains: Toolchains, admit: Callable[[HTTPConnection], None]) -> None:
        """admit: raises ProblemError for a caller who may not ask."""
        self._toolchains = toolchains
        self._admit = admit

    def route(self) -> Route:
        """For the application."""
        return Route(LANGUAGES, self.list)

    async def list(self, request: Request) -> Response:
        """GET /v1/languages?image=NAME: the first time for an image, every tool is asked and tried out."""
        self._admit(request)
        image = request.query_params.get("image", "host")
        definitions = self._toolchains.definitions
        try:
            told = [
                await self._toolchains.tell(definitions.find(name), image) for name in definitions.languages
            ]
        except UnansweredError as error:
            detail = f"The tools cannot be asked now: {error}."
            raise ProblemError(503, detail, headers={"Retry-After": "1"}) from None
        content = msgspec.json.encode(LanguageList(image, tuple(told)))
        return Response(content, media_type="application/json")
