"""A service of two workers: one to its callers, whichever of them answers."""

import os
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest

from jail import host

SETTINGS = {"JAIL_SLOTS": "4", "JAIL_QUEUE": "101", "JAIL_MEMORY_BYTES": str(1 << 30)}
SLEEPER = {"argv": ["sleep", "1000"]}

# Its second worker cannot start.
LAME = """
from jail import settings
from jail.cli import main
from jail.errors import HostError
whole = settings.share

def share(found, number):
    if number:
        raise HostError("The second is lame.", "Give it rest.")
    return whole(found, number)

settings.share = share
main(["serve", "--workers", "2"], prog_name="jail")
"""


# Its second worker waits until somebody closes its stdin, and there are more to come.
SLOW = """
import sys
from jail.cli import main
serve = sys.modules["jail.cli.serve"]
real = serve._work

def work(found, listeners, table, number, *more):
    if number:
        print("the second waits", file=sys.stderr, flush=True)
        sys.stdin.read()
    real(found, listeners, table, number, *more)

serve._work = work
main(["serve", "--workers", "9"], prog_name="jail")
"""


@pytest.fixture(scope="module")
def pair(service_class):
    """A service of two workers for this module."""
    with closing(service_class(SETTINGS, ("-m", "jail", "serve", "--workers", "2"))) as running:
        yield running


@pytest.fixture
def serve_pair(serve, state):
    """Start one of the test's own, with a state directory of its own, too."""
    return lambda **settings: serve(JAIL_STATE=str(state), JAIL_WORKERS="2", **settings)


@pytest.fixture
def workers(processes):
    """The process ids of a service's workers."""

    def found(service):
        first, second = sorted(processes.children(service.pid))
        return first, second

    return found


@contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def connected(workers):
    """A client of each worker: its one connection was answered on while the other worker stood still."""
    with ExitStack() as stack:

        def answers(client):
            try:
                return client.get("/healthz", timeout=0.2).status_code == 200
            except httpx.ReadTimeout:
                return False

        def connect(service, standing):
            limits = httpx.Limits(max_connections=1)
            with stopped(standing):
                # To whom a connection goes is the kernel's choice.
                while True:
                    client = stack.enter_context(
                        httpx.Client(base_url=service.url, timeout=60, limits=limits)
                    )
                    if answers(client):
                        return client

        yield lambda service: [connect(service, other) for other in reversed(workers(service))]


@pytest.fixture
def running(connected, workers, processes, eventually):
    """Have each worker of a service run a body that executes `sleep`; the answers to come."""
    with ThreadPoolExecutor(2) as threads:

        def run(service, body):
            clients = connected(service)
            answers = [threads.submit(client.post, "/v1/run", json=body) for client in clients]
            for worker in workers(service):
                eventually(lambda worker=worker: is_asleep(processes, worker))
            return answers

        yield run


def is_asleep(processes, worker):
    return any(processes.name(pid) == "sleep" for pid in processes.descendants(worker))


def answered(numbers):
    return sum(number for name, number in numbers.items() if name.startswith("jail_jobs_total"))


def test_each_worker_tells_of_the_jobs_of_both(pair, connected, counted):
    first, second = connected(pair)
    before = counted(first)
    for client, jobs in ((first, 2), (second, 3)):
        for _ in range(jobs):
            assert client.post("/v1/run", json={"argv": ["true"]}).json()["status"] == "ok"
    run = 'jail_phase_seconds_count{phase="run"}'
    for after in (counted(first), counted(second)):
        assert answered(after) == answered(before) + 5
        assert after[run] == before[run] + 5


def test_each_worker_tells_soon_what_is_so_in_the_other(pair, running, connected, counted, eventually):
    asking = connected(pair)
    answers = running(pair, {"argv": ["sleep", "1000"], "limits": {"wall_ms": 5000}})
    for client in asking:
        eventually(lambda client=client: counted(client)["jail_running"] == 2)
    assert {answer.result().json()["status"] for answer in answers} == {"wall_limit"}
    for client in asking:
        eventually(lambda client=client: counted(client)["jail_running"] == 0)


def test_the_process_figures_are_those_of_both(pair, connected, counted, eventually):
    first, second = connected(pair)
    alone = int(Path(f"/proc/{pair.pid}/limits").read_text().partition("Max open files")[2].split()[1])
    for client in (first, second):
        eventually(lambda client=client: counted(client)["process_max_fds"] == 2 * alone)
    begun = "process_start_time_seconds"
    assert counted(first)[begun] == counted(second)[begun] < 1e10


def test_the_service_tells_of_itself_as_a_whole(pair, connected):
    for client in connected(pair):
        found = client.get("/v1/capabilities").json()
        assert (found["workers"], found["slots"], found["memory_bytes"]) == (2, 4, 1 << 30)
        assert client.get("/readyz").status_code == 200


def test_a_job_that_no_worker_has_the_memory_for_is_refused_and_told_why(pair, connected):
    body = {"argv": ["true"], "limits": {"memory_bytes": (1 << 29) + 1}}
    for client in connected(pair):
        answer = client.post("/v1/run", json=body)
        assert answer.status_code == 422
        assert f"above the maximum {1 << 29}" in answer.json()["detail"]
        assert "divided among 2 workers" in answer.json()["detail"]


def test_connections_of_one_moment_go_to_both_workers(pair, workers, processes, eventually):
    first, second = workers(pair)
    host, _, port = pair.url.removeprefix("http://").rpartition(":")
    with ExitStack() as stack:
        with stopped(second):
            with stopped(first):
                # None for one of them: once in 10**19 times.
                made = {stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(64)}
                for connection in made:
                    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: jail\r\n\r\n")
            eventually(lambda: answering(made))
            stack.enter_context(stopped(first))
            eventually(lambda: processes.status(first)["State"].startswith("T"))
            by_first = answering(made)
        eventually(lambda: answering(made) - by_first)


