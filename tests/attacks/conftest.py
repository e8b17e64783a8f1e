"""What the attacks share: `attack` runs a hostile job through the real service, `probe` one call.

After every attack the common oracle looks: no process of the job is left; its cgroup, mounts, network
namespace and files are gone; a canary job is answered as fast as ever; a canary file of the host is
unchanged; descriptors, threads and memory of service and supervisor are back where they were.
"""

import functools
import json
import os
import re
import statistics
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from jail.policy import numbers

HERE = Path(__file__).parent
DEADLINE_SECONDS = 60
# What a busy machine may add to a canary's usual time.
CANARY_FACTOR, CANARY_SLACK_MS = 5, 100
# Python keeps what its objects once took: some 10 MiB for a body of 100,000 files, the same again each time.
MEMORY_SLACK_BYTES = 32 << 20


_ROWS = re.compile(r"Attacks? ([0-9][0-9, andto]*)")


def rows(docstring: str) -> set[int]:
    """The rows that a test is about: "Attack 7.", "Attacks 3, 5 and 8.", "Attacks 15 to 17."."""
    found = _ROWS.match(docstring)
    words = re.findall(r"\d+|to", found[1]) if found else []
    numbers: set[int] = set()
    for before, word in zip(["", *words], words, strict=False):
        if word != "to":
            first = max(numbers) + 1 if before == "to" else int(word)
            numbers.update(range(first, int(word) + 1))
    return numbers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note which rows each test is about. The siege comes last: it uses what the others sent."""
    items.sort(key=lambda item: item.path.name == "test_siege.py")
    for item in items:
        if item.path.parent == HERE:
            item.user_properties.append(("rows", rows(item.obj.__doc__ or "")))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell how many attacks were tried, which were not and why, and what the oracle found left over."""
    about = {
        outcome: [
            report
            for report in terminalreporter.stats.get(outcome, [])
            if hasattr(report, "user_properties")
            and any(name == "rows" for name, _ in report.user_properties)
        ]
        for outcome in ("passed", "failed", "error", "skipped")
    }
    tried = set().union(*(_rows_of(report) for name in ("passed", "failed") for report in about[name]))
    skipped = {
        row: report.longrepr[2].removeprefix("Skipped: ")
        for report in about["skipped"]
        for row in _rows_of(report) - tried
    }
    left = [report.nodeid for report in about["error"] if report.when == "teardown"]
    if not tried and not skipped:
        return
    terminalreporter.section("attacks")
    terminalreporter.line(f"{len(tried)} tried, {len(skipped)} skipped, {len(left)} with leftovers")
    for told in (dict(report.user_properties).get("siege") for report in about["passed"] + about["failed"]):
        if told:
            terminalreporter.line(f"siege: {told}")
    for row, reason in sorted(skipped.items()):
        terminalreporter.line(f"  {row}: {reason}")
    for nodeid in left:
        terminalreporter.line(f"  left something: {nodeid}")


def _rows_of(report: Any) -> set[int]:
    return next(found for name, found in report.user_properties if name == "rows")


