"""Programs that come with a problem, and what may become of them."""

import packages
import pytest

from jail.errors import PackageError
from jail.problems import metadata, programs, submissions
from jail.problems.comparison import compare
from jail.problems.submissions import Rule, Submission

MODERN = "problem_format_version: 2025-09\n"
EXTENSIONS = {".c": "c", ".cpp": "cpp", ".py": "python", ".java": "java"}


def read(problem: str, **content: str) -> dict[str, Submission]:
    named = {f"submissions/{path}": text for path, text in content.items()}
    package = packages.Package({"problem.yaml": problem, **named})
    return {one.name: one for one in submissions.read(package, metadata.read(package))}


def refused(*args, **content) -> str:
    with pytest.raises(PackageError) as caught:
        read(*args, **content)
    return caught.value.cause


@pytest.mark.parametrize(
    ("folder", "verdicts"),
    [
        ("accepted", ("AC",)),
        ("wrong_answer", ("WA",)),
        ("time_limit_exceeded", ("TLE",)),
        ("run_time_error", ("RTE",)),
        ("mixed", None),
    ],
)
def test_legacy_folders_allow_a_verdict(folder, verdicts):
    assert read("", **{f"{folder}/a.py": ""})[f"{folder}/a.py"].verdicts == verdicts


def test_accepted_submissions_bound_the_time():
    found = read("", **{"accepted/a.py": "", "wrong_answer/b.py": "", "partially_accepted/c.py": ""})

    assert [(one.bounds_time, one.partial) for one in found.values()] == [
        (True, False),
        (False, True),
        (False, False),
    ]


@pytest.mark.parametrize(
    ("comment", "verdicts"),
    [
        ("# @EXPECTED_RESULTS@: WRONG-ANSWER, TIMELIMIT\n", ("WA", "TLE")),
        ("// @EXPECTED_RESULTS@: correct,run_error\nx", ("AC", "RTE")),
        ("/* @EXPECTED_RESULTS@: COMPILER-ERROR */", ("CE",)),
    ],
)
def test_a_comment_says_more_than_a_folder(comment, verdicts):
    assert read("", **{"mixed/a.py": comment})["mixed/a.py"].verdicts == verdicts
    assert read("", **{"accepted/a.py": comment})["accepted/a.py"].verdicts == verdicts


def test_a_comment_that_names_no_result_is_told():
    told = refused("", **{"mixed/a.py": "# @EXPECTED_RESULTS@: WRONG"})

    assert "mixed/a.py: @EXPECTED_RESULTS@ names 'WRONG'" in told


def test_a_submission_is_a_file_or_a_directory():
    found = read("", **{"accepted/a.py": "", "accepted/b/main.c": "", "accepted/b/inc/b.h": ""})

    assert found["accepted/a.py"].program.files == {"a.py": "submissions/accepted/a.py"}
    assert found["accepted/b"].program.files == {
        "inc/b.h": "submissions/accepted/b/inc/b.h",
        "main.c": "submissions/accepted/b/main.c",
    }


def test_since_2023_07_folders_speak_of_cases():
    found = read(MODERN, **{"time_limit_exceeded/a.py": "", "rejected/b.py": "", "other/c.py": ""})

    assert found["time_limit_exceeded/a.py"].rules == (Rule(permitted=("AC", "TLE"), required=("TLE",)),)
    assert found["rejected/b.py"].rules == (Rule(required=("RTE", "TLE", "WA")),)
    assert found["other/c.py"].rules == ()
    assert not any(one.bounds_time for one in found.values())


def test_submissions_yaml_replaces_the_rules_of_folders_and_adds_those_of_patterns():
    found = read(
        MODERN,
        **{
            "time_limit_exceeded/a.py": "",
            "accepted/slow.py": "",
            "accepted/b/x.dat": "",
            "submissions.yaml": """
time_limit_exceeded: {permitted: [AC, WA, TLE]}
accepted/{slow,fast}.*: {use_for_time_limit: false, authors: me, score: [10, 20]}
accepted/*: {score: 100}
accepted/b: {language: c, entrypoint: x.dat}
"*/slow.py":
  secret/{a,b}*: {permitted: [AC]}
""",
        },
    )

    assert found["time_limit_exceeded/a.py"].rules == (
        Rule(permitted=("AC", "WA", "TLE"), required=("TLE",)),
    )
    assert found["accepted/slow.py"].rules == (
        Rule(permitted=("AC",), bounds_time=True),
        Rule(score=(10, 20)),
        Rule(score=(100, 100)),
        Rule(),
        Rule(cases=("secret/a*", "secret/b*"), permitted=("AC",), bounds_time=True),
    )
    assert (found["accepted/b"].program.language, found["accepted/b"].program.entry) == ("c", "x.dat")


