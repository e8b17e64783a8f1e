"""The verdict: every cause alone, and which of two counts."""

import errno
import signal
import typing

import pytest

from jail.outcome import Ended, Facts, Failure, Status, Verdict, decide, decide_job

MS = 10**6
CPU_LIMIT_NS = 1000 * MS
WALL_LIMIT_NS = 3000 * MS

EXITED = {"exit_code": 0}
FAILED = {"exit_code": 1}
KILLED = {"signal": signal.SIGKILL}
SEGMENTATION = {"signal": signal.SIGSEGV}
DENIED = {"signal": signal.SIGSYS}
OUT_OF_MEMORY = {"oom_kills": 1, "limit_oom": True}
HOST_OUT_OF_MEMORY = {"oom_kills": 1, "limit_oom": False}
OVER_CPU = {"cpu_ns": CPU_LIMIT_NS + 1}
OVER_OUTPUT = {"output": "stdout_bytes"}
OVER_WALL = {"wall_ns": WALL_LIMIT_NS + 1}
UNSET_UP = {"failure": Failure("proc", errno.EPERM, 2)}
UNSTARTED = {"failure": Failure("exec", errno.ENOENT, 0)}


def ended(why, **more):
    return {"ended": why, **more}


OUTPUT = ended(Ended.OUTPUT, output="stdout_bytes")
OK = Verdict("ok", exit_code=0)
MEMORY = Verdict("memory_limit", limit="memory_bytes")
CPU = Verdict("cpu_limit", limit="cpu_ms")
WALL = Verdict("wall_limit", limit="wall_ms")
CANCELLED = Verdict("cancelled")
WITH_JOB = Verdict("cancelled", detail="ended with the job")
EXCESS = Verdict("output_limit", limit="stdout_bytes")
LOST = Verdict("sandbox_error", detail="the sandbox was lost; the program is not to blame")
HOST_MEMORY = Verdict("sandbox_error", detail="the host ran out of memory; the program is not to blame")
NOT_SET_UP = Verdict("sandbox_error", detail="stage proc, EPERM, index 2")
NO_PROGRAM = Verdict("start_failed", detail="ENOENT: no such program, or its interpreter is missing")

