"""What every section is given: how much to measure, with what, and where progress is told."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


class Session:
    """One run of the benchmark.

    Attributes: `runs`, jobs of a kind in one round; `rounds`, in which things that are compared take
    turns; `is_full`, whether time is no object; `churn_seconds`; `floors`, all that were measured;
    `directory`, for files of this run.
    """

    def __init__(
        self, program: str, runs: int, rounds: int, is_full: bool, churn_seconds: int, directory: Path
    ) -> None:
        """Take the program made of native/floor.c, and how much to measure."""
        self.runs = runs
        self.rounds = rounds
        self.is_full = is_full
        self.churn_seconds = churn_seconds
        self.directory = directory
        self.floors: list[Floor] = []
        self._program = program
        # Redrawn between measurements only: a thread that draws would take part in them.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
        )
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
        command = ["gcc", "-O2", "-static", "-o", path, _PROGRAMS / f"{name}.c"]
        if not path.exists():
            try:
                subprocess.run(command, check=True, stderr=subprocess.PIPE)
            except FileNotFoundError:
                raise UnavailableError("gcc is not installed") from None
        return path


@contextmanager
def session(program: str, runs: int, rounds: int, is_full: bool, churn_seconds: int) -> Iterator[Session]:
    """A run of the benchmark with a directory of its own, and its progress on stderr."""
    with tempfile.TemporaryDirectory(prefix="jail-bench-") as directory:
        os.chmod(directory, 0o755)
        found = Session(program, runs, rounds, is_full, churn_seconds, Path(directory))
        with found._progress:
            yield found
