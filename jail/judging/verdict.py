"""From facts to the verdicts of a judge: on a test, on a step, on a job. Pure, and in this order.

Of a test, the first of this list counts:

1. ours, or nobody's: sandbox_error, then cancelled; of the program, then of its checker
2. what the program did wrong: its own verdict (jail.outcome has that order), whatever it wrote
3. the judge's: checker_error
4. its output: wrong_answer, presentation_error
5. ok

Of a step that compiles, what the program did wrong is compile_error, but for start_failed: a compiler that
is not there is the judge's doing. A step that is not ok ends the job, unless its `continue_on` names what
it did; what is ours always does.

Of a job, the first of this list counts:

1. the first step that ended it
2. of the tests that count, in their order: the first sandbox_error, else the first cancelled, else the first
   checker_error, else the first that is not ok
3. ok

Which tests count depends on what they are, never on which was quicker: with fail_fast "never" all, with "job"
those up to the first that is not ok, with "group" those up to the first of their group that is not ok.

A runtime that cannot start under the limits is told from a program that failed by what the kernel
counted. Memory: jail limits it by cgroup alone, and no address space. So no mmap(2) fails for the limit's
sake, and a runtime that gets no memory does not exit with a message but meets the OOM killer:
memory_limit, exactly. That it was the runtime is known from what a program that does nothing takes,
measured by the same counter. Pids: a thread or process that is refused is counted too, and what the
runtime makes of it is nonzero_exit, signaled or a limit of time. What the kernel does not count stays the
program's: a heap that its runtime keeps small, and reservations that the host refuses, by strict
overcommit or because they are larger than any memory.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from jail.judging.shapes import Difference, Judged, Judgement
from jail.outcome import Status, Verdict

FailFast = Literal["never", "group", "job"]

_OURS = ("sandbox_error", "cancelled")

_FIRST = ("sandbox_error", "cancelled", "checker_error")
"""What counts before all else of a job's tests, one after the other."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step that has ended, and what was said of it beforehand."""

    name: str
    verdict: Verdict
    compiles: bool = False
    continue_on: tuple[Status, ...] = ()


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """A test: `status` is None if it was not run, or has not ended yet."""

    name: str
    status: Judged | None
    group: str | None = None


class JobVerdict(msgspec.Struct, frozen=True):
    """The status of a job, and the step or the test that it is of: both None if all is well."""

    status: Judged
    step: str | None = None
    test: str | None = None


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What a program that does nothing takes in some language; None is not known."""

    memory_peak_bytes: int | None = None
    pids_peak: int | None = None


def judge_test(program: Verdict, answer: Difference | Judgement | None = None) -> Judged:
    """The status of a test.

    answer: the difference of its output from what was expected, or what a checker said of it; None: it does
    not differ, or nothing was expected.
    """
    if program.status != "ok":
        return program.status
    return "ok" if answer is None else answer.status


def judge_step(step: Step) -> Judged:
    """The status of a step, as part of the job."""
    status = step.verdict.status
    is_its_own = status not in ("ok", "start_failed", *_OURS)
    return "compile_error" if step.compiles and is_its_own else status


def ends_job(step: Step) -> bool:
    """Whether nothing comes after this step."""
    status = step.verdict.status
    return status != "ok" and (status in _OURS or status not in step.continue_on)


def counting(tests: Sequence[Test], fail_fast: FailFast) -> tuple[bool, ...]:
    """Which of the tests count, as far as it is known yet: the others need not be run, nor run on.

    What does not count never will. For the job to have a verdict, what counts has to end.
    """
    failed: set[str | None] = set()
    counts = []
    for test in tests:
        # A test in no group is one of its own.
        scope = None if fail_fast == "job" else test.group
        counts.append(scope not in failed)
        is_failed = test.status not in ("ok", None)
        if is_failed and (fail_fast == "job" or (fail_fast == "group" and scope is not None)):
            failed.add(scope)
    return tuple(counts)


def judge_job(steps: Sequence[Step], tests: Sequence[Test] = (), fail_fast: FailFast = "never") -> JobVerdict:
    """The verdict on a job that has ended."""
    for step in steps:
        if ends_job(step):
            return JobVerdict(judge_step(step), step=step.name)
    counts = counting(tests, fail_fast)
    wrong = [
        test for test, does in zip(tests, counts, strict=True) if does and test.status not in ("ok", None)
    ]
    for status in _FIRST:
        for test in wrong:
            if test.status == status:
                return JobVerdict(status, test=test.name)
    return JobVerdict(wrong[0].status, test=wrong[0].name) if wrong else JobVerdict("ok")


def starved(
    verdict: Verdict, *, memory_bytes: int, pids: int, pids_limit_hits: int, base: Base
) -> Literal["memory_bytes", "pids"] | None:
    """The limit under which a program failed that does not even suffice for its runtime, or None.

    memory_bytes, pids: its limits. pids_limit_hits: how often it was refused a thread or a process.
    """
    if verdict.status == "memory_limit":
        is_short = base.memory_peak_bytes is not None and base.memory_peak_bytes > memory_bytes
        return "memory_bytes" if is_short else None
    if verdict.status in ("ok", *_OURS) or not pids_limit_hits:
        return None
    return "pids" if base.pids_peak is not None and base.pids_peak > pids else None
