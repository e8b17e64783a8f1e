"""data/: cases, groups and their rules."""

import packages
import pytest

from jail.errors import PackageError
from jail.problems import metadata, testdata
from jail.problems.testdata import GroupRules, LegacyRules

MODERN = "problem_format_version: 2025-09\n"
SCORING = f"{MODERN}type: scoring\n"


def read(problem: str, *cases: str, files: dict[str, str] | None = None) -> testdata.Group:
    content = {"problem.yaml": problem}
    for case in cases:
        content |= {f"data/{case}.in": "1", f"data/{case}.ans": "1"}
    content |= {f"data/{path}": text for path, text in (files or {}).items()}
    package = packages.Package(content)
    return testdata.read(package, metadata.read(package))


def refused(*args, **more) -> str:
    with pytest.raises(PackageError) as caught:
        read(*args, **more)
    return caught.value.cause


def group(found: testdata.Group, name: str) -> testdata.Group:
    groups = [found]
    for one in groups:
        groups += [member for member in one.members if isinstance(member, testdata.Group)]
    return next(one for one in groups if one.name == name)


def names(found: testdata.Group) -> list[str]:
    return [case.name for case in found.cases]


def case(found: testdata.Group, name: str) -> testdata.Case:
    return next(case for case in found.cases if case.name == name)


def test_cases_and_groups_come_in_the_order_of_their_names():
    found = read("", "secret/2", "secret/b/1", "secret/10", "secret/a/b/1", "sample/1")

    assert names(found) == ["sample/1", "secret/10", "secret/2", "secret/a/b/1", "secret/b/1"]


def test_a_case_is_of_an_input_and_an_answer():
    assert case(read("", "secret/1"), "secret/1") == testdata.Case(
        name="secret/1", input="data/secret/1.in", answer="data/secret/1.ans"
    )
    assert "data/secret/2.in has no answer" in refused("", "secret/1", files={"secret/2.in": "x"})
    assert "2.ans is the answer to nothing" in refused("", "secret/1", files={"secret/2.ans": "x"})


def test_files_of_a_case_are_found_beside_the_program():
    found = read("", "secret/1", files={"secret/1.files/a.txt": "x", "secret/1.files/b/c": "y"})

    assert case(found, "secret/1").files == {
        "a.txt": "data/secret/1.files/a.txt",
        "b/c": "data/secret/1.files/b/c",
    }
    assert [one.name for one in group(found, "secret").members] == ["secret/1"]


def test_other_kinds_of_data_are_no_cases():
    found = read(MODERN, "secret/1", files={"invalid_input/1.in": "x", "valid_output/1.out": "x"})

    assert names(found) == ["secret/1"]


@pytest.mark.parametrize("problem", ["", MODERN])
def test_there_has_to_be_a_secret_case(problem):
    assert "there is no data/secret" in refused(problem, "sample/1")
    assert "no test case in data/secret" in refused(problem, "sample/1", files={"secret/x.png": "x"})


def test_legacy_rules_are_those_of_the_nearest_group_that_has_some():
    found = read(
        "",
        *("secret/a/1", "secret/b/c/1"),
        files={
            "testdata.yaml": "on_reject: continue\ngrader_flags: first_error ignore_sample",
            "secret/b/testdata.yaml": "accept_score: 25\nrange: 0 25\ngrader_flags: min sum max",
        },
    )

    above = LegacyRules(breaks=False, verdict="first_error", ignore_sample=True)
    own = LegacyRules(accept_score=25, range=(0, 25), score="max")
    assert found.rules == above
    assert group(found, "secret/a").rules == LegacyRules(breaks=False, verdict="first_error")
    assert [group(found, one).rules for one in ("secret/b", "secret/b/c")] == [own, own]


def test_legacy_flags_of_the_validator_are_a_text_or_have_its_name():
    files = {
        "testdata.yaml": "output_validator_flags: float_tolerance 1e-6",
        "secret/b/testdata.yaml": "output_validator_flags: {name: check, flags: a b}",
    }
    found = read("", "secret/a/1", "secret/b/1", files=files)

    assert [one.validator_args for one in found.cases] == [("float_tolerance", "1e-6"), ("a", "b")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("grading: custom", "asks for a grader of its own, which is not supported"),
        ("grader_flags: median", "'median' is no flag"),
        ("on_reject: stop", "on_reject"),
        ("on_regect: break", "on_regect"),
        ("range: 0", "is not two numbers"),
        ("range: 1 0", "does not go up"),
        ("range: nan nan", "does not go up"),
        ("accept_score: x", "accept_score"),
    ],
)
def test_legacy_rules_that_cannot_be_meant_are_refused(text, told):
    assert told in refused("", "secret/1", files={"testdata.yaml": text})


