"""`jail judge`: a problem package, its submissions and those of others, by the same engine as `jail run`."""

import asyncio
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from jail import delegation, settings
from jail.cli.failures import explained
from jail.engine import Engine
from jail.errors import PackageError
from jail.languages import definitions
from jail.problems import files, package, submissions
from jail.problems.files import Beside, Files
from jail.problems.grading import ACCEPTED, JUDGE_ERROR
from jail.problems.judge import Judge, Judged, contents
from jail.problems.package import Problem
from jail.problems.submissions import Submission
from jail.settings import Settings

_GIVEN = "given"

_OWNER = "jail judge"
"""Of test data in the store: no caller of a service has that."""

_GIVEN_FILES_MAX = 1000
_GIVEN_BYTES_MAX = 16 << 20
_SAID_LINES = 12
_PIPE_WIDTH = 250


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints."""

    problem: str
    time_limit_ms: int
    submissions: list[Judged]


@click.command()
@click.argument("package_path", metavar="PACKAGE", type=click.Path(exists=True, path_type=Path))
@click.argument("given", metavar="[SUBMISSION]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--config", type=click.Path(), help="A TOML file; $JAIL_CONFIG by default.")
def judge(package_path: Path, given: tuple[str, ...], as_json: bool, config: str | None) -> None:
    """Judge submissions to the problem in PACKAGE, a directory or a zip archive.

    A SUBMISSION is a file, or a directory with the files of one program; or one that comes with the problem,
    as accepted/fast.cpp. Without any, all are judged that come with it.

    Ends with 1 if one that comes with the problem gets what its folder does not allow, or if the problem's
    own programs fail.
    """
    with explained():
        delegation.become_ready(None)
        with files.opened(package_path) as found:
            problem = package.read(found)
            wanted, more = _wanted(found, problem, given)
            work = _judge(settings.load(config=config), Beside(found, more), problem, wanted)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                time_limit_ms, judged = runner.run(work)
    name = package_path.resolve().name
    if as_json:
        report = _Report(problem=name, time_limit_ms=time_limit_ms, submissions=judged)
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    else:
        _print(judged, problem, time_limit_ms)
    if any(one.complaints or one.verdict == JUDGE_ERROR for one in judged):
        raise SystemExit(1)


def _wanted(
    found: Files, problem: Problem, given: Sequence[str]
) -> tuple[list[Submission], dict[str, bytes]]:
    """What is to be judged, and the files of what does not come with the package. Raises PackageError."""
    included = {one.name: one for one in submissions.read(found, problem.metadata)}
    if not given:
        if not included:
            raise PackageError("The package has no submissions.", "Name some to judge.")
        return list(included.values()), {}
    wanted: list[Submission] = []
    more: dict[str, bytes] = {}
    for number, name in enumerate(given):
        if name in included:
            wanted.append(included[name])
            continue
        content = _content(Path(name))
        above = f"{_GIVEN}/{number}"
        more |= {f"{above}/{path}": text for path, text in content.items()}
        wanted.append(submissions.given(name, {path: f"{above}/{path}" for path in content}))
    return wanted, more


def _content(path: Path) -> dict[str, bytes]:
    """The files of a program by their names. Raises PackageError."""
    try:
        above = path if path.is_dir() else path.parent
        there = sorted(path.rglob("*")) if path.is_dir() else [path]
        found = [one for one in there if stat.S_ISREG(one.stat().st_mode)]
        too_large = sum(one.stat().st_size for one in found) > _GIVEN_BYTES_MAX
        if too_large or not 0 < len(found) <= _GIVEN_FILES_MAX:
            told = f"{path} is not one program: up to {_GIVEN_FILES_MAX} files of {_GIVEN_BYTES_MAX} bytes."
            raise PackageError(told, "Name the file or the directory of one.")
        return {str(one.relative_to(above)): one.read_bytes() for one in found}
    except OSError as error:
        told = f"{path} is no submission of the package, and no file: {error.strerror}."
        raise PackageError(told, "Name a file, or one of the package as FOLDER/NAME.") from None


async def _judge(
    found: Settings, content: Files, problem: Problem, wanted: list[Submission]
) -> tuple[int, list[Judged]]:
    """The time limit, and what became of each."""
    # No one waits for the next problem, and nobody administers.
    own = msgspec.structs.replace(found, ready_min=0, admin_keys_sha256=())
    async with Engine(own) as engine:
        held = contents(content, engine.means.files.files, _OWNER, {})
        judge = Judge(engine, content, problem, definitions.load(found.languages), held, _OWNER)
        with _shown(len(wanted)) as shown:
            shown("", "validator and time limit")
            prepared, known = await judge.prepare()
            judged: list[Judged] = []
            for one in wanted:
                shown(one.name, "")
                judged.append(known.get(one.name) or await judge.judge(one, prepared))
        return prepared.time_limit_ms, judged


@contextmanager
def _shown(count: int) -> Iterator[Any]:
    """Progress on stderr, if a person is there to see it."""
    console = Console(stderr=True, highlight=False, markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=count)
        begun = -1

        def show(submission: str, doing: str) -> None:
            nonlocal begun
            begun += bool(submission)
            progress.update(bar, description=submission or doing, completed=max(0, begun))

        yield show


def _print(judged: list[Judged], problem: Problem, time_limit_ms: int) -> None:
    scoring = problem.metadata.scoring
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("submission", "expected", "verdict", "score", "slowest", "memory", "first failing test"):
        if heading != "score" or scoring:
            is_number = heading in ("score", "slowest", "memory")
            table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for one in judged:
        table.add_row(*_row(one, scoring))
    # A pipe has no width to keep to.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(table)
    console.print(f"The time limit is {time_limit_ms} ms.", style="dim")
    for one in judged:
        for complaint in one.complaints:
            click.echo(f"{one.submission}: {complaint}", err=True)
        if one.detail:
            said = "\n".join(one.detail.splitlines()[:_SAID_LINES])
            click.echo(f"{one.submission}:\n{_plain(said)}", err=True)


def _row(one: Judged, scoring: bool) -> list[Text]:
    wrong = one.complaints or one.verdict == JUDGE_ERROR
    colour = "red" if wrong else "green" if one.expected or one.verdict == ACCEPTED else ""
    return [
        Text(one.submission),
        Text(one.expected),
        Text(one.verdict, style=colour),
        *([Text(f"{one.score:g}")] if scoring else []),
        Text(f"{one.slowest_ms:.0f} ms" if one.tests else ""),
        Text(decimal(one.memory_peak_bytes) if one.tests else ""),
        Text(one.failed or ""),
    ]


def _plain(text: str) -> str:
    """Without what a terminal would obey: compilers repeat what they are given."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text)
