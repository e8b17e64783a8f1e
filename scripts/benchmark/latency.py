"""A no-op job over HTTP: one client back to back, one that pauses, and eight at once.

The floor is measured before and after each round, and every ratio is one within its round.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from benchmark import floor, load
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.load import Load
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import CLIENTS, Session

TITLE = "a no-op job over HTTP"
IS_PLAIN = True

PAUSE_SECONDS = 0.3
_SPARSE = 6


Of = Callable[["Round"], float]
"""A figure of a round."""


class Round(msgspec.Struct, frozen=True):
    """What was measured between two measurements of the floor; `floor` is the lesser."""

    floor: Floor
    one: Times
    sparse: Times
    many: Load


class Figures(msgspec.Struct, frozen=True):
    """`one` client back to back; the same with PAUSE_SECONDS between jobs; CLIENTS at once."""

    rounds: tuple[Round, ...]


def measure(session: Session) -> Figures:
    """Round after round. Raises OSError."""
    found = []
    with serving() as service:
        load.warm_up(service.port)
        rounds = session.rounds * 2
        advance = session.task("HTTP: one client, sparse, eight", rounds)
        after = session.floor()
        for _ in range(rounds):
            before = after
            one = load.sequence(service.port, session.runs)
            sparse = load.sequence(service.port, _SPARSE, PAUSE_SECONDS)
            many = load.crowd(service.port, CLIENTS, session.runs * 3)
            after = session.floor()
            found.append(Round(floor.least(before, after), one, sparse, many))
            advance()
    return Figures(tuple(found))


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """With the aims of the project; a ratio is the median of those of the rounds."""
    rounds = found.rounds

    def row(name: str, value: Of, ratio: Of, to: str, **others: Any) -> Row:
        ratios = [ratio(each) for each in rounds]
        return Row(
            name=name,
            value=statistics.median(value(each) for each in rounds),
            ratio=statistics.median(ratios),
            to=to,
            **{"note": f"rounds: {min(ratios):.2f} to {max(ratios):.2f}"} | others,
        )

    def one(each: Round) -> float:
        return each.one.p50_ms

    yield row("one client: p50", one, lambda r: one(r) / r.floor.bare_ms, "bare", at_most=3.5)
    yield row("one client: p99", lambda r: r.one.p99_ms, lambda r: r.one.p99_ms / one(r), "its p50")
    yield row(
        f"{PAUSE_SECONDS * 1e3:.0f} ms between jobs: p50",
        lambda r: r.sparse.p50_ms,
        lambda r: r.sparse.p50_ms / one(r),
        "one client's p50",
        at_most=1.5,
    )
    yield row(
        f"{CLIENTS} clients: throughput",
        lambda r: r.many.jobs_per_s,
        lambda r: r.many.jobs_per_s * r.floor.churn_ms / 1e3,
        "1000/churn",
        unit="jobs/s",
        at_least=0.75,
    )
    yield row(
        f"{CLIENTS} clients: p50",
        lambda r: r.many.times.p50_ms,
        lambda r: r.many.times.p50_ms / one(r),
        "one client's p50",
    )
    beside = statistics.median(each.many.times.p99_ms / one(each) for each in rounds)
    yield row(
        f"{CLIENTS} clients: p99",
        lambda r: r.many.times.p99_ms,
        lambda r: r.many.times.p99_ms / r.many.times.p50_ms,
        "their p50",
        at_most=4,
        note=f"{beside:.1f} x one client's p50",
    )
