"""Tests of real sandboxes, through the engine. After each, nothing may be left."""

import asyncio
import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def settled(jail: Any) -> Any:
    """The engine once it has run a job and its loop a server, so that what is made on first use is there."""

    async def listen() -> None:
        # libuv keeps a spare descriptor from its first stream on.
        (await asyncio.start_server(print, "127.0.0.1", 0)).close()

    for network in ("none", {"mode": "isolated"}):
        assert jail.run({"argv": ["true"], "network": network})["status"] == "ok"
    jail.do(listen())
    return jail


@pytest.fixture
def command(environment: dict[str, str], state: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `jail image` with a store of its own; what comes back is what it wrote and its exit status."""

    def run(*arguments: Any, stdin: str = "", status: int = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jail", "image", *map(str, arguments)],
            env={**environment, "JAIL_STATE": str(state)},
            input=stdin,
            capture_output=True,
            text=True,
            cwd="/",
            timeout=100,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done

    return run


ATTEMPT = """
import errno, os, socket, subprocess, threading
try:
    exec({trial!r})
    print("done")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.fixture
def attempt(jail: Any) -> Callable[[str, str], str]:
    """What lines of Python end with under a policy: "done", or the name of an errno."""

    def run(trial: str, policy: str) -> str:
        result = jail.python(ATTEMPT.format(trial=trial), policy=policy)
        assert result["status"] == "ok", result
        return result["stdout"]["text"].strip()

    return run


@pytest.fixture(autouse=True)
def leaves_nothing(settled: Any, processes: Any, ready: int) -> Iterator[None]:
    """The common oracle: no process, no cgroup, no descriptor, no file, and a canary job works."""
    settled.settle()
    own, state, cgroups = processes.descriptors("self"), _files(settled), len(settled.cgroups)
    yield
    assert not settled.engine.runs
    assert settled.run({"argv": ["echo", "canary"]})["stdout"]["text"] == "canary\n"
    settled.settle()
    assert settled.ready == ready
    assert len(processes.descendants(settled.supervisor)) == 2 * ready
    assert len(settled.cgroups) == cgroups
    assert _kinds(processes.descriptors("self")) == _kinds(own)
    assert _files(settled) == state


def _kinds(descriptors: list[str]) -> list[str]:
    """Without the numbers of pipes and sockets, which a new supervisor changes, and of sandboxes."""
    return sorted(re.sub(r":\[\d+\]$|(?<=/)\d+(?=/memory\.peak$)", "", name) for name in descriptors)


def _files(jail: Any) -> list[Path]:
    return sorted(jail.instance.rglob("*"))


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Compile a C program of programs/ on the host; what comes back goes into a job's `files`."""
    compiler = shutil.which("gcc", path="/usr/bin:/bin")
    directory = tmp_path_factory.mktemp("programs")

    def compiled(name: str, *options: str) -> dict[str, Any]:
        if compiler is None:
            pytest.skip("the host has no gcc")
        target = directory / f"{name}{len(list(directory.iterdir()))}"
        subprocess.run(
            [compiler, "-O1", "-pthread", "-o", target, PROGRAMS / f"{name}.c", *options], check=True
        )
        return {"base64": base64.b64encode(target.read_bytes()).decode(), "executable": True}

    return compiled