def compile_c(source: Path, target: Path, *options: str) -> bytes:
    """A program for the image `host`, which has this host's libraries."""
    subprocess.run(["gcc", "-O1", "-s", "-pthread", *options, "-o", target, source], check=True)
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

    def __init__(
        self,
        service: Any,
        client: httpx.Client,
        processes: Any,
        cgroups_of: Callable[..., list[Path]],
    ) -> None:
        self.service, self.client = service, client
        self._processes, self._cgroups_of = processes, cgroups_of
        self.bodies: list[dict[str, Any]] = []

    def attack(self, body: dict[str, Any]) -> dict[str, Any]:
        """Post a job and return its result; a refusal is a failure of the test. It is kept for the siege."""
        self.bodies.append(body)
        return self.run(body)

    def run(self, body: dict[str, Any]) -> dict[str, Any]:
        """Post a job and return its result."""
        answer = self.client.post("/v1/run", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def canary_ms(self) -> float:
        """How long a harmless job takes to be answered."""
        began = time.perf_counter()
        assert self.run({"argv": ["echo", "canary"]})["stdout"]["text"] == "canary\n"
        return (time.perf_counter() - began) * 1000

    def footprint(self) -> dict[str, Any]:
        """What has to be the same again afterwards."""
        pids = (self.service.pid, self.service.supervisor)
        return {
            "pids": pids,
            "descriptors": (self._open_files(), len(self._processes.descriptors(pids[1]))),
            "threads": [self._processes.status(pid)["Threads"] for pid in pids],
            # Without those that are the host's, and come and go with others' work on it.
            "mounts": [len(_mounts(pid) - _mounts("self")) for pid in pids],
            "sandboxes": len(self._processes.descendants(pids[1])),
            "cgroups": len(self._cgroups_of(pids[0])),
            "links": self._links(),
        }

    def _links(self) -> list[str]:
        """Those in the hub's network that are of sandboxes; its spare bridges come and go."""
        lines = Path(f"/proc/{self.service.hub}/net/dev").read_text().splitlines()[2:]
        names = (line.split(":")[0].strip() for line in lines)
        return [name for name in names if name.startswith("p")]

    def _open_files(self) -> str:
        """How many files the service has open, as it says: nobody can look into it."""
        lines = self.client.get("/metrics").text.splitlines()
        return next(line for line in lines if line.startswith("process_open_fds "))

    def rests(self) -> bool:
        """Whether nothing is under way: the last sandbox may not be gone yet, or the next not be ready.

        Service and supervisor have one thread each, which is runnable for as long as there is work. The
        request, which starts no job, is for the client's connection: it is closed when it is idle for long.
        """
        assert self.client.get("/healthz").status_code == 200
        pids = (self.service.pid, self.service.supervisor)
        return self.service.is_settled and all(
            self._processes.status(pid)["State"].startswith("S") for pid in pids
        )

    def memory_bytes(self) -> list[int]:
        """What service and supervisor hold."""
        pids = (self.service.pid, self.service.supervisor)
        return [self._processes.memory_bytes(pid) for pid in pids]


def _mounts(pid: int | str) -> set[str]:
    return set(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())


class Outcome(NamedTuple):
    """What a call answered: its result, and errno or 0."""

    result: int
    errno: int


@pytest.fixture(scope="session")
def secret() -> str:
    """In the service's environment, as keys and tokens are."""
    return "hunter2-of-the-service"


@pytest.fixture(scope="session")
def target(processes: Any, service_class: Any, cgroups_of: Any, secret: str) -> Iterator[Target]:
    """One service for all attacks, with a secret in its environment."""
    running = service_class({"JAIL_SLOTS": "2", "SECRET": secret})
    with closing(running), httpx.Client(base_url=running.url, timeout=600) as client:
        found = Target(running, client, processes, cgroups_of)
        # Lazily made things, such as connections and interned strings, are made now.
        for _ in range(20):
            found.canary_ms()
        found.run({"argv": ["true"], "network": {"mode": "isolated"}})
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
def running(target: Target, processes: Any) -> Callable[..., AbstractContextManager[list[int]]]:
    """A job that goes on meanwhile: `with running(body, "sleep") as pids:`. It ends with the context.

    One of its processes comes to execute what is named. `pids`: of its sandbox, init first. `service`:
    another than the target's.
    """

    def begun(supervisor: int, before: set[int], name: str) -> list[int]:
        jobs = [pid for pid in processes.jobs(supervisor) if processes.name(pid) == name]
        return next((processes.sandbox(supervisor, pid) for pid in jobs if pid not in before), [])

    @contextmanager
    def run(body: dict[str, Any], name: str, service: Any = None) -> Iterator[list[int]]:
        service = service or target.service
        supervisor = service.supervisor
        before = set(processes.jobs(supervisor))
        with closing(HTTPConnection(service.url.removeprefix("http://"))) as client:
            client.request("POST", "/v1/run", json.dumps(body), {"Content-Type": "application/json"})
            assert _eventually(lambda: begun(supervisor, before, name)), "the job has not begun"
            pids = begun(supervisor, before, name)
            yield pids
        processes.wait_for_end(pids)

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


@pytest.fixture
def sh(attack: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Run a shell script and return its result."""

    def run(script: str, **fields: Any) -> dict[str, Any]:
        return attack(argv=["sh", "-c", script], **fields)

    return run


PYTHON_PRELUDE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def answer(call, *arguments, **named):
    try: return call(*arguments, **named)
    except OSError as error: return errno.errorcode[error.errno]
"""


@pytest.fixture
def python(attack: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    """What a Python script prints; it has to end well.

    At hand in it are `libc`, and answer(call, …): its result, or the name of its errno.
    """

    def run(script: str, **fields: Any) -> str:
        result = attack(argv=["python3", "-ISc", PYTHON_PRELUDE + script], **fields)
        assert result["status"] == "ok", result
        return result["stdout"]["text"]

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


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Look again and again; whether the condition became true."""
    return _eventually


def _eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
    return True


@pytest.fixture(autouse=True)
def oracle(target: Target, usual_ms: float, canary_file: Path, ready: int) -> Iterator[None]:
    """The common oracle, after every attack."""
    assert _eventually(target.rests)
    before, memory = target.footprint(), target.memory_bytes()
    assert before["sandboxes"] == 2 * ready
    yield
    assert any(target.canary_ms() < CANARY_FACTOR * usual_ms + CANARY_SLACK_MS for _ in range(3))
    assert canary_file.read_text() == "untouched\n"
    assert _eventually(lambda: target.footprint() == before), (before, target.footprint())
    after = target.memory_bytes()
    assert all(new - old < MEMORY_SLACK_BYTES for old, new in zip(memory, after, strict=True))
    assert not [line for line in target.service.log if "Traceback" in line or '"defect"' in line]


@pytest.fixture(scope="session")
def cgroups_of(processes: Any, cgroups_named: Callable[[str], list[Path]]) -> Callable[..., list[Path]]:
    """The cgroups of a service's sandboxes, named after the directory that its supervisor works in.

    `process`: only those that this one is in, which are one sandbox's.
    """

    # A service has its directories before it has a supervisor, and to the end: one look for each will do.
    named = functools.cache(cgroups_named)

    def find(pid: int, process: int | None = None) -> list[Path]:
        supervisors = [pid for keeper in processes.children(pid) for pid in processes.children(keeper)]
        names = {Path(os.readlink(f"/proc/{pid}/cwd")).name for pid in supervisors}
        own = [place for name in names for place in named(name) if place.exists()]
        found = [place for directory in own for place in directory.iterdir() if place.is_dir()]
        if process is None:
            return found
        return [place for place in found if str(process) in (place / "cgroup.procs").read_text().split()]

    return find