def test_ignore_sample_is_for_the_whole():
    told = refused("", "secret/1", files={"secret/testdata.yaml": "grader_flags: ignore_sample"})

    assert "ignore_sample is for data/testdata.yaml alone" in told


def test_groups_since_2023_07_are_what_lies_in_secret():
    found = read(MODERN, "sample/1", "secret/b/1", "secret/a/deep/er/1", "secret/a/2")

    assert [one.name for one in group(found, "secret").members] == ["secret/a", "secret/b"]
    assert names(group(found, "secret/a")) == ["secret/a/2", "secret/a/deep/er/1"]
    assert "may have test cases only or nothing but groups" in refused(MODERN, "secret/1", "secret/a/1")
    assert "may have test cases only" in refused(MODERN, "sample/a/1", "secret/1")
    within = {"secret/a/b/test_group.yaml": "max_score: 1"}
    assert "a group within a group" in refused(MODERN, "secret/a/b/1", "secret/a/1", files=within)


def test_what_secret_says_of_arguments_is_for_its_groups_and_cases():
    files = {
        "secret/test_group.yaml": "args: [a, '1']\noutput_validator_args: [float_tolerance, '1e-6']",
        "secret/g/test_group.yaml": "output_validator_args: []",
        "secret/g/2.yaml": "args: ['']\nhint: none",
    }
    found = read(MODERN, "secret/g/1", "secret/g/2", "secret/h/1", files=files)

    told = {one.name: (one.args, one.validator_args) for one in found.cases}
    assert told == {
        "secret/g/1": (("a", "1"), ()),
        "secret/g/2": (("",), ()),
        "secret/h/1": (("a", "1"), ("float_tolerance", "1e-6")),
    }


def test_rules_of_scoring_groups():
    files = {
        "secret/test_group.yaml": "max_score: 60",
        "secret/a/test_group.yaml": "max_score: 20\nrequire_pass: sample",
        "secret/b/test_group.yaml": "max_score: 40\nscore_aggregation: min\nrequire_pass: [sample, secret/a]",
    }
    found = read(SCORING, "sample/1", "secret/a/1", "secret/b/1", files=files)

    assert group(found, "secret").rules == GroupRules(aggregation="sum", max_score=60)
    assert group(found, "secret/a").rules == GroupRules(
        aggregation="pass-fail", max_score=20, require_pass=("sample",)
    )
    assert group(found, "secret/b").rules.require_pass == ("sample", "secret/a")


@pytest.mark.parametrize("score", ["-1", "1.5", "1000001", "all"])
def test_scores_that_cannot_be_are_refused(score):
    files = {"secret/test_group.yaml": f"max_score: {score}"}

    assert "secret/test_group.yaml cannot be used" in refused(SCORING, "secret/1", files=files)


def test_the_legacy_file_in_a_later_format_is_refused():
    assert "is of the legacy format" in refused(MODERN, "secret/1", files={"secret/testdata.yaml": ""})


def test_static_validators_are_not_supported():
    files = {"secret/test_group.yaml": "static_validation_score: 10"}

    assert "Static validators are not supported" in refused(SCORING, "secret/1", files=files)


def test_cases_and_directories_are_bounded(monkeypatch):
    monkeypatch.setattr(testdata, "CASES_MAX", 2)
    assert "3 test cases; the maximum is 2" in refused("", "secret/1", "secret/2", "secret/3")
    monkeypatch.setattr(testdata, "GROUPS_MAX", 2)
    assert "3 directories; the maximum is 2" in refused("", "secret/a/1", "secret/b/1")


def test_a_name_is_of_a_file_or_of_a_directory():
    assert "is a file as well" in refused("", "secret/1", files={"secret/a": "x", "secret/a/b.in": "x"})
    assert "is a directory as well" in refused("", "secret/1", files={"secret/a/b.in": "x", "secret/a": "x"})
