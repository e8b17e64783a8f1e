"""The service under a service manager, whose part a test plays: it holds the sockets, and is told."""

import fcntl
import http.client
import os
import select
import signal
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import httpx
import pytest

DEADLINE_SECONDS = 20

# As systemd does between fork and exec: the sockets from descriptor 3 on, and the process id beside them.
HAND_OVER = """
import os, sys
for place, descriptor in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(descriptor, place)
    os.close(descriptor)
os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = str(place - 2), str(os.getpid())
os.execv(sys.executable, [sys.executable, "-P", *sys.argv[2:]])
"""

# Its loop stands still for whoever asks for its health.
STANDING = """
import threading
from jail.http.app import Service
from jail.cli import main

async def stand_still(self, request):
    threading.Event().wait()

Service.healthz = stand_still
main(["serve"], prog_name="jail")
"""


class Manager:
    """Starts services on sockets of its own, one after the other."""

    def __init__(self, service_class, stack, state, sockets=1):
        self._start, self._stack = service_class, stack
        self._state = str(state)
        self.notices = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)))
        self._address = f"{stack.enter_context(tempfile.TemporaryDirectory())}/notify"
        self.notices.bind(self._address)
        self.notices.settimeout(DEADLINE_SECONDS)
        self.listeners = [self._listen()]
        self.address = self.listeners[0].getsockname()
        self.listeners += [self._listen(self.address) for _ in range(sockets - 1)]

    def _listen(self, address=("127.0.0.1", 0)):
        with socket.create_server(address, backlog=128, reuse_port=True) as listener:
            return self._stack.enter_context(out_of_the_way(listener))

    @property
    def url(self):
        return "http://{}:{}".format(*self.address)

    def start(self, command=("-m", "jail", "serve"), **settings):
        """Come back when it has said that it is ready."""
        numbers = tuple(listener.fileno() for listener in self.listeners)
        script = ("-c", HAND_OVER, ",".join(map(str, numbers)), *command)
        own = {"NOTIFY_SOCKET": self._address, "JAIL_STATE": self._state, "JAIL_ADDRESS": "127.0.0.1:1"}
        return self._stack.enter_context(closing(self._start({**own, **settings}, script, numbers)))

    def hear(self):
        """The next notice."""
        return self.notices.recv(4096).decode()

    def hear_only(self):
        """All that was said so far."""
        said = []
        while self._is_heard(0):
            said.append(self.hear())
        return said

    def is_silent(self):
        """Whether nothing is said for a second, but what was on its way."""
        while self._is_heard(0.1):
            self.hear()
        return not self._is_heard(1)

    def _is_heard(self, seconds):
        return bool(select.select([self.notices], [], [], seconds)[0])


def out_of_the_way(of):
    """The same socket at a number above those that services are to have it at."""
    return socket.socket(fileno=fcntl.fcntl(of, fcntl.F_DUPFD_CLOEXEC, 20))


@pytest.fixture
def manager(service_class, state):
    with ExitStack() as stack:
        yield Manager(service_class, stack, state)


@pytest.fixture
def manager_of_two(service_class, state):
    with ExitStack() as stack:
        yield Manager(service_class, stack, state, sockets=2)


def run(url, *argv, **more):
    return httpx.post(f"{url}/v1/run", json={"argv": argv, **more}, timeout=60)


def test_a_service_answers_on_the_socket_that_it_was_handed(manager):
    service = manager.start()
    assert service.url == manager.url
    assert run(manager.url, "echo", "hello").json()["stdout"]["text"] == "hello\n"


def test_who_connects_before_the_service_is_there_is_answered(manager):
    with socket.create_connection(manager.address) as early:
        early.sendall(b"GET /readyz HTTP/1.1\r\nHost: jail\r\n\r\n")
        manager.start()
        assert early.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_manager_is_told_once_that_it_is_ready_and_how_long_it_takes_to_stop(manager):
    service = manager.start(JAIL_DRAIN_MS="7000")
    assert manager.hear() == "READY=1"
    service.signal(signal.SIGTERM)
    first, second = manager.hear().splitlines()
    assert first == "STOPPING=1"
    name, _, microseconds = second.partition("=")
    assert (name, int(microseconds) > 7_000_000) == ("EXTEND_TIMEOUT_USEC", True)
    assert service.wait() == 0
    assert manager.hear_only() == []


