"""What operators watch, for Prometheus: of all workers together, whichever of them is asked.

Workers cannot look into one another (jail.shed). So their numbers stand in memory that all of them share, a
row for each. What is counted is there at once; what is read off a worker, such as how many jobs run in it, is
there when it is asked itself, and else within REFRESH_SECONDS.
"""

import asyncio
import mmap
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import get_args

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from jail.engine import Engine
from jail.judging.shapes import Judged
from jail.result import GroupResult, Result
from jail.steps.result import StepsResult

REFRESH_SECONDS = 1

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_BOUNDS = (*map(str, _SECONDS), "+Inf")
_PHASES = ("queued", "setup", "run", "collect")
_STATUSES = get_args(Judged)
_START = "process_start_time_seconds"

_GAUGES = {
    "jail_running": ("Jobs that hold slots.", lambda engine: engine.scheduler.running),
    "jail_queued": ("Jobs that wait for some.", lambda engine: engine.scheduler.queued),
    "jail_slots_free": ("That no job holds.", lambda engine: engine.scheduler.slots_free),
    "jail_memory_free_bytes": ("Not reserved.", lambda engine: engine.scheduler.memory_free_bytes),
    "jail_ready": ("Sandboxes that wait for a job.", lambda engine: engine.sandboxes.stock.ready),
    "jail_making": ("Sandboxes on their way.", lambda engine: len(engine.sandboxes.stock.making)),
    "jail_dying": ("Sandboxes whose job has ended.", lambda engine: len(engine.sandboxes.dying)),
    "jail_forwarded_connections": (
        "To published ports of jobs that live.",
        lambda engine: engine.published.connections,
    ),
}
_FORWARDED = {
    "to_job": lambda engine: engine.published.traffic.to_jobs_bytes,
    "from_job": lambda engine: engine.published.traffic.from_jobs_bytes,
}

_COLUMNS = (
    *_STATUSES,
    *((phase, bound) for phase in _PHASES for bound in (*_BOUNDS, "sum")),
    *_GAUGES,
    *_FORWARDED,
    # Of ProcessCollector.
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    _START,
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)
_PLACES = {column: place for place, column in enumerate(_COLUMNS)}
_NUMBER_BYTES = 8


class Table:
    """The numbers of all workers: each writes in a row of its own, and all read. To be made before the fork.

    A number is eight aligned bytes, which no processor of 64 bits writes by halves.
    """

    def __init__(self, workers: int) -> None:
        """Make a row for each; all is 0."""
        width = len(_COLUMNS)
        numbers = memoryview(mmap.mmap(-1, workers * width * _NUMBER_BYTES)).cast("d")
        self.rows = [numbers[row * width : (row + 1) * width] for row in range(workers)]


class Metrics:
    """The numbers of one engine, and what they are together with those of the other workers."""

    def __init__(self, engine: Engine, table: Table, number: int) -> None:
        """Write in row `number` of the table."""
        self._engine = engine
        self._table = table
        self._row = table.rows[number]
        self._process = ProcessCollector(registry=None)

    def count(self, result: Result | GroupResult | StepsResult) -> None:
        """Take in one finished job, of however many processes."""
        self._row[_PLACES[result.status]] += 1
        for phase in _PHASES:
            seconds = getattr(result.timing, f"{phase}_ms") / 1000
            self._row[_PLACES[phase, _BOUNDS[bisect_left(_SECONDS, seconds)]]] += 1
            self._row[_PLACES[phase, "sum"]] += seconds

    async def refresh(self) -> None:
        """For the other workers, if there are any: write again and again what they cannot read."""
        while len(self._table.rows) > 1:
            self._write()
            await asyncio.sleep(REFRESH_SECONDS)

    def render(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """The same as the library has it."""
        process = self._write()
        totals = {column: sum(row[place] for row in self._table.rows) for column, place in _PLACES.items()}
        # Of the service: when the first of them began.
        totals[_START] = min(filter(None, (row[_PLACES[_START]] for row in self._table.rows)), default=0.0)
        for metric in process:
            metric.samples = [sample._replace(value=totals[sample.name]) for sample in metric.samples]
            yield metric
        yield _jobs(totals)
        yield _phases(totals)
        for name, (text, _) in _GAUGES.items():
            yield GaugeMetricFamily(name, text, value=totals[name])
        yield _forwarded(totals)

    def _write(self) -> list[Metric]:
        """Write what is read off this worker; returns what tells of its process."""
        for name, (_, read) in _GAUGES.items():
            self._row[_PLACES[name]] = read(self._engine)
        for direction, read in _FORWARDED.items():
            self._row[_PLACES[direction]] = read(self._engine)
        process = list(self._process.collect())
        for sample in (sample for metric in process for sample in metric.samples):
            self._row[_PLACES[sample.name]] = sample.value
        return process


def _jobs(totals: dict[object, float]) -> Metric:
    jobs = CounterMetricFamily("jail_jobs", "Jobs answered, by status.", labels=["status"])
    for status in _STATUSES:
        jobs.add_metric([status], totals[status])
    return jobs


def _forwarded(totals: dict[object, float]) -> Metric:
    text = "What passed through published ports of jobs, headers and bodies."
    forwarded = CounterMetricFamily("jail_forwarded_bytes", text, labels=["direction"])
    for direction in _FORWARDED:
        forwarded.add_metric([direction], totals[direction])
    return forwarded


def _phases(totals: dict[object, float]) -> Metric:
    phases = HistogramMetricFamily("jail_phase_seconds", "Where the time of a job went.", labels=["phase"])
    for phase in _PHASES:
        counts = accumulate(totals[phase, bound] for bound in _BOUNDS)
        phases.add_metric([phase], list(zip(_BOUNDS, counts, strict=True)), totals[phase, "sum"])
    return phases
