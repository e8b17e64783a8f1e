"""From a source and its language to the programs that compile and run it: pure, whatever the image has.

What a caller asks for as limits is the program's own. What the runtime takes beside is given on top of it, as
languages.toml says and up to the operator's ceilings: 256 MiB are 256 MiB of heap for a Java program.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from jail.languages.definitions import Command, Definitions, Found, Language, fill
from jail.limits import MIB, Limits, LimitsRequest
from jail.spec import (
    Content,
    FileContent,
    OutputRequest,
    Program,
    Rules,
    SpecError,
    content_bytes,
    is_stored,
    stored_file,
)

AnyLimits = TypeVar("AnyLimits", Limits, LimitsRequest)

SOURCE_BYTES_MAX = MIB
"""More than anybody writes. What a program needs beside it are files of the job."""

_NAME_LENGTH_MAX = 128
# No directory, and no option or list of options of any compiler.
_SOURCE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A program as its source, as it comes.

    source_name: the file that it becomes; not given, as the language says. args: of the program. limits: the
    program's own; compile_limits: of the compilation. policy, of both: not given, as the language says. What
    is not named here is as in Program; `env` is of both, `outputs` of the run, `files` are there for either.
    """

    language: str
    source: str | Content
    source_name: str | UnsetType = UNSET
    args: list[str] = []
    image: str = "host"
    policy: str | UnsetType = UNSET
    files: dict[str, str | FileContent] = {}
    stdin: str | Content = ""
    env: dict[str, str] = {}
    outputs: list[str | OutputRequest] = []
    limits: LimitsRequest = LimitsRequest()
    compile_limits: LimitsRequest = LimitsRequest()


class Expansion(msgspec.Struct, frozen=True):
    """What a source becomes. files: /box before the first; compile: None where the source itself runs."""

    files: dict[str, str | FileContent]
    compile: Program | None
    run: Program


def expand(request: Source, definitions: Definitions, rules: Rules) -> Expansion:
    """The programs that compile and run a source. Raises SpecError naming the field."""
    found = definitions.find(request.language)
    if found is None:
        raise unknown(request.language, definitions)
    language = found.language
    name = _source_name(request.source_name, language)
    _check_files(request.files, name, [*language.files, *made(language, name)])
    limits = _own_limits(request.limits, language, rules)
    run = Program(
        argv=[*_argv(language.run, found, name, _over(rules.defaults, limits)), *request.args],
        stdin=request.stdin,
        outputs=request.outputs,
        limits=limits,
        **_common(request, language.run),
    )
    files = {**request.files, **language.files, name: _content(request.source, rules)}
    return Expansion(files, _compile(request, found, name, rules), run)


def unknown(name: str, definitions: Definitions) -> SpecError:
    """The refusal of a language that nobody has heard of."""
    return SpecError("language", f"{name!r} is not known; known: {', '.join(definitions.names())}")


def _compile(request: Source, found: Found, name: str, rules: Rules) -> Program | None:
    command = found.language.compile
    if command is None:
        return None
    limits = _over(within(command.limits, rules.ceilings), request.compile_limits)
    return Program(
        argv=_argv(command, found, name, _over(rules.defaults, limits)),
        limits=limits,
        # A compiler whose messages go on and on has refused the source all the same.
        on_output_limit="truncate",
        **_common(request, command),
    )


def _common(request: Source, command: Command) -> dict[str, object]:
    policy = command.policy if request.policy is UNSET else request.policy
    return {"image": request.image, "policy": policy, "env": command.env | request.env}


def _argv(command: Command, found: Found, source: str, limits: Limits) -> list[str]:
    heap_bytes = limits.memory_bytes - found.language.memory_extra_bytes
    places = {
        "source": source,
        "stem": _stem(source, found.language),
        "heap_mib": max(1, heap_bytes // MIB),
        "stack_mib": max(1, limits.stack_bytes // MIB),
    }
    return fill(command.argv, found.variant, places)


def allow(asked: LimitsRequest, language: Language, ceilings: Limits) -> LimitsRequest:
    """A program's own limits with what its runtime takes beside it. Those that are not set stay so.

    What is above the ceiling by itself stays as it is, to be refused.
    """
    raised = {
        "cpu_ms": asked.cpu_ms and int(asked.cpu_ms * language.cpu_factor),
        "wall_ms": asked.wall_ms and int(asked.wall_ms * language.cpu_factor),
        "memory_bytes": asked.memory_bytes and asked.memory_bytes + language.memory_extra_bytes,
    }
    found = {
        field: max(getattr(asked, field), min(value, getattr(ceilings, field)))
        for field, value in raised.items()
        if value
    }
    return msgspec.structs.replace(asked, **found)


def _own_limits(asked: LimitsRequest, language: Language, rules: Rules) -> LimitsRequest:
    """Of the run. What is multiplied has to be set: an omitted limit is the operator's default."""
    usual = {field: getattr(rules.defaults, field) for field in ("cpu_ms", "wall_ms", "memory_bytes")}
    usual |= _set(within(language.run.limits, rules.ceilings))
    return allow(LimitsRequest(**usual | _set(asked)), language, rules.ceilings)


def _set(limits: LimitsRequest) -> dict[str, float]:
    return {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None}


def _over(usual: AnyLimits, asked: LimitsRequest) -> AnyLimits:
    return msgspec.structs.replace(usual, **_set(asked))


def within(limits: LimitsRequest, ceilings: Limits) -> LimitsRequest:
    """What a language takes by itself is no more than an operator lets anybody have."""
    found = {field: min(value, getattr(ceilings, field)) for field, value in _set(limits).items()}
    return LimitsRequest(**found)


def _source_name(asked: str | UnsetType, language: Language) -> str:
    if asked is UNSET:
        return language.source
    if not _SOURCE_NAME.fullmatch(asked) or len(asked) > _NAME_LENGTH_MAX:
        shape = f"up to {_NAME_LENGTH_MAX} letters, digits and '_.+-', of which '.+-' are not the first"
        raise SpecError("source_name", f"{asked!r} is no name of a source: {shape}")
    if not _stem(asked, language):
        known = ", ".join(language.extensions)
        raise SpecError("source_name", f"{asked!r} has no extension of {language.title}: {known}")
    return asked


def _stem(name: str, language: Language) -> str:
    """The name without its extension; "" without any of the language's."""
    return next((name.removesuffix(each) for each in language.extensions if name.endswith(each)), "")


def made(language: Language, source: str) -> list[str]:
    """What the compilation of a source of that name leaves, as far as it is known: names in /box."""
    return fill(language.makes, (), {"source": source, "stem": _stem(source, language)})


def _check_files(files: Mapping[str, object], source: str, taken: list[str]) -> None:
    if source in taken:
        raise SpecError("source_name", f"{source!r} is what the language itself calls a file")
    for path in files:
        top = path.partition("/")[0]
        if top == source:
            raise SpecError(f"files.{path}", "is where the source goes: give one of them another name")
        if top in taken:
            raise SpecError(f"files.{path}", f"is where the language puts {top!r}: give it another name")


def _content(source: str | Content, rules: Rules) -> FileContent:
    content = Content(text=source) if isinstance(source, str) else source
    if is_stored(content):
        size = stored_file("source", content, rules).bytes
    else:
        size = len(content_bytes("source", content))
    if size > SOURCE_BYTES_MAX:
        raise SpecError("source", f"{size} bytes; the maximum is {SOURCE_BYTES_MAX}")
    return FileContent(**msgspec.structs.asdict(content))