def test_without_a_watchdog_no_sign_of_life_is_given(manager):
    manager.start()
    run(manager.url, "sleep", "1")
    assert manager.hear_only() == ["READY=1"]


def test_signs_of_life_come_while_jobs_run_and_after(manager):
    manager.start(WATCHDOG_USEC="300000")
    assert manager.hear() == "READY=1"
    run(manager.url, "sleep", "1")
    assert {manager.hear() for _ in range(8)} == {"WATCHDOG=1"}


def test_the_watchdog_of_another_process_is_not_ours(manager):
    manager.start(WATCHDOG_USEC="30000", WATCHDOG_PID="1")
    run(manager.url, "sleep", "1")
    assert manager.hear_only() == ["READY=1"]


def test_a_loop_that_stands_still_gives_no_sign_of_life(manager):
    service = manager.start(("-c", STANDING), WATCHDOG_USEC="300000")
    assert [manager.hear() for _ in range(3)] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{manager.url}/healthz", timeout=1)
    assert manager.is_silent()
    service.process.kill()


def test_a_sign_of_life_of_the_service_is_one_of_every_worker(manager_of_two, processes):
    service = manager_of_two.start(WATCHDOG_USEC="300000", JAIL_WORKERS="2", JAIL_SLOTS="2")
    assert [manager_of_two.hear() for _ in range(4)] == ["READY=1", *["WATCHDOG=1"] * 3]
    worker = processes.children(service.pid)[0]
    os.kill(worker, signal.SIGSTOP)
    assert manager_of_two.is_silent()
    os.kill(worker, signal.SIGCONT)
    assert {manager_of_two.hear() for _ in range(3)} == {"WATCHDOG=1"}
    service.signal(signal.SIGTERM)
    while not manager_of_two.hear().startswith("STOPPING=1\nEXTEND_TIMEOUT_USEC="):
        pass
    assert service.wait() == 0


def test_each_worker_takes_a_socket_of_its_own(manager_of_two, processes, eventually):
    service = manager_of_two.start(JAIL_WORKERS="2", JAIL_SLOTS="2")
    for worker in processes.children(service.pid):
        with ExitStack() as stack:
            os.kill(worker, signal.SIGSTOP)
            stack.callback(os.kill, worker, signal.SIGCONT)
            # The kernel deals them out: all to one of two sockets, once in 2**63 times.
            made = {stack.enter_context(socket.create_connection(manager_of_two.address)) for _ in range(64)}
            for connection in made:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: jail\r\n\r\n")
            # Who is answered now came later than all of those: the others are the worker's that stands still.
            eventually(lambda: is_answered(manager_of_two))
            assert made - answering(made)
            os.kill(worker, signal.SIGCONT)
            eventually(lambda made=made: answering(made) == made)


def is_answered(manager):
    try:
        return httpx.get(f"{manager.url}/readyz", timeout=0.5).status_code == 200
    except httpx.ReadTimeout:
        return False


def answering(connections):
    return set(select.select(connections, [], [], 0)[0])


def test_sockets_that_are_not_one_for_each_worker_are_refused(manager, manager_of_two):
    with pytest.raises(RuntimeError, match="workers = 2, and the service manager handed over 1 sockets"):
        manager.start(JAIL_WORKERS="2", JAIL_SLOTS="2")
    with pytest.raises(RuntimeError, match="workers = 1, and the service manager handed over 2 sockets"):
        manager_of_two.start()


def test_an_open_address_without_a_key_is_refused_when_it_was_handed_over_too(manager):
    manager.listeners = [manager._listen(("0.0.0.0", 0))]
    with pytest.raises(RuntimeError, match="no key is configured") as refused:
        manager.start()
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (socket.AF_INET, socket.SOCK_DGRAM),
        # Connects to nothing, and so does not listen.
        (socket.AF_INET, socket.SOCK_STREAM),
        (socket.AF_UNIX, socket.SOCK_STREAM),
    ],
)
def test_what_is_no_listening_tcp_socket_is_refused(manager, family, kind):
    with socket.socket(family, kind) as other:
        manager.listeners = [out_of_the_way(other)]
        with manager.listeners[0], pytest.raises(RuntimeError, match="Descriptor 3") as refused:
            manager.start()
    assert "Traceback" not in str(refused.value)


