"""Whether a submission got what it may get."""

import packages
import pytest

from jail.problems import metadata, testdata
from jail.problems.expectations import complaints, told
from jail.problems.grading import Outcome, grade
from jail.problems.programs import Program
from jail.problems.submissions import Rule, Submission

MODERN = "problem_format_version: 2025-09\n"


def complain(problem: str, outcomes: str, files: dict[str, str] | None = None, **expected) -> list[str]:
    verdicts = dict(one.split("=") for one in outcomes.split())
    content = {"problem.yaml": problem, **{f"data/{path}": text for path, text in (files or {}).items()}}
    for name in verdicts:
        content |= {f"data/{name}.in": "", f"data/{name}.ans": ""}
    package = packages.Package(content)
    root = testdata.read(package, metadata.read(package))
    found = {name: Outcome(verdict) for name, verdict in verdicts.items()}
    submission = Submission(name="x", program=Program(name="x", files={}), **{"verdicts": None, **expected})
    return complaints(submission, root, found, grade(root, found))


@pytest.mark.parametrize(
    ("outcomes", "verdicts"),
    [
        ("secret/1=AC", ("AC",)),
        ("secret/1=PE", ("WA",)),
        ("secret/1=MLE", ("RTE",)),
        ("secret/1=OLE", ("RTE",)),
        ("secret/1=TLE", ("WA", "TLE")),
        ("secret/1=TLE", None),
    ],
)
def test_a_verdict_that_is_allowed(outcomes, verdicts):
    assert complain("", outcomes, verdicts=verdicts) == []


@pytest.mark.parametrize(
    ("outcomes", "verdicts", "complaint"),
    [
        ("secret/1=AC", ("WA",), "It is AC, and has to be WA."),
        ("secret/1=AC secret/2=TLE", ("AC",), "It is TLE, and has to be AC."),
        ("secret/1=JE", ("WA", "RTE"), "It is JE, and has to be WA or RTE."),
    ],
)
def test_a_verdict_that_is_not(outcomes, verdicts, complaint):
    assert complain("", outcomes, verdicts=verdicts) == [complaint]


def test_a_partial_score_is_not_the_best():
    files = {
        "testdata.yaml": "range: 0 2\non_reject: continue\ngrader_flags: always_accept",
    }

    partial = {"verdicts": ("AC",), "partial": True}
    assert complain("type: scoring", "secret/1=AC secret/2=WA", files, **partial) == []
    told = complain("type: scoring", "secret/1=AC secret/2=AC", files, **partial)
    assert told == ["It has the best score, 2, and has to have less."]


RULES = (
    Rule(permitted=("AC", "TLE"), required=("TLE",)),
    Rule(cases=("secret/easy*", "sample"), permitted=("AC",)),
)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("sample/1=AC secret/easy1=AC secret/hard=TLE", []),
        ("sample/1=AC secret/easy1=AC secret/hard=AC", ["None is TLE, and one has to be."]),
        (
            "sample/1=AC secret/easy1=AC secret/a=WA secret/hard=TLE",
            ["secret/a is WA, and all have to be AC or TLE."],
        ),
        (
            "sample/1=TLE secret/easy1=AC",
            ["sample/1 is TLE, and all of secret/easy*, sample have to be AC."],
        ),
    ],
)
def test_rules_speak_of_cases(outcomes, expected):
    assert complain(MODERN, outcomes, rules=RULES) == expected


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ((30, 30), []),
        ((0, 30), []),
        ((31, 40), ["The score is 30, and has to be from 31 to 40."]),
    ],
)
def test_rules_of_scores(score, expected):
    files = {"secret/a/test_group.yaml": "max_score: 30", "secret/b/test_group.yaml": "max_score: 70"}
    outcomes = "secret/a/1=AC secret/b/1=WA"

    assert complain(f"{MODERN}type: scoring", outcomes, files, rules=(Rule(score=score),)) == expected
    of_group = (Rule(cases=("secret/b",), score=(70, 70)),)
    assert complain(f"{MODERN}type: scoring", outcomes, files, rules=of_group) == [
        "The score of secret/b is 0, and has to be 70."
    ]


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ({"verdicts": ("AC",)}, "AC"),
        ({"verdicts": ("WA", "TLE")}, "WA or TLE"),
        ({"verdicts": None}, ""),
        ({"verdicts": None, "rules": RULES}, "TLE"),
        ({"verdicts": None, "rules": (Rule(permitted=("AC",)),)}, "AC"),
        ({"verdicts": None, "rules": (Rule(required=("RTE", "TLE")),)}, "TLE or RTE"),
    ],
)
def test_what_is_expected_is_told(expected, text):
    assert told(Submission(name="x", program=Program(name="x", files={}), **expected)) == text