CASES = {
    # The end of the main process.
    "exit 0": (EXITED, OK),
    "exit 1": (FAILED, Verdict("nonzero_exit", exit_code=1)),
    "exit 255": ({"exit_code": 255}, Verdict("nonzero_exit", exit_code=255)),
    "exit 137, as a shell tells SIGKILL": (
        {"exit_code": 137},
        Verdict("nonzero_exit", exit_code=137),
    ),
    "SIGSEGV": ({"signal": 11}, Verdict("signaled", signal=11)),
    "SIGKILL, of its own": (KILLED, Verdict("signaled", signal=9)),
    "SIGXCPU, of its own": ({"signal": 24}, Verdict("signaled", signal=24)),
    "a real-time signal": ({"signal": 64}, Verdict("signaled", signal=64)),
    "SIGSYS": (DENIED, Verdict("syscall_denied", signal=31)),
    # What jail ended it for.
    "ended for CPU": (ended(Ended.CPU), CPU),
    "ended for wall": (ended(Ended.WALL), WALL),
    "ended for memory": (ended(Ended.MEMORY, **OUT_OF_MEMORY), MEMORY),
    "ended for memory before the kill was counted": (ended(Ended.MEMORY, limit_oom=True), MEMORY),
    "ended for memory, and it was the host's": (ended(Ended.MEMORY, **HOST_OUT_OF_MEMORY), HOST_MEMORY),
    "ended for stdout": (OUTPUT, EXCESS),
    "ended for stderr": (
        ended(Ended.OUTPUT, output="stderr_bytes"),
        Verdict("output_limit", limit="stderr_bytes"),
    ),
    "cancelled": (ended(Ended.CANCELLED), CANCELLED),
    "cancelled before anything was known": (ended(Ended.CANCELLED, cpu_ns=0), CANCELLED),
    # ... counts before what came of it.
    "ended for CPU, and the kill shows": (ended(Ended.CPU, **KILLED), CPU),
    "ended for wall, and the kill shows": (ended(Ended.WALL, **KILLED), WALL),
    "ended for CPU, and it had exited": (ended(Ended.CPU, **EXITED), CPU),
    "ended for wall, and over CPU": (ended(Ended.WALL, **OVER_CPU), WALL),
    "ended for CPU, and over wall": (ended(Ended.CPU, **OVER_WALL), CPU),
    "ended for CPU, and out of memory": (ended(Ended.CPU, **OUT_OF_MEMORY), CPU),
    "ended for output, and out of memory": (
        {**OUTPUT, **OUT_OF_MEMORY},
        EXCESS,
    ),
    "ended for output, and over CPU": (
        {**OUTPUT, **OVER_CPU},
        EXCESS,
    ),
    "ended for memory, and SIGSYS": (ended(Ended.MEMORY, **OUT_OF_MEMORY, **DENIED), MEMORY),
    "ended for memory, and over CPU": (ended(Ended.MEMORY, **OUT_OF_MEMORY, **OVER_CPU), MEMORY),
    "cancelled, and out of memory": (ended(Ended.CANCELLED, **OUT_OF_MEMORY), CANCELLED),
    "cancelled, and it had exited": (ended(Ended.CANCELLED, **EXITED), CANCELLED),
    "cancelled, and over every clock": (
        ended(Ended.CANCELLED, **OVER_CPU, **OVER_WALL),
        CANCELLED,
    ),
    "ended with the job": (ended(Ended.WITH_JOB), WITH_JOB),
    "ended with the job, and the kill shows": (ended(Ended.WITH_JOB, **KILLED), WITH_JOB),
    "ended with the job, and out of memory": (ended(Ended.WITH_JOB, **OUT_OF_MEMORY), WITH_JOB),
    # Beyond a limit, and nobody ended it.
    "out of memory, and killed": ({**OUT_OF_MEMORY, **KILLED}, MEMORY),
    "out of memory, and it coped": ({**OUT_OF_MEMORY, **EXITED}, MEMORY),
    "out of memory, and it failed": ({**OUT_OF_MEMORY, **FAILED}, MEMORY),
    "out of memory, and SIGSYS": ({**OUT_OF_MEMORY, **DENIED}, MEMORY),
    "out of memory, and not seen to exit": (OUT_OF_MEMORY, MEMORY),
    "out of memory, and over CPU": ({**OUT_OF_MEMORY, **OVER_CPU, **EXITED}, MEMORY),
    "at the memory limit, and nobody was killed": ({"limit_oom": True, **EXITED}, OK),
    "the host's OOM killer took a child": ({**HOST_OUT_OF_MEMORY, **EXITED}, OK),
    "the host's OOM killer took it": ({**HOST_OUT_OF_MEMORY, **KILLED}, HOST_MEMORY),
    "the host's OOM killer took a child, and it failed of itself": (
        {**HOST_OUT_OF_MEMORY, **SEGMENTATION},
        Verdict("signaled", signal=11),
    ),
    "over output": ({**OVER_OUTPUT, **EXITED}, EXCESS),
    "over output, and killed": ({**OVER_OUTPUT, **KILLED}, EXCESS),
    "over output, and SIGSYS": ({**OVER_OUTPUT, **DENIED}, EXCESS),
    "over output and CPU": ({**OVER_OUTPUT, **OVER_CPU, **EXITED}, EXCESS),
    "over output, and out of memory": ({**OVER_OUTPUT, **OUT_OF_MEMORY, **EXITED}, MEMORY),
    "over output, and ended for wall": ({**OVER_OUTPUT, "ended": Ended.WALL}, WALL),
    "over CPU": ({**OVER_CPU, **EXITED}, CPU),
    "over CPU, and failed": ({**OVER_CPU, **FAILED}, CPU),
    "over CPU, and SIGSYS": ({**OVER_CPU, **DENIED}, CPU),
    "over CPU, and not seen to exit": (OVER_CPU, CPU),
    "over wall": ({**OVER_WALL, **EXITED}, WALL),
    "over wall, and not seen to exit": (OVER_WALL, WALL),
    "over CPU and wall": ({**OVER_CPU, **OVER_WALL, **EXITED}, CPU),
    "exactly at both limits": (
        {"cpu_ns": CPU_LIMIT_NS, "wall_ns": WALL_LIMIT_NS, **EXITED},
        OK,
    ),
    # Ours, and the start.
    "set-up failed": (
        UNSET_UP,
        NOT_SET_UP,
    ),
    "set-up failed, and it was killed": (
        {**UNSET_UP, **KILLED},
        NOT_SET_UP,
    ),
    "set-up failed, and over wall": (
        {**UNSET_UP, **OVER_WALL, "ended": Ended.WALL},
        NOT_SET_UP,
    ),
    "set-up failed without an errno": (
        {"failure": Failure("time", 0, 0)},
        Verdict("sandbox_error", detail="stage time, 0, index 0"),
    ),
    "set-up failed with an errno that has no name": (
        {"failure": Failure("supervisor", 9999, 0)},
        Verdict("sandbox_error", detail="stage supervisor, 9999, index 0"),
    ),
    "set-up failed because it was cancelled": ({**UNSET_UP, "ended": Ended.CANCELLED}, CANCELLED),
    "set-up failed because it was ended with the job": ({**UNSET_UP, "ended": Ended.WITH_JOB}, WITH_JOB),
    "no program": (
        UNSTARTED,
        NO_PROGRAM,
    ),
    "no program in any directory": (
        {"failure": Failure("program", errno.ENOENT, 0)},
        NO_PROGRAM,
    ),
    "not executable": (
        {"failure": Failure("exec", errno.EACCES, 0)},
        Verdict("start_failed", detail="EACCES: Permission denied"),
    ),
    "no program, and out of memory": (
        {**UNSTARTED, **OUT_OF_MEMORY},
        NO_PROGRAM,
    ),
    "no program, and cancelled": ({**UNSTARTED, "ended": Ended.CANCELLED}, CANCELLED),
    "lost": ({}, LOST),
    "lost to the host's OOM killer": (
        HOST_OUT_OF_MEMORY,
        HOST_MEMORY,
    ),
    "ended before the program was started": ({"started": False, **EXITED}, LOST),
    "killed before the program was started": ({"started": False, **KILLED}, LOST),
    "ended for wall before the program was started": ({"started": False, **ended(Ended.WALL)}, WALL),
    "lost at the memory limit, and nobody was killed": ({"limit_oom": True}, LOST),
}


