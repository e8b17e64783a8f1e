"""What ready sandboxes are worth: services that keep none, one, or many ready, in turns."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgspec

from benchmark import load
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.latency import PAUSE_SECONDS
from benchmark.load import Load
from benchmark.row import Row
from benchmark.service import ready, serving
from benchmark.session import CLIENTS, Session, UnavailableError

TITLE = "sandboxes kept ready"
IS_PLAIN = True

SIZES = (0, 1, 4, 16, 64)
_SPARSE = 3


class Round(msgspec.Struct, frozen=True):
    """One client back to back, one that pauses, CLIENTS at once."""

    one: Times
    sparse: Times
    many: Load


class Kept(msgspec.Struct, frozen=True):
    """A service that keeps so many ready, round by round."""

    size: int
    rounds: tuple[Round, ...]


class Figures(msgspec.Struct, frozen=True):
    """One for each of SIZES."""

    services: tuple[Kept, ...]


def measure(session: Session) -> Figures:
    """Raises OSError, UnavailableError."""
    if ready(0) is None:
        raise UnavailableError("this jail has no such setting")
    found: dict[int, list[Round]] = {size: [] for size in SIZES}
    advance = session.task("sandboxes kept ready", session.rounds)
    with ExitStack() as held:
        ports = {size: held.enter_context(serving(ready(size))).port for size in SIZES}
        for port in ports.values():
            load.warm_up(port)
        for _ in range(session.rounds):
            for size, rounds in found.items():
                rounds.append(_round(ports[size], session.runs))
            advance()
    return Figures(tuple(Kept(size, tuple(rounds)) for size, rounds in found.items()))


def _round(port: int, runs: int) -> Round:
    one = load.sequence(port, runs)
    sparse = load.sequence(port, _SPARSE, PAUSE_SECONDS)
    return Round(one, sparse, load.crowd(port, CLIENTS, runs * 2))


def compare(figure: Callable[[Round], float], kept: Kept, none: Kept) -> tuple[float, float]:
    """The median of a figure, and of its ratio to the same without ready sandboxes in each round."""
    values = [figure(each) for each in kept.rounds]
    ratios = [value / figure(each) for value, each in zip(values, none.rounds, strict=True)]
    return statistics.median(values), statistics.median(ratios)


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """Latency and throughput of each, over none kept ready."""
    none = found.services[0]
    for kept in found.services:
        sparse, _ = compare(lambda r: r.sparse.p50_ms, kept, none)
        value, ratio = compare(lambda r: r.one.p50_ms, kept, none)
        note = f"{PAUSE_SECONDS * 1e3:.0f} ms apart: {sparse:.2f} ms"
        yield Row(name=f"{kept.size}: one client's p50", value=value, ratio=ratio, to="none ready", note=note)
    for kept in found.services:
        value, ratio = compare(lambda r: r.many.jobs_per_s, kept, none)
        yield Row(
            name=f"{kept.size}: {CLIENTS} clients", value=value, unit="jobs/s", ratio=ratio, to="none ready"
        )
