"""Eight clients for minutes: whether throughput falls, and whether what has ended piles up.

The kernel takes network namespaces apart one batch after the other, behind our back, and tells nobody how
many wait. But how long one waits can be seen (programs/teardown.c), and how many begin to wait each
second is known: their product is how many wait (Little's law).
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from benchmark import load, memory
from benchmark.figures import Times, times
from benchmark.floor import Floor
from benchmark.load import Crowd
from benchmark.memory import Memory
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import CLIENTS, Advance, Session

TITLE = "sustained churn: eight clients"
IS_PLAIN = True

BUCKET_SECONDS = 10
SECONDS = 4
"""Of a run that was not told how long."""

STEADY = 0.9
"""The least that the last tenth's throughput may be of the first's."""

WAITING_MAX = 256
"""Network namespaces that may wait to be taken apart: some 50 MiB of kernel memory."""

_REST_SECONDS = 3


class Bucket(msgspec.Struct, frozen=True):
    """A part of the run: how long, how fast, and what there was at its end.

    `teardown_ms`: how long a network namespace waited for its end to be done with; `cgroups`: those of
    memory that the kernel has not taken apart, dead ones among them. None where that cannot be seen.
    """

    seconds: float
    jobs_per_s: float
    times: Times
    memory: Memory
    cgroups: int | None
    teardown_ms: float | None


class Figures(msgspec.Struct, frozen=True):
    """`before`: after the first jobs and a rest. `after`: when it had been quiet again as long."""

    before: Memory
    buckets: tuple[Bucket, ...]
    after: Memory


def measure(session: Session) -> Figures:
    """For as long as the session says. Raises OSError, UnavailableError."""
    whole = session.churn_seconds
    length = min(BUCKET_SECONDS, max(1, whole // 2))
    advance = session.task("churn: seconds", whole)
    with ExitStack() as held:
        service = held.enter_context(serving())
        load.crowd(service.port, CLIENTS, 200)
        before = _rested()
        probes = held.enter_context(_probing(session.compiled("teardown"), whole))
        crowd = Crowd(service.port, CLIENTS, held)
        buckets = _Buckets(crowd, probes, whole, length, advance)
        crowd.run(buckets.goes_on)
        return Figures(before, tuple(buckets.found), _rested())


class _Buckets:
    """Looks at a crowd at work, and says when it is enough."""

    def __init__(self, crowd: Crowd, probes: Path, seconds: int, length: int, advance: Advance) -> None:
        self.found: list[Bucket] = []
        self._crowd = crowd
        self._probes = probes
        self._length = length
        self._advance = advance
        self._told = self._began = time.perf_counter()
        self._end = self._began + seconds
        self._jobs = self._probed = 0

    def goes_on(self, _sent: int) -> bool:
        """Whether there is time left; closes a bucket that is full, or half so when time is up."""
        now = time.perf_counter()
        while self._told + 1 <= now:
            self._told += 1
            self._advance()
        if now >= min(self._began + self._length, max(self._end, self._began + self._length / 2)):
            self._close(now)
        return now < self._end

    def _close(self, now: float) -> None:
        seconds = self._crowd.seconds[self._jobs :]
        waits = [float(line) for line in self._probes.read_text().splitlines()][self._probed :]
        self.found.append(
            Bucket(
                seconds=now - self._began,
                jobs_per_s=len(seconds) / (now - self._began),
                times=times(seconds),
                memory=memory.now(),
                cgroups=cgroups(Path("/proc/cgroups").read_text()),
                teardown_ms=statistics.median(waits) if waits else None,
            )
        )
        self._began = now
        self._jobs += len(seconds)
        self._probed += len(waits)


@contextmanager
def _probing(program: Path, seconds: int) -> Iterator[Path]:
    """Probe all the time; the file holds a line for each that ended."""
    with tempfile.NamedTemporaryFile() as told:
        process = subprocess.Popen([program, str(seconds)], stdout=told, stderr=subprocess.DEVNULL)
        try:
            yield Path(told.name)
        finally:
            process.kill()
            process.wait()


def _rested() -> Memory:
    time.sleep(_REST_SECONDS)
    return memory.now()


def cgroups(text: str) -> int | None:
    """The number of memory cgroups, from /proc/cgroups; it counts those that are dying (v1 alone)."""
    for line in text.splitlines():
        name, hierarchy, count, *_ = line.split()
        if name == "memory" and hierarchy != "0":
            return int(count)
    return None


def ends(values: Sequence[float]) -> tuple[float, float]:
    """The means of the first tenth and of the last, each at least one."""
    width = max(1, len(values) // 10)
    return statistics.mean(values[:width]), statistics.mean(values[-width:])


def throughput(jobs_per_s: Sequence[float], note: str) -> Row:
    """The last tenth against the first."""
    first, last = ends(jobs_per_s)
    return Row(
        name="throughput: last tenth",
        value=last,
        unit="jobs/s",
        ratio=last / first,
        to="first tenth",
        at_least=STEADY,
        note=note,
    )


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """First against last."""
    buckets = found.buckets
    jobs, seconds = sum(each.times.jobs for each in buckets), sum(each.seconds for each in buckets)
    yield throughput([each.jobs_per_s for each in buckets], f"{jobs:,} jobs in {seconds:.0f} s")
    first, last = ends([each.times.p99_ms for each in buckets])
    yield Row(name="p99: last tenth", value=last, ratio=last / first, to="first tenth")
    yield from _waiting(buckets)
    yield from _drift(found)


def _waiting(buckets: Sequence[Bucket]) -> Iterator[Row]:
    seen = [each for each in buckets if each.teardown_ms is not None]
    if not seen:
        return
    first, last = ends([each.teardown_ms for each in seen])
    yield Row(name="a dead namespace waits", value=last, ratio=last / first, to="first tenth")
    waiting = [each.teardown_ms * each.jobs_per_s / 1e3 for each in seen]
    yield Row(
        name="dead namespaces that wait: most",
        value=max(waiting),
        unit="",
        at_most=WAITING_MAX,
        note="first tenth {:.0f}, last {:.0f}".format(*ends(waiting)),
    )


def _drift(found: Figures) -> Iterator[Row]:
    note = f"{_REST_SECONDS} s after the last job"
    lost = found.before.lost(found.after, 1024)
    yield Row(name="MemAvailable gone for good", value=lost.available, unit="MiB", note=note)
    yield Row(name="unreclaimable slab gone for good", value=lost.slab, unit="MiB", note=note)
    first, last = found.buckets[0].cgroups, found.buckets[-1].cgroups
    if first is not None and last is not None:
        yield Row(
            name="memory cgroups at the end", value=last, unit="", note=f"after the first bucket {first}"
        )
