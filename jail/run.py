"""One job on its way: wait for a turn, run its processes, each in a sandbox of its own, judge, answer.

All have a sandbox that is ready before any is started; then one is started right after the other. A plain job
is the case of one.
"""

import asyncio
import errno
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial

from msgspec import structs

from jail import egress
from jail.errors import SandboxError
from jail.image import ETC_FILES
from jail.network import addresses
from jail.network.client import Segment
from jail.outcome import Ended, Failure, decide_job
from jail.process import Means, Process
from jail.result import End, GroupResult, Result, Timing, Traffic, milliseconds, timing
from jail.scheduler import Reservation
from jail.spec import JobSpec


class Run:
    """One job. `id` names it; `task` ends with its Result or GroupResult, or raises QueueFullError.

    `processes`: in the order of the specification. `published`: done once its ports can be reached; None if
    it publishes none. `marks`: when the job came how far, in ns of CLOCK_MONOTONIC; what is between the last
    two is in the moments of each process.
    """

    def __init__(self, means: Means, spec: JobSpec) -> None:
        """Start it on its way."""
        self.id = secrets.token_hex(16)
        self.processes = [Process(means, process) for process in spec.processes]
        self.published = asyncio.get_running_loop().create_future() if spec.network.publish else None
        self._scheduler = means.scheduler
        self._ports = means.published
        self._networks = means.sandboxes.networks
        self._segment: Segment | None = None
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
        try:
            if borrowing := [process.borrow() for process in self.processes if process.spec.borrows]:
                await _together(borrowing)
            if self._is_well:
                await self._have_its_turn()
        finally:
            for process in self.processes:
                process.close()
        return self._answer()

    async def _have_its_turn(self) -> None:
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

    @property
    def _is_well(self) -> bool:
        """Whether nothing has ended or failed so far."""
        return all(process.verdict is None for process in self.processes)

    async def _execute(self, reservation: Reservation) -> None:
        try:
            await self._make_ready(reservation)
        except BaseException:
            # A defect of ours: none is started.
            self._end(Ended.WITH_JOB)
            raise
        finally:
            try:
                async with self._reachable():
                    await _together([self._see_through(process) for process in self.processes])
            finally:
                await self._part()

    @asynccontextmanager
    async def _reachable(self) -> AsyncIterator[None]:
        """While it runs, callers reach what it publishes, and nobody does when its network is taken apart."""
        if not (self.published and self._is_well):
            yield
            return
        slots = {process.spec.name: process.sandbox.slot for process in self.processes}
        published = self._spec.network.publish
        dials = {told.port: partial(self._dial, slots[told.process], told.port) for told in published}
        async with self._ports.publish(self.id, dials):
            self.published.set_result(None)
            yield

    async def _dial(self, slot: int, port: int) -> socket.socket:
        """As jail.published has it."""
        try:
            return await self._segment.dial(slot, port)
        except SandboxError as error:
            number = error.error or errno.EHOSTDOWN
            raise OSError(number, os.strerror(number)) from None

    async def _see_through(self, process: Process) -> None:
        """Run it; what is left of it goes at once, unless that is part of a network."""
        try:
            await process.run(self._weigh)
        finally:
            if self._segment is None:
                process.close()

    async def _make_ready(self, reservation: Reservation) -> None:
        """Have all ready, or else a verdict on each of them."""
        await _together([process.take(reservation) for process in self.processes])
        self._mark("sandbox")
        # All are ready, and none is started: what they have in common is made here.
        if self._spec.network.mode != "none" and self._is_well:
            await self._join()
        for process in self.processes:
            process.prepare()
            if process.verdict is not None:
                self._weigh()

    async def _join(self) -> None:
        """Have a network for them all, on which they find each other by name, or else a verdict on each."""
        by_slot = {process.sandbox.slot: process for process in self.processes}
        try:
            self._segment = await self._networks.open(
                {slot: process.sandbox.network for slot, process in by_slot.items()},
                egress.allowed(self._spec),
            )
        except SandboxError as error:
            self._fail(error)
            return
        self._watch = asyncio.create_task(self._fail_without(self._segment))
        names = {process.spec.name: slot for slot, process in by_slot.items() if process.spec.name}
        # First, since the first of a name counts.
        hosts = addresses.hosts(names) + egress.hosts(self._spec)
        for process in self.processes:
            process.hosts = (hosts + ETC_FILES["hosts"]).encode() if hosts else b""

    async def _fail_without(self, segment: Segment) -> None:
        await segment.lost.wait()
        self._fail(SandboxError("network"))

    def _fail(self, error: SandboxError) -> None:
        for process in self.processes:
            process.fail(error)

    async def _part(self) -> None:
        """Nothing lives any more: take the network apart, if there is one, and then the sandboxes."""
        try:
            if self._segment is not None:
                self._watch.cancel()
                passed = await self._segment.close()
                for process in self.processes:
                    process.count_network(Traffic(**structs.asdict(passed[process.sandbox.slot])))
        except SandboxError as error:
            self._fail(error)
        finally:
            with ExitStack() as closing:
                for process in self.processes:
                    closing.callback(process.close)

    def _weigh(self) -> None:
        """Where one has come to an end, see whether it is that of the others too."""
        left = [process for process in self.processes if process.verdict is None]
        if left and (all(process.spec.background for process in left) or self._has_failed):
            self._end(Ended.WITH_JOB)

    @property
    def _has_failed(self) -> bool:
        """Whether we have: then no other can be what it was meant to be."""
        verdicts = [process.verdict for process in self.processes if process.verdict is not None]
        return any(verdict.status == "sandbox_error" for verdict in verdicts)

    def _answer(self) -> Result | GroupResult:
        self._mark("answered")
        if not self.processes[0].spec.name:
            return self.processes[0].result(Result, id=self.id, timing=self._timing())
        ran = [process for process in self.processes if process.ended_ns]
        ran.sort(key=lambda process: process.ended_ns)
        ordered = ran + [process for process in self.processes if not process.ended_ns]
        decisive = decide_job([process.verdict for process in ordered])
        return GroupResult(
            id=self.id,
            status="ok" if decisive is None else ordered[decisive].verdict.status,
            decided_by=None if decisive is None else ordered[decisive].spec.name,
            processes={process.spec.name: process.result() for process in self.processes},
            ended=tuple(
                End(process=process.spec.name, at_ms=milliseconds(process.ended_ns - self._sent_ns))
                for process in ran
            ),
            timing=self._timing(),
        )

    @property
    def _sent_ns(self) -> int:
        """When the first was started."""
        return self.processes[0].moments.get("sent", self.marks["answered"])

    def _timing(self) -> Timing:
        """The time between marks; a stage that was not reached took none."""
        submitted, answered = self.marks["submitted"], self.marks["answered"]
        heard = max([process.moments.get("heard", 0) for process in self.processes]) or answered
        return timing(submitted, self.marks.get("reserved", answered), self._sent_ns, heard, answered)


async def _together(steps: Sequence[Coroutine[None, None, None]]) -> None:
    """Take them all at once, and come back when all are done. One alone, a plain job's, needs no task."""
    if len(steps) == 1:
        await steps[0]
        return
    for error in filter(None, await asyncio.gather(*steps, return_exceptions=True)):
        raise error
