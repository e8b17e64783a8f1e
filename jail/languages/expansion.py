"""From a source and its language to the programs that compile and run it: pure, whatever the image has.

What a caller asks for as limits is the program's own. What the runtime takes beside is given on top of it, as
languages.toml says and up to the operator's ceilings: 256 MiB are 256 MiB of heap for a Java program.
"""

import re
from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

from jail.languages.definitions import Command, Definitions, Language, fill
from jail.limits import MIB, Limits, LimitsRequest
from jail.spec import Content, FileContent, Program, SpecError

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
    outputs: list[str] = []
    limits: LimitsRequest = LimitsRequest()
    compile_limits: LimitsRequest = LimitsRequest()


class Expansion(msgspec.Struct, frozen=True):
    """What a source becomes. files: /box before the first; compile: None where the source itself runs."""

    files: dict[str, str | FileContent]
    compile: Program | None
    run: Program


def expand(request: Source, definitions: Definitions, defaults: Limits, ceilings: Limits) -> Expansion:
    """The programs that compile and run a source. Raises SpecError naming the field.

    defaults, ceilings: the operator's.
    """
    found = definitions.find(request.language)
    if found is None:
        known = ", ".join(definitions.names())
        raise SpecError("language", f"{request.language!r} is not known; known: {known}")
    _, language, variant = found
    name = _source_name(request.source_name, language)
    makes = fill(language.makes, (), {"source": name, "stem": _stem(name, language)})
    _check_files(request.files, name, makes)
    files = {**request.files, name: _content(request.source)}
    limits = _own_limits(request.limits, language, defaults, ceilings)
    places = _places(name, language, limits, defaults)
    run = Program(
        argv=[*fill(language.run.argv, variant, places), *request.args],
        stdin=request.stdin,
        outputs=request.outputs,
        limits=limits,
        **_common(request, language.run),
    )
    return Expansion(files, _compile(request, language, variant, places, ceilings), run)


def _compile(
    request: Source,
    language: Language,
    variant: tuple[str, ...],
    places: Mapping[str, object],
    ceilings: Limits,
) -> Program | None:
    if language.compile is None:
        return None
    usual = _within(language.compile.limits, ceilings)
    return Program(
        argv=fill(language.compile.argv, variant, places),
        limits=_over(usual, request.compile_limits),
        **_common(request, language.compile),
    )


def _common(request: Source, command: Command) -> dict[str, object]:
    policy = command.policy if request.policy is UNSET else request.policy
    return {"image": request.image, "policy": policy, "env": command.env | request.env}


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


def _own_limits(
    asked: LimitsRequest, language: Language, defaults: Limits, ceilings: Limits
) -> LimitsRequest:
    usual = _within(language.run.limits, ceilings)
    operators = LimitsRequest(
        cpu_ms=defaults.cpu_ms, wall_ms=defaults.wall_ms, memory_bytes=defaults.memory_bytes
    )
    return allow(_over(_over(operators, usual), asked), language, ceilings)


def _set(limits: LimitsRequest) -> dict[str, float]:
    return {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None}


def _over(usual: LimitsRequest, asked: LimitsRequest) -> LimitsRequest:
    return msgspec.structs.replace(usual, **_set(asked))


def _within(limits: LimitsRequest, ceilings: Limits) -> LimitsRequest:
    """What a language takes by itself is no more than an operator lets anybody have."""
    return LimitsRequest(
        **{field: min(value, getattr(ceilings, field)) for field, value in _set(limits).items()}
    )


def _places(name: str, language: Language, limits: LimitsRequest, defaults: Limits) -> dict[str, object]:
    stack_bytes = limits.stack_bytes or defaults.stack_bytes
    return {
        "source": name,
        "stem": _stem(name, language),
        "heap_mib": max(1, (limits.memory_bytes - language.memory_extra_bytes) // MIB),
        "stack_mib": max(1, stack_bytes // MIB),
    }


def _source_name(asked: str | UnsetType, language: Language) -> str:
    if asked is UNSET:
        return language.source
    if not _SOURCE_NAME.fullmatch(asked) or len(asked) > _NAME_LENGTH_MAX:
        shape = (
            f"at most {_NAME_LENGTH_MAX} letters, digits and any of '_.+-', the first a letter, digit or '_'"
        )
        raise SpecError("source_name", f"{asked!r} is no name for a source: {shape}")
    if not _stem(asked, language):
        known = ", ".join(language.extensions)
        raise SpecError(
            "source_name", f"{asked!r} ends with none of the extensions of {language.title}: {known}"
        )
    return asked


def _stem(name: str, language: Language) -> str:
    """The name without its extension; "" without any of the language's."""
    return next((name.removesuffix(each) for each in language.extensions if name.endswith(each)), "")


def _check_files(files: Mapping[str, object], source: str, makes: list[str]) -> None:
    for path in files:
        top = path.partition("/")[0]
        if top == source:
            raise SpecError(f"files.{path}", "is where the source goes: give one of them another name")
        if top in makes:
            raise SpecError(f"files.{path}", f"is where the compilation puts {top!r}: give it another name")


def _content(source: str | Content) -> FileContent:
    content = Content(text=source) if isinstance(source, str) else source
    if _size(content) > SOURCE_BYTES_MAX:
        raise SpecError("source", f"{_size(content)} bytes; the maximum is {SOURCE_BYTES_MAX}")
    return FileContent(**msgspec.structs.asdict(content))


def _size(content: Content) -> int:
    """At least so many bytes."""
    if content.text is not UNSET:
        return len(content.text.encode(errors="surrogatepass"))
    return 0 if content.base64 is UNSET else len(content.base64) // 4 * 3 - 2
