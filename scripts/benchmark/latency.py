"""A no-op job over HTTP: one client back to back, one that pauses, and eight at once.

The floor is measured before and after each round, and every ratio is one within its round.
"""

import statistics
from collections.abc import Callable, Iterator

import msgspec

from benchmark import figures, floor, load
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.load import Load
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import CLIENTS, Session

TITLE = "a no-op job over HTTP"
IS_PLAIN = True

PAUSE_SECONDS = 0.3


class Round(msgspec.Struct, frozen=True):
    """What was measured between two measurements of the floor; `floor` is their mean."""

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
        advance = session.task("HTTP: one client, sparse, eight", session.rounds)
        after = session.floor()
        for _ in range(session.rounds):
            before = after
            one = load.sequence(service.port, session.runs)
            sparse = load.sequence(service.port, max(8, session.runs // 10), PAUSE_SECONDS)
            many = load.crowd(service.port, CLIENTS, session.runs * 3)
            after = session.floor()
            found.append(Round(floor.mean(before, after), one, sparse, many))
            advance()
    return Figures(tuple(found))


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """With the aims of the project."""
    rounds = found.rounds

    def median(figure: Callable[[Round], float]) -> float:
        return statistics.median(figure(each) for each in rounds)

    one, sparse = (figures.middle([getattr(r, name) for r in rounds]) for name in ("one", "sparse"))
    many = figures.middle([r.many.times for r in rounds])
    rate = median(lambda r: r.many.jobs_per_s)
    ratios = [r.one.p50_ms / r.floor.bare_ms for r in rounds]
    yield Row(
        name="one client: p50",
        value=one.p50_ms,
        ratio=statistics.median(ratios),
        to="bare",
        at_most=3.5,
        note=f"rounds: {min(ratios):.2f} to {max(ratios):.2f}",
    )
    yield Row(name="one client: p99", value=one.p99_ms, ratio=one.p99_ms / one.p50_ms, to="its p50")
    yield Row(
        name=f"{PAUSE_SECONDS * 1e3:.0f} ms between jobs: p50",
        value=sparse.p50_ms,
        ratio=median(lambda r: r.sparse.p50_ms / r.one.p50_ms),
        to="one client's p50",
        at_most=1.5,
    )
    yield Row(
        name=f"{CLIENTS} clients: throughput",
        value=rate,
        unit="jobs/s",
        ratio=median(lambda r: r.many.jobs_per_s * r.floor.churn_ms / 1e3),
        to="1000/churn",
        at_least=0.75,
    )
    yield Row(
        name=f"{CLIENTS} clients: p50",
        value=many.p50_ms,
        ratio=median(lambda r: r.many.times.p50_ms / r.one.p50_ms),
        to="one client's p50",
    )
    yield Row(
        name=f"{CLIENTS} clients: p99",
        value=many.p99_ms,
        ratio=median(lambda r: r.many.times.p99_ms / r.many.times.p50_ms),
        to="their p50",
        at_most=4,
    )
