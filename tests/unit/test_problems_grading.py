"""Grades: what the format's default grader makes of verdicts, and the rules since 2023-07."""

import packages
import pytest

from jail.problems import metadata, testdata
from jail.problems.grading import Grade, Outcome, fail_fast, grade

SCORING = "problem_format_version: 2025-09\ntype: scoring\n"


def read(problem: str, cases: str, files: dict[str, str]) -> testdata.Group:
    content = {"problem.yaml": problem, **{f"data/{path}": text for path, text in files.items()}}
    for case in cases.split():
        content |= {f"data/{case}.in": "", f"data/{case}.ans": ""}
    package = packages.Package(content)
    return testdata.read(package, metadata.read(package))


def outcomes(told: str) -> dict[str, Outcome]:
    found = {}
    for one in told.split():
        name, _, verdict = one.partition("=")
        verdict, _, score = verdict.partition("*")
        found[name] = Outcome(verdict, float(score) if score else None)
    return found


def legacy(files: dict[str, str], told: str) -> Grade:
    cases = " ".join(one.partition("=")[0] for one in told.split())
    return grade(read("type: scoring", cases, files), outcomes(told))[""]


@pytest.mark.parametrize(
    ("told", "verdict", "decided_by"),
    [
        ("secret/1=AC secret/2=AC", "AC", None),
        ("sample/1=WA secret/1=AC", "WA", "sample/1"),
        ("secret/1=AC secret/2=TLE secret/3=RTE", "TLE", "secret/2"),
        ("secret/a/1=AC secret/b/1=WA secret/c/1=RTE", "WA", "secret/b/1"),
    ],
)
def test_the_first_that_is_rejected_decides(told, verdict, decided_by):
    found = legacy({}, told)

    assert (found.verdict, found.decided_by) == (verdict, decided_by)


def test_what_comes_after_a_rejection_has_no_part_in_it_whether_it_was_judged():
    root = read("", "secret/1 secret/2 secret/3", {})
    told = outcomes("secret/1=AC secret/2=WA")

    assert grade(root, told) == grade(root, told | outcomes("secret/3=JE"))


def test_a_case_that_should_have_been_judged_is_the_judges_fault():
    assert grade(read("", "secret/1 secret/2", {}), outcomes("secret/2=AC"))[""].verdict == "JE"


@pytest.mark.parametrize(
    ("flags", "told", "verdict", "decided_by"),
    [
        ("", "secret/1=WA secret/2=TLE secret/3=RTE secret/4=AC", "RTE", "secret/3"),
        ("", "secret/1=WA secret/2=OLE secret/3=MLE secret/4=TLE", "MLE", "secret/3"),
        ("", "secret/1=TLE secret/2=JE", "JE", "secret/2"),
        ("", "secret/1=TLE secret/2=IF", "IF", "secret/2"),
        ("first_error", "secret/1=WA secret/2=RTE", "WA", "secret/1"),
        ("always_accept", "secret/1=WA secret/2=RTE", "AC", None),
        ("accept_if_any_accepted", "secret/1=WA secret/2=AC", "AC", None),
        ("accept_if_any_accepted", "secret/1=WA secret/2=TLE", "TLE", "secret/2"),
    ],
)
def test_modes_of_verdicts(flags, told, verdict, decided_by):
    found = legacy({"testdata.yaml": f"on_reject: continue\ngrader_flags: {flags}"}, told)

    assert (found.verdict, found.decided_by) == (verdict, decided_by)


@pytest.mark.parametrize(
    ("mode", "score"), [("sum", 6.0), ("avg", 2.0), ("min", 0.5), ("max", 4.0), ("max min", 0.5)]
)
def test_modes_of_scores(mode, score):
    rules = f"on_reject: continue\naccept_score: 4\nreject_score: 0.5\ngrader_flags: {mode}"
    told = "secret/1=AC secret/2=WA secret/3=AC*1.5"

    assert (
        legacy({"secret/testdata.yaml": rules, "testdata.yaml": "on_reject: continue"}, told).score == score
    )


