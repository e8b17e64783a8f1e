"""One process of a job: a program in a sandbox of its own, until nothing is left of either.

The order at the end matters: kill first, then count, then copy out. Nothing of the process lives while its
files are read.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

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
from jail.published import Published
from jail.result import Denial, Pressure, ProcessResult, SandboxInfo, Usage, milliseconds, stream
from jail.sandbox import Sandboxes
from jail.scheduler import Reservation, Scheduler
from jail.spec import ProcessSpec
from jail.supervisor import Report, Start

_NOTHING = Captured(b"", 0)
_CAUSES = {"cpu": Ended.CPU, "wall": Ended.WALL, "memory": Ended.MEMORY}


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What all jobs share. `filters` by the policy's name; `hard_limits` as rlimits.hard_limits().

    `processor_count`: how many a job that is not pinned can keep busy.
    """

    scheduler: Scheduler
    sandboxes: Sandboxes
    published: Published
    processors: Processors
    processor_count: int
    filters: Mapping[str, Filter]
    hard_limits: tuple[int, ...]
    degraded: tuple[str, ...]


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What is brought home of a process that ran."""

    usage: Usage | None = None
    stdout: Captured = _NOTHING
    stderr: Captured = _NOTHING
    outputs: Collected = ({}, ())
    denials: tuple[Denial, ...] | None = None
    denials_omitted: int = 0


class Process:
    """One process. take(), prepare() and start() it, and whatever became of that, finish() it.

    None of these raises what went wrong with it: that is in its `verdict`, once it has one, and in
    `failure`, where set-up failed. `moments`: when it passed from hand to hand, in ns of CLOCK_MONOTONIC, as
    far as it came. `ended_ns`: when it ended, by the same clock; 0 if it never ran.
    """

    def __init__(self, means: Means, spec: ProcessSpec) -> None:
        """Nothing happens yet."""
        self.spec = spec
        self.verdict: Verdict | None = None
        self.failure: Failure | None = None
        self.moments: dict[str, int] = {}
        self.ended_ns = 0
        self._means = means
        self._ended: Ended | None = None
        self._excess: Literal["stdout_bytes", "stderr_bytes"] | None = None
        self._execution = Execution()
        self._runs = False
        # Until the end; until START is sent; as long as the program runs.
        self._held, self._unsent, self._running = ExitStack(), ExitStack(), ExitStack()
        self._streams: list[Capture] = []

    async def take(self, reservation: Reservation) -> None:
        """Have a sandbox that is ready. When it is closed, what is reserved for it is given back."""
        try:
            self._sandbox = sandbox = await self._means.sandboxes.take(self.spec.image)
        except (SandboxError, OSError) as error:
            self._fail(error)
            return
        memory_bytes = self.spec.limits.memory_bytes
        self._held.callback(lambda: reservation.give_back(memory_bytes, sandbox.close()))

    def prepare(self) -> None:
        """Have everything at hand that its start takes."""
        try:
            self._start = self._compose()
        except OSError as error:
            self._fail(error)

    def start(self) -> None:
        """Hand it over. Our copies of its descriptors are closed; the supervisor has its own."""
        try:
            with self._unsent:
                self._sandbox.start(self._start)
            self._runs = True
        except OSError as error:
            self._fail(error)

    async def dial(self, port: int) -> socket.socket:
        """A connection to a TCP port in its sandbox, while that lives. Raises OSError."""
        try:
            return await self._sandbox.dial(port)
        except SandboxError as error:
            number = error.error or errno.EHOSTDOWN
            raise OSError(number, os.strerror(number)) from None

    def end(self, why: Ended) -> None:
        """End it, at whatever stage it is, unless it has ended already."""
        if self.verdict is not None:
            return
        self._ended = self._ended or why
        if self._runs:
            self._sandbox.kill()
        else:
            self._judge(self._facts())

    async def finish(self, on_verdict: Callable[[], None]) -> None:
        """Wait for its end, if it runs, bring home what it left, and leave nothing of it.

        `on_verdict` is called when nothing of it lives, and again when all is done: that may have failed.
        """
        try:
            with self._held:
                if self._runs:
                    await self._see_to_the_end(on_verdict)
        except (SandboxError, OSError) as error:
            self._fail(error)
        finally:
            if self.verdict is None:
                # A defect of ours: the others must not go on.
                self._judge(self._facts())
            on_verdict()

    def result(self, kind: Callable[..., Any] = ProcessResult, **more: object) -> Any:
        """What is told of it: a `kind`, which has `more` fields than a ProcessResult, or none."""
        verdict, execution = self.verdict, self._execution
        found, errors = execution.outputs
        return kind(
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
            sandbox=SandboxInfo(
                image=self.spec.image, policy=self.spec.policy, degraded=self._means.degraded
            ),
            **more,
        )

    def _compose(self) -> Start:
        spec, means, limits = self.spec, self._means, self.spec.limits
        self._sandbox.limit(cgroup.Limits(limits.memory_bytes, limits.pids, limits.cpus))
        # They know this process, which must not know them when it has ended: it would be freed too late.
        self._held.callback(self._streams.clear)
        stdout = self._capture("stdout_bytes", limits.stdout_bytes)
        stderr = self._capture("stderr_bytes", limits.stderr_bytes)
        self._denials = self._held.enter_context(Denials()) if spec.explain else None
        # After the streams, whose writing ends it closes first.
        self._held.push(self._unsent)
        self._held.push(self._running)
        processors = self._running.enter_context(means.processors.hold(limits.cpus))
        packed, loaded = plan.pack(spec), means.filters[spec.policy]
        stdio = self._seal("stdin", spec.stdin), stdout.writing, stderr.writing
        start = loaded.start(stdio, self._seal("plan", packed), self._denials)
        start.pin(processors)
        _fill(start.message, spec, len(packed), len(processors) or means.processor_count)
        start.message.rlimits = rlimits.for_job(limits, means.hard_limits)
        return start

    def _capture(self, limit: Literal["stdout_bytes", "stderr_bytes"], cap_bytes: int) -> Capture:
        capture = Capture(cap_bytes, partial(self._exceed, limit))
        self._held.callback(capture.close)
        self._unsent.callback(capture.hand_over)
        self._streams.append(capture)
        return capture

    def _seal(self, name: str, content: bytes) -> int:
        descriptor = plan.sealed(name, content)
        self._unsent.callback(os.close, descriptor)
        return descriptor

    def _exceed(self, limit: Literal["stdout_bytes", "stderr_bytes"]) -> None:
        if not self.spec.truncate:
            self._excess = self._excess or limit
            self.end(Ended.OUTPUT)

    async def _see_to_the_end(self, on_verdict: Callable[[], None]) -> None:
        report = await self._sandbox.ended()
        self._running.close()
        self._hear(report)
        counters = self._sandbox.count()
        # Before the facts: what is still in the pipes may be too much.
        stdout, stderr = (capture.finish() for capture in self._streams)
        told = self._denials.read() if self._denials else (None, 0)
        self._judge(self._facts(report, counters))
        on_verdict()
        self._execution = Execution(
            usage=_usage(report, counters),
            stdout=stdout,
            stderr=stderr,
            outputs=await collect_outputs(
                self.spec.outputs, self._sandbox.open, self.spec.limits.output_bytes
            ),
            denials=told[0],
            denials_omitted=told[1],
        )

    def _hear(self, report: Report) -> None:
        """When it ended, as its init told, or else the supervisor."""
        self.moments = report.moments
        self.moments["heard"] = heard_ns = time.monotonic_ns()
        if report.facts.started:
            self.ended_ns = self.moments["started"] + report.facts.wall_ns
        else:
            self.ended_ns = self.moments.get("exited", heard_ns)

    def _fail(self, error: SandboxError | OSError) -> None:
        if self._runs and not self.ended_ns:
            self.moments["heard"] = self.ended_ns = time.monotonic_ns()
        if isinstance(error, SandboxError):
            failure = Failure(error.stage, error.error, error.index)
        else:
            # This host is short of something: ours, and a retry may succeed.
            failure = Failure("service", error.errno or 0, 0)
        self._judge(self._facts(failure=failure))

    def _judge(self, facts: Facts) -> None:
        self.failure = facts.failure
        self.verdict = decide(facts)

    def _facts(
        self,
        report: Report | None = None,
        counters: Counters | None = None,
        failure: Failure | None = None,
    ) -> Facts:
        limits = {
            "cpu_limit_ns": self.spec.limits.cpu_ms * 10**6,
            "wall_limit_ns": self.spec.limits.wall_ms * 10**6,
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


def _fill(message, spec: ProcessSpec, plan_bytes: int, processors: int) -> None:
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
