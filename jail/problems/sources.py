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
from jail.spec import Content, FileContent, Rules, SpecError, content_bytes, is_stored, stored_file

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


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Makes programs of one package, by the languages that there are and the rules for all jobs."""

    files: Files
    metadata: Metadata
    definitions: Definitions
    rules: Rules

    def submission(self, program: Program, limits: Limits) -> Expansion:
        """One that comes with the problem. Raises PackageError, SpecError."""
        size = sum(self.files.sizes[path] for path in program.files.values())
        if size > self.metadata.code_bytes:
            told = f"{program.name} has {size} bytes; limits.code allows {self.metadata.code_bytes}."
            raise PackageError(f"A submission is too long: {told}", "Shorten it, or raise limits.code.")
        return self._expanded(program, limits, is_submission=True)

    def given(self, asked: Source) -> Expansion:
        """One that somebody sent, with what is included beside it. Raises SpecError, PackageError."""
        found = self.definitions.find(asked.language)
        language = found.name if found else ""
        known = {code(language), language, asked.language}
        if self.metadata.languages and not known & set(self.metadata.languages):
            told = ", ".join(self.metadata.languages)
            raise SpecError("language", f"{asked.language!r} may not solve this problem; these may: {told}")
        size = self._size(asked.source)
        if size > self.metadata.code_bytes:
            raise SpecError("source", f"{size} bytes; the problem allows {self.metadata.code_bytes}")
        beside = self._included(language) if found else {}
        return expand(
            msgspec.structs.replace(asked, files=asked.files | beside), self.definitions, self.rules
        )

    def validator(self, program: Program, limits: Limits) -> Expansion:
        """One without scripts of its own. Raises PackageError, SpecError."""
        return self._expanded(program, limits, is_submission=False)

    def encoded(self, program: Program) -> dict[str, FileContent]:
        """All files of a program. Raises PackageError."""
        _check_size(self.files, program.files.values())
        return {where: self._encoded(path, where in (BUILD, RUN)) for where, path in program.files.items()}

    def _encoded(self, path: str, executable: bool = False) -> FileContent:
        return encoded(content(self.files, path, self.metadata.constants), executable)

    def _expanded(self, program: Program, limits: Limits, is_submission: bool) -> Expansion:
        meant = source(program, extensions(self.definitions))
        beside = self.encoded(program)
        if is_submission:
            beside |= self._included(meant.language)
        main = beside.pop(meant.main)
        asked = Source(
            language=meant.language,
            source=Content(base64=main.base64),
            source_name=meant.main,
            # Validators write feedback.
            policy=UNSET if is_submission else "default",
            files=beside,
            limits=limits.run,
            compile_limits=limits.compile,
        )
        return _with_all(expand(asked, self.definitions, self.rules), meant.main, meant.others)

    def _included(self, language: str) -> dict[str, FileContent]:
        """What every submission in a language finds beside itself, in place of files of its own."""
        found: dict[str, str] = {}
        for folder in (_FOR_ALL, code(language), language):
            above = f"{INCLUDE}/{folder}/"
            found |= {path.removeprefix(above): path for path in self.files.sizes if path.startswith(above)}
        _check_size(self.files, found.values())
        return {where: self._encoded(path) for where, path in found.items()}

    def _size(self, given: str | Content) -> int:
        """Of what is sent, in bytes. Raises SpecError: later on it would be taken for the package's."""
        if is_stored(given):
            return stored_file("source", given, self.rules).bytes
        return len(content_bytes("source", given))


def _check_size(files: Files, paths: Iterable[str]) -> None:
    """Raise PackageError for more than is to be in memory at once."""
    size = sum(files.sizes[path] for path in paths)
    if size > READ_BYTES_MAX:
        told = f"its files have {size} bytes; the maximum is {READ_BYTES_MAX}"
        raise PackageError(
            f"A program of the package cannot be used: {told}.", "Leave out what is not needed."
        )


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
