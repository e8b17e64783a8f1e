"""Measure, show, and write what was asked for."""

import os
import signal
import sys
from collections.abc import Sequence

from benchmark import machine, options, record, report
from benchmark.record import Record
from benchmark.sections import SECTIONS
from benchmark.session import Session, UnavailableError, session

ROUNDS, ROUNDS_FULL = 3, 9


def main() -> None:
    """Run the benchmark."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = options.parse(sys.argv[1:])
    names = asked.only or [name for name, section in SECTIONS.items() if asked.full or section.IS_PLAIN]
    rounds = ROUNDS_FULL if asked.full else ROUNDS
    with session(asked.floor, max(10, asked.runs), rounds, asked.full, max(2, asked.churn)) as given:
        found = _measure(given, names)
    report.show(found)
    if asked.json is not None:
        with os.fdopen(asked.json, "wb") as file:
            file.write(record.encode(found))


def _measure(given: Session, names: Sequence[str]) -> Record:
    figures, missing = {}, {}
    given.floor()
    for name in names:
        try:
            figures[name] = SECTIONS[name].measure(given)
        except UnavailableError as error:
            missing[name] = str(error)
        given.clear()
    given.floor()
    return Record(machine=machine.describe(), floors=tuple(given.floors), figures=figures, missing=missing)


if __name__ == "__main__":
    main()