def test_a_manager_that_cannot_be_reached_is_named(serve):
    with pytest.raises(RuntimeError, match="NOTIFY_SOCKET=/no/such/socket") as refused:
        serve(NOTIFY_SOCKET="/no/such/socket")
    assert "Traceback" not in str(refused.value)


def test_sockets_for_another_process_are_not_taken(serve):
    service = serve(LISTEN_FDS="1", LISTEN_PID="1")
    assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_nothing_of_the_manager_reaches_supervisor_or_job(manager, serve, processes):
    usual = serve()
    service = manager.start(WATCHDOG_USEC="3000000")
    sockets = [
        [name for name in processes.descriptors(one.supervisor) if name.startswith("socket:")]
        for one in (service, usual)
    ]
    assert len(sockets[0]) == len(sockets[1])
    told = run(manager.url, "sh", "-c", "ls /proc/self/fd; env").json()["stdout"]["text"]
    # The fourth is that of the directory itself.
    assert told.split()[:4] == ["0", "1", "2", "3"]
    assert not [name for name in ("NOTIFY", "LISTEN", "WATCHDOG") if name in told]


# What a child of the service would have, with the arguments that its children are started with.
INHERITING = """
import os, subprocess, sys
from jail import keeper
from jail.cli import main
real = subprocess.Popen

def spy(arguments, **more):
    instead = {"stdin": None, "stdout": 2, "executable": None}
    real(["ls", "-l", "/proc/self/fd"], **more | instead).wait()
    return real(arguments, **more)

keeper.subprocess = type("Module", (), {"Popen": staticmethod(spy)})
os.dup2(2, 9)
main(["serve"], prog_name="jail")
"""


def test_the_keeper_inherits_no_socket_but_its_own(manager):
    service = manager.start(("-c", INHERITING), WATCHDOG_USEC="3000000")
    listed = [line.split(" -> ")[1].strip() for line in service.log if " -> " in line]
    assert listed
    assert not [name for name in listed if name.startswith("socket:")]


def is_executing(processes, service, name):
    return any(processes.name(pid) == name for pid in processes.descendants(service.supervisor))


@pytest.fixture
def stopping(manager, processes, eventually):
    """Have a service stop while a job runs; the service, and the job's answer once it has ended."""
    with ThreadPoolExecutor(1) as thread:

        def stop():
            service = manager.start(JAIL_DRAIN_MS="20000")
            answer = thread.submit(run, manager.url, "sleep", "2")
            eventually(lambda: is_executing(processes, service, "sleep"))
            service.signal(signal.SIGTERM)
            eventually(lambda: "STOPPING=1" in "".join(manager.hear_only()))
            return service, answer

        yield stop


@pytest.fixture
def kept(manager):
    """A connection that is kept alive, and idle."""
    with closing(http.client.HTTPConnection(*manager.address, timeout=60)) as connection:
        connection.connect()
        yield connection


def ask(connection):
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    answer.read()
    return answer


def test_a_connection_that_is_kept_alive_is_told_that_its_answer_is_the_last(stopping, kept):
    service, running = stopping()
    answer = ask(kept)
    assert (answer.status, answer.headers["connection"], answer.headers["retry-after"]) == (503, "close", "1")
    assert running.result().json()["status"] == "ok"
    assert running.result().headers["connection"] == "close"
    assert service.wait() == 0


def test_a_connection_that_is_kept_alive_and_idle_is_closed_without_an_error(manager, kept):
    service = manager.start()
    assert ask(kept).headers["connection"] is None
    service.signal(signal.SIGTERM)
    assert kept.sock.recv(4096) == b""
    assert service.wait() == 0


def test_who_connects_while_it_stops_is_answered_by_the_next(manager, stopping):
    service, running = stopping()
    with closing(http.client.HTTPConnection(*manager.address, timeout=60)) as waiting:
        waiting.request("GET", "/readyz")
        assert service.wait() == 0
        manager.start()
        assert waiting.getresponse().status == 200
    assert running.result().json()["status"] == "ok"


def test_restarts_under_load_lose_no_request(manager, load_on, eventually):
    service = manager.start(JAIL_SLOTS="4")
    with load_on(manager.url, 6) as load:
        for _ in range(4):
            before = load.answered
            eventually(lambda before=before: load.answered > before + 30)
            service.signal(signal.SIGTERM)
            assert service.wait() == 0
            service = manager.start(JAIL_SLOTS="4")
    load.check()
