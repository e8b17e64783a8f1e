"""Build what is missing, boot, run, and tell."""

import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from vm import image, job, machine, options, plan, recipe, report
from vm.errors import VmError
from vm.job import Job
from vm.plan import Place
from vm.report import Row

_PROJECT = Path.cwd()
_PYTEST = ("python", "-P", "-m", "pytest", f"--junitxml=/job/{job.RESULTS}")
_CONSOLE_LINES = 30


class Task(msgspec.Struct, frozen=True):
    """What one machine is for: the job, on an image with a kernel; `name`, for people."""

    name: str
    kernel: str
    image: str
    job: Job


def main() -> int:
    """Run what is asked for; the exit status of the first machine that did not end well, or 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked, arguments = options.parse(sys.argv[1:])
    try:
        rows = [_run(task, asked) for task in _tasks(asked, tuple(arguments))]
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


def _tasks(asked: Namespace, arguments: tuple[str, ...]) -> Iterator[Task]:
    kernels = plan.MATRIX if asked.matrix else (asked.kernel,)
    for kernel in kernels:
        if asked.command:
            yield _task(asked, "command", kernel, Place("plain", "root"), ("sh", "-c", asked.command))
        elif arguments and not asked.selection and not asked.matrix:
            yield _task(asked, "chosen", kernel, plan.place_of(arguments), (*_PYTEST, *arguments))
        else:
            whole = asked.matrix or asked.selection == "all"
            for name in plan.ALL if whole else (asked.selection or "short",):
                selected = (*plan.SELECTIONS[name], *arguments)
                yield _task(asked, name, kernel, plan.place_of(selected), (*_PYTEST, *selected))


def _task(asked: Namespace, name: str, kernel: str, place: Place, command: Sequence[str]) -> Task:
    return Task(name, kernel, asked.image or place.image, Job(tuple(command), asked.user or place.user))


def _run(task: Task, asked: Namespace) -> Row:
    built = image.provide(recipe.load(), task.image, task.kernel, _PROJECT, _say)
    with TemporaryDirectory(prefix="jail-vm-") as directory:
        place = Path(directory)
        job.pack(task.job, _PROJECT, [Path(asked.wheel)], place / "job.tar")
        _say(f"booting {task.image} with kernel {built.kernel}: {task.name}")
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
