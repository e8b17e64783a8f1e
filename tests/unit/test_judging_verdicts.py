"""Verdicts on tests, steps and jobs: the table of verdicts.toml, and what holds for all."""

import itertools
import tomllib
import typing
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jail.judging import verdict as judging
from jail.judging.checker import Checked, judge
from jail.judging.comparison import Comparison
from jail.judging.shapes import Compare, Difference, Judged, Judgement
from jail.judging.verdict import Base, Step, counting, ends_job, judge_job, judge_step, judge_test, starved
from jail.outcome import Ended, Facts, Failure, Verdict, decide

TABLE = tomllib.loads((Path(__file__).parent / "verdicts.toml").read_text())
ALWAYS_THE_SAME = settings(derandomize=True, database=None, deadline=None)
MS, MIB = 10**6, 1 << 20
JUDGED = typing.get_args(Judged)


def rows(kind):
    return pytest.mark.parametrize("row", TABLE[kind], ids=lambda row: row["what"])


def program(told):
    """What jail.outcome makes of the facts of a row."""
    told = dict(told)
    if told.pop("lost", False) or "failure" in told or "ended" in told or "signal" in told:
        exited = {}
    else:
        exited = {"exit_code": told.pop("exit_code", 0)}
    if "ended" in told:
        told["ended"] = Ended(told["ended"])
    if "failure" in told:
        told["failure"] = Failure(told["failure"], 2, 0)
    times = {f"{clock}_ns": told.pop(f"{clock}_ms", 0) * MS for clock in ("cpu", "wall")}
    return decide(Facts(cpu_limit_ns=1000 * MS, wall_limit_ns=3000 * MS, **exited, **times, **told))


def checked(told):
    convention, code = told["convention"], told.get("exit_code")
    status = told.get("status", "nonzero_exit" if code else "ok")
    facts = Checked(
        verdict=Verdict(status, exit_code=code),
        stderr=told.get("stderr", "").encode(),
        feedback={name: text.encode() for name, text in told.get("feedback", {}).items()},
        unread=tuple(told.get("unread", ())),
    )
    return judge(convention, facts)


def compared(row):
    comparison = Comparison(msgspec.convert(row.get("compare", {}), Compare), row["expected"].encode())
    comparison.feed(row["output"].encode())
    return comparison.finish()


def test_the_table_has_more_than_80_cases_and_no_two_of_one_name():
    names = [row["what"] for kind in TABLE.values() for row in kind]
    assert len(names) > 80
    assert len(set(names)) == len(names)


def test_the_table_has_every_status():
    assert {row["status"] for kind in ("test", "step", "job") for row in TABLE[kind]} == set(JUDGED)


@rows("test")
def test_a_test(row):
    answer = checked(row["checker"]) if "checker" in row else compared(row) if "expected" in row else None
    assert judge_test(program(row.get("facts", {})), answer) == row["status"]
    if isinstance(answer, Judgement):
        told = {name: getattr(answer, name) for name in ("points", "score")}
        assert told == {name: Decimal(row[name]) if name in row else None for name in told}


@rows("step")
def test_a_step(row):
    step = Step(
        name="a",
        verdict=Verdict(row["program"]),
        compiles=row.get("compiles", False),
        continue_on=tuple(row.get("continue_on", ())),
    )
    assert (judge_step(step), ends_job(step)) == (row["status"], row["ends"])


def job(row):
    steps = []
    for number, told in enumerate(row.get("steps", ()), 1):
        *compiles, status = told.split()
        steps.append(Step(name=str(number), verdict=Verdict(status), compiles=bool(compiles)))
    cases = []
    for number, told in enumerate(row.get("tests", ()), 1):
        group, _, status = told.rpartition(":")
        status = None if status == "-" else status
        cases.append(judging.Test(name=str(number), status=status, group=group or None))
    return steps, cases


@rows("job")
def test_a_job(row):
    found = judge_job(*job(row), row.get("fail_fast", "never"))
    assert (found.status, found.step, found.test) == (row["status"], row.get("step"), row.get("test"))