def test_an_accepted_submission_can_be_kept_from_the_time_limit():
    said = {"accepted/a.py": "", "submissions.yaml": "accepted: {use_for_time_limit: false}"}

    assert not read(MODERN, **said)["accepted/a.py"].bounds_time


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("accepted/*: {permited: [AC]}", "accepted/*: permited"),
        ("accepted/*: {permitted: [OK]}", "Invalid enum value"),
        ("accepted/*: {score: [1, 2, 3]}", "score"),
        ("accepted/*: [AC]", "submissions.yaml"),
        ("'accepted/{a,b}{a,b}{a,b}{a,b}{a,b}': {message: x}", "stands for more than 16"),
        ("\n".join(f"accepted/*{'*' * n}: {{score: 1}}" for n in range(120)), "patterns; the maximum is 100"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(said, told):
    assert told in refused(MODERN, **{"accepted/a.py": "", "submissions.yaml": said})


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("accepted", True),
        ("accepted/*", True),
        ("*/a.py", True),
        ("accepted/a.*", True),
        ("accepted/a", False),
        ("a.py", False),
        ("*", True),
        ("*.py", False),
        ("accepted/a.py/b", False),
    ],
)
def test_patterns_are_of_names_and_of_what_is_above_them(pattern, matching):
    assert submissions.matches(pattern, "accepted/a.py") is matching


def test_submissions_are_bounded(monkeypatch):
    monkeypatch.setattr(submissions, "SUBMISSIONS_MAX", 1)
    assert "there are 2; the maximum is 1" in refused("", **{"accepted/a.py": "", "accepted/b.py": ""})
    monkeypatch.setattr(submissions, "BYTES_MAX", 2)
    assert "they have 3 bytes together" in refused("", **{"accepted/a.py": "abc"})


def source(**options) -> programs.Source:
    files = {path: f"submissions/accepted/x/{path}" for path in options.pop("files")}
    return programs.source(programs.Program(name="x", files=files, **options), EXTENSIONS)


def test_the_language_is_that_of_the_extensions():
    assert source(files=["x.cpp"]) == programs.Source(language="cpp", main="x.cpp", others=())
    found = source(files=["b.c", "a.c", "main.c", "x.h"])
    assert found == programs.Source(language="c", main="main.c", others=("b.c", "a.c"))


def test_the_entry_is_what_the_package_says_or_what_is_called_main():
    assert source(files=["Other.java", "Main.java"]).main == "Main.java"
    assert source(files=["__init__.py", "__main__.py", "main.py"]).main == "__main__.py"
    assert source(files=["Other.java", "Main.java"], entry="Other").main == "Other.java"
    assert source(files=["a/main.py", "x.py"]).main == "x.py"
    assert source(files=["x.data"], language="python", entry="x.data").main == "x.data"
    with pytest.raises(PackageError, match="no file for its entry point 'nothing'"):
        source(files=["x.py"], entry="nothing")


@pytest.mark.parametrize(
    ("files", "told"), [(["a.c", "b.py"], "several languages: c, python"), (["a.txt"], "no known language")]
)
def test_a_program_is_in_one_language(files, told):
    with pytest.raises(PackageError, match=told):
        source(files=files)


def test_constants_are_put_in_where_they_are_asked_for():
    package = packages.Package({"x.py": "print({{n}}, '{{other}}')"})

    assert programs.content(package, "x.py", {"n": "7"}) == b"print(7, '{{other}}')"
    assert programs.content(package, "x.py", {}) == b"print({{n}}, '{{other}}')"


@pytest.mark.parametrize(
    ("flags", "mode", "case", "absolute", "relative"),
    [
        ("", "tokens", False, 0, 0),
        ("case_sensitive", "tokens", True, 0, 0),
        ("space_change_sensitive", "exact", False, 0, 0),
        ("space_change_sensitive case_sensitive", "exact", True, 0, 0),
        ("float_tolerance 1e-6", "numbers", False, 1e-6, 1e-6),
        ("float_absolute_tolerance 1e-3", "numbers", False, 1e-3, 0),
        ("float_relative_tolerance 1e-3 float_absolute_tolerance 0.5", "numbers", False, 0.5, 1e-3),
        ("float_tolerance 0 case_sensitive", "numbers", True, 0, 0),
    ],
)
def test_flags_of_the_default_validator(flags, mode, case, absolute, relative):
    found = compare(flags.split())

    assert (found.mode, found.case, found.absolute, found.relative) == (mode, case, absolute, relative)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("ignore_case", "'ignore_case' is no flag"),
        ("float_tolerance", "followed by ''"),
        ("float_tolerance x", "followed by 'x'"),
        ("float_tolerance nan", "followed by 'nan'"),
        ("float_tolerance -1", "followed by '-1'"),
        ("float_tolerance inf", "followed by 'inf'"),
        ("float_tolerance 1 space_change_sensitive", "not supported"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(flags, told):
    with pytest.raises(PackageError, match=told):
        compare(flags.split())
