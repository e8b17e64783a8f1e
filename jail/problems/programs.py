"""Programs of a package, each a file or a directory, and what their languages are."""

import re
from collections.abc import Iterator, Mapping

import msgspec

from jail.errors import PackageError
from jail.problems.files import Files
from jail.problems.files import read as read_file

BUILD, RUN = "build", "run"
"""Scripts that a validator's directory may have: one makes the other, or that is there by itself."""

_ENTRIES = ("__main__", "main", "Main")
_CONSTANT = re.compile(rb"\{\{([A-Za-z_][A-Za-z0-9_]*)\}\}")
_CURE = "Put each program in a file, or in a directory of its own, in one language."


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """name: within its folder. files: paths of the package by where they go, relative to /box.

    language, entry: as the package says, or "" for what the names of the files tell.
    """

    name: str
    files: dict[str, str]
    language: str = ""
    entry: str = ""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A program whose language is known. main: of `files`, the one to compile or run; others: beside it."""

    language: str
    main: str
    others: tuple[str, ...]


def programs(files: Files, folder: str) -> Iterator[Program]:
    """Those in a folder of the package, in the order of their names."""
    found: dict[str, dict[str, str]] = {}
    for path in files.sizes:
        if path.startswith(f"{folder}/"):
            name, _, inner = path.removeprefix(f"{folder}/").partition("/")
            found.setdefault(name, {})[inner or name] = path
    for name in sorted(found):
        yield Program(name=name, files=dict(sorted(found[name].items())))


def is_built(program: Program) -> bool:
    """Whether it has scripts of its own in place of a language."""
    return BUILD in program.files or RUN in program.files


def content(files: Files, path: str, constants: Mapping[str, str]) -> bytes:
    """A file of a program, with the package's constants where {{name}} asks for one."""

    def value(match: re.Match[bytes]) -> bytes:
        found = constants.get(match[1].decode())
        return match[0] if found is None else found.encode()

    found = read_file(files, path)
    return _CONSTANT.sub(value, found) if constants else found


def source(program: Program, extensions: Mapping[str, str]) -> Source:
    """What a program without scripts is: by its entry if it has one, or by its files' names.

    extensions: the language of each, as {".cpp": "cpp"}. Raises PackageError.
    """
    known = {path: language for path in program.files if (language := _language(path, extensions))}
    languages = sorted(set(known.values()))
    if program.language:
        languages = [program.language]
    if len(languages) != 1:
        what = f"is in several languages: {', '.join(languages)}" if languages else "is in no known language"
        raise _wrong(f"{program.name} {what}")
    (language,) = languages
    sources = [path for path in program.files if known.get(path, language) == language and path in known]
    main = _main(program, sources or list(program.files))
    return Source(language=language, main=main, others=tuple(path for path in sources if path != main))


def _language(path: str, extensions: Mapping[str, str]) -> str | None:
    """By the longest of the extensions that it ends with."""
    matching = [one for one in extensions if path.endswith(one)]
    return extensions[max(matching, key=len)] if matching else None


def _main(program: Program, sources: list[str]) -> str:
    stems = {path: path.rpartition("/")[2].partition(".")[0] for path in sources}
    if program.entry:
        found = [path for path in sources if program.entry in (path, stems[path])]
        if not found:
            raise _wrong(f"{program.name} has no file for its entry point {program.entry[:100]!r}")
        return found[0]
    top = [path for path in sources if "/" not in path]
    named = [path for entry in _ENTRIES for path in top if stems[path] == entry]
    # Those that are linked together begin wherever main() is.
    return (named or top or sources)[0]


def _wrong(reason: str) -> PackageError:
    return PackageError(f"A program of the package cannot be used: {reason}.", _CURE)
