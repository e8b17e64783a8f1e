"""Errors as RFC 9457 problems: whatever is raised becomes an answer here, and only here."""

import http
import traceback

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jail.scheduler import QueueFullError
from jail.spec import SpecError

MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """`field` is a path into the body, such as limits.cpu_ms, where one is to blame."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


class ProblemError(Exception):
    """An answer other than a result. `headers` go with it."""

    def __init__(
        self, status: int, detail: str, field: str | None = None, headers: dict | None = None
    ) -> None:
        """Give the HTTP status, and for people what is wrong and what would be right."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.headers = headers


def respond(error: ProblemError) -> Response:
    """The answer for an error."""
    title = http.HTTPStatus(error.status).phrase
    kind = f"urn:jail:problem:{title.lower().replace(' ', '-')}"
    problem = Problem(kind, title, error.status, error.detail, error.field)
    return Response(msgspec.json.encode(problem), error.status, error.headers, media_type=MEDIA_TYPE)


# Coroutines, all of them: Starlette would run plain functions in threads, and this process has one.
async def _on_problem(_request: Request, error: ProblemError) -> Response:
    return respond(error)


async def _on_spec(_request: Request, error: SpecError) -> Response:
    return respond(ProblemError(422, error.detail, error.field or "body"))


async def _on_full(_request: Request, error: QueueFullError) -> Response:
    detail = "The host is full: every slot is taken and the queue has no room."
    return respond(ProblemError(503, detail, headers={"Retry-After": str(error.retry_after_s)}))


async def _on_routing(request: Request, error: HTTPException) -> Response:
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return respond(ProblemError(error.status_code, detail, headers=dict(error.headers or {})))


async def _on_defect(request: Request, error: Exception) -> Response:
    """A bug of ours. The caller learns where it happened; the log, how."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    stage = f"{frame.name} ({type(error).__name__})"
    structlog.get_logger().error("defect", path=request.url.path, stage=stage, exc_info=error)
    return respond(ProblemError(500, f"A defect of jail at the stage {stage}."))


HANDLERS = {
    ProblemError: _on_problem,
    SpecError: _on_spec,
    QueueFullError: _on_full,
    HTTPException: _on_routing,
    Exception: _on_defect,
}
"""For Starlette's exception_handlers."""
