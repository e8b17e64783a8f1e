"""Which languages an image has, in which version, and what a trivial program costs there.

All of it is asked of the tools themselves, in sandboxes of that image, when it is first needed, and
what is there is remembered for as long as the service lives: by the digest of an image, which never means
another, and for `host`.
"""

import asyncio
import re
from base64 import b64decode
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from jail import spec
from jail.engine import Engine
from jail.languages.definitions import Definitions, Found, Language
from jail.languages.expansion import unknown, within
from jail.languages.requests import COMPILE, KINDS, LanguageRequest, validate
from jail.result import ProcessResult, Result, Stream, Usage
from jail.spec import JobSpec, Request, Rules, SpecError
from jail.steps.result import StepsResult, TestResult
from jail.steps.spec import StepsSpec, TestRequest, validate_any

# As tools print it, somewhere: 12.2.0.
_VERSION = re.compile(rb"\d+(?:\.\d+)+")

RUNS = 3
"""Of a smoke program: the first may have to read what the others find in memory. The least counts."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a trivial program took."""

    cpu_ms: float
    wall_ms: float
    memory_peak_bytes: int


class Toolchain(msgspec.Struct, frozen=True):
    """What an image has for a language: the version, or why there is none."""

    version: str | None
    problem: str | None = None


class Trial(msgspec.Struct, frozen=True):
    """How the smoke program went: what its steps cost, as far as it came, and what was wrong."""

    compile: Cost | None = None
    run: Cost | None = None
    problem: str | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a language in an image.

    available: its tools are there, and its smoke program does what it should; reason: why not. version: of
    the tool. variant: which of the variants it is by itself. compile, run: what the smoke program costs.
    """

    name: str
    title: str
    extensions: tuple[str, ...]
    source: str
    variants: tuple[str, ...]
    variant: str | None
    available: bool
    reason: str | None
    version: str | None
    compile: Cost | None
    run: Cost | None


class UnansweredError(Exception):
    """No sandbox could be had to ask in: nothing is known, and it may be asked again."""


class Toolchains:
    """The toolchains of an engine's images."""

    def __init__(self, engine: Engine, definitions: Definitions) -> None:
        """Nothing is known yet."""
        self.definitions = definitions
        self._engine = engine
        self._known: dict[tuple[str, ...], asyncio.Task] = {}
        # One trial at a time: they would measure each other, and keep jobs waiting.
        self._turn = asyncio.Lock()

    async def parse(self, body: bytes, rules: Rules) -> JobSpec | StepsSpec:
        """The job that a JSON body asks for, of any kind. Raises SpecError; QueueFullError, from asking."""
        request = spec.decode(body, KINDS)
        if not isinstance(request, LanguageRequest):
            return validate_any(request, rules)
        # If nobody could be asked, the job will find out.
        with suppress(UnansweredError):
            await self.require(request.language, request.image)
        return validate(request, self.definitions, rules)

    async def require(self, name: str, image: str) -> None:
        """Raises SpecError unless `image` has the language, or variant, `name`."""
        found = self.definitions.find(name)
        if found is None:
            raise unknown(name, self.definitions)
        toolchain = await self.find(found, image)
        if toolchain.version is None:
            raise SpecError("language", f"{name!r} is not offered in {image!r}: {toolchain.problem}")

    async def find(self, found: Found, image: str) -> Toolchain:
        """What `image` has for it. Raises SpecError: no such image; UnansweredError, QueueFullError."""
        key = "version", self._digest(image), found.name
        return await self._once(key, lambda: self._ask(found.language, image))

    async def try_out(self, found: Found, image: str) -> Trial:
        """How the smoke program does in `image`, which has the language. Raises as find() does."""
        key = "trial", self._digest(image), found.name
        return await self._once(key, lambda: self._try(found, image))

    async def tell(self, found: Found, image: str) -> Told:
        """All there is to tell of it in `image`. Raises as find() does."""
        toolchain, trial = await self.find(found, image), Trial()
        if toolchain.version is not None:
            trial = await self.try_out(found, image)
        language, reason = found.language, toolchain.problem or trial.problem
        return Told(
            name=found.name,
            title=language.title,
            extensions=language.extensions,
            source=language.source,
            variants=tuple(language.variants),
            variant=language.variant or None,
            available=reason is None,
            reason=reason,
            version=toolchain.version,
            compile=trial.compile,
            run=trial.run,
        )

    def _digest(self, image: str) -> str:
        """Of that image. Raises SpecError."""
        rules = self._engine.rules
        job = spec.validate(Request(argv=["true"], image=image, policy=next(iter(rules.policies))), rules)
        return job.processes[0].root.digest

    async def _once(self, key: tuple[str, ...], make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What `make` answers, now or before. What did not work is tried again: the host may be busy."""
        known = self._known.get(key)
        if known is None or (known.done() and _failed(known)):
            known = self._known[key] = asyncio.create_task(make())
        # Who asked may go away; what has begun is of use to the next.
        return await asyncio.shield(known)

    async def _ask(self, language: Language, image: str) -> Toolchain:
        command = language.compile or language.run
        program = Request(
            argv=list(language.version),
            image=image,
            env=command.env,
            limits=within(command.limits, self._engine.rules.ceilings),
            # Whatever it prints beside.
            on_output_limit="truncate",
        )
        try:
            result = await self._run(spec.validate(program, self._engine.rules))
        except SpecError as error:
            return Toolchain(None, str(error))
        if result.status == "wall_limit":
            raise UnansweredError(f"{language.version[0]} takes too long to tell its version")
        if result.status == "start_failed":
            return Toolchain(None, f"there is no {language.version[0]}")
        if result.status != "ok":
            return Toolchain(None, f"{' '.join(language.version)}: {result.status}")
        version = _VERSION.search(_bytes(result.stdout)) or _VERSION.search(_bytes(result.stderr))
        return Toolchain(version[0].decode() if version else "unknown")

    async def _try(self, found: Found, image: str) -> Trial:
        smoke, language = self.definitions.smoke, found.language
        test = TestRequest(stdin=smoke.stdin, expected=smoke.expected)
        request = LanguageRequest(
            language=found.name, source=language.smoke, image=image, tests=[test] * RUNS, fail_fast="job"
        )
        try:
            job = validate(request, self.definitions, self._engine.rules)
        except SpecError as error:
            return Trial(problem=str(error))
        async with self._turn:
            result = await self._run(job)
        compiled = result.steps.get(COMPILE)
        if result.status == "ok":
            costs = [_cost(test.usage) for test in result.tests]
            return Trial(compiled and _cost(compiled.usage), min(costs, key=lambda cost: cost.cpu_ms))
        failed = next((test for test in result.tests if test.status not in ("ok", None)), compiled)
        return Trial(compiled and _cost(compiled.usage), None, f"its smoke program: {_words(result, failed)}")

    async def _run(self, job: JobSpec | StepsSpec) -> Result | StepsResult:
        """Raises UnansweredError, QueueFullError."""
        if self._engine.draining:
            raise UnansweredError("the service is about to stop")
        result = await self._engine.submit(job).task
        if result.status in ("sandbox_error", "cancelled"):
            raise UnansweredError(result.detail or result.status)
        return result


def _failed(asked: asyncio.Task[Toolchain | Trial]) -> bool:
    return asked.cancelled() or asked.exception() is not None or asked.result().problem is not None


def _cost(usage: Usage | None) -> Cost | None:
    return usage and Cost(
        cpu_ms=usage.cpu_ms, wall_ms=usage.wall_ms, memory_peak_bytes=usage.memory_peak_bytes
    )


def _bytes(stream: Stream | None) -> bytes:
    if stream is None:
        return b""
    return stream.text.encode() if stream.text is not None else b64decode(stream.base64)


def _words(result: StepsResult, failed: TestResult | ProcessResult | None) -> str:
    """What was wrong, and the first line that says so."""
    lines = _bytes(failed.stderr).decode(errors="replace").strip().splitlines() if failed else []
    return ": ".join(filter(None, (result.status, failed and failed.detail, *lines[:1])))
