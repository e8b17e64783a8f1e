"""How many tests ran in machines, passed and were skipped, and why."""

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from vm.job import Answer

_HEAD = ("kernel", "selection", "tests", "passed", "failed", "skipped", "seconds", "of them boot", "pip")


class Row(msgspec.Struct, frozen=True):
    """One machine's: `failed` has errors too, `skipped` the reasons with how often each.

    `kernel` is its version. Seconds: from starting qemu to its end, and of that until the job, and of pip.
    """

    kernel: str
    selection: str
    status: int
    passed: int
    failed: int
    skipped: dict[str, int]
    seconds: float
    boot_s: float
    install_s: float

    @property
    def tests(self) -> int:
        """All that were selected."""
        return self.passed + self.failed + sum(self.skipped.values())


def row(kernel: str, selection: str, answer: Answer, results: bytes, seconds: float) -> Row:
    """Of an answer and pytest's own report, in JUnit's form; without one, nothing was run."""
    outcomes = Counter(_outcomes(results)) if results else Counter()
    skipped = {reason: count for (outcome, reason), count in outcomes.items() if outcome == "skipped"}
    return Row(
        kernel=kernel,
        selection=selection,
        status=answer.status,
        passed=outcomes["passed", ""],
        failed=outcomes["failed", ""],
        skipped=skipped,
        seconds=round(seconds, 1),
        boot_s=round(answer.boot_s, 1),
        install_s=round(answer.install_s, 1),
    )


def _outcomes(results: bytes) -> Iterator[tuple[str, str]]:
    for case in ElementTree.fromstring(results).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            yield "failed", ""
        elif skipped is not None:
            yield "skipped", skipped.get("message", "")
        else:
            yield "passed", ""


def table(rows: Sequence[Row]) -> str:
    """For people: a line for each, and beneath it why tests were skipped."""
    cells = [_HEAD, *(tuple(map(str, _cells(row))) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(_HEAD, widths)]
    for row, found in zip(rows, cells[1:], strict=True):
        lines.append(_line(found, widths))
        lines += [f"    skipped {count}: {reason}" for reason, count in sorted(row.skipped.items())]
    return "\n".join(lines)


def _cells(row: Row) -> Iterable[object]:
    skipped = sum(row.skipped.values())
    times = (f"{row.seconds:.0f}", f"{row.boot_s:.0f}", f"{row.install_s:.0f}")
    return row.kernel, row.selection, row.tests, row.passed, row.failed, skipped, *times


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    words = (
        cell.ljust(width) if n < 2 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(words).rstrip()


def encode(rows: Sequence[Row]) -> bytes:
    """As indented JSON."""
    return msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n"