@rows("runtime")
def test_a_runtime(row):
    base = Base(
        memory_peak_bytes=row["base_memory_mib"] * MIB if "base_memory_mib" in row else None,
        pids_peak=row.get("base_pids"),
    )
    found = starved(
        Verdict(row["program"]),
        memory_bytes=row.get("memory_mib", 64) * MIB,
        pids=row.get("pids", 64),
        pids_limit_hits=row.get("pids_limit_hits", 0),
        base=base,
    )
    assert (found or "") == row["starved"]


# --- what holds for all

CASES = st.lists(
    st.tuples(
        st.sampled_from(["ok", "ok", "wrong_answer", "sandbox_error"]), st.sampled_from([None, "a", "b"])
    ),
    max_size=6,
)


def cases(told, known):
    return [
        judging.Test(name=str(n), status=status if is_known else None, group=group)
        for n, ((status, group), is_known) in enumerate(zip(told, known, strict=True))
    ]


@given(CASES, st.sampled_from(["never", "group", "job"]), st.data())
@ALWAYS_THE_SAME
def test_the_verdict_does_not_depend_on_which_test_was_quicker(told, fail_fast, data):
    """Tests end in any order; what does not count any more is not run on."""
    order = data.draw(st.permutations(range(len(told))))
    known = [False] * len(told)
    for number in order:
        if counting(cases(told, known), fail_fast)[number]:
            known[number] = True
    whole = cases(told, [True] * len(told))
    found = cases(told, known)
    assert counting(found, fail_fast) == counting(whole, fail_fast)
    assert judge_job((), found, fail_fast) == judge_job((), whole, fail_fast)


@given(CASES, st.sampled_from(["never", "group", "job"]))
@ALWAYS_THE_SAME
def test_what_does_not_count_comes_after_a_failure_of_its_own_scope(told, fail_fast):
    counts = counting(cases(told, [True] * len(told)), fail_fast)
    for number, (_, group) in enumerate(told):
        before = [
            status != "ok" and (fail_fast == "job" or (group is not None and its == group))
            for status, its in told[:number]
        ]
        assert counts[number] == (fail_fast == "never" or not any(before))


def test_a_program_that_failed_is_never_ok_and_the_judges_fault_is_never_its():
    answers = [None, Difference(only=None), Difference(only="case"), Judgement(status="ok")]
    answers += [Judgement(status="checker_error"), Judgement(status="sandbox_error")]
    for status, answer in itertools.product(typing.get_args(Verdict.__annotations__["status"]), answers):
        found = judge_test(Verdict(status), answer)
        assert status == "ok" or found == status


def test_messages_are_for_whom_they_are_meant():
    feedback = {"teammessage.txt": b"look at test 3\n", "judgemessage.txt": b"off by one\n"}
    found = judge("icpc", Checked(verdict=Verdict("nonzero_exit", exit_code=43), feedback=feedback))
    assert (found.message, found.judge_message) == ("look at test 3", "off by one")
    stderr = b"wrong answer expected 3, found 4\n"
    found = judge("testlib", Checked(verdict=Verdict("nonzero_exit", exit_code=1), stderr=stderr))
    assert found.message == "expected 3, found 4"


def test_a_message_without_end_is_cut():
    found = judge("testlib", Checked(verdict=Verdict("ok", exit_code=0), stderr=b"\xff" * 1_000_000))
    assert len(found.message) == 4096


def test_the_fault_of_a_checker_is_told():
    found = judge("icpc", Checked(verdict=Verdict("wall_limit", limit="wall_ms")))
    assert found.detail == "the checker ended with wall_limit (wall_ms)"
    found = judge("icpc", Checked(verdict=Verdict("signaled", signal=11)))
    assert found.detail == "the checker ended with signaled (signal 11)"
    found = judge("icpc", Checked(verdict=Verdict("ok", exit_code=0)))
    assert found.detail == "exit code 0; an output validator exits with 42 or 43"


@pytest.mark.parametrize(
    "text", [b"", b" ", b"1 2", b"0x1", b"1_0", b"NaN", b"-0.5", b"1e999999999", b"9" * 65, b"\xb2"]
)
def test_what_is_no_plain_number_is_no_score(text):
    verdict = Verdict("nonzero_exit", exit_code=42)
    for name in ("score.txt", "score_multiplier.txt"):
        assert judge("icpc", Checked(verdict=verdict, feedback={name: text})).status == "checker_error"
