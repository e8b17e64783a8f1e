"""Programs of a package as jobs compile and run them."""

from base64 import b64encode
from collections.abc import Iterable

import msgspec
from msgspec import UNSET

from jail.errors import PackageError
from jail.languages.definitions import Definitions
from jail.languages.expansion import Expansion, Source, expand
from jail.limits import LimitsRequest
from jail.problems.files import READ_BYTES_MAX, Files
from jail.problems.metadata import Metadata
from jail.problems.programs import BUILD, RUN, Program, content, source
from jail.spec import Content, FileContent, Rules, SpecError

INCLUDE = "include"
_FOR_ALL = "default"

_CODES = {"python": "python3"}
"""Of languages that the format's table calls otherwise than we."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a program may use when it runs and, as `compile`, while it is made."""

    run: LimitsRequest
    compile: LimitsRequest = LimitsRequest()


def code(language: str) -> str:
    """What the format calls a language of ours."""
    return _CODES.get(language, language)


def extensions(definitions: Definitions) -> dict[str, str]:
    """The language of each extension; of several, the one that is defined first."""
    found: dict[str, str] = {}
    for name, language in definitions.languages.items():
        for extension in language.extensions:
            found.setdefault(extension, name)
    return found


def included(files: Files, language: str, metadata: Metadata) -> dict[str, FileContent]:
    """What every submission in a language finds beside itself, in place of files of its own."""
    found: dict[str, str] = {}
    for folder in (_FOR_ALL, code(language), language):
        above = f"{INCLUDE}/{folder}/"
        found |= {path.removeprefix(above): path for path in files.sizes if path.startswith(above)}
    check_size(files, found.values())
    return {where: encoded(content(files, path, metadata.constants)) for where, path in found.items()}


def check_size(files: Files, paths: Iterable[str]) -> None:
    """Raise PackageError for more than is to be in memory at once."""
    size = sum(files.sizes[path] for path in paths)
    if size > READ_BYTES_MAX:
        told = f"its files have {size} bytes; the maximum is {READ_BYTES_MAX}"
        raise PackageError(
            f"A program of the package cannot be used: {told}.", "Leave out what is not needed."
        )


def submission(
    files: Files, program: Program, metadata: Metadata, limits: Limits, definitions: Definitions, rules: Rules
) -> Expansion:
    """One that comes with the problem. Raises PackageError, SpecError."""
    size = sum(files.sizes[path] for path in program.files.values())
    if size > metadata.code_bytes:
        told = f"{program.name} has {size} bytes; limits.code allows {metadata.code_bytes}."
        raise PackageError(f"A submission is too long: {told}", "Shorten it, or raise limits.code.")
    return _expanded(files, program, metadata, limits, definitions, rules, "")


def given(
    files: Files, asked: Source, metadata: Metadata, definitions: Definitions, rules: Rules
) -> Expansion:
    """One that somebody sent, with what the package includes beside it. Raises SpecError, PackageError."""
    found = definitions.find(asked.language)
    language = found.name if found else ""
    known = [code(language), language, asked.language]
    if metadata.languages and not any(one in metadata.languages for one in known):
        told = ", ".join(metadata.languages)
        raise SpecError("language", f"{asked.language!r} may not solve this problem; these may: {told}")
    beside = included(files, language, metadata) if found else {}
    return expand(msgspec.structs.replace(asked, files=asked.files | beside), definitions, rules)


def validator(
    files: Files, program: Program, metadata: Metadata, limits: Limits, definitions: Definitions, rules: Rules
) -> Expansion:
    """One without scripts of its own. Raises PackageError, SpecError."""
    return _expanded(files, program, metadata, limits, definitions, rules, "default")


def _expanded(
    files: Files,
    program: Program,
    metadata: Metadata,
    limits: Limits,
    definitions: Definitions,
    rules: Rules,
    policy: str,
) -> Expansion:
    check_size(files, program.files.values())
    meant = source(program, extensions(definitions))
    beside = {
        where: encoded(content(files, path, metadata.constants), where in (BUILD, RUN))
        for where, path in program.files.items()
    }
    if not policy:
        beside |= included(files, meant.language, metadata)
    main = beside.pop(meant.main)
    asked = Source(
        language=meant.language,
        source=Content(base64=main.base64),
        source_name=meant.main,
        policy=policy or UNSET,
        files=beside,
        limits=limits.run,
        compile_limits=limits.compile,
    )
    return _with_all(expand(asked, definitions, rules), meant.main, meant.others)


def _with_all(found: Expansion, main: str, others: tuple[str, ...]) -> Expansion:
    """Compilers are given every source, in the place where the one stands that they are to be given."""
    if found.compile is None or not others:
        return found
    argv = [
        one
        for argument in found.compile.argv
        for one in ((main, *others) if argument == main else (argument,))
    ]
    return msgspec.structs.replace(found, compile=msgspec.structs.replace(found.compile, argv=argv))


def encoded(text: bytes, executable: bool = False) -> FileContent:
    """A file for a job, with these bytes."""
    return FileContent(base64=b64encode(text).decode(), executable=executable)
