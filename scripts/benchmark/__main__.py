"""Measure, show, and write what was asked for."""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import BinaryIO

from benchmark import machine, options, page, plots, record, report
from benchmark.record import Record
from benchmark.sections import SECTIONS
from benchmark.session import Extent, Session, UnavailableError, session

ROUNDS, ROUNDS_FULL = 2, 9


def main() -> None:
    """Run the benchmark."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = options.parse(sys.argv[1:])
    if asked.kept is None:
        found = _measured(asked)
    else:
        with os.fdopen(asked.kept, "rb") as file:
            found = record.decode(file.read())
    report.show(found)
    _write(asked.json, lambda file: file.write(record.encode(found)))
    _write(asked.plots, lambda file: page.pack(plots.draw(found), file))
    _write(asked.write, lambda file: page.pack(page.files(found), file))
    sys.exit(any(why.startswith("failed: ") for why in found.missing.values()))


def _write(descriptor: int | None, put: Callable[[BinaryIO], object]) -> None:
    if descriptor is not None:
        with os.fdopen(descriptor, "wb") as file:
            put(file)


def _measured(asked: Namespace) -> Record:
    names = asked.only or [name for name, section in SECTIONS.items() if asked.full or section.IS_PLAIN]
    rounds = ROUNDS_FULL if asked.full else ROUNDS
    extent = Extent(max(10, asked.runs), rounds, asked.full, max(2, asked.churn))
    with session(asked.floor, extent) as given:
        return _measure(given, names)


def _measure(given: Session, names: Sequence[str]) -> Record:
    figures, missing = {}, {}
    given.floor()
    for name in names:
        try:
            figures[name] = SECTIONS[name].measure(given)
        except UnavailableError as error:
            missing[name] = str(error)
        except OSError as error:
            # The others are worth having all the same.
            missing[name] = f"failed: {error}"
            sys.stderr.write("\n".join([f"{name}: {error}", *getattr(error, "__notes__", ())]) + "\n")
        given.clear()
    given.floor()
    return Record(machine=machine.describe(), floors=tuple(given.floors), figures=figures, missing=missing)


if __name__ == "__main__":
    main()
