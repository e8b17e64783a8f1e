"""docs/files.md: what it shows is so."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from jail.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
(SENDING, PUBLISHING), (BODY, SHOWN) = (
    re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("sh", "json")
)


@pytest.fixture
def sent(serve, state, tmp_path):
    """The page's service, and what its first commands print there."""
    service = serve(JAIL_STATE=str(state))
    lines = [line.removeprefix("$ ") for line in SENDING.splitlines() if line.startswith("$ ")]
    script = "\n".join(lines).replace("http://127.0.0.1:8099", service.url)
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client, done.stdout


def test_what_is_sent_is_answered_as_shown(sent):
    assert sent[1] == SENDING.splitlines()[-1]


def test_the_job_has_the_answer_that_is_shown(sent):
    told, shown = sent[0].post("/v1/run", content=BODY, headers={"Content-Type": "application/json"}), SHOWN
    assert {name: told.json()[name] for name in json.loads(shown)} == json.loads(shown)


def test_the_commands_publish_list_and_remove(sent, state, tmp_path, environment):
    client, _ = sent
    (digest,) = set(re.findall("sha256:[0-9a-f]{64}", PUBLISHING))
    listed = {}
    for line in PUBLISHING.splitlines():
        arguments = shlex.split(line.partition("#")[0])
        assert arguments.pop(0) == "jail"
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jail", *arguments],
            env={**environment, "JAIL_STATE": str(state), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=True,
        )
        listed[arguments[1]] = done.stdout, client.get("/v1/files").json()["files"]
    assert listed["put"] == (f"{digest} words.txt\n", [{"file": digest, "bytes": 9, "published": True}])
    assert digest in listed["ls"][0]
    assert "published" in listed["ls"][0]
    assert listed["rm"] == ("", [])


def test_what_is_published_only_the_operator_removes(sent, state, environment):
    client, _ = sent
    run = [sys.executable, "-P", "-m", "jail", "file"]
    settings = {"env": {**environment, "JAIL_STATE": str(state)}, "cwd": "/", "check": False}
    name = client.get("/v1/files").json()["files"][0]["file"]
    assert subprocess.run([*run, "publish", name], **settings).returncode == 0
    assert client.delete(f"/v1/files/{name}").status_code == 403
    got = subprocess.run([*run, "get", name, "-"], capture_output=True, **settings)
    assert got.stdout == client.get(f"/v1/files/{name}").content == b"pear\nfig\n"
    assert subprocess.run([*run, "rm", name], **settings).returncode == 0
    again = subprocess.run([*run, "rm", name], capture_output=True, text=True, **settings)
    assert (again.returncode, again.stderr.splitlines()[0]) == (1, f"jail: There is no file {name}.")


def test_the_defaults_are_those_of_the_settings():
    shown = dict(re.findall(r"^\| `(file\w+)` \|.*\| (.*?) \|$", PAGE, re.MULTILINE))
    defaults = {
        "files_bytes": f"{Settings().files_bytes >> 30} GiB",
        "file_bytes": f"{Settings().file_bytes >> 30} GiB",
        "files_age_s": f"{Settings().files_age_s // 86_400} days",
    }
    assert {name: shown[name] for name in defaults} == defaults
    assert os.path.basename(shown["files"]) == "files"
