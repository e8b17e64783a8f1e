"""Which languages an image has, in which version, and what a trivial program costs there.

All of it is asked of the tools themselves, in sandboxes of that image, when it is first needed, and remembered
for as long as the service lives: by the digest of an image, which never means another, and for `host`.
"""

import asyncio
import re
from base64 import b64decode

import msgspec

from jail.engine import Engine
from jail.languages.definitions import Definitions, Found, Language
from jail.languages.expansion import Expansion, Source, expand, made
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

    available: its tools are there, and its smoke program does what it should; reason: why not. version: of the
    tool. variant: which of the variants it is by itself. compile, run: what the smoke program costs.
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


class Toolchains:
    """The toolchains of an engine's images."""

    def __init__(self, engine: Engine, definitions: Definitions) -> None:
        """Nothing is known yet."""
        self.definitions = definitions
        self._engine = engine
        self._found: dict[tuple[str, str], asyncio.Task[Toolchain]] = {}
        self._tried: dict[tuple[str, str], asyncio.Task[Trial]] = {}
        # One at a time: they would measure each other, and keep jobs waiting.
        self._turn = asyncio.Lock()
