"""How commands end that could not do their work."""

import errno

import pytest

from jail.cli import failures
from jail.doctor import Check, description
from jail.errors import HostError, SandboxError


def check(name, status):
    told = {} if status == "ok" else {"cause": f"cause of {name}.", "cure": f"cure of {name}."}
    return Check(name=name, status=status, required="", found="", **told)


def end(error):
    with pytest.raises(SystemExit) as ended, failures.explained():
        raise error
    return ended.value.code


def test_what_the_host_lacks_is_said_in_two_sentences(capsys):
    assert end(HostError("A cause.", "A cure.")) == 1
    assert capsys.readouterr().err == "jail: A cause.\n      A cure.\n"


def test_a_sandbox_that_the_host_does_not_give_is_explained_as_doctor_does(capsys, monkeypatch):
    seen = []

    def describe(_settings, trial):
        seen.append(trial.failure)
        return trial

    monkeypatch.setattr(failures, "describe_host", describe)
    monkeypatch.setattr(failures, "examine", lambda _host: [check("swap", "note"), check("proc", "missing")])
    error = HostError("A sandbox cannot be set up.", "Ask doctor.")
    error.__cause__ = SandboxError("proc", 1)
    assert end(error) == 1
    said = capsys.readouterr().err
    assert "proc: cause of proc.\n      cure of proc.\n" in said
    assert "swap" not in said
    assert (seen[0].stage, seen[0].error) == ("proc", 1)


def test_a_weakness_that_was_accepted_is_not_said_to_be_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(description, "weaknesses", lambda: {"landlock": HostError("No Landlock.", "A cure.")})
    error = HostError("A sandbox cannot be set up.", "Ask doctor.")
    error.__cause__ = SandboxError("root", errno.ENODEV)
    assert end(error) == 1
    said = capsys.readouterr().err
    assert "no overlay file system" in said
    assert "Landlock" not in said
