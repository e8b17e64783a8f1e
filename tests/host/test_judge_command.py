"""`jail judge`: what it prints, and how it ends."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import packages
import pages
import pytest

ECHO = {
    **packages.ECHO,
    ".timelimit": "5",
    "submissions/wrong_answer/seven.py": "print(7 if input() == '1' else 1)",
}


@pytest.fixture
def judge(environment: dict[str, str], state: Path, tmp_path: Path):
    """Run the command; what comes back is what it wrote and its exit status."""

    def run(*arguments: Any, status: int = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jail", "judge", *map(str, arguments)],
            env={**environment, "JAIL_STATE": str(state)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=100,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done

    return run


def rows(done: subprocess.CompletedProcess) -> list[list[str]]:
    """Of the table, without times and memory."""
    lines = [line.split() for line in done.stdout.splitlines()]
    return [[*line[:3], *line[7:]] for line in lines if "/" in line[0] or line[0].endswith(".py")]


def test_all_included_submissions_are_judged(judge, tmp_path):
    done = judge(packages.write(tmp_path / "echo", ECHO))

    assert rows(done) == [
        ["accepted/echo.py", "AC", "AC"],
        ["wrong_answer/seven.py", "WA", "WA", "sample/1"],
    ]
    assert "The time limit is 5000 ms." in done.stdout
    assert done.stderr == ""


def test_a_verdict_that_a_folder_does_not_allow_is_told_and_is_the_exit_status(judge, tmp_path):
    content = {**ECHO, "submissions/accepted/seven.py": "print(7)"}
    done = judge(packages.archive(tmp_path / "echo.zip", content, "echo/"), "accepted/seven.py", status=1)

    assert rows(done) == [["accepted/seven.py", "AC", "WA", "sample/1"]]
    assert done.stderr == "accepted/seven.py: It is WA, and has to be AC.\n"


def test_given_submissions_may_get_anything(judge, tmp_path):
    package = packages.write(tmp_path / "echo", ECHO)
    (tmp_path / "mine.py").write_text("print(8)")
    packages.write(tmp_path / "two", {"main.py": "import more", "more.py": "print(input())"})
    found = json.loads(judge(package, "mine.py", "two", "wrong_answer/seven.py", "--json").stdout)

    assert (found["problem"], found["time_limit_ms"]) == ("echo", 5000)
    told = [(one["submission"], one["expected"], one["verdict"]) for one in found["submissions"]]
    assert told == [("mine.py", "", "WA"), ("two", "", "AC"), ("wrong_answer/seven.py", "WA", "WA")]
    mine, two, _ = found["submissions"]
    assert (mine["failed"], [one["status"] for one in mine["tests"]]) == ("sample/1", ["wrong_answer"])
    assert [one["name"] for one in two["tests"]] == ["sample/1", "secret/1"]
    assert two["slowest_ms"] == max(one["cpu_ms"] for one in two["tests"]) > 0
    assert two["memory_peak_bytes"] == max(one["memory_peak_bytes"] for one in two["tests"]) > 0


def test_what_compilers_say_is_shown_without_what_terminals_obey(judge, tmp_path):
    package = packages.write(tmp_path / "echo", ECHO)
    (tmp_path / "mine.c").write_text('#error "\x1b[31m"\n')
    done = judge(package, "mine.c")

    assert rows(done) == []
    assert "mine.c" in done.stdout
    assert "CE" in done.stdout
    assert "#error" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("content", "given", "told"),
    [
        (
            {"problem.yaml": "validation: custom interactive"},
            [],
            "is interactive, which is not supported yet",
        ),
        ({"problem.yaml": "limits: {memroy: 1}"}, [], "memroy"),
        ({}, ["nothing.py"], "nothing.py is no submission of the package, and no file"),
        ({}, ["/dev/zero"], "/dev/zero is not one program"),
    ],
)
def test_what_cannot_be_judged_is_told_with_what_to_do(judge, tmp_path, content, given, told):
    done = judge(packages.write(tmp_path / "echo", {**ECHO, **content}), *given, status=1)

    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.startswith("jail: ")
    assert len(done.stderr.splitlines()) == 2


def test_the_examples_of_the_page_answer_as_it_says(environment, state, tmp_path):
    given = {**environment, "JAIL_STATE": str(state)}
    for line, pattern, answer in pages.typed("problems.md", 9, tmp_path, given):
        assert re.fullmatch(pattern, answer), (line, answer)
