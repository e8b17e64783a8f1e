"""What languages there are: languages.toml, checked when it is read.

Every language is a table of `languages`. Its commands are lists of arguments. In them {source} is the name
of the source, {stem} the same without its extension, {heap_mib} the memory that is the program's own,
{stack_mib} what a stack may take, and "{variant}" by itself the arguments of the variant asked for.

title, extensions: for people. source: the name of a source that is given none. version: a command that
tells it; a language whose command fails is not there. compile: none, of a language that runs from its
source. run: its limits are of a program that names none. files: what lies beside the source; makes: what a
compilation leaves; no file of a caller may be called so. variants: the arguments of each; variant: which it
is, if only the language is named. cpu_factor, memory_extra_bytes: what the runtime takes beside the
program, given on top of what a caller asks for. smoke: a program that reads and prints what `smoke` at the
top says.
"""

import string
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from jail.limits import LimitsRequest

SHIPPED = Path(__file__).with_name("languages.toml")

_PLACES = ("source", "stem", "heap_mib", "stack_mib")
VARIANT = "{variant}"

_Name = Annotated[str, Meta(pattern="^[a-z][a-z0-9]{0,31}$")]
_Argv = Annotated[tuple[str, ...], Meta(min_length=1)]


class LanguageError(ValueError):
    """A file of languages that is wrong; the text names the file, the language and what is the matter."""


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What runs, under which policy, with which variables and limits beside the operator's defaults."""

    argv: _Argv
    policy: str = "default"
    env: dict[str, str] = {}
    limits: LimitsRequest = LimitsRequest()


class Language(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One language. See the head of this module."""

    title: str
    extensions: Annotated[tuple[str, ...], Meta(min_length=1)]
    source: str
    version: _Argv
    files: dict[str, str] = {}
    makes: tuple[str, ...] = ()
    variants: dict[_Name, tuple[str, ...]] = {}
    variant: str = ""
    compile: Command | None = None
    run: Command
    cpu_factor: Annotated[float, Meta(ge=1, le=100)] = 1.0
    memory_extra_bytes: Annotated[int, Meta(ge=0)] = 0
    smoke: str


class Smoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every smoke program reads, and what it then prints."""

    stdin: str
    expected: str


class Found(msgspec.Struct, frozen=True):
    """A language, the name that is its own, and the arguments of the variant that was meant."""

    name: str
    language: Language
    variant: tuple[str, ...]


class Definitions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All languages, by their names. No variant is called like a language, or like another's."""

    smoke: Smoke
    languages: dict[_Name, Language]

    def find(self, name: str) -> Found | None:
        """The language of that name or variant, or None."""
        if language := self.languages.get(name):
            return Found(name, language, language.variants.get(language.variant, ()))
        for own, language in self.languages.items():
            if name in language.variants:
                return Found(own, language, language.variants[name])
        return None

    def names(self) -> list[str]:
        """What a caller may write, variants too."""
        return [name for own, each in self.languages.items() for name in (own, *each.variants)]


def load(file: str = "") -> Definitions:
    """The languages of that file; "": the shipped ones. Raises LanguageError."""
    path = Path(file) if file else SHIPPED
    try:
        found = msgspec.convert(tomllib.loads(path.read_text()), Definitions)
    except (OSError, ValueError) as error:
        raise LanguageError(f"{path}: {error}") from None
    names = found.names()
    for name in names:
        if names.count(name) > 1:
            raise LanguageError(f"{path}: {name} is the name of two languages or variants")
    for name, language in found.languages.items():
        if problem := _problem(language):
            raise LanguageError(f"{path}: languages.{name}: {problem}")
    return found


def _problem(language: Language) -> str | None:
    """What does not fit together, or None."""
    if not language.source.endswith(language.extensions):
        return f"source {language.source!r} has none of its extensions"
    if language.source in (*language.files, *language.makes):
        return f"makes {language.source!r}, its own source"
    if language.variants and language.variant not in language.variants:
        return f"variant {language.variant!r} is none of its variants"
    for command in filter(None, (language.compile, language.run)):
        for argument in command.argv:
            if argument != VARIANT and (wrong := _wrong_places(argument)):
                return f"{argument!r} has no place for {wrong}; there are {', '.join(_PLACES)}"
    return None


def _wrong_places(argument: str) -> str:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(argument) if name is not None}
    except ValueError as error:
        return str(error)
    return ", ".join(sorted(names - set(_PLACES)))


def fill(argv: tuple[str, ...], variant: tuple[str, ...], places: Mapping[str, object]) -> list[str]:
    """A command's arguments with what belongs in its places."""
    found: list[str] = []
    for argument in argv:
        found += variant if argument == VARIANT else [argument.format_map(places)]
    return found
