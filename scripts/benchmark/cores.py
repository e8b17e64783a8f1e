"""Throughput against processors: the whole service pinned to one, to two, to four…, in turns.

The clients are one process of their own, which takes a share of a processor too: on a machine whose
processors all belong to the service they take it from the service.
"""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec

from benchmark import load
from benchmark.floor import Floor
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import CLIENTS, Session, UnavailableError

TITLE = "throughput against processors: eight clients"
IS_PLAIN = True

DOUBLE_AIM = 1.7
"""Two processors over one."""


class Pinned(msgspec.Struct, frozen=True):
    """A service on so many processors: jobs/s in each round, and the clients' share of one processor."""

    processors: int
    jobs_per_s: tuple[float, ...]
    clients_share: float


class Figures(msgspec.Struct, frozen=True):
    """The fewest processors first."""

    services: tuple[Pinned, ...]


def measure(session: Session) -> Figures:
    """Raises OSError, UnavailableError."""
    processors = sorted(os.sched_getaffinity(0))
    counts = powers(len(processors))
    if len(counts) < 2:
        raise UnavailableError("this machine has one processor")
    rates: dict[int, list[float]] = {count: [] for count in counts}
    shares: dict[int, list[float]] = {count: [] for count in counts}
    advance = session.task("processors", session.rounds)
    with ExitStack() as held:
        ports = {n: held.enter_context(serving(processors=set(processors[:n]))).port for n in counts}
        for port in ports.values():
            load.warm_up(port)
        for _ in range(session.rounds):
            for count, port in ports.items():
                spent, began = time.process_time(), time.perf_counter()
                rates[count].append(load.crowd(port, CLIENTS, session.runs * 3).jobs_per_s)
                shares[count].append((time.process_time() - spent) / (time.perf_counter() - began))
            advance()
    return Figures(tuple(Pinned(n, tuple(rates[n]), statistics.median(shares[n])) for n in counts))


def powers(most: int) -> list[int]:
    """1, 2, 4… and the most."""
    return [*(1 << n for n in range(most.bit_length()) if 1 << n < most), most]


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """Each over one processor, as the median of the ratios in each round."""
    alone = found.services[0]
    for each in found.services:
        ratios = [a / b for a, b in zip(each.jobs_per_s, alone.jobs_per_s, strict=True)]
        yield Row(
            name=f"{each.processors} processor{'s' * (each.processors > 1)}",
            value=statistics.median(each.jobs_per_s),
            unit="jobs/s",
            ratio=statistics.median(ratios),
            to="one processor",
            at_least=DOUBLE_AIM if each.processors == 2 else None,
            note=f"the clients take {each.clients_share:.0%} of a processor",
        )
