"""`jail run`: one job from the command line, and under a policy made by `jail policy import`."""

import base64
import json
import subprocess
import sys

import pytest

from jail import policy as policies


@pytest.fixture
def jail_run(environment):
    """Run `jail run` with these arguments; its finished process."""

    def run(*arguments, stdin=b"", **settings):
        return subprocess.run(
            [sys.executable, "-P", "-m", "jail", "run", *arguments],
            input=stdin, capture_output=True, env={**environment, **settings}, cwd="/", check=False,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--", "true"], 0),
        (["--", "sh", "-c", "exit 42"], 42),
        (["sh", "-c", "exit 3"], 3),
        (["--", "sh", "-c", "kill -15 $$"], 128 + 15),
        (["--wall-ms", "50", "--", "sleep", "9"], 128 + 9),
        (["--", "no-such-program"], 127),
        (["--cpu-ms", "0", "--", "true"], 2),
        (["--file", "nonsense", "--", "true"], 2),
        (["--file", "x=/no/such/file", "--", "true"], 2),
        (["--file", "../x=/etc/hostname", "--", "true"], 2),
        (["--policy", "none", "--", "true"], 2),
        ([], 2),
    ],
)
def test_its_exit_status_is_that_of_the_job(jail_run, arguments, status):
    done = jail_run(*arguments)
    assert done.returncode == status, done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_the_streams_of_the_job_are_its_own(jail_run):
    done = jail_run("--", "sh", "-c", r"printf 'out\377'; echo err >&2")
    assert done.stdout == b"out\xff"
    assert done.stderr.startswith(b"err\n")


def test_it_hands_on_its_stdin_when_asked(jail_run):
    assert jail_run("--stdin", "-", "--", "rev", stdin=b"olleh\n").stdout == b"hello\n"


def test_json_is_the_answer_of_http(jail_run, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho $NAME; tr a-z A-Z < data > out\n")
    script.chmod(0o755)
    data = tmp_path / "data"
    data.write_text("content")
    done = jail_run(
        "--json", "--file", f"bin/script={script}", "--file", f"data={data}", "--output", "out",
        "--output", "maybe?", "--env", "NAME=value", "--files", "100", "--", "bin/script",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert (result["status"], result["stdout"]["text"]) == ("ok", "value\n")
    assert base64.b64decode(result["outputs"]["out"]["base64"]) == b"CONTENT"
    assert result["output_errors"] == []


def test_every_limit_is_an_option(jail_run, client):
    for name, about in client.get("/v1/limits").json().items():
        option = f"--{name.replace('_', '-')}"
        done = jail_run(option, str(about["maximum"] * 2), "--", "true")
        assert done.returncode == 2, (option, done.stderr)
        assert f"limits.{name}".encode() in done.stderr


def test_a_job_runs_under_a_policy_that_was_imported(jail_run, environment, tmp_path):
    allowed = policies.load("default").allowed - {"mmap", "mkdir", "mkdirat"}
    mmap_without_huge_pages = {"index": 3, "value": 0x40000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": sorted(allowed - {"chmod", "fchmodat"}), "action": "SCMP_ACT_ALLOW"},
            {"names": ["mmap"], "action": "SCMP_ACT_ALLOW", "args": [mmap_without_huge_pages]},
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errno": "EXDEV"},
        ],
    }
    source, target = tmp_path / "profile.json", tmp_path / "mine.toml"
    source.write_text(json.dumps(profile))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jail", "policy", "import", source, "--output", target],
        capture_output=True, env=environment, cwd="/", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()

    script = "mkdir x; touch y; chmod 7 y"
    done = jail_run("--policy", "mine", "--", "sh", "-c", script, JAIL_POLICIES=str(tmp_path))

    assert b"Invalid cross-device link" in done.stderr
    assert b"changing permissions of 'y': Operation not permitted" in done.stderr


def test_a_run_that_is_explained_names_what_was_denied(jail_run):
    told = jail_run("--explain", "--", "python3", "-c", "import socket; socket.socket(40)")
    assert b"denied" in told.stderr
    assert b"socket(0x28, 0x80001, 0x0) 1 times" in told.stderr
