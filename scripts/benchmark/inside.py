"""The same static program, inside a sandbox and outside, in turns; it times itself."""

import json
import statistics
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from benchmark.client import Connection, result
from benchmark.floor import Floor
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import Session

TITLE = "the same program inside and outside: its own CPU time"
IS_PLAIN = True

WORKS = {
    "compute": ("arithmetic", 1.01),
    "calls": ("reads, writes and the like", 1.05),
    "opens": ("opening files of the image", 1.05),
    "faults": ("touching new memory", None),
    "null": ("the cheapest system call", None),
}
"""Each kind of work of programs/work.c, in words, and the most that it may take inside over outside."""

PAIRS, PAIRS_FULL = 15, 101


class Spent(msgspec.Struct, frozen=True):
    """What a program says of itself: milliseconds of CPU time and of real time."""

    cpu_ms: float
    wall_ms: float


class Figures(msgspec.Struct, frozen=True):
    """Runs of each kind of work; the nth inside came right after the nth outside.

    `filtered`: outside as well, under a filter of one instruction that allows all.
    """

    outside: dict[str, tuple[Spent, ...]]
    inside: dict[str, tuple[Spent, ...]]
    filtered: dict[str, tuple[Spent, ...]]


def measure(session: Session) -> Figures:
    """All kinds in turn, again and again. Raises OSError, UnavailableError."""
    program = session.compiled("work")
    encoded = b64encode(program.read_bytes()).decode()
    pairs = PAIRS_FULL if session.is_full else PAIRS
    outside: dict[str, list[Spent]] = {kind: [] for kind in WORKS}
    inside: dict[str, list[Spent]] = {kind: [] for kind in WORKS}
    filtered: dict[str, list[Spent]] = {kind: [] for kind in WORKS}
    advance = session.task("inside and outside", pairs)
    with serving() as service, closing(Connection(service.port)) as connection:
        for _ in range(pairs):
            for kind in WORKS:
                outside[kind].append(_run_outside(program, kind))
                inside[kind].append(_run_inside(connection, encoded, kind))
                filtered[kind].append(_run_outside(program, kind, "filtered"))
            advance()
    return Figures(_frozen(outside), _frozen(inside), _frozen(filtered))


def _frozen(found: dict[str, list[Spent]]) -> dict[str, tuple[Spent, ...]]:
    return {kind: tuple(runs) for kind, runs in found.items()}


def _run_outside(program: Path, *arguments: str) -> Spent:
    return spent(subprocess.run([program, *arguments], stdout=subprocess.PIPE, check=True).stdout.decode())


def _run_inside(connection: Connection, encoded: str, kind: str) -> Spent:
    job = {"argv": ["./work", kind], "files": {"work": {"base64": encoded, "executable": True}}}
    answer = result(connection.ask(body=json.dumps(job).encode()))
    return spent(answer["stdout"]["text"])


def spent(text: str) -> Spent:
    """What a run of the program printed. Raises ValueError."""
    cpu_ns, wall_ns = map(int, text.split())
    return Spent(cpu_ns / 1e6, wall_ns / 1e6)


def spread(inside: Sequence[float], outside: Sequence[float]) -> tuple[float, float]:
    """The middle half of the ratios of each pair."""
    ratios = [a / b for a, b in zip(inside, outside, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return low, high


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """CPU time inside, as a ratio to outside."""
    for kind, (words, at_most) in WORKS.items():
        sides = (found.inside, found.outside, found.filtered)
        inside, outside, filtered = ([run.cpu_ms for run in side[kind]] for side in sides)
        low, high = spread(inside, outside)
        least = statistics.median(filtered) / statistics.median(outside)
        yield Row(
            name=words,
            value=statistics.median(inside),
            ratio=statistics.median(inside) / statistics.median(outside),
            to="outside",
            at_most=at_most,
            note=f"pairs {low:.3f} to {high:.3f}; the least filter {least:.3f}",
        )
