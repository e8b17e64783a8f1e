"""The words of other judges: every status has one in each, and the page says the same."""

import typing
from pathlib import Path

import pytest

from jail.judging import comparison, verdict
from jail.judging.shapes import Judged
from jail.judging.vocabulary import JUDGE0, JUDGE0_SIGNALS, NAMES, QDUOJ, WORDS, words

STATUSES = typing.get_args(Judged)
PAGE = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text()
# What those judges have words for at all.
KNOWN = {
    "clics": [
        *("AC", "RE", "WA", "TLE", "RTE", "CE", "APE", "OLE", "PE", "EO", "IO", "NO", "WTL", "ILE"),
        *("MLE", "SV", "IF", "CTL", "JE", "SE", "CS"),
    ],
    "domjudge": [
        *("correct", "compiler-error", "timelimit", "run-error", "no-output", "wrong-answer"),
        *("memory-limit", "output-limit", "compare-error", "internal-error"),
    ],
    "kattis": [
        *("Accepted", "Compile Error", "Run Time Error", "Time Limit Exceeded", "Wrong Answer"),
        *("Memory Limit Exceeded", "Output Limit Exceeded", "Judge Error"),
    ],
    "judge0": [{"id": number, "description": text} for number, text in JUDGE0.items()],
    "codeforces": [
        *("FAILED", "OK", "PARTIAL", "COMPILATION_ERROR", "RUNTIME_ERROR", "WRONG_ANSWER"),
        *("PRESENTATION_ERROR", "TIME_LIMIT_EXCEEDED", "MEMORY_LIMIT_EXCEEDED", "IDLENESS_LIMIT_EXCEEDED"),
        *("SECURITY_VIOLATED", "CRASHED", "INPUT_PREPARATION_CRASHED", "CHALLENGED", "SKIPPED", "TESTING"),
        "REJECTED",
    ],
    "qduoj": [{"result": number, "name": text} for number, text in QDUOJ.items()],
    "go_judge": [
        *("Accepted", "Memory Limit Exceeded", "Time Limit Exceeded", "Output Limit Exceeded"),
        *("File Error", "Nonzero Exit Status", "Signalled", "Internal Error"),
    ],
}


def test_every_status_has_a_row():
    assert set(WORDS) == set(STATUSES)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_a_word_in_every_vocabulary_that_it_knows(status):
    found = words(status)
    assert tuple(found) == NAMES
    assert [name for name, word in found.items() if word not in KNOWN[name]] == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_ok_is_called_what_ok_is(name):
    others = [status for status in STATUSES if status != "ok" and words(status)[name] == words("ok")[name]]
    # Which does not compare.
    assert others == (["wrong_answer", "presentation_error"] if name == "go_judge" else [])


@pytest.mark.parametrize(("signal", "number"), [*JUDGE0_SIGNALS.items(), (9, 12), (None, 12)])
def test_judge0_tells_signals_apart(signal, number):
    assert words("signaled", signal)["judge0"]["id"] == number
    assert words("cpu_limit", signal)["judge0"]["id"] == 5


def test_both_limits_of_time_are_told_apart_where_the_other_judge_does():
    apart = {name for name in NAMES if words("cpu_limit")[name] != words("wall_limit")[name]}
    assert apart == {"clics", "codeforces", "qduoj"}


def cell(word):
    return " ".join(f"{part}" for part in word.values()) if isinstance(word, dict) else word


@pytest.mark.parametrize("status", STATUSES)
def test_the_page_has_the_row(status):
    row = " | ".join([f"`{status}`", *(cell(word) for word in words(status).values())])
    assert f"| {row} |" in PAGE


def plain(text):
    return " ".join(text.replace("`", "").replace('"', "").split())


def test_the_page_says_what_the_code_says():
    said = [text for module in (verdict, comparison) for text in module.__doc__.split("\n\n")]
    kept = [text for text in said if text.startswith(("1. ", "A number is", "Which tests count"))]
    assert len(kept) == 4
    assert [text for text in kept if plain(text) not in plain(PAGE)] == []
