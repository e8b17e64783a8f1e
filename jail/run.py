"""One job on its way: wait for a turn, run its processes, each in a sandbox of its own, judge, answer.

All have a sandbox that is ready before any is started; then one is started right after the other. A plain job
is the case of one.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

from jail.outcome import Ended, Failure, decide_job
from jail.process import Means, Process
from jail.result import End, GroupResult, Result, Timing, milliseconds
from jail.scheduler import Reservation
from jail.spec import JobSpec


class Run:
    """One job. `id` names it; `task` ends with its Result or GroupResult, or raises QueueFullError.

    `processes`: in the order of the specification. `published`: done once its ports can be reached; None if
    it publishes none. `marks`: when the job passed from hand to hand, in ns of CLOCK_MONOTONIC, in that order
    as far as it came.
    """

    def __init__(self, means: Means, spec: JobSpec) -> None:
        """Start it on its way."""
        self.id = secrets.token_hex(16)
        self.processes = [Process(means, process) for process in spec.processes]
        self.published = asyncio.get_running_loop().create_future() if spec.network.publish else None
        self._scheduler = means.scheduler
        self._ports = means.published
        self._spec = spec
        self._waits = False
        self.marks = {"submitted": time.monotonic_ns()}
        self.task = asyncio.create_task(self._run(), name=f"run {self.id}")

    @property
    def failure(self) -> Failure | None:
        """Where set-up failed, once it has."""
        return next((process.failure for process in self.processes if process.failure), None)

    def cancel(self) -> None:
        """End it, at whatever stage it is: its processes are then cancelled, but those that have ended."""
        self._end(Ended.CANCELLED)
        if self._waits:
            # For its turn: it holds nothing yet.
            self.task.cancel()

    def _end(self, why: Ended) -> None:
        for process in self.processes:
            process.end(why)

    def _mark(self, name: str) -> None:
        self.marks[name] = time.monotonic_ns()

    async def _run(self) -> Result | GroupResult:
        if self._is_well:
            self._waits = True
            try:
                memory_bytes = self._spec.memory_bytes
                async with self._scheduler.reserve(memory_bytes, len(self.processes)) as reservation:
                    self._waits = False
                    self._mark("reserved")
                    await self._execute(reservation)
            except asyncio.CancelledError:
                if not self._waits or self._is_well:
                    raise
        return self._answer()

    @property
    def _is_well(self) -> bool:
        """Whether nothing has ended or failed so far."""
        return all(process.verdict is None for process in self.processes)

    async def _execute(self, reservation: Reservation) -> None:
        await _together([process.take(reservation) for process in self.processes])
        self._weigh()
        self._mark("sandbox")
        self._each(Process.prepare)
        if self._is_well:
            self._mark("sent")
        self._each(Process.start)
        async with self._reachable():
            await _together([process.finish(self._weigh) for process in self.processes])

    @asynccontextmanager
    async def _reachable(self) -> AsyncIterator[None]:
        """While it runs, callers reach what it publishes."""
        if not (self.published and self._is_well):
            yield
            return
        by_name = {process.spec.name: process for process in self.processes}
        dials = {
            told.port: partial(by_name[told.process].dial, told.port) for told in self._spec.network.publish
        }
        async with self._ports.publish(self.id, dials):
            self.published.set_result(None)
            yield

    def _each(self, step: Callable[[Process], None]) -> None:
        """Have each of them do it, for as long as none fails."""
        for process in self.processes:
            if process.verdict is None:
                step(process)
                self._weigh()

    def _weigh(self) -> None:
        """Where one has come to an end, see whether it is that of the others too."""
        goes_on = False
        for process in self.processes:
            if process.verdict is None:
                goes_on = goes_on or not process.spec.background
            elif process.verdict.status == "sandbox_error":
                goes_on = False
                break
        if not goes_on:
            self._end(Ended.WITH_JOB)

    def _answer(self) -> Result | GroupResult:
        self._mark("answered")
        if not self.processes[0].spec.name:
            return self.processes[0].result(Result, id=self.id, timing=self._timing())
        ran = [process for process in self.processes if process.ended_ns]
        ran.sort(key=lambda process: process.ended_ns)
        others = [process for process in self.processes if not process.ended_ns]
        ordered = ran + others
        decisive = decide_job([process.verdict for process in ordered])
        return GroupResult(
            id=self.id,
            status="ok" if decisive is None else ordered[decisive].verdict.status,
            decided_by=None if decisive is None else ordered[decisive].spec.name,
            processes={process.spec.name: process.result() for process in self.processes},
            ended=tuple(
                End(process=process.spec.name, at_ms=milliseconds(process.ended_ns - self.marks["sent"]))
                for process in ran
            ),
            timing=self._timing(),
        )

    def _timing(self) -> Timing:
        """The time between marks; a stage that was not reached took none."""
        answered = self.marks["answered"]
        heard = max([process.moments.get("heard", 0) for process in self.processes]) or answered
        marks = [self.marks.get(name, answered) for name in ("submitted", "reserved", "sent")]
        spans = pairwise((*marks, heard, answered))
        queued, setup, run, collect = (milliseconds(end - start) for start, end in spans)
        return Timing(queued_ms=queued, setup_ms=setup, run_ms=run, collect_ms=collect)


async def _together(steps: Sequence[Coroutine[None, None, None]]) -> None:
    """Take them all at once, and come back when all are done. One alone, a plain job's, needs no task."""
    if len(steps) == 1:
        await steps[0]
        return
    for error in filter(None, await asyncio.gather(*steps, return_exceptions=True)):
        raise error
