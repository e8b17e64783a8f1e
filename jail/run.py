"""One job on its way: wait for a turn, run in a sandbox, judge, answer.

The order at the end matters: kill first, then count, then copy out. Nothing of the job lives while its
files are read.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import pairwise
from typing import Literal

import msgspec

from jail import cgroup, plan, rlimits
from jail.capture import Capture, Captured
from jail.cgroup import Counters
from jail.errors import SandboxError
from jail.filters import Denials, Filter
from jail.outcome import Ended, Facts, Failure, Verdict, decide
from jail.outputs import Collected
from jail.outputs import collect as collect_outputs
from jail.processors import Processors
from jail.result import Denial, Pressure, Result, SandboxInfo, Timing, Usage, milliseconds, stream
from jail.sandbox import Sandbox, Sandboxes
from jail.scheduler import Reservation, Scheduler
from jail.spec import JobSpec
from jail.supervisor import Report

_NOTHING = Captured(b"", 0)
_TIMED = ("submitted", "reserved", "sent", "heard", "answered")
_CAUSES = {"cpu": Ended.CPU, "wall": Ended.WALL, "memory": Ended.MEMORY}


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What all jobs share. `filters` by the policy's name; `hard_limits` as rlimits.hard_limits().

    `processor_count`: how many a job that is not pinned can keep busy.
    """

    scheduler: Scheduler
    sandboxes: Sandboxes
    processors: Processors
    processor_count: int
    filters: Mapping[str, Filter]
    hard_limits: tuple[int, ...]
    degraded: tuple[str, ...]


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What is known once a job's sandbox is dead."""

    facts: Facts
    usage: Usage | None = None
    stdout: Captured = _NOTHING
    stderr: Captured = _NOTHING
    outputs: Collected = ({}, ())
    denials: tuple[Denial, ...] | None = None
    denials_omitted: int = 0


class Run:
    """One job. `id` names it; `task` ends with its Result, or raises QueueFullError.

    `hosts`: what the job finds in /etc/hosts, to be set before `task` has begun; with none, the image's own.
    `failure`: where set-up failed, once it has. `marks`: when the job passed from hand to hand, in ns of
    CLOCK_MONOTONIC, here and in the supervisor, in that order as far as it came.
    """

    def __init__(self, means: Means, spec: JobSpec) -> None:
        """Start it on its way."""
        self.id = secrets.token_hex(16)
        self._means = means
        self._spec = spec
        self._ended: Ended | None = None
        self._excess: Literal["stdout_bytes", "stderr_bytes"] | None = None
        self._sandbox: Sandbox | None = None
        self.hosts = b""
        self.failure: Failure | None = None
        self._waits = False
        self.marks = {"submitted": time.monotonic_ns()}
        self.task = asyncio.create_task(self._run(), name=f"run {self.id}")

    def cancel(self) -> None:
        """End it, at whatever stage it is: its status is then cancelled, unless it has ended already."""
        self._end(Ended.CANCELLED)
        if self._waits:
            # For its turn: it holds nothing yet.
            self.task.cancel()

    def _end(self, why: Ended) -> None:
        if self._ended is None:
            self._ended = why
        if self._sandbox is not None:
            self._sandbox.kill()

    def _exceed(self, limit: Literal["stdout_bytes", "stderr_bytes"]) -> None:
        if not self._spec.truncate:
            self._excess = self._excess or limit
            self._end(Ended.OUTPUT)

    def _mark(self, name: str) -> None:
        self.marks[name] = time.monotonic_ns()

    async def _run(self) -> Result:
        if self._ended:
            return self._answer(Execution(facts=self._facts()))
        self._waits = True
        try:
            async with self._means.scheduler.reserve(self._spec.limits.memory_bytes) as reservation:
                self._waits = False
                self._mark("reserved")
                return self._answer(await self._execute(reservation))
        except asyncio.CancelledError:
            if not self._waits or self._ended is not Ended.CANCELLED:
                raise
            return self._answer(Execution(facts=self._facts()))

    async def _execute(self, reservation: Reservation) -> Execution:
        try:
            sandbox = await self._means.sandboxes.take(self._spec.image)
            with ExitStack() as stack:
                stack.callback(lambda: reservation.keep_memory_until(sandbox.close()))
                return await self._use(sandbox, stack)
        except SandboxError as error:
            failure = Failure(error.stage, error.error, error.index)
        except OSError as error:
            # This host is short of something: ours, and a retry may succeed.
            failure = Failure("service", error.errno or 0, 0)
        return Execution(facts=self._facts(failure=failure))

    async def _use(self, sandbox: Sandbox, stack: ExitStack) -> Execution:
        limits = self._spec.limits
        self._mark("sandbox")
        sandbox.limit(cgroup.Limits(limits.memory_bytes, limits.pids, limits.cpus))
        stdout = Capture(limits.stdout_bytes, lambda: self._exceed("stdout_bytes"))
        stack.callback(stdout.close)
        stderr = Capture(limits.stderr_bytes, lambda: self._exceed("stderr_bytes"))
        stack.callback(stderr.close)
        denials = stack.enter_context(Denials()) if self._spec.explain else None
        with self._means.processors.hold(limits.cpus) as processors:
            self._start(sandbox, (stdout, stderr), denials, processors)
            report = await sandbox.ended()
        self.marks |= report.moments
        self._mark("heard")
        counters = sandbox.count()
        # Before the facts: what is still in the pipes may be too much.
        captured = stdout.finish(), stderr.finish()
        told = denials.read() if denials else (None, 0)
        return Execution(
            facts=self._facts(report, counters),
            usage=_usage(report, counters),
            stdout=captured[0],
            stderr=captured[1],
            outputs=await collect_outputs(self._spec.outputs, sandbox.open, limits.output_bytes),
            denials=told[0],
            denials_omitted=told[1],
        )

    def _start(
        self,
        sandbox: Sandbox,
        streams: tuple[Capture, Capture],
        denials: Denials | None,
        processors: tuple[int, ...],
    ) -> None:
        """Hand the job over, to run on these processors, or with none of them on any.

        Our copies of its descriptors are closed; the supervisor has its own.
        """
        spec, means = self._spec, self._means
        packed, loaded = plan.pack(spec, self.hosts), means.filters[spec.policy]
        opened: list[int] = []
        try:
            opened.append(plan.sealed("stdin", spec.stdin))
            opened.append(plan.sealed("plan", packed))
            stdio = (opened[0], *(capture.writing for capture in streams))
            start = loaded.start(stdio, opened[1], denials)
            start.pin(processors)
            _fill(start.message, spec, len(packed), len(processors) or means.processor_count)
            start.message.hosts_bytes = len(self.hosts)
            start.message.rlimits = rlimits.for_job(spec.limits, means.hard_limits)
            # Before: the job may have begun by the time that we go on.
            self._mark("sent")
            sandbox.start(start)
        finally:
            for descriptor in opened:
                os.close(descriptor)
            for capture in streams:
                capture.hand_over()
        self._sandbox = sandbox
        if self._ended:
            sandbox.kill()

    def _facts(
        self,
        report: Report | None = None,
        counters: Counters | None = None,
        failure: Failure | None = None,
    ) -> Facts:
        limits = {
            "cpu_limit_ns": self._spec.limits.cpu_ms * 10**6,
            "wall_limit_ns": self._spec.limits.wall_ms * 10**6,
            "output": self._excess,
        }
        if report is None or counters is None:
            return Facts(ended=self._ended, failure=failure, **limits)
        told = report.facts
        exited = bool(told.exited)
        return Facts(
            ended=_CAUSES.get(report.cause, self._ended if report.cause == "service" else None),
            failure=report.failure,
            started=bool(told.started),
            exit_code=told.exit_code if exited and told.exit_code >= 0 else None,
            signal=told.signal if exited and told.signal else None,
            oom_kills=counters.oom_kills,
            limit_oom=counters.limit_oom,
            cpu_ns=told.cpu.total_ns,
            wall_ns=told.wall_ns,
            **limits,
        )

    def _answer(self, execution: Execution) -> Result:
        self.failure = execution.facts.failure
        verdict: Verdict = decide(execution.facts)
        self._mark("answered")
        found, errors = execution.outputs
        return Result(
            id=self.id,
            status=verdict.status,
            exit_code=verdict.exit_code,
            signal=verdict.signal,
            limit=verdict.limit,
            detail=verdict.detail,
            stdout=stream(execution.stdout),
            stderr=stream(execution.stderr),
            outputs=found,
            output_errors=errors,
            denials=execution.denials,
            denials_omitted=execution.denials_omitted,
            usage=execution.usage,
            timing=self._timing(),
            sandbox=SandboxInfo(
                image=self._spec.image, policy=self._spec.policy, degraded=self._means.degraded
            ),
        )

    def _timing(self) -> Timing:
        """The time between marks; a stage that was not reached took none."""
        marks = [self.marks.get(name, self.marks["answered"]) for name in _TIMED]
        queued, setup, run, collect = (milliseconds(end - start) for start, end in pairwise(marks))
        return Timing(queued_ms=queued, setup_ms=setup, run_ms=run, collect_ms=collect)