@pytest.mark.parametrize(("facts", "verdict"), CASES.values(), ids=CASES.keys())
def test_the_verdict_on(facts, verdict):
    found = decide(Facts(cpu_limit_ns=CPU_LIMIT_NS, wall_limit_ns=WALL_LIMIT_NS, **facts))
    assert found == verdict


def test_there_is_a_case_for_every_status():
    assert {verdict.status for _, verdict in CASES.values()} == set(typing.get_args(Status))


def test_there_is_a_case_for_everything_that_jail_ends_a_sandbox_for():
    assert {facts["ended"] for facts, _ in CASES.values() if "ended" in facts} == set(Ended)


def test_an_exit_code_and_a_signal_are_never_both_told():
    assert all(v.exit_code is None or v.signal is None for _, v in CASES.values())


FAILURE = Verdict("nonzero_exit", exit_code=1)

JOBS = {
    "all well": ([OK, OK], None),
    "one ended with the others": ([OK, WITH_JOB], None),
    "the first that went wrong": ([OK, CPU, FAILURE], 1),
    "ours, before one that went wrong": ([LOST, CPU], 0),
    "ours, after one that went wrong": ([CPU, LOST, FAILURE], 1),
    "the first of ours": ([HOST_MEMORY, LOST], 0),
    "what was ended with the others does not count": ([WITH_JOB, FAILURE], 1),
    "what was ended because of ours": ([WITH_JOB, LOST, WITH_JOB], 1),
    "cancelled": ([CANCELLED, CANCELLED], 0),
    "cancelled after one went wrong": ([FAILURE, CANCELLED], 0),
    "cancelled after one went well": ([OK, CANCELLED], 1),
    "a single one": ([MEMORY], 0),
}


@pytest.mark.parametrize(("verdicts", "place"), JOBS.values(), ids=JOBS.keys())
def test_the_verdict_on_a_job_is_that_on(verdicts, place):
    assert decide_job(verdicts) == place
