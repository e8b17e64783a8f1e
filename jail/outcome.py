"""From facts to a verdict: one pure function, and the order in which causes count.

The facts come from the kernel: the end of the main process as its parent saw it, the cgroup's own
counters, and the supervisor's record of what it ended the sandbox for. SIGKILL by itself means
nothing here: a program can send it to itself.

When several things are true at once, the first of this list counts:

1. ours: set-up failed; or the program could not be started
2. what jail ended the sandbox for, whichever came first: cancelled, the job's end, output, CPU, wall, memory
3. memory: the cgroup's OOM killer struck at the job's own limit, whatever the program made of it
4. output, CPU, wall: the program ended by itself, but beyond its limit
5. ours: the main process was not seen to exit, or was killed for want of the host's memory
6. the end of the main process: SIGSYS (the filter kills with it), another signal, its exit code

Of a job of several processes, each with a verdict, decide_job() takes the one that counts.
"""

import errno
import os
import signal
from collections.abc import Sequence
from enum import Enum
from typing import Literal

import msgspec

Status = Literal[
    "ok",
    "nonzero_exit",
    "signaled",
    "cpu_limit",
    "wall_limit",
    "memory_limit",
    "output_limit",
    "syscall_denied",
    "start_failed",
    "cancelled",
    "sandbox_error",
]


class Ended(Enum):
    """What jail ended the sandbox for, before its main process exited. WITH_JOB: others had ended."""

    CPU = "cpu"
    WALL = "wall"
    MEMORY = "memory"
    OUTPUT = "output"
    CANCELLED = "cancelled"
    WITH_JOB = "with_job"


class Failure(msgspec.Struct, frozen=True):
    """Where set-up failed: `stage` in lower case as in message.h, the errno value, which of several."""

    stage: str
    error: int
    index: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a sandbox that has ended.

    output: the stream that went over its limit, in a job that does not have it cut instead.
    started: the program was about to be executed. exit_code: of the main process, or None. signal:
    that ended it, or None. Both None: it was not seen to exit. oom_kills: processes the OOM killer
    took. limit_oom: it was the cgroup's own limit that ran out, not the host's memory. cpu_ns,
    wall_ns: used, from exec on.
    """

    ended: Ended | None = None
    output: Literal["stdout_bytes", "stderr_bytes"] | None = None
    failure: Failure | None = None
    started: bool = True
    exit_code: int | None = None
    signal: int | None = None
    oom_kills: int = 0
    limit_oom: bool = False
    cpu_ns: int = 0
    wall_ns: int = 0
    cpu_limit_ns: int
    wall_limit_ns: int


class Verdict(msgspec.Struct, frozen=True):
    """`limit` names the limit that ended the job; `detail` is for people, or None."""

    status: Status
    limit: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str | None = None


_WITH_JOB = Verdict("cancelled", detail="ended with the job")

_HOST_MEMORY = "the host ran out of memory; the program is not to blame"

_NO_ROOM = "what the step before left in /box is more than limits.disk_bytes or limits.files of this one"

_START_STAGES = ("program", "exec")
# As find_program() of native/job.c tells it.
_START_DIRECTORY = ("program", 1)

_LIMIT_OF = {
    Ended.CPU: ("cpu_limit", "cpu_ms"),
    Ended.WALL: ("wall_limit", "wall_ms"),
    Ended.MEMORY: ("memory_limit", "memory_bytes"),
}


def decide(facts: Facts) -> Verdict:
    """The verdict on `facts`, by the order above."""
    return (
        _not_started(facts) or _ended_by_us(facts) or _beyond_limit(facts) or _lost(facts) or _own_end(facts)
    )


def decide_job(verdicts: Sequence[Verdict]) -> int | None:
    """Which of the verdicts on a job's processes, in the order of their ends, is that on the job. None: ok.

    The first that is ours, sandbox_error; else the first that is not ok. What was ended with the job says
    nothing of it.
    """
    wrong = [place for place, one in enumerate(verdicts) if one.status != "ok" and one != _WITH_JOB]
    ours = [place for place in wrong if verdicts[place].status == "sandbox_error"]
    return next(iter(ours or wrong), None)


def _not_started(facts: Facts) -> Verdict | None:
    failure = facts.failure
    # Whoever ended it may have met it anywhere in its set-up.
    if failure is None or facts.ended in (Ended.CANCELLED, Ended.WITH_JOB):
        return None
    if failure.stage in _START_STAGES:
        return Verdict("start_failed", detail=_start_detail(failure))
    # In that stage there is nothing of ours that could take room.
    if (failure.stage, failure.error) == ("box", errno.ENOSPC):
        return Verdict("output_limit", limit="disk_bytes", detail=_NO_ROOM)
    return Verdict("sandbox_error", detail=_failure_detail(failure))


def _ended_by_us(facts: Facts) -> Verdict | None:
    if facts.ended is None:
        return None
    if facts.ended is Ended.CANCELLED:
        return Verdict("cancelled")
    if facts.ended is Ended.WITH_JOB:
        return _WITH_JOB
    if facts.ended is Ended.OUTPUT:
        return Verdict("output_limit", limit=facts.output)
    if facts.ended is Ended.MEMORY and not facts.limit_oom:
        return Verdict("sandbox_error", detail=_HOST_MEMORY)
    status, limit = _LIMIT_OF[facts.ended]
    return Verdict(status, limit=limit)


def _out_of_memory(facts: Facts) -> bool:
    return facts.oom_kills > 0 and facts.limit_oom


def _beyond_limit(facts: Facts) -> Verdict | None:
    if _out_of_memory(facts):
        return Verdict("memory_limit", limit="memory_bytes")
    if facts.output is not None:
        return Verdict("output_limit", limit=facts.output)
    if facts.cpu_ns > facts.cpu_limit_ns:
        return Verdict("cpu_limit", limit="cpu_ms")
    if facts.wall_ns > facts.wall_limit_ns:
        return Verdict("wall_limit", limit="wall_ms")
    return None


def _lost(facts: Facts) -> Verdict | None:
    ended = facts.exit_code is not None or facts.signal is not None
    if facts.oom_kills and (not ended or facts.signal == signal.SIGKILL):
        return Verdict("sandbox_error", detail=_HOST_MEMORY)
    if not ended or not facts.started:
        return Verdict("sandbox_error", detail="the sandbox was lost; the program is not to blame")
    return None


def _own_end(facts: Facts) -> Verdict:
    if facts.signal == signal.SIGSYS:
        return Verdict("syscall_denied", signal=facts.signal)
    if facts.signal is not None:
        return Verdict("signaled", signal=facts.signal)
    status = "nonzero_exit" if facts.exit_code else "ok"
    return Verdict(status, exit_code=facts.exit_code)


def _start_detail(failure: Failure) -> str:
    name = errno.errorcode.get(failure.error, failure.error)
    if (failure.stage, failure.index) == _START_DIRECTORY:
        return f"{name}: the directory that the image names to start in"
    words = {errno.ENOENT: "no such program, or its interpreter is missing"}
    return f"{name}: {words.get(failure.error, os.strerror(failure.error))}"


def _failure_detail(failure: Failure) -> str:
    name = errno.errorcode.get(failure.error, failure.error)
    return f"stage {failure.stage}, {name}, index {failure.index}"