def _fill(message, spec: JobSpec, plan_bytes: int, processors: int) -> None:
    limits = spec.limits
    message.cpu_ns, message.wall_ns = limits.cpu_ms * 10**6, limits.wall_ms * 10**6
    # Threads count as pids, and init is one of them.
    message.parallelism = max(1, min(processors, limits.pids - 1))
    message.plan_bytes = plan_bytes
    message.arguments, message.variables = len(spec.argv), len(spec.env)
    message.files = len(spec.files)
    message.scratch_options = b"size=%d,nr_inodes=%d" % (limits.disk_bytes, limits.files)


def _usage(report: Report, counters: Counters) -> Usage:
    told = report.facts
    # The total is exact; what is known of its parts is their ratio, which may be of no ticks at all.
    ticks_ns = told.cpu.user_ns + told.cpu.system_ns
    system_ns = told.cpu.total_ns * told.cpu.system_ns // ticks_ns if ticks_ns else 0
    return Usage(
        cpu_ms=milliseconds(told.cpu.total_ns),
        user_ms=milliseconds(told.cpu.total_ns - system_ns),
        system_ms=milliseconds(system_ns),
        wall_ms=milliseconds(told.wall_ns),
        memory_peak_bytes=counters.memory_peak_bytes,
        memory_source=counters.memory_source,
        memory_setup_bytes=counters.memory_setup_bytes,
        max_rss_bytes=told.max_rss_bytes if told.exited else None,
        pids_peak=counters.pids_peak,
        oom_kills=counters.oom_kills,
        pids_limit_hits=counters.pids_limit_hits,
        throttled_ms=milliseconds(counters.throttled_ns),
        io_read_bytes=counters.io_read_bytes,
        io_write_bytes=counters.io_write_bytes,
        pressure=_pressure(counters.pressure) if counters.pressure else None,
    )


def _pressure(stalled: cgroup.Pressure) -> Pressure:
    return Pressure(
        cpu_some_ms=milliseconds(stalled.cpu_some_ns),
        memory_full_ms=milliseconds(stalled.memory_full_ns),
        io_full_ms=milliseconds(stalled.io_full_ns),
    )