def test_ignoring_the_sample():
    files = {"testdata.yaml": "grader_flags: ignore_sample", "secret/testdata.yaml": "accept_score: 7"}

    assert legacy(files, "sample/1=WA secret/1=AC") == Grade(verdict="AC", score=7)


def test_groups_as_olympiads_have_them():
    files = {
        "testdata.yaml": "on_reject: continue\ngrader_flags: ignore_sample",
        "secret/testdata.yaml": "on_reject: continue\ngrader_flags: accept_if_any_accepted",
        "secret/a/testdata.yaml": "accept_score: 30\ngrader_flags: min",
        "secret/b/testdata.yaml": "accept_score: 70\ngrader_flags: min",
    }
    root = read("type: scoring", "sample/1 secret/a/1 secret/a/2 secret/b/1 secret/b/2", files)
    found = grade(root, outcomes("sample/1=AC secret/a/1=AC secret/a/2=AC secret/b/1=TLE"))

    assert found[""] == Grade(verdict="AC", score=30)
    assert found["secret/a"] == Grade(verdict="AC", score=30)
    assert found["secret/b"] == Grade(verdict="TLE", score=0, decided_by="secret/b/1")
    assert fail_fast(root, scoring=True) == "group"


@pytest.mark.parametrize(
    ("files", "much"),
    [
        ({}, "job"),
        ({"testdata.yaml": "on_reject: continue"}, "never"),
        ({"testdata.yaml": "on_reject: continue", "secret/a/testdata.yaml": ""}, "group"),
        ({"testdata.yaml": "grader_flags: always_accept"}, "group"),
        ({"secret/a/testdata.yaml": "on_reject: continue"}, "never"),
    ],
)
def test_no_more_is_left_out_than_has_no_part_in_any_grade(files, much):
    assert fail_fast(read("", "secret/a/1", files), scoring=False) == much


GROUPS = {
    "secret/test_group.yaml": "max_score: 100",
    "secret/a/test_group.yaml": "max_score: 20",
    "secret/b/test_group.yaml": "max_score: 40\nscore_aggregation: sum",
    "secret/c/test_group.yaml": "max_score: 40\nscore_aggregation: min\nrequire_pass: secret/a",
}


@pytest.mark.parametrize(
    ("told", "scores", "verdict"),
    [
        ("a/1=AC a/2=AC b/1=AC b/2=AC c/1=AC c/2=AC", (20, 40, 40), "AC"),
        ("a/1=AC a/2=AC b/1=WA b/2=AC c/1=AC c/2=AC*10", (20, 20, 10), "WA"),
        ("a/1=AC a/2=TLE b/1=AC b/2=AC*10 c/1=AC c/2=AC", (0, 30, 0), "TLE"),
        ("a/1=AC a/2=AC b/1=AC b/2=AC c/1=RTE", (20, 40, 0), "RTE"),
    ],
)
def test_scoring_groups(told, scores, verdict):
    root = read(SCORING, "secret/a/1 secret/a/2 secret/b/1 secret/b/2 secret/c/1 secret/c/2", GROUPS)
    found = grade(root, outcomes(" ".join(f"secret/{one}" for one in told.split())))

    assert tuple(found[f"secret/{name}"].score for name in "abc") == scores
    assert (found[""].score, found[""].verdict) == (sum(scores), verdict)
    assert fail_fast(root, scoring=True) == "never"


def test_since_2023_07_all_have_to_be_accepted():
    root = read("problem_format_version: 2025-09", "sample/1 secret/a/1 secret/b/1", {})

    assert grade(root, outcomes("sample/1=AC secret/a/1=AC secret/b/1=AC"))[""].verdict == "AC"
    assert grade(root, outcomes("sample/1=AC secret/a/1=WA"))[""].verdict == "WA"
    assert grade(root, outcomes("sample/1=RTE"))[""].decided_by == "sample/1"
    assert fail_fast(root, scoring=False) == "job"


def test_samples_have_no_part_in_the_score():
    root = read(SCORING, "sample/1 secret/1 secret/2", {})

    assert grade(root, outcomes("sample/1=WA secret/1=AC secret/2=WA"))[""].score == 50
