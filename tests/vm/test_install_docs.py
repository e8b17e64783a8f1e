"""docs/install.md, its Debian path and what it tells to look at, done as it is written on a stock system.

No curl is there, and the wheel was built elsewhere: what the page gives curl is sent by httpx.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
TEXT = (CHECKOUT / "docs/install.md").read_text()
# What is emulated can take its time.
SECONDS = 300


def block(beginning):
    """The commands that begin so."""
    return next(found for found in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) if beginning in found)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Run commands as root, where `deploy` and the wheel are."""
    place = tmp_path_factory.mktemp("install")
    (place / "dist").symlink_to("/job/wheels")
    (place / "deploy").symlink_to(CHECKOUT / "deploy")
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels"}

    def run(text):
        done = subprocess.run(
            ["bash", "-euc", text],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout

    return run


@pytest.fixture(scope="module", autouse=True)
def installed(shell):
    shell(block("deploy/systemd/install"))
    yield
    shell("systemctl disable --now jail.service jail.socket")


def run_job(body):
    url = re.search(r"curl -s (\S+)", TEXT)[1]
    return httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=SECONDS).json()


def test_the_first_job_is_answered():
    assert run_job(re.search(r" -d '(.*?)'\n", TEXT)[1])["stdout"]["text"] == "hello\n"


def test_doctor_is_asked_as_it_says(shell):
    assert "jail can run here." in shell(block("jail doctor"))


@pytest.mark.parametrize(
    "command", sorted({look for row in re.findall(r"^\|(?:[^|]*\|){3} (`[^|]+`) \|", TEXT, re.MULTILINE)
                       for look in re.findall(r"`([^`]+)`", row)})
)  # fmt: skip
def test_what_is_to_be_looked_at_can_be(shell, command):
    shell(command)


def test_a_partition_is_made_as_it_says_and_holds_jobs(shell):
    commands = block("cpuset.cpus.partition").replace("2-7", "1")
    try:
        assert shell(commands).split() == ["root"]
        script = "import os; print(sorted(os.sched_getaffinity(0)))"
        answer = run_job(json.dumps({"argv": ["python3", "-ISc", script]}))
        assert answer["stdout"]["text"] == "[1]\n"
    finally:
        shell("rm -r /etc/systemd/system/jail.service.d; systemctl daemon-reload")
        shell("systemctl restart jail.service")
