"""Latency against load: one client to sixteen, in turns, of one service."""

import statistics
from collections.abc import Iterator, Sequence

import msgspec

from benchmark import figures, load
from benchmark.floor import Floor
from benchmark.load import Load
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import Session

TITLE = "latency against load"
IS_PLAIN = True

CLIENTS = (1, 2, 4, 8, 16)


class Figures(msgspec.Struct, frozen=True):
    """A load for each of CLIENTS: medians over the rounds."""

    loads: tuple[Load, ...]


def measure(session: Session) -> Figures:
    """Raises OSError."""
    found: dict[int, list[Load]] = {clients: [] for clients in CLIENTS}
    advance = session.task("latency against load", session.rounds)
    with serving() as service:
        load.warm_up(service.port)
        for _ in range(session.rounds):
            for clients, rounds in found.items():
                rounds.append(load.crowd(service.port, clients, session.runs * 2))
            advance()
    return Figures(tuple(middle(rounds) for rounds in found.values()))


def middle(rounds: Sequence[Load]) -> Load:
    """The medians of loads with equally many clients."""
    rate = statistics.median([each.jobs_per_s for each in rounds])
    return Load(rounds[0].clients, rate, figures.middle([each.times for each in rounds]))


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """One row for each number of clients."""
    alone = found.loads[0]
    for each in found.loads:
        yield Row(
            name=f"{each.clients} client{'s' * (each.clients > 1)}: p50",
            value=each.times.p50_ms,
            ratio=each.times.p50_ms / alone.times.p50_ms,
            to="one client's p50",
            note=f"p99 {each.times.p99_ms:.1f} ms, {each.jobs_per_s:.0f} jobs/s",
        )
