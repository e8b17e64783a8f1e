"""What every section is given: how much to measure, with what, and where progress is told."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmark import floor
from benchmark.floor import Floor

Advance = Callable[[], None]

CLIENTS = 8
"""Clients at once, where nothing else is said."""

_PROGRAMS = Path(__file__).parent / "programs"
_REDRAW_SECONDS = 0.5


class UnavailableError(Exception):
    """What a section needs is not here; the text says what, and is shown in its place."""


class Extent(msgspec.Struct, frozen=True):
    """How much is measured: see Session."""

    runs: int
    rounds: int
    is_full: bool
    churn_seconds: int


class Session:
    """One run of the benchmark.

    Attributes: `runs`, jobs of a kind in one round; `rounds`, in which things that are compared take
    turns; `is_full`, whether time is no object; `churn_seconds`; `floors`, all that were measured;
    `directory`, for files of this run.
    """

    def __init__(self, program: str, extent: Extent, directory: Path, progress: Progress) -> None:
        """Take the program made of native/floor.c, and how much to measure."""
        self.runs = extent.runs
        self.rounds = extent.rounds
        self.is_full = extent.is_full
        self.churn_seconds = extent.churn_seconds
        self.directory = directory
        self.floors: list[Floor] = []
        self._program = program
        self._progress = progress
        self._drawn_at = 0.0

    def task(self, name: str, total: int) -> Advance:
        """A line of progress. What is returned moves it by one: call it where no clock runs."""
        number = self._progress.add_task(name, total=total)
        self._progress.refresh()

        def advance() -> None:
            self._progress.advance(number)
            if time.monotonic() - self._drawn_at > _REDRAW_SECONDS:
                self._progress.refresh()
                self._drawn_at = time.monotonic()

        return advance

    def clear(self) -> None:
        """Forget the lines of progress: a section has ended."""
        for task in self._progress.task_ids:
            self._progress.remove_task(task)

    def floor(self, runs: int | None = None) -> Floor:
        """The floor as it is now. Raises CalledProcessError."""
        self.floors.append(floor.measure(self._program, runs or self.runs))
        return self.floors[-1]

    @property
    def no_op(self) -> str:
        """A static program that does nothing: the floor's, under the name by which it knows."""
        path = self.directory / "true"
        if not path.exists():
            path.write_bytes(Path(self._program).read_bytes())
            path.chmod(0o755)
        return str(path)

    def compiled(self, name: str) -> Path:
        """programs/NAME.c as a static program. Raises UnavailableError without a compiler."""
        path = self.directory / name
        command = ["gcc", "-D_GNU_SOURCE", "-O2", "-static", "-o", path, _PROGRAMS / f"{name}.c"]
        if not path.exists():
            try:
                subprocess.run(command, check=True, stderr=subprocess.PIPE)
            except FileNotFoundError:
                raise UnavailableError("gcc is not installed") from None
            except subprocess.CalledProcessError as error:
                said = error.stderr.decode(errors="replace").strip().splitlines()
                raise UnavailableError(f"{name}.c cannot be compiled: {said[-1:]}") from None
        return path


@contextmanager
def session(program: str, extent: Extent) -> Iterator[Session]:
    """A run of the benchmark with a directory of its own, and its progress on stderr."""
    # Redrawn between measurements only: a thread that draws would take part in them.
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
    )
    with tempfile.TemporaryDirectory(prefix="jail-bench-") as directory, progress:
        # Peers look into it from user namespaces of their own.
        os.chmod(directory, 0o755)
        yield Session(program, extent, Path(directory), progress)
