"""/v1/jobs/ID/ports/PORT/...: requests for programs in sandboxes, forwarded while their job lives.

An HTTP request reaches the program as HTTP; a WebSocket has the bytes of a TCP connection to it. Whose the
job is, is not asked: its id is a secret of 128 bits, and who knows it may reach what it publishes.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from jail.http.exchange import WAIT_SECONDS, Exchange
from jail.http.passing import Place
from jail.http.problems import ProblemError
from jail.http.raw import IDLE_SECONDS, Raw
from jail.published import BusyError, Connection, NotPublishedError, Published

JOBS = b"/v1/jobs/"
"""The path under which the service has jobs, by their ids."""

# As it came: what is escaped in it, a program may take for something else than we would.
_PATH = re.compile(rb"(" + JOBS + rb"([0-9a-f]{32})/ports/([1-9][0-9]{0,4}))(/.*)", re.DOTALL)


class Forward(BaseRoute):
    """The route to published ports.

    Attributes: `wait_s` and `idle_s`, how long is waited for an answer and for bytes.
    """

    def __init__(self, published: Published, admit: Callable[[HTTPConnection], None]) -> None:
        """Take what is published. admit: raises ProblemError unless the caller may go on."""
        self._published = published
        self._admit = admit
        self.wait_s: float = WAIT_SECONDS
        self.idle_s: float = IDLE_SECONDS

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for a port, by its path as it came."""
        found = scope["type"] in ("http", "websocket") and _PATH.fullmatch(scope["raw_path"])
        return (Match.FULL, {"place": _place(found, scope)}) if found else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request. Raises ProblemError where it cannot be."""
        self._admit(HTTPConnection(scope))
        async with self._connect(scope["place"]) as connection:
            if scope["type"] == "http":
                await Exchange(scope, scope["place"], connection, self.wait_s).run(receive, send)
            else:
                await Raw(WebSocket(scope, receive, send), connection, self.idle_s).run()

    @asynccontextmanager
    async def _connect(self, place: Place) -> AsyncIterator[Connection]:
        """A connection to the program. Raises ProblemError 404, 429, 502, 503, 504."""
        try:
            connection = await self._published.connect(place.job, place.port)
        except NotPublishedError:
            raise ProblemError(404, "There is no live job of that id that publishes this port.") from None
        except BusyError as error:
            status, whose = (429, "this job") if error.job else (503, "jobs")
            detail = f"There are too many connections to {whose} already."
            raise ProblemError(status, detail, headers={"Retry-After": "1"}) from None
        except TimeoutError:
            raise ProblemError(504, f"The program took no connection on port {place.port}.") from None
        except OSError as error:
            detail = f"No connection to port {place.port} of the program: {error.strerror}."
            raise ProblemError(502, detail) from None
        try:
            yield connection
        finally:
            await connection.close()


def _place(found: re.Match[bytes], scope: Scope) -> Place:
    prefix, job, port, path = found.groups()
    query = scope["query_string"]
    return Place(job.decode(), int(port), prefix, path + b"?" + query if query else path)
