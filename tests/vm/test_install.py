"""The wheel as it was built, on a system without a compiler."""

import shutil
import subprocess

import httpx
import pytest

URL = "http://127.0.0.1:8099"
COMPILERS = ("as", "c++", "cc", "clang", "g++", "gcc", "ld", "make", "meson", "ninja")


@pytest.fixture
def started(installed):
    subprocess.run(["systemctl", "start", "jail.service"], check=True, timeout=120)
    yield
    subprocess.run(["systemctl", "stop", "jail.service", "jail.socket"], check=True, timeout=120)


def test_pip_alone_installs_it(installed):
    assert [name for name in COMPILERS if shutil.which(name)] == []
    told = subprocess.run(["/opt/jail/bin/jail", "--version"], check=True, capture_output=True, text=True)
    assert told.stdout.startswith("jail")


def test_the_service_answers_a_job(started):
    job = {"argv": ["python3", "-c", "print(input()[::-1])"], "stdin": "olleh"}
    answer = httpx.post(f"{URL}/v1/run", json=job, timeout=60).json()
    assert (answer["status"], answer["stdout"]["text"]) == ("ok", "hello\n")
    assert answer["sandbox"]["degraded"] == []
