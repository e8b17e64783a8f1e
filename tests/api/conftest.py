"""Tests of the real service over HTTP. After each, nothing of its jobs may be left."""

import operator
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import hypothesis
import pytest

DEADLINE_SECONDS = 20

# The same examples every time, and no directory for a database: the tests' user may have none.
hypothesis.settings.register_profile(
    "jail",
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("jail")


@pytest.fixture(scope="session")
def client(service: Any) -> Iterator[httpx.Client]:
    """A client of the session's service."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def counted() -> Callable[[httpx.Client], dict[str, float]]:
    """What /metrics tells: a number for each name, with its labels."""

    def read(client: httpx.Client) -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    return read


@pytest.fixture(scope="session")
def jobs_counted(counted: Callable[..., dict[str, float]]) -> Callable[[httpx.Client], float]:
    """How many jobs the service has answered, run, or has waiting: grows by every job that is taken."""

    def count(client: httpx.Client) -> float:
        numbers = counted(client)
        answered = sum(n for name, n in numbers.items() if name.startswith("jail_jobs_total"))
        return answered + numbers["jail_running"] + numbers["jail_queued"]

    return count


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Look again and again until `condition` is true, and return what it was."""

    def wait(condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + DEADLINE_SECONDS
        while not (found := condition()):
            assert time.monotonic() < end, "the awaited event did not come"
        return found

    return wait


@pytest.fixture(scope="session")
def count_held(
    service: Any, client: httpx.Client, processes: Any, counted: Callable[..., dict[str, float]]
) -> Callable[[], tuple[float, int]]:
    """How many descriptors the service, which nobody can look into, and its supervisor have."""

    def count() -> tuple[float, int]:
        return counted(client)["process_open_fds"], len(processes.descriptors(service.supervisor))

    return count


@pytest.fixture(scope="session")
def held(
    service: Any, client: httpx.Client, count_held: Callable[[], tuple[float, int]]
) -> tuple[float, int]:
    """The same, of a service that has run a job, one with a network too if it can, and has one client."""
    offered = client.get("/v1/capabilities").json()["networks"]
    for mode in {"none", "isolated"}.intersection(offered):
        body = {"argv": ["true"], "network": {"mode": mode}}
        assert client.post("/v1/run", json=body).json()["status"] == "ok"
    service.settle()
    return count_held()


@pytest.fixture(autouse=True)
def leaves_nothing(
    service: Any,
    client: httpx.Client,
    held: tuple[float, int],
    count_held: Callable[[], tuple[float, int]],
    processes: Any,
    ready: int,
    counted: Callable[..., dict[str, float]],
    eventually: Callable[..., Any],
) -> Iterator[None]:
    """The common oracle: the service lives, runs nothing, holds nothing more, and a canary job works."""
    yield
    eventually(lambda: counted(client)["jail_running"] == counted(client)["jail_queued"] == 0)
    canary = client.post("/v1/run", json={"argv": ["echo", "canary"]}).json()
    assert canary["stdout"]["text"] == "canary\n"
    service.settle()
    assert len(processes.descendants(service.supervisor)) == 2 * ready
    # Connections that the test has closed are closed by the service soon.
    eventually(lambda: all(map(operator.le, count_held(), held)))
    assert not [line for line in service.log if "defect" in line or "Traceback" in line]
