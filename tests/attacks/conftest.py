"""What the attacks share: `attack` runs a hostile job through the real service, `probe` one call.

After every attack the common oracle looks: no process of the job is left; its cgroup, mounts, network
namespace and files are gone; a canary job is answered as fast as ever; a canary file of the host is
unchanged; descriptors, threads and memory of service and supervisor are back where they were.
"""

import os
import statistics
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from jail.policy import numbers

HERE = Path(__file__).parent
DEADLINE_SECONDS = 20
# What a busy machine may add to a canary's usual time.
CANARY_FACTOR, CANARY_SLACK_MS = 5, 100
MEMORY_SLACK_BYTES = 16 << 20


def compile_c(source: Path, target: Path, *options: str) -> bytes:
    """A static program, so that it runs in every image."""
    subprocess.run(["gcc", "-O1", "-static", "-pthread", *options, "-o", target, source], check=True)
    return target.read_bytes()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Compile a C program beside this file, once, and give it as a job's executable file."""
    directory, programs = tmp_path_factory.mktemp("programs"), {}

    def build(name: str, *options: str) -> dict[str, Any]:
        if (name, options) not in programs:
            content = compile_c(HERE / name, directory / f"{len(programs)}", *options)
            programs[name, options] = {"base64": b64encode(content).decode(), "executable": True}
        return programs[name, options]

    return build


class Target:
    """A service under attack. `client` posts to it; `secret`, of its environment, is no job's to know."""

    def __init__(self, service: Any, client: httpx.Client, processes: Any) -> None:
        self.service, self.client, self._processes = service, client, processes

    def attack(self, body: dict[str, Any]) -> dict[str, Any]:
        """Post a job and return its result; a refusal is a failure of the test."""
        answer = self.client.post("/v1/run", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def canary_ms(self) -> float:
        """How long a harmless job takes to be answered."""
        began = time.perf_counter()
        assert self.attack({"argv": ["echo", "canary"]})["stdout"]["text"] == "canary\n"
        return (time.perf_counter() - began) * 1000

    def footprint(self) -> dict[str, Any]:
        """What has to be the same again afterwards."""
        pids = (self.service.pid, self.service.supervisor)
        return {
            "pids": pids,
            "descriptors": (self._open_files(), len(self._processes.descriptors(pids[1]))),
            "threads": [self._processes.status(pid)["Threads"] for pid in pids],
            "mounts": [Path(f"/proc/{pid}/mountinfo").read_text().count("\n") for pid in pids],
            "sandboxes": len(self._processes.descendants(pids[1])),
        }

    def _open_files(self) -> str:
        """How many files the service has open, as it says: nobody can look into it."""
        lines = self.client.get("/metrics").text.splitlines()
        return next(line for line in lines if line.startswith("process_open_fds "))

    def memory_bytes(self) -> list[int]:
        """What service and supervisor hold."""
        pids = (self.service.pid, self.service.supervisor)
        return [self._processes.memory_bytes(pid) for pid in pids]


class Outcome(NamedTuple):
    """What a call answered: its result, and errno or 0."""

    result: int
    errno: int


@pytest.fixture(scope="session")
def secret() -> str:
    """In the service's environment, as keys and tokens are."""
    return "hunter2-of-the-service"


@pytest.fixture(scope="session")
def target(processes: Any, service_class: Any, secret: str) -> Iterator[Target]:
    """One service for all attacks, with a secret in its environment."""
    running = service_class({"JAIL_SLOTS": "2", "SECRET": secret})
    with closing(running), httpx.Client(base_url=running.url, timeout=120) as client:
        found = Target(running, client, processes)
        # Lazily made things, such as connections and interned strings, are made now.
        for _ in range(20):
            found.canary_ms()
        yield found


@pytest.fixture(scope="session")
def usual_ms(target: Target) -> float:
    """How long a canary takes when nothing is wrong."""
    return statistics.median(target.canary_ms() for _ in range(15))


@pytest.fixture
def attack(target: Target) -> Callable[..., dict[str, Any]]:
    """Run a hostile job: attack({"argv": …}), or attack(argv=[…], files={…}, limits={…})."""

    def run(body: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        return target.attack({**(body or {}), **fields})

    return run


@pytest.fixture
def probe(target: Target, built: Callable[..., dict[str, Any]]) -> Callable[..., list[Outcome]]:
    """Make calls from inside: probe(("socket", 40, 1, 0), ("unshare", 1 << 28)).

    A call is named, or a number; arguments as probe.c has them. Raises if the job did not end well.
    """

    def run(*calls: tuple[Any, ...], **fields: Any) -> list[Outcome]:
        words = [",".join(map(str, (_number(call[0]), *call[1:]))) for call in calls]
        body = {"argv": ["./probe", *words], "files": {"probe": built("probe.c")}, **fields}
        result = target.attack(body)
        assert result["status"] == "ok", result
        lines = result["stdout"]["text"].splitlines()
        return [Outcome(*map(int, line.split())) for line in lines]

    return run


def _number(call: str | int) -> int:
    return call if isinstance(call, int) else numbers.number(call)


@pytest.fixture(scope="session")
def canary_file() -> Iterator[Path]:
    """A file of the host that a job would reach if it got out."""
    path = Path(f"/var/tmp/jail-canary-{os.getpid()}")
    path.write_text("untouched\n")
    yield path
    path.unlink()


def _eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
    return True


@pytest.fixture(autouse=True)
def oracle(target: Target, usual_ms: float, canary_file: Path, cgroups_of: Any) -> Iterator[None]:
    """The common oracle, after every attack."""
    before, memory = target.footprint(), target.memory_bytes()
    yield
    assert _eventually(lambda: target.footprint()["sandboxes"] == 0), "a process of a job is left"
    assert _eventually(lambda: cgroups_of(target.service.pid) == []), "a cgroup is left"
    assert min(target.canary_ms() for _ in range(3)) < CANARY_FACTOR * usual_ms + CANARY_SLACK_MS
    assert canary_file.read_text() == "untouched\n"
    assert _eventually(lambda: target.footprint() == before), (before, target.footprint())
    after = target.memory_bytes()
    assert all(new - old < MEMORY_SLACK_BYTES for old, new in zip(memory, after, strict=True))
    assert not [line for line in target.service.log if "Traceback" in line or '"defect"' in line]


@pytest.fixture(scope="session")
def cgroups_of(processes: Any) -> Callable[[int], list[Path]]:
    """The cgroups of a service's sandboxes, named after the directory that its supervisor works in."""

    def find(pid: int) -> list[Path]:
        supervisors = [pid for keeper in processes.children(pid) for pid in processes.children(keeper)]
        names = {Path(os.readlink(f"/proc/{pid}/cwd")).name for pid in supervisors}
        places = (Path(place) for place, _, _ in os.walk("/sys/fs/cgroup"))
        return [place for place in places if place.parent.name in names and len(place.name) < 5]

    return find
