"""Switch every barrier off, one at a time, and show which test notices.

    scripts/check mutations [NAME...]

Works on a copy of the checkout: an edit of tests/mutations.toml is made there, the copy is built, and the
tests that the edit names are run against it. What is shipped has no switch of this kind. Exit status 1 if
an edit goes unnoticed. A NAME selects the edits whose name holds it.

The copy is a sandbox with a hole. The tests run in it are harmless ones, named one by one.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

CHECKOUT = Path(__file__).parents[1]
PARTS = ("jail", "native", "policies", "tests", "meson.build", "pyproject.toml", "README.md", "SECURITY.md")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?::\S+)", re.MULTILINE)
SKIPPED = re.compile(r"^SKIPPED \[\d+\] \S+: (.*)$", re.MULTILINE)
PASSED = re.compile(r"\d+ passed")
# For all the tests together, and for those of one edit.
HEALTHY_SECONDS, EDIT_SECONDS = 900, 40


class Mutation(NamedTuple):
    """An edit: `old`, which `file` holds once, becomes `new`; one of `tests` has to fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]


class Tried(NamedTuple):
    """The tests that failed; why all were skipped, if they were."""

    failed: list[str]
    skipped: str


class Outcome(NamedTuple):
    """What became of an edit. `seconds`: for building and testing."""

    mutation: Mutation
    tried: Tried
    seconds: float

    @property
    def verdict(self) -> str:
        """In colour. An edit that this host cannot show is not unnoticed."""
        if self.tried.failed:
            return "[green]caught[/]"
        return "[yellow]cannot be shown here[/]" if self.tried.skipped else "[bold red]UNNOTICED[/]"

    @property
    def unnoticed(self) -> bool:
        """Whether every test passed."""
        return not self.tried.failed and not self.tried.skipped


def mutations() -> list[Mutation]:
    """All edits, in the order of the file."""
    text = tomllib.loads((CHECKOUT / "tests" / "mutations.toml").read_text())
    return [
        Mutation(entry["name"], entry["file"], entry["old"], entry.get("new", ""), entry["tests"])
        for entry in text["mutation"]
    ]


class Copy:
    """A checkout of its own, its build, and an installed package that can be imported from `place`."""

    def __init__(self, directory: Path) -> None:
        """Copy and build it as it is."""
        self.checkout = directory / "checkout"
        self.place = directory / "installed"
        self._build = directory / "build"
        self.checkout.mkdir()
        for part in PARTS:
            source = CHECKOUT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, self.checkout / part)
        self._run("meson", "setup", str(self._build), str(self.checkout))
        self.install()

    def install(self) -> None:
        """Build what has changed. Ends with the compiler's words if it cannot be built."""
        self._run("meson", "compile", "-C", str(self._build))
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.checkout / "jail", self.place / "jail")
        shutil.copytree(self.checkout / "policies", self.place / "jail" / "policies")
        for path in (*self._build.rglob("jail-supervisor"), *self._build.rglob("_protocol*.so")):
            if path.is_file():
                shutil.copy(path, self.place / "jail")

    def attempt(self, tests: list[str], seconds: float = EDIT_SECONDS) -> Tried:
        """Run the tests, for so long. What does not come back has noticed."""
        environment = {**os.environ, "PYTHONPATH": str(self.place), "PYTHONDONTWRITEBYTECODE": "1"}
        options = ["-q", "-rfEs", "--tb=no", "--import-mode=importlib", "-p", "no:cacheprovider"]
        command = [sys.executable, "-P", "-m", "pytest", *options, *tests]
        running = subprocess.Popen(
            command,
            cwd=self.checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # With whatever it started, so that it can be ended as a whole.
            process_group=0,
        )
        try:
            told, _ = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
            return Tried([f"{test} (hangs)" for test in tests], "")
        # 2 to 5: interrupted, broken, misused, or nothing to run. Only 0 and 1 say something of the barrier.
        if running.returncode not in (0, 1):
            raise RuntimeError(told[-4000:])
        reason = SKIPPED.search(told) if not PASSED.search(told) else None
        return Tried(FAILED.findall(told), reason[1] if reason else "")

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"{done.stdout}{' '.join(command)} failed")


def attempt(copy: Copy, mutation: Mutation) -> Outcome:
    """Make the edit, see which tests fail, and undo it."""
    began = time.monotonic()
    path = copy.checkout / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.name}: {mutation.file} does not hold once: {mutation.old}")
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        copy.install()
        return Outcome(mutation, copy.attempt(mutation.tests), time.monotonic() - began)
    finally:
        path.write_text(text)


def check_healthy(copy: Copy, chosen: list[Mutation]) -> None:
    """What fails without any edit notices nothing."""
    tests = sorted({test for mutation in chosen for test in mutation.tests})
    failed = copy.attempt(tests, HEALTHY_SECONDS).failed
    if failed:
        raise SystemExit(f"these fail without any edit: {', '.join(failed)}")


def run(chosen: list[Mutation], console: Console) -> Iterator[Outcome]:
    """Each edit's outcome, as it is known."""
    with tempfile.TemporaryDirectory(prefix="jail-mutations-") as directory:
        Path(directory).chmod(0o755)
        with console.status("building"):
            copy = Copy(Path(directory))
        with console.status("running the tests without any edit"):
            check_healthy(copy, chosen)
        for number, mutation in enumerate(chosen, 1):
            with console.status(f"{number} of {len(chosen)}: {mutation.name}"):
                outcome = attempt(copy, mutation)
            console.print(f"{outcome.verdict} {mutation.name} [dim]{outcome.seconds:.1f} s[/]")
            yield outcome


def show(outcomes: list[Outcome], console: Console) -> None:
    """Which tests caught what."""
    table = Table("barrier switched off", "in")
    table.add_column("caught by", overflow="fold")
    for outcome in outcomes:
        failed, skipped = outcome.tried
        names = sorted({test.split("::", 1)[1].split("[", 1)[0] for test in failed})
        told = "\n".join(names) or f"{outcome.verdict} {skipped}"
        table.add_row(outcome.mutation.name, outcome.mutation.file, told)
    console.print(table)
    unnoticed = sum(outcome.unnoticed for outcome in outcomes)
    console.print(f"{len(outcomes)} barriers switched off, {unnoticed} unnoticed")


def main() -> None:
    """Run the edits that the command line names, by default all."""
    parser = argparse.ArgumentParser(description="Switch barriers off and show which tests notice.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    chosen = [
        mutation for mutation in mutations() if not names or any(name in mutation.name for name in names)
    ]
    if not chosen:
        raise SystemExit("no edit has such a name")
    console = Console(highlight=False)
    outcomes = list(run(chosen, console))
    show(outcomes, console)
    raise SystemExit(any(outcome.unnoticed for outcome in outcomes))


if __name__ == "__main__":
    main()