def answering(connections):
    return set(select.select(connections, [], [], 0)[0])


def test_an_address_that_another_service_has_is_refused(pair, serve):
    with pytest.raises(RuntimeError, match="Address already in use"):
        serve(JAIL_ADDRESS=pair.url.removeprefix("http://"), JAIL_WORKERS="2")


def test_jobs_that_are_pinned_are_so_to_processors_of_their_worker(serve_pair, connected):
    if len(host.processors()) < 2:
        pytest.skip("this host has one processor")
    script = "grep Cpus_allowed_list /proc/self/status"
    body = {"argv": ["sh", "-c", script], "limits": {"cpus": len(host.processors())}}
    had = []
    for client in connected(serve_pair(JAIL_PIN="true")):
        had.append(processors(client.post("/v1/run", json=body).json()["stdout"]["text"].split()[-1]))
    assert not had[0] & had[1]
    assert had[0] | had[1] == set(host.processors())


def processors(text):
    """Those of a list as the kernel writes it: 0-2,5."""
    bounds = [part.partition("-") for part in text.split(",")]
    return {number for low, _, high in bounds for number in range(int(low), int(high or low) + 1)}


def test_readiness_is_said_once(pair):
    assert len([line for line in pair.log if '"ready"' in line]) == 1


def test_the_parent_and_the_workers_have_shed(pair, workers, processes):
    for pid in (pair.pid, *workers(pair)):
        fields = processes.status(pid)
        told = tuple(fields[name] for name in ("NoNewPrivs", "Seccomp", "Seccomp_filters"))
        assert told == ("1", "2", "1")
        with pytest.raises(PermissionError):
            Path(f"/proc/{pid}/environ").read_bytes()
    assert processes.status(pair.pid)["Threads"] == "1"


def test_a_single_worker_is_the_process_that_was_started(service, processes):
    assert processes.children(service.pid) == [service.keeper]
    assert processes.name(service.keeper) == "jail-supervisor"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_workers_answer_what_runs_and_leave_nothing(
    serve_pair, state, running, processes, cgroups_named, number
):
    service = serve_pair(JAIL_DRAIN_MS="20000")
    family = processes.descendants(service.pid)
    instances = [path.name for path in (state / "instances").iterdir()]
    answers = running(service, {"argv": ["sh", "-c", "sleep 1; echo finished"]})

    service.signal(number)

    assert [answer.result().json()["stdout"]["text"] for answer in answers] == ["finished\n"] * 2
    assert service.wait() == 0
    processes.wait_for_end(family)
    assert len(instances) == 2
    assert not list((state / "instances").iterdir())
    assert not [path for name in instances for path in cgroups_named(name)]


def test_after_a_killed_worker_the_service_ends_and_the_next_leaves_nothing_of_it(
    serve_pair, state, running, workers, processes, cgroups_named
):
    service = serve_pair(JAIL_DRAIN_MS="0")
    family = processes.descendants(service.pid)
    instances = [path.name for path in (state / "instances").iterdir()]
    lost, told = running(service, SLEEPER)

    os.kill(workers(service)[0], signal.SIGKILL)

    assert service.wait() == 1
    assert isinstance(lost.exception(), httpx.TransportError)
    assert told.result().json()["status"] == "cancelled"
    assert "Worker 0 was ended by signal 9" in "".join(service.log)
    assert "Traceback" not in "".join(service.log)
    processes.wait_for_end(family)
    serve_pair()
    assert not [path for name in instances for path in cgroups_named(name)]
    assert not {path.name for path in (state / "instances").iterdir()} & set(instances)


def test_after_a_killed_parent_the_workers_answer_what_runs_and_leave_nothing(
    serve_pair, state, running, processes
):
    service = serve_pair(JAIL_DRAIN_MS="0")
    family = processes.descendants(service.pid)
    answers = running(service, SLEEPER)

    service.signal(signal.SIGKILL)

    assert {answer.result().json()["status"] for answer in answers} == {"cancelled"}
    processes.wait_for_end(family)
    service.wait()
    assert not list((state / "instances").iterdir())


def test_what_keeps_every_worker_from_starting_is_said_once(serve):
    with pytest.raises(RuntimeError) as refused:
        serve(JAIL_WORKERS="2", JAIL_POLICIES="/no/such/directory")
    assert str(refused.value).count("/no/such/directory") == 1
    assert "Traceback" not in str(refused.value)


def test_a_worker_that_cannot_start_ends_the_service(service_class, state):
    with pytest.raises(RuntimeError, match="The second is lame") as refused:
        service_class({"JAIL_STATE": str(state)}, ("-c", LAME))
    assert "Worker 1 ended with status 1" in str(refused.value)
    assert '"ready"' not in str(refused.value)
    assert "Traceback" not in str(refused.value)
    assert not list((state / "instances").iterdir())


def has_pending(processes, pid, number):
    return int(processes.status(pid)["ShdPnd"], 16) >> (number - 1) & 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_is_told_to_stop_while_workers_start_stops_those_that_serve_already(
    environment, state, processes, eventually, number
):
    own = {"JAIL_STATE": str(state), "JAIL_SLOTS": "9", "JAIL_ADDRESS": "127.0.0.1:0", "JAIL_READY_MIN": "0"}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", SLOW],
        env={**environment, **own},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    ) as service:
        assert service.stderr.readline() == "the second waits\n"
        service.send_signal(number)
        eventually(lambda: has_pending(processes, service.pid, number))
        assert len(processes.children(service.pid)) == 2
        service.stdin.close()
        # No other is started, and both end as they do on a signal.
        assert service.stderr.read() == ""
        assert service.wait() == 0
