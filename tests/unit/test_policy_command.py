"""`jail policy`: what it prints, and its exit status."""

import json
import platform
from pathlib import Path

import pytest
from click.testing import CliRunner

from jail import policy as policies
from jail.cli import main
from jail.policy import listing

POLICIES = Path(__file__).parents[2] / "policies"
X32 = pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has an x32 entry")
SMALL = """
name = "small"
description = "Nearly nothing."
allow = ["execve", "exit_group", "sendmsg", "write"]
[[when]]
call = "socket"
arg0 = { AF_UNIX = 1 }
arg1 = { mask = 0xf, SOCK_STREAM = 1 }
[answer]
ENOSYS = ["clone3"]
"""
LARGE = (
    SMALL.replace("small", "large").replace('"write"', '"write", "read"').replace("= 1 }", "= 1, X = 2 }", 1)
)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "large.toml").write_text(LARGE)
    return tmp_path


@pytest.fixture
def run(directory):
    """Run `jail policy` with these arguments: its exit status and what it printed."""

    def run(*arguments, **environment):
        options = [] if environment else ["--directory", str(directory)]
        command, *rest = arguments
        done = CliRunner().invoke(main, ["policy", command, *options, *rest], env=environment)
        return done.exit_code, done.output

    return run


def run_json(run, *arguments):
    status, output = run(*arguments, "--json")
    return status, json.loads(output)


# --- ls


def test_ls_counts_what_each_policy_leaves_open(run):
    status, (large, small) = run_json(run, "ls")
    known = policies.surface(policies.load("default", POLICIES))[1]

    assert status == 0
    assert (small["name"], small["calls"], small["calls_checked"]) == ("small", 5, 1)
    assert small["calls_known"] == large["calls_known"] == known
    assert (large["name"], large["calls"], large["description"]) == ("large", 6, "Nearly nothing.")
    assert 0 < small["instructions"] < large["instructions"]


def test_ls_prints_a_row_for_each_policy(run):
    status, output = run("ls")
    rows = [line.split() for line in output.splitlines()]

    assert status == 0
    assert rows[0][:4] == ["policy", "calls", "of", "checked"]
    assert [row[:2] for row in rows[1:]] == [["large", "6"], ["small", "5"]]


def test_the_directory_is_that_of_the_settings(run, directory):
    assert "small" in run("ls", JAIL_POLICIES=str(directory))[1]


def test_without_a_setting_the_policies_are_the_shipped_ones(run):
    status, output = run("ls", JAIL_POLICIES="")
    assert status == 0
    assert all(name in output for name in policies.names(POLICIES))


# --- show


def test_show_prints_the_listing(run, directory):
    assert run("show", "small") == (0, listing.plain(policies.load("small", directory)))


def test_show_as_json_has_every_entry(run):
    status, shown = run_json(run, "show", "small")

    assert status == 0
    calls = [entry["call"] for entry in shown["entries"]]
    assert calls == ["clone3", "execve", "exit_group", "sendmsg", "socket", "write"]
    assert shown["entries"][0]["errno"] == "ENOSYS"
    assert shown["entries"][4]["conditions"][1] == {
        "argument": 1, "mask": 15, "values": [1], "names": ["SOCK_STREAM"],
    }  # fmt: skip


# --- test


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["write"], 0, "allowed, decided by: allow"),
        (["write", "-1", "0xffffffffffffffff", "-0x1"], 0, "allowed"),
        (["socket", "AF_UNIX", "SOCK_STREAM|0x800"], 0, "allowed, decided by: small.toml: when[0] (socket)"),
        (
            ["socket", "2", "1"],
            1,
            "refused with EPERM, decided by: none holds of small.toml: when[0]",
        ),
        (["socket"], 1, "refused with EPERM"),
        (["clone3"], 1, "refused with ENOSYS, decided by: answer.ENOSYS"),
        (["ptrace"], 1, "refused with EPERM, decided by: the policy does not name it"),
        (["10000"], 1, "refused with ENOSYS"),
        pytest.param(["0x40000001"], 1, "killed", marks=X32),
        (["socket", "AF_INET"], 2, "names that the policy knows: AF_UNIX"),
        (["raed"], 2, "no system call is named 'raed'"),
        (["write", "1", "2", "3", "4", "5", "6", "7"], 2, "at most 6"),
        ([], 2, "CALL"),
    ],
)
def test_test_answers_as_the_filter_does(run, arguments, status, told):
    found, output = run("test", "small", *arguments)

    assert (found, told in output) == (status, True), output


def test_a_counted_call_is_allowed(run):
    arguments = ("test", "default", "fcntl", "0", "F_SETLK", "--directory", str(POLICIES))
    status, told = run(*arguments, JAIL_QUEUE="1")

    assert status == 0
    assert told == "allowed so many times, decided by: parts/locks.toml: count[0] (fcntl), counted\n"


def test_test_as_json_names_the_verdict_and_its_cause(run):
    assert run_json(run, "test", "small", "clone3", "-5") == (
        1,
        {
            "verdict": "errno", "errno": "ENOSYS", "call": "clone3", "number": 435, "args": [-5],
            "decided_by": "answer.ENOSYS",
        },
    )  # fmt: skip


# --- diff


def test_diff_of_a_policy_with_itself_is_nothing(run):
    assert run("diff", "small", "small") == (0, "")


def test_diff_marks_what_the_second_allows_and_what_it_does_not(run):
    more = "read    always\n", "socket  if arg0 is X=0x2 and arg1 & 0xf is SOCK_STREAM=0x1\n"

    assert run("diff", "small", "large") == (1, "".join(f"+ {line}" for line in more))
    assert run("diff", "large", "small") == (1, "".join(f"- {line}" for line in more))


def test_diff_as_json_has_both_directions(run):
    status, found = run_json(run, "diff", "small", "large")

    assert status == 1
    assert [entry["call"] for entry in found["added"]] == ["read", "socket"]
    assert (found["removed"], found["changed"]) == ([], [])


# --- what cannot be looked at


@pytest.mark.parametrize(
    "arguments",
    [["show", "none"], ["test", "none", "read"], ["diff", "none", "small"], ["diff", "small", "none"]],
)
@pytest.mark.parametrize("name", ["none", "../small", "small.toml", ""])
def test_an_unknown_policy_is_refused_with_the_known_ones(run, arguments, name):
    status, output = run(*(name if word == "none" else word for word in arguments))

    assert status == 2
    assert output == f"jail: no policy is named {name!r}; known: large, small\n"


@pytest.mark.parametrize("arguments", [["ls"], ["show", "small"], ["test", "small", "read"]])
def test_a_broken_policy_is_refused_by_file_and_place(run, directory, arguments):
    (directory / "small.toml").write_text(SMALL.replace("execve", "raed"))

    assert run(*arguments) == (2, "jail: small.toml: allow[0]: no system call is named 'raed'\n")


def test_a_directory_without_policies_is_refused(run, tmp_path):
    status, output = run("ls", JAIL_POLICIES=str(tmp_path / "absent"))
    assert (status, "absent holds no policy" in output) == (2, True)


def test_a_wrong_setting_is_refused(run):
    status, output = run("ls", JAIL_QUEU="1")
    assert (status, "JAIL_QUEU is not a setting" in output) == (2, True)
