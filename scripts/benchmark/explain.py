"""Where the time of one job goes: the engine's own timestamps, and what HTTP adds.

The engine runs in this process, and so do its marks; the service takes turns with it.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise

import msgspec
import uvloop

from benchmark import figures, load, peers
from benchmark.client import NO_OP
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.latency import PAUSE_SECONDS
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import Session
from jail import settings, spec
from jail.engine import Engine
from jail.run import Run

TITLE = "where the time of a no-op job goes: medians"
IS_PLAIN = False

_WORDS = {
    "reserved": "the scheduler gives it a slot and memory",
    "sandbox": "a sandbox is taken",
    "sent": "limits, pipes, plan and filter; START is sent",
    "received": "the supervisor has it",
    "taken": "init has it",
    "given": "the job's process has it: files, plan",
    "started": "its barriers; exec",
    "exited": "the program runs, until init knows its end",
    "empty": "everything of it is dead",
    "heard": "Python hears of it",
    "answered": "counters, output, verdict",
}
"""What happens until each mark of jail.run.Run.marks, and of its process' moments."""

PARSED = "parsed"


class Span(msgspec.Struct, frozen=True):
    """What ends with that mark: microseconds, one job after the other and with pauses."""

    mark: str
    us: float
    sparse_us: float


class Figures(msgspec.Struct, frozen=True):
    """`engine`: from the body's bytes to the result. `http`: the same over HTTP.

    `outside`: the same program as a process of nobody's, from before its fork to its end.
    """

    spans: tuple[Span, ...]
    engine: Times
    engine_sparse: Times
    http: Times
    http_sparse: Times
    outside: Times


class _Jobs:
    """Jobs of one engine, and what they told."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.marks: list[Mapping[str, int]] = []

    async def run(self, engine: Engine, count: int, pause_seconds: float) -> None:
        """One after the other."""
        for _ in range(count):
            await asyncio.sleep(pause_seconds)
            began = time.monotonic_ns()
            job = spec.parse(NO_OP, engine.rules)
            parsed = time.monotonic_ns()
            run = engine.submit(job)
            result = await run.task
            self.seconds.append((time.monotonic_ns() - began) / 1e9)
            if result.status != "ok":
                raise OSError(f"a job ended with {result}")
            self.marks.append({"": began, PARSED: parsed} | _marks(run))


def _marks(run: Run) -> dict[str, int]:
    marks = run.marks | run.processes[0].moments
    return {name: at for name, at in marks.items() if name != "submitted"}


def measure(session: Session) -> Figures:
    """The engine and the service in turns. Raises OSError."""
    dense, sparse = _Jobs(), _Jobs()
    over: list[Times] = []
    over_sparse: list[Times] = []
    outside: list[float] = []
    few = max(5, session.runs // 10)
    advance = session.task("where the time goes", session.rounds)
    with serving() as service, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()
        engine = runner.run(stack.enter_async_context(Engine(settings.load())))
        try:
            runner.run(_Jobs().run(engine, 20, 0))
            load.warm_up(service.port)
            for _ in range(session.rounds):
                runner.run(dense.run(engine, session.runs, 0))
                over.append(load.sequence(service.port, session.runs))
                outside += peers.sequence(lambda: ["/bin/true"], session.runs, 0)
                runner.run(sparse.run(engine, few, PAUSE_SECONDS))
                over_sparse.append(load.sequence(service.port, few, PAUSE_SECONDS))
                advance()
        finally:
            runner.run(stack.aclose())
    return Figures(
        spans=spans(dense.marks, sparse.marks),
        engine=figures.times(dense.seconds),
        engine_sparse=figures.times(sparse.seconds),
        http=figures.middle(over),
        http_sparse=figures.middle(over_sparse),
        outside=figures.times(outside),
    )


def spans(dense: Sequence[Mapping[str, int]], sparse: Sequence[Mapping[str, int]]) -> tuple[Span, ...]:
    """The medians between one mark and the next, in the order in which they are usually made."""
    found, found_sparse = medians(dense), medians(sparse)
    return tuple(Span(name, us, found_sparse.get(name, 0)) for name, us in found.items())


def medians(jobs: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """By each mark but the first, microseconds since the one before it: of the medians since the first.

    So they add up, and none is below 0, though two processes make some of them at the same time.
    """
    common = set.intersection(*(set(marks) for marks in jobs))
    first = next(iter(jobs[0]))
    after = {name: statistics.median(marks[name] - marks[first] for marks in jobs) for name in common}
    ordered = sorted(common, key=lambda name: after[name])
    return {end: (after[end] - after[begin]) / 1e3 for begin, end in pairwise(ordered)}


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """Each span as a share of what HTTP's client waits for, and what is left for HTTP."""
    whole = found.http.p50_ms * 1e3

    def row(name: str, us: float, sparse_us: float) -> Row:
        note = f"with pauses {sparse_us:.0f}"
        return Row(name=name, value=us, unit="µs", ratio=us / whole, to="the whole", note=note)

    words = {PARSED: "the body is parsed"} | _WORDS
    for span in found.spans:
        yield row(words.get(span.mark, span.mark), span.us, span.sparse_us)
    engine, engine_sparse = found.engine.p50_ms * 1e3, found.engine_sparse.p50_ms * 1e3
    sparse = found.http_sparse.p50_ms * 1e3
    yield row("all of that: the engine's p50", engine, engine_sparse)
    yield row("HTTP: the p50 over HTTP less the engine's", whole - engine, sparse - engine_sparse)
    yield row("the whole: the p50 over HTTP", whole, sparse)
    outside = found.outside.p50_ms * 1e3
    yield Row(
        name="for comparison: fork, exec and end outside",
        value=outside,
        unit="µs",
        ratio=outside / whole,
        to="the whole",
        note="the same dynamically linked /bin/true",
    )
