"""Which languages an image has, in which version, and what a trivial program costs there.

All of it is asked of the tools themselves, in sandboxes of that image, when it is first needed, and
remembered for as long as the service lives: by the digest of an image, which never means another, and for
`host`.
"""

import asyncio
import re
from base64 import b64decode
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from jail.engine import Engine
from jail.languages.definitions import Definitions, Found, Language
from jail.languages.expansion import Expansion, Source, expand, made, unknown
from jail.result import Result, Stream
from jail.spec import FileContent, Program, Request, SpecError, validate

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
    reason: str | None = None


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
        # One at a time: they would measure each other, and keep jobs waiting.
        self._turn = asyncio.Lock()

    async def require(self, name: str, image: str) -> None:
        """Raises SpecError unless `image` has the language, or variant, `name`."""
        found = self.definitions.find(name)
        if found is None:
            raise unknown(name, self.definitions)
        toolchain = await self.find(found, image)
        if toolchain.version is None:
            raise SpecError("language", f"{name!r} is not offered in {image!r}: {toolchain.reason}")

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
        language, reason = found.language, toolchain.reason or trial.problem
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
        job = validate(Request(argv=["true"], image=image, policy=next(iter(rules.policies))), rules)
        return job.processes[0].root.digest

    async def _once(self, key: tuple[str, ...], make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What `make` answers, of now or before. What could not be answered is asked again."""
        known = self._known.get(key)
        if known is None or (known.done() and (known.cancelled() or known.exception())):
            known = self._known[key] = asyncio.create_task(make())
        # Who asked may go away; what has begun is of use to the next.
        return await asyncio.shield(known)

    async def _ask(self, language: Language, image: str) -> Toolchain:
        command = language.compile or language.run
        # Whatever it prints beside.
        program = Program(
            argv=list(language.version), image=image, env=command.env, on_output_limit="truncate"
        )
        try:
            result = await self._run(program)
        except SpecError as error:
            return Toolchain(None, str(error))
        if result.status == "start_failed":
            return Toolchain(None, f"there is no {language.version[0]}")
        if result.status != "ok":
            return Toolchain(None, f"{' '.join(language.version)}: {result.status}")
        version = _VERSION.search(_bytes(result.stdout)) or _VERSION.search(_bytes(result.stderr))
        return Toolchain(version[0].decode() if version else "unknown")

    async def _try(self, found: Found, image: str) -> Trial:
        smoke = self.definitions.smoke
        source = Source(language=found.name, source=found.language.smoke, image=image, stdin=smoke.stdin)
        try:
            expansion = expand(source, self.definitions, self._engine.rules)
            return await self._try_expanded(found.language, expansion)
        except SpecError as error:
            return Trial(problem=str(error))

    async def _try_expanded(self, language: Language, expansion: Expansion) -> Trial:
        files, compiled = expansion.files, None
        if expansion.compile:
            outputs = [f"{name}?" for name in made(language, language.source)]
            result = await self._run(expansion.compile, files=files, outputs=outputs)
            compiled = _cost(result)
            if result.status != "ok":
                return Trial(compiled, None, f"its smoke program: compilation, {_words(result)}")
            files = {
                name: FileContent(base64=output.base64, executable=bool(output.mode & 0o111))
                for name, output in result.outputs.items()
            }
        costs = []
        for _ in range(RUNS):
            result = await self._run(expansion.run, files=files)
            if result.status != "ok" or result.stdout.text != self.definitions.smoke.expected:
                return Trial(compiled, _cost(result), f"its smoke program: {_words(result)}")
            costs.append(_cost(result))
        return Trial(compiled, min(costs, key=lambda cost: cost.cpu_ms))

    async def _run(self, program: Program, **more: object) -> Result:
        """Raises SpecError, UnansweredError, QueueFullError."""
        request = Request(**msgspec.structs.asdict(program) | more)
        job = validate(request, self._engine.rules)
        async with self._turn:
            if self._engine.draining:
                raise UnansweredError("the service is about to stop")
            result = await self._engine.submit(job).task
        if result.status in ("sandbox_error", "cancelled"):
            raise UnansweredError(result.detail or result.status)
        return result


def _cost(result: Result) -> Cost | None:
    usage = result.usage
    return usage and Cost(
        cpu_ms=usage.cpu_ms, wall_ms=usage.wall_ms, memory_peak_bytes=usage.memory_peak_bytes
    )


def _bytes(stream: Stream) -> bytes:
    return stream.text.encode() if stream.text is not None else b64decode(stream.base64)


def _words(result: Result) -> str:
    """What was wrong, and the first line that says so."""
    lines = _bytes(result.stderr).decode(errors="replace").strip().splitlines()
    status = "wrong_answer" if result.status == "ok" else result.status
    return ": ".join(filter(None, (status, result.detail, *lines[:1])))
