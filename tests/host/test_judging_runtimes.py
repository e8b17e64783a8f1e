"""What the kernel counts of a runtime that cannot start under its limits, which its verdict is told by."""

import shutil

import pytest

from jail.judging.verdict import Base, starved
from jail.outcome import Verdict

MIB = 1 << 20


@pytest.fixture(scope="module")
def java(jail):
    """Run the least that Java can do; beside its result, the least that it takes."""
    if shutil.which("java", path="/usr/bin") is None:
        pytest.skip("the host has no java")

    def run(**limits):
        return jail.run({"argv": ["java", "-version"], "limits": limits})

    usage = run(memory_bytes=256 * MIB)["usage"]
    return run, Base(memory_peak_bytes=usage["memory_peak_bytes"], pids_peak=usage["pids_peak"])


def told(result, limits, base):
    verdict = Verdict(result["status"], exit_code=result["exit_code"], signal=result["signal"])
    hits = result["usage"]["pids_limit_hits"]
    return starved(verdict, pids_limit_hits=hits, base=base, **limits)


def test_a_runtime_without_memory_meets_the_oom_killer_and_nothing_else(java):
    run, base = java
    limits = {"memory_bytes": 8 * MIB, "pids": 64}
    result = run(**limits)
    assert (result["status"], result["limit"], result["usage"]["oom_kills"] > 0) == (
        "memory_limit",
        "memory_bytes",
        True,
    )
    assert told(result, limits, base) == "memory_bytes"


def test_a_runtime_without_threads_is_refused_some_and_the_kernel_counts_it(java):
    run, base = java
    limits = {"memory_bytes": 256 * MIB, "pids": 8}
    result = run(**limits)
    assert result["status"] == "nonzero_exit"
    assert result["usage"]["pids_limit_hits"] > 0
    # A kernel without pids.peak does not say how many it takes.
    assert told(result, limits, base) == (None if base.pids_peak is None else "pids")


def test_a_heap_that_is_larger_than_the_limit_is_no_failure_until_it_is_used(jail, java):
    limits = {"memory_bytes": 256 * MIB, "pids": 64}
    result = jail.run({"argv": ["java", "-Xms4g", "-version"], "limits": limits})
    assert result["status"] == "ok"


def test_a_program_that_fails_is_not_its_runtime(jail, java):
    limits = {"memory_bytes": 64 * MIB, "pids": 64}
    result = jail.run({"argv": ["java", "-nosuchoption"], "limits": limits})
    assert result["status"] == "nonzero_exit"
    assert told(result, limits, java[1]) is None
