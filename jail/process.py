"""One process of a job: a program in a sandbox of its own, until nothing is left of either.

The order at the end matters: kill first, then count, then copy out. Nothing of the process lives while its
files are read.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import msgspec

from jail import cgroup, plan, rlimits
from jail.boxes import Box
from jail.capture import Capture, Captured
from jail.cgroup import Counters
from jail.errors import SandboxError
from jail.files import Desk
from jail.files.lent import Lent
from jail.filters import Denials, Filter
from jail.outcome import Ended, Facts, Failure, Verdict, decide
from jail.outputs import Budgets, Collected
from jail.outputs import collect as collect_outputs
from jail.processors import Processors
from jail.published import Published
from jail.result import (
    Denial,
    Pressure,
    ProcessResult,
    SandboxInfo,
    Traffic,
    Usage,
    milliseconds,
    stream,
)
from jail.sandbox import Sandbox, Sandboxes
from jail.scheduler import Reservation, Scheduler
from jail.spec import ProcessSpec
from jail.supervisor import DEPTH_MAX, STRETCHES_MAX, Report, Start

_NOTHING = Captured(b"", 0)
_TOO_MUCH = {
    errno.ELOOP: f"/box is deeper than {DEPTH_MAX} directories",
    errno.E2BIG: f"there are more entries and stretches of data in /box than {STRETCHES_MAX}",
}
_CAUSES = {"cpu": Ended.CPU, "wall": Ended.WALL, "memory": Ended.MEMORY}


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What all jobs share. `filters` by the policy's name; `hard_limits` as rlimits.hard_limits().

    `processor_count`: how many a job that is not pinned can keep busy.
    """

    scheduler: Scheduler
    sandboxes: Sandboxes
    published: Published
    files: Desk
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
    """One process: take() a sandbox for it, prepare() it, and whatever became of that, run() and close() it.

    Before, borrow() the stored files, if it uses any. None of these raises what went wrong with it: that is
    in its `verdict`, once it has one, and in `failure`, where set-up failed. `moments`: when it passed from
    hand to hand, in ns of CLOCK_MONOTONIC, in that order as far as it came. `ended_ns`: when it ended, by the
    same clock; 0 if it was not started. `sandbox`: its own, once taken. To be set before prepare(): `hosts`,
    what it finds in /etc/hosts, with none, the image's own; `box`, which it finds in /box besides its
    files; `kept_bytes`, how much of its streams is kept, if that is less than their limits; `on_stdout`,
    which is given all of stdout.
    """

    def __init__(self, means: Means, spec: ProcessSpec) -> None:
        """Nothing happens yet."""
        self.spec = spec
        self.sandbox: Sandbox | None = None
        self.hosts = b""
        self.box: Box | None = None
        self.on_stdout: Callable[[bytes], None] | None = None
        self.kept_bytes: int | None = None
        self.verdict: Verdict | None = None
        self.failure: Failure | None = None
        self.moments: dict[str, int] = {}
        self.ended_ns = 0
        self._means = means
        self._ended: Ended | None = None
        self._excess: Literal["stdout_bytes", "stderr_bytes"] | None = None
        self._execution = Execution()
        self._loss: Failure | None = None
        self._lent: Lent | None = None
        self._is_started = False
        # All that it holds, and of that the descriptors which are the supervisor's once it is started.
        self._held = ExitStack()
        self._streams: list[Capture] = []
        self._copies: list[int] = []

    async def borrow(self) -> None:
        """Have its stored files: until it is closed none of them is evicted."""
        try:
            lent = await self._means.files.lend(self.spec)
            self._held.callback(self._means.files.give_back, lent)
            self._lent = lent
        except (SandboxError, OSError) as error:
            self._fail(error)

    async def take(self, reservation: Reservation) -> None:
        """Have a sandbox that is ready. When it is closed, what is reserved for it is given back."""
        try:
            self.sandbox = sandbox = await self._means.sandboxes.stock.take(self.spec.root)
        except (SandboxError, OSError) as error:
            self._fail(error)
            return
        memory_bytes = self.spec.limits.memory_bytes
        self._held.callback(lambda: reservation.give_back(memory_bytes, sandbox.close()))

    def prepare(self) -> None:
        """Have everything at hand that its start takes, unless it has a verdict."""
        try:
            if self.verdict is None:
                self._start = self._compose()
        except (OSError, SandboxError) as error:
            self._fail(error)

    async def run(self, on_verdict: Callable[[], None]) -> None:
        """Start it, unless it has a verdict; wait for its end, and bring home what it left.

        It is started before anything is waited for. `on_verdict` is called when nothing of it lives, and
        again when all is done: that may have failed.
        """
        try:
            if self.verdict is None:
                await self._see_to_the_end(on_verdict)
        except (SandboxError, OSError) as error:
            self._fail(error)
        except BaseException:
            # A defect of ours: the others must not go on.
            self._judge(self._facts())
            raise
        finally:
            on_verdict()

    @property
    def stdout(self) -> Captured:
        """What it wrote, as far as that is kept."""
        return self._execution.stdout

    async def keep_box(self) -> Box | None:
        """Keep its /box for others, after run() and before close(); None: it could not be."""
        try:
            return await self.sandbox.keep_box()
        except (SandboxError, OSError) as error:
            if isinstance(error, OSError) and error.errno in _TOO_MUCH:
                self.verdict = Verdict("output_limit", detail=_TOO_MUCH[error.errno])
            else:
                self._fail(error)
        return None

    def close(self) -> None:
        """Leave nothing of it. Again: nothing."""
        self._held.close()

    def fail(self, error: SandboxError) -> None:
        """It lost what it was promised: whatever it does or did, that is ours. It is ended, if it runs."""
        if self._is_started and self.verdict is None:
            if self._ended is None:
                self._loss = self._loss or _failure(error)
            self.sandbox.kill()
        else:
            self._fail(error)

    def count_network(self, traffic: Traffic) -> None:
        """Add to its usage what passed on its network, once that is final."""
        if self._execution.usage is not None:
            usage = msgspec.structs.replace(self._execution.usage, network=traffic)
            self._execution = msgspec.structs.replace(self._execution, usage=usage)

    def end(self, why: Ended) -> None:
        """End it, at whatever stage it is, unless it has ended already."""
        if self.verdict is not None:
            return
        if self._loss is None:
            self._ended = self._ended or why
        if self._is_started:
            self.sandbox.kill()
        else:
            self._judge(self._facts())

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
                image=self.spec.image,
                digest=self.spec.root.digest or None,
                policy=self.spec.policy,
                degraded=self._means.degraded,
            ),
            **more,
        )

    def _compose(self) -> Start:
        spec, limits = self.spec, self.spec.limits
        self.sandbox.limit(cgroup.Limits(limits.memory_bytes, limits.pids, limits.cpus))
        self._held.callback(self._close_descriptors)
        for limit, taker in (("stdout_bytes", self.on_stdout), ("stderr_bytes", None)):
            excess = partial(self._exceed, limit)
            self._streams.append(Capture(getattr(limits, limit), excess, self.kept_bytes, taker))
        self._denials = self._held.enter_context(Denials()) if spec.explain else None
        packed = plan.pack(spec, self.hosts)
        self._copies.append(plan.sealed("stdin", spec.stdin))
        self._copies.append(plan.sealed("plan", packed))
        stdio = (self._copies[0], *(capture.writing for capture in self._streams))
        start = self._means.filters[spec.policy].start(stdio, self._copies[1], self._denials)
        if self.box is not None:
            self.sandbox.check_box(self.box)
            start.keep(self.box.place)
        if self._lent is not None:
            start.lend(str(self._lent.directory), self._lent.files, self._lent.stdin)
        _fill(start.message, spec, len(packed))
        start.message.hosts_bytes = len(self.hosts)
        start.message.rlimits = rlimits.for_job(limits, self._means.hard_limits)
        return start

    def _close_descriptors(self) -> None:
        while self._copies:
            os.close(self._copies.pop())
        # And forget them: they know this process, and it would be freed too late.
        while self._streams:
            self._streams.pop().close()

    def _exceed(self, limit: Literal["stdout_bytes", "stderr_bytes"]) -> None:
        if not self.spec.truncate:
            self._excess = self._excess or limit
            self.end(Ended.OUTPUT)

    def _hand_over(self, processors: tuple[int, ...]) -> None:
        """Start it on these processors, or with none of them on any.

        Our copies of its descriptors are closed; the supervisor has its own.
        """
        self._start.pin(processors)
        at_once = len(processors) or self._means.processor_count
        # Threads count as pids, and init is one of them.
        self._start.message.parallelism = max(1, min(at_once, self.spec.limits.pids - 1))
        try:
            # Before: it may have begun by the time that we go on.
            self.moments["sent"] = time.monotonic_ns()
            self.sandbox.start(self._start)
            self._is_started = True
        finally:
            while self._copies:
                os.close(self._copies.pop())
            for capture in self._streams:
                capture.hand_over()

    async def _see_to_the_end(self, on_verdict: Callable[[], None]) -> None:
        limits = self.spec.limits
        with self._means.processors.hold(limits.cpus) as processors:
            self._hand_over(processors)
            report = await self.sandbox.ended()
        self._hear(report)
        counters = self.sandbox.count()
        # Before the facts: what is still in the pipes may be too much.
        stdout, stderr = [capture.finish() for capture in self._streams]
        told = self._denials.read() if self._denials else (None, 0)
        self._judge(self._facts(report, counters))
        on_verdict()
        self._execution = Execution(
            usage=_usage(report, counters),
            stdout=stdout,
            stderr=stderr,
            outputs=await collect_outputs(self.spec.outputs, self.sandbox.open, self._budgets, self._store),
            denials=told[0],
            denials_omitted=told[1],
        )

    @property
    def _budgets(self) -> Budgets:
        # What is stored needs not fit in an answer: the most that /box can hold.
        return Budgets(self.spec.limits.output_bytes, self.spec.limits.disk_bytes)

    async def _store(self, descriptor: int) -> tuple[str, int]:
        return await self._means.files.store(self.spec.owner, descriptor)

    def _hear(self, report: Report) -> None:
        """Note when it ended, as its init told, or else the supervisor."""
        self.moments |= report.moments
        self.moments["heard"] = heard_ns = time.monotonic_ns()
        if report.facts.started:
            self.ended_ns = self.moments["started"] + report.facts.wall_ns
        else:
            self.ended_ns = self.moments.get("exited", heard_ns)

    def _fail(self, error: SandboxError | OSError) -> None:
        if self._is_started and not self.ended_ns:
            self.moments["heard"] = self.ended_ns = time.monotonic_ns()
        self._judge(self._facts(failure=_failure(error)))

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
            failure=report.failure or self._loss,
            started=bool(told.started),
            exit_code=told.exit_code if exited and told.exit_code >= 0 else None,
            signal=told.signal if exited and told.signal else None,
            oom_kills=counters.oom_kills,
            limit_oom=counters.limit_oom,
            cpu_ns=told.cpu.total_ns,
            wall_ns=told.wall_ns,
            **limits,
        )


def _failure(error: SandboxError | OSError) -> Failure:
    if isinstance(error, SandboxError):
        return Failure(error.stage, error.error, error.index)
    # This host is short of something: ours, and a retry may succeed.
    return Failure("service", error.errno or 0, 0)


def _fill(message, spec: ProcessSpec, plan_bytes: int) -> None:
    limits = spec.limits
    message.cpu_ns, message.wall_ns = limits.cpu_ms * 10**6, limits.wall_ms * 10**6
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
