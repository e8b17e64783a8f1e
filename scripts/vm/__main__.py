"""Build what is missing, boot, run, and tell."""

import os
import signal
import sys
import time
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from vm import image, job, machine, options, recipe, report
from vm.errors import VmError
from vm.job import Job
from vm.plan import Task
from vm.report import Row

_PROJECT = Path.cwd()
# The family that has properties of tests.
_PYTEST = ("python", "-P", "-m", "pytest", "-o", "junit_family=xunit1", f"--junitxml=/job/{job.RESULTS}")
_CONSOLE_LINES = 30


def main() -> int:
    """Run what is asked for; the exit status of the first machine that did not end well, or 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked, arguments = options.parse(sys.argv[1:])
    try:
        rows = [_run(task, asked) for task in options.tasks(asked, tuple(arguments))]
    except VmError as error:
        sys.stderr.write(f"jail: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(f"\n{report.table(rows)}\n")
    if asked.json is not None:
        with os.fdopen(asked.json, "wb") as file:
            file.write(report.encode(rows))
    return next((row.status for row in rows if row.status), 0)


def _run(task: Task, asked: Namespace) -> Row:
    built = image.provide(recipe.load(), task.place.image, task.kernel, _PROJECT, _say)
    command = ("sh", "-c", asked.command) if asked.command else (*_PYTEST, *task.arguments)
    with TemporaryDirectory(prefix="jail-vm-") as directory:
        place = Path(directory)
        job.pack(
            Job(command, task.place.user, task.place.drop_ins),
            _PROJECT,
            [Path(asked.wheel)],
            place / "job.tar",
        )
        _say(f"booting {task.place.image} with kernel {built.kernel}: {task.name}")
        began = time.monotonic()
        is_over = machine.boot(
            built, place / "job.tar", place / "answer.tar", place / "console", asked.timeout
        )
        seconds = time.monotonic() - began
        found = job.unpack(place / "answer.tar")
        if found is None:
            _complain(place / "console", is_over, asked.timeout)
            found = job.no_answer(is_over)
        return report.row(built.kernel, task.name, *found, seconds)


def _complain(console: Path, is_over: bool, timeout_s: float) -> None:
    last = console.read_text(errors="replace").splitlines()[-_CONSOLE_LINES:] if console.exists() else []
    why = "ended without an answer" if is_over else f"was ended after {timeout_s:.0f} s"
    sys.stderr.write("\n".join((*last, f"jail: The machine {why}; above is the end of what it said.\n")))


def _say(text: str) -> None:
    sys.stderr.write(f"\033[1m{time.strftime('%H:%M:%S')} {text}\033[0m\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
