"""The application: routes, and what each of them answers."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jail import __version__
from jail.engine import Engine
from jail.errors import SandboxError
from jail.http import body, keys, openapi, problems
from jail.http.files import Files
from jail.http.forward import JOBS, Forward
from jail.http.images import Images
from jail.http.languages import Languages
from jail.http.metrics import Metrics
from jail.http.packages import Packages
from jail.http.problems import ProblemError
from jail.languages import definitions
from jail.languages.toolchains import Toolchains
from jail.limits import MINIMA, Limits
from jail.result import GroupResult, Result
from jail.run import Run
from jail.settings import Settings
from jail.steps.result import StepsResult
from jail.steps.run import StepsRun


def build(engine: Engine, whole: Settings, metrics: Metrics) -> Starlette:
    """The application of an engine that has been entered. whole: the settings, of all workers together.

    Raises LanguageError.
    """
    service = Service(engine, whole, metrics)
    stored = Files(engine)
    application = Starlette(
        routes=[
            Route("/v1/run", service.run, methods=["POST"]),
            Route("/v1/capabilities", service.capabilities),
            Route("/v1/limits", service.limits),
            Route("/metrics", service.metrics),
            Route("/healthz", service.healthz),
            Route("/readyz", service.readyz),
            Route("/openapi.json", service.openapi),
            Forward(engine.published, service.admit),
            *Images(engine).routes(),
            Languages(service.toolchains, service.admit).route(),
            *stored.routes(),
            *Packages(engine, stored, service.toolchains.definitions, service.record).routes(),
        ],
        exception_handlers=problems.HANDLERS,
        middleware=[Middleware(_LastAnswers, engine)],
    )
    # A path is right or it is not: no redirection from /v1/run/.
    application.router.redirect_slashes = False
    return application


class _LastAnswers:
    """Says of every answer, once the engine drains, that it is the last on its connection.

    So nobody sends another request where it would not be read.
    """

    def __init__(self, application: ASGIApp, engine: Engine) -> None:
        self._application = application
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_as_last(message: Message) -> None:
            if self._engine.draining and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._application(scope, receive, send_as_last)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


Answered = Result | GroupResult | StepsResult


class Service:
    """The endpoints of one engine. `toolchains`: of its images."""

    def __init__(self, engine: Engine, whole: Settings, metrics: Metrics) -> None:
        """Prepare what does not change between requests. Raises LanguageError."""
        self._engine = engine
        self._whole = whole
        self._rules = engine.rules
        self._metrics = metrics
        self._openapi = openapi.describe(self._rules)
        self.toolchains = Toolchains(engine, definitions.load(whole.languages))
        # Bound: else it would be put together again for every line.
        self._log = structlog.get_logger().bind()

    async def run(self, request: Request) -> "_Answer":
        """POST /v1/run: one job."""
        self.admit(request)
        content = await body.read(request, self._engine.settings.body_bytes)
        self._check_open()
        job = await self._engine.pin(await self.toolchains.parse(content, self._rules))
        return _Answer(self._engine.submit(job), self.record)

    async def capabilities(self, request: Request) -> Response:
        """GET /v1/capabilities: what a job can be sure of here."""
        self.admit(request)
        means = self._engine.means
        return _json(
            {
                "version": __version__,
                "images": self._rules.images.names(),
                "volumes": sorted(self._rules.volumes),
                "policies": sorted(self._rules.policies),
                "networks": sorted(self._rules.networks),
                "publishes": self._rules.publishes,
                "processes": self._rules.processes,
                "cgroup": means.sandboxes.hierarchy.version,
                "not_counted": means.sandboxes.hierarchy.missing,
                "landlock_abi": means.sandboxes.landlock_abi,
                "degraded": means.degraded,
                "workers": self._whole.workers,
                "slots": self._whole.slots,
                "memory_bytes": self._whole.memory_bytes,
                "body_bytes": self._whole.body_bytes,
                "files": means.files.files.bounds if self._engine.stores else None,
            }
        )

    async def limits(self, request: Request) -> Response:
        """GET /v1/limits: default, minimum and maximum of each."""
        self.admit(request)
        rules = self._rules
        return _json(
            {
                field: {
                    "default": getattr(rules.defaults, field),
                    "minimum": getattr(MINIMA, field),
                    "maximum": getattr(rules.ceilings, field),
                }
                for field in Limits.__struct_fields__
            }
        )

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        self.admit(request)
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4")

    async def healthz(self, _request: Request) -> Response:
        """GET /healthz: the process answers."""
        return _json({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        """GET /readyz: jobs are taken, and there is a supervisor for them, if need be from now on."""
        self._check_open()
        try:
            await self._engine.sandboxes.running_supervisor()
        except SandboxError as error:
            detail = f"No sandbox can be made now: {error}."
            raise ProblemError(503, detail, headers={"Retry-After": "1"}) from None
        return _json({"status": "ok"})

    async def openapi(self, _request: Request) -> Response:
        """GET /openapi.json."""
        return Response(self._openapi, media_type="application/json")

    def admit(self, request: HTTPConnection) -> None:
        """Raises ProblemError 401 unless the caller shows one of the keys, if there are any."""
        if digests := self._engine.settings.keys_sha256:
            keys.require(request, digests)

    def _check_open(self) -> None:
        if self._engine.draining:
            detail = "The service is about to stop; another instance may take the job."
            raise ProblemError(503, detail, headers={"Retry-After": "1"})

    def record(self, result: Answered) -> None:
        """Count a job that was answered, and log it."""
        self._metrics.count(result)
        if isinstance(result, GroupResult):
            parts = list(result.processes.values())
            decisive = result.processes.get(result.decided_by)
        elif isinstance(result, StepsResult):
            parts = [*result.steps.values(), *result.tests]
            decisive = result.steps.get(result.decided_by)
            decisive = next((test for test in result.tests if test.name == result.decided_by), decisive)
        else:
            parts, decisive = [result], result
        cpu_ms = [part.usage.cpu_ms for part in parts if part.usage]
        self._log.info(
            "job",
            id=result.id,
            status=result.status,
            limit=decisive.limit if decisive else None,
            cpu_ms=round(sum(cpu_ms), 3) if cpu_ms else None,
            queued_ms=result.timing.queued_ms,
            run_ms=result.timing.run_ms,
        )


class _Answer:
    """What POST /v1/run answers when the job has ended. A client that goes away ends it.

    Of a job that publishes ports, status line and headers come first, once they can be reached.
    """

    def __init__(self, run: Run | StepsRun, record: Callable[[Answered], None]) -> None:
        self._run = run
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._run
        watch = asyncio.create_task(_cancel_without_client(run, receive))
        begun = False
        try:
            if run.published:
                await asyncio.wait((run.published, run.task), return_when=asyncio.FIRST_COMPLETED)
                if begun := run.published.done():
                    await send(self._start())
            result = await asyncio.shield(run.task)
        finally:
            watch.cancel()
            if not run.task.done():
                run.cancel()
        self._record(result)
        if begun:
            await send({"type": "http.response.body", "body": msgspec.json.encode(result)})
        else:
            await _json(result)(scope, receive, send)

    def _start(self) -> Message:
        job = self._run.id.encode()
        headers = [(b"content-type", b"application/json"), (b"location", JOBS + job), (b"jail-job", job)]
        return {"type": "http.response.start", "status": 200, "headers": headers}


async def _cancel_without_client(run: Run | StepsRun, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    run.cancel()
