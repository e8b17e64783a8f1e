"""What tests of real sandboxes share: `jail`, an engine in this process; `serve`, services of their own.

Test modules are not importable from one another: what they share is a fixture, or lies in tests/shared.
"""

import asyncio
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    closing,
    contextmanager,
    suppress,
)
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvloop

from jail import settings
from jail.engine import Engine
from jail.errors import HostError
from jail.network.offered import find_way
from jail.run import Run
from jail.steps.spec import parse

# Taken out: jail refuses a variable that is none of its settings.
READY = int(os.environ.pop("JAIL_TEST_READY", "2"))
"""How many sandboxes are kept ready: always so many, so that what is there can be told from what is left."""

READY_SETTINGS = {"JAIL_READY_MIN": str(READY), "JAIL_READY_MAX": str(READY)}

DEADLINE_SECONDS = 60
"""How long an event may take on a busy machine. Reaching it is a failure; nothing waits it out."""


REFERENCE_MS = 0.7
"""CPU time that starting `true` takes on the machines for which the tests' bounds were chosen."""


def start_ms() -> float:
    """The CPU time of one start of `true`, as the kernel counted it."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    used = os.wait4(pid, 0)[2]
    return (used.ru_utime + used.ru_stime) * 1000


@pytest.fixture
def slowness() -> float:
    """How many times longer this machine takes now than those for which bounds of times were chosen.

    An emulated machine takes some ten times as long for what it does itself, and no longer for a timer.
    Below 2 it is 1: no bound is wider on a machine that runs by itself.
    """
    found = min(start_ms() for _ in range(10)) / REFERENCE_MS
    return found if found >= 2 else 1.0


class Processes:
    """Looks at processes from outside, through /proc."""

    @staticmethod
    def children(pid: int) -> list[int]:
        """The children of every thread of a process; none when it is gone."""
        found: list[int] = []
        with suppress(OSError):
            for path in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    found += map(int, (path / "children").read_text().split())
        return found

    def descendants(self, pid: int) -> list[int]:
        """All that come from it, and not itself."""
        found = self.children(pid)
        return found + [deeper for child in found for deeper in self.descendants(child)]

    @staticmethod
    def status(pid: int) -> dict[str, str]:
        """/proc/PID/status by field."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @staticmethod
    def parent(pid: int) -> int:
        """The process id of its parent. Raises OSError when it is gone."""
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    @staticmethod
    def command(pid: int) -> str:
        """Its command line; "" when it is gone."""
        try:
            return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            return ""

    @staticmethod
    def name(pid: int) -> str:
        """What it executes, cut to fifteen bytes; "" when it is gone."""
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            return ""

    def sandbox(self, supervisor: int, pid: int) -> list[int]:
        """All that live in the sandbox of a process: init, then what comes from it; none when it is gone."""
        parent = pid
        while parent != supervisor:
            init = parent
            try:
                parent = int(self.status(init)["PPid"])
            except OSError:
                return []
        return [init, *self.descendants(init)]

    def jobs(self, supervisor: int) -> list[int]:
        """Those beneath a supervisor that execute another program than it does: not init, nor who waits."""
        own = {self.name(supervisor), ""}
        return [pid for pid in self.descendants(supervisor) if self.name(pid) not in own]

    def memory_bytes(self, pid: int) -> int:
        """Its resident memory that is not of files."""
        return int(self.status(pid)["RssAnon"].split()[0]) * 1024

    @staticmethod
    def descriptors(pid: int | str) -> list[str]:
        """What the descriptors of one of our own processes are, if it is dumpable; "self" is this one."""
        found = []
        for path in Path(f"/proc/{pid}/fd").iterdir():
            # It closes some while we look, as we do that of the directory.
            with suppress(FileNotFoundError):
                found.append(os.readlink(path))
        return sorted(found)

    @staticmethod
    def wait_for_end(pids: list[int]) -> None:
        """Come back when all are gone. Fails at the deadline."""
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                ready, _, _ = select.select([descriptor], [], [], DEADLINE_SECONDS)
                assert ready, f"process {pid} lives on"
            finally:
                os.close(descriptor)


class Jail:
    """An entered engine and the loop that it runs on, which turns only while a method is called."""

    def __init__(self, runner: asyncio.Runner, engine: Engine) -> None:
        self._runner = runner
        self.engine = engine

    def do(self, scene: Awaitable[Any]) -> Any:
        """Let a coroutine run to its end."""

        async def within() -> Any:
            return await asyncio.wait_for(scene, 10 * DEADLINE_SECONDS)

        return self._runner.run(within())

    def submit(self, body: dict[str, Any]) -> Run:
        """Within a scene: send a job on its way."""
        return self.engine.submit(parse(json.dumps(body).encode(), self.engine.rules))

    async def answer(self, run: Run) -> dict[str, Any]:
        """Within a scene: the job's result, as HTTP would answer it."""
        return msgspec.json.decode(msgspec.json.encode(await run.task))

    def run(self, body: dict[str, Any]) -> dict[str, Any]:
        """Run one job and return its result, as HTTP would answer it."""

        async def one() -> dict[str, Any]:
            return await self.answer(self.submit(body))

        return self.do(one())

    def sh(self, script: str, **body: Any) -> dict[str, Any]:
        """Run a shell script."""
        return self.run({"argv": ["sh", "-c", script], **body})

    def python(self, script: str, **body: Any) -> dict[str, Any]:
        """Run a Python script, without site packages."""
        return self.run({"argv": ["python3", "-ISc", script], **body})

    @property
    def ready(self) -> int:
        """How many sandboxes wait for a job."""
        return self.engine.sandboxes.stock.ready

    def settle(self) -> None:
        """Let what is under way behind a job's back come to its end: burials, and what replaces the used."""
        self.do(self.engine.sandboxes.settle())

    @property
    def supervisor(self) -> int:
        """The process id of the supervisor."""
        return self.engine.sandboxes.supervisor.pid

    @property
    def instance(self) -> Path:
        """The directory of this engine, named as no other on the host."""
        return self.engine.sandboxes._instance.directory

    @cached_property
    def _cgroup_directories(self) -> list[Path]:
        return find_cgroups(self.instance.name)

    @property
    def cgroups(self) -> list[Path]:
        """The cgroups of this engine's sandboxes."""
        own = self._cgroup_directories
        return [path for directory in own for path in directory.iterdir() if path.is_dir()]


def find_cgroups(name: str) -> list[Path]:
    """Every cgroup of that name, in whichever hierarchy."""
    return [Path(place) for place, _, _ in os.walk("/sys/fs/cgroup") if Path(place).name == name]


@pytest.fixture(scope="session")
def cgroups_named() -> Callable[[str], list[Path]]:
    """Every cgroup of a name, in whichever hierarchy."""
    return find_cgroups


@pytest.fixture(scope="session")
def ready() -> int:
    """How many sandboxes every engine and every service keeps ready; in each live two processes."""
    return READY


@pytest.fixture(scope="session")
def processes() -> Processes:
    return Processes()


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    """Within a scene: look again and again, letting the loop turn, until `condition` is true."""

    async def wait(condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + DEADLINE_SECONDS
        while not (found := condition()):
            assert time.monotonic() < end, "the awaited event did not come"
            await asyncio.sleep(0.001)
        return found

    return wait


@pytest.fixture(scope="session")
def executing(
    processes: Processes, until: Callable[[Callable[[], Any]], Awaitable[Any]]
) -> Callable[[int, str, int], Awaitable[list[int]]]:
    """Within a scene: wait until `count` processes beneath `supervisor` execute `name`; their pids."""

    def found(supervisor: int, name: str, count: int) -> list[int]:
        pids = [pid for pid in processes.descendants(supervisor) if processes.name(pid) == name]
        return pids if len(pids) >= count else []

    async def wait(supervisor: int, name: str, count: int = 1) -> list[int]:
        return await until(lambda: found(supervisor, name, count))

    return wait


@contextmanager
def entered(**changed: Any) -> Iterator[Jail]:
    """An engine with settings other than the defaults, and a loop of its own."""
    found = msgspec.structs.replace(settings.load({}), **changed)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()
        engine = runner.run(stack.enter_async_context(Engine(found)))
        try:
            yield Jail(runner, engine)
        finally:
            runner.run(stack.aclose())


@pytest.fixture(scope="session")
def engine_with() -> Callable[..., AbstractContextManager[Jail]]:
    """For an engine of a module's own, a context manager: it takes settings by their names."""
    return entered


@pytest.fixture(scope="session")
def jail() -> Iterator[Jail]:
    """One engine for the whole session, with room for a few jobs at once and a short queue."""
    with entered(slots=4, processes=4, queue=8, ready_min=READY, ready_max=READY) as found:
        yield found


def runs(pid: int, module: str) -> bool:
    """Whether that process of a keeper's runs this module, as a supervisor, a fork of it, does none."""
    with suppress(OSError):
        return f"run_module('{module}'" in Path(f"/proc/{pid}/cmdline").read_text()
    return False


class Service:
    """A `jail serve` of the test's own. `url`, where it listens; `log`, its lines as they come."""

    def __init__(
        self,
        settings: dict[str, str],
        command: tuple[str, ...] = ("-m", "jail", "serve"),
        descriptors: tuple[int, ...] = (),
    ) -> None:
        """Start it and wait until it says that it is ready.

        `command` follows Python's name; it has `descriptors`, by the same numbers.
        """
        self.process = subprocess.Popen(
            [sys.executable, "-P", *command],
            env={**command_environment(), "JAIL_ADDRESS": "127.0.0.1:0", **READY_SETTINGS, **settings},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            pass_fds=descriptors,
        )
        self.log: list[str] = []
        self.url = f"http://{self._wait_until_ready()}"
        self._reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self._reader.start()

    def _wait_until_ready(self) -> str:
        for line in self.process.stderr:
            self.log.append(line)
            if '"event":"ready"' in line:
                return json.loads(line)["address"]
        self.process.wait()
        self.process.stderr.close()
        raise RuntimeError(f"jail serve ended: {''.join(self.log)}")

    def logged(self, text: str) -> list[dict[str, Any]]:
        """The lines of its log with this text: one at least, for which it waits."""
        end = time.monotonic() + DEADLINE_SECONDS
        while not (found := [line for line in tuple(self.log) if text in line]):
            assert time.monotonic() < end, f"nothing is logged of {text}"
            time.sleep(0.001)
        return list(map(json.loads, found))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def keeper(self) -> int:
        """The process id of its keeper."""
        (pid,) = Processes.children(self.pid)
        return pid

    @property
    def supervisor(self) -> int:
        """The process id of its supervisor: a fork of its keeper, as nothing else there is."""
        found = Processes.children(self.keeper)
        (pid,) = (pid for pid in found if not (runs(pid, "jail.network") or runs(pid, "jail.images")))
        return pid

    @property
    def hub(self) -> int | None:
        """The process id of its network hub, if there is one."""
        return next((pid for pid in Processes.children(self.keeper) if runs(pid, "jail.network")), None)

    @property
    def image_programs(self) -> list[int]:
        """The process ids of its programs of images."""
        return [pid for pid in Processes.children(self.keeper) if runs(pid, "jail.images")]

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    @property
    def is_settled(self) -> bool:
        """Whether nothing dies or is being made, and as many sandboxes are ready as are to be kept."""
        # Asked again and again: httpx.get() would read all certificates of the host each time, 25 ms.
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=DEADLINE_SECONDS) as answer:
            told = answer.read().decode()
        return all(f"\njail_{line}.0\n" in told for line in (f"ready {READY}", "making 0", "dying 0"))

    def settle(self) -> None:
        """Come back when it is settled. Fails at the deadline."""
        end = time.monotonic() + DEADLINE_SECONDS
        while not self.is_settled:
            assert time.monotonic() < end, "the service does not come to rest"

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        status = self.process.wait(DEADLINE_SECONDS)
        self._reader.join()
        self.process.stderr.close()
        return status

    def close(self) -> None:
        """End it, if it has not ended, and wait."""
        if self.lives:
            self.signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            raise


class Load:
    """Callers who post job after job on connections that they keep, and come again where they are told to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count()
        self._enough = threading.Event()
        self._answers: dict[int, str] = {}
        self._lost: list[tuple[int, str]] = []
        self.told = 0

    @contextmanager
    def by(self, count: int) -> Iterator["Load"]:
        """Have so many callers post until the end of the context."""
        with ThreadPoolExecutor(count) as callers:
            done = [callers.submit(self._call) for _ in range(count)]
            try:
                yield self
            finally:
                self._enough.set()
        for call in done:
            call.result()

    def _call(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._enough.is_set():
                number = next(self._numbers)
                try:
                    while not self._post(client, number):
                        self.told += 1
                except httpx.HTTPError as error:
                    self._lost.append((number, repr(error)))

    def _post(self, client: httpx.Client, number: int) -> bool:
        response = client.post("/v1/run", json={"argv": ["echo", str(number)]})
        if response.status_code == 503:
            return not response.headers["retry-after"]
        assert number not in self._answers
        self._answers[number] = response.json()["stdout"]["text"]
        return True

    @property
    def answered(self) -> int:
        """How many jobs were answered so far."""
        return len(self._answers)

    def check(self) -> None:
        """Afterwards: each was answered, and with what it printed itself."""
        assert self._lost == []
        assert self._answers == {number: f"{number}\n" for number in range(len(self._answers))}


@pytest.fixture(scope="session")
def load_on() -> Callable[[str, int], AbstractContextManager[Load]]:
    """Jobs for a service, of so many callers at once, for as long as a context lasts."""
    return lambda url, callers: Load(url).by(callers)


@pytest.fixture(scope="session")
def service_class() -> type[Service]:
    """For a service of a module's own: it takes settings as JAIL_* variables, and is closed in the end."""
    return Service


HERE = Path(__file__).parent

CONTAINER, ENGINE = HERE / "host/programs/container.py", HERE / "host/programs/engine.py"
OUTSIDE = HERE / "network/outside.py"

STRANGERS = {
    "JAIL_EGRESS": "*.example:443/tcp,*.example:443/udp,*:443/tcp,*:443/udp",
    # Addresses of documentation, which the stand-ins have.
    "JAIL_EGRESS_PRIVATE": "198.51.100.0/24,2001:db8::/32",
    "JAIL_SLOTS": "2",
    "JAIL_READY_MIN": "0",
    "JAIL_READY_MAX": "2",
}


class Stranger:
    """The engine in its container."""

    def __init__(self, environment: dict[str, str], state: Path, resolv: Path) -> None:
        command = [
            sys.executable,
            "-P",
            CONTAINER,
            f"outside:{OUTSIDE}:{resolv}",
            sys.executable,
            "-P",
            ENGINE,
        ]
        self.process = subprocess.Popen(
            command,
            env={**environment, **STRANGERS, "JAIL_STATE": str(state), "HOME": str(state)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        assert self._hear() == "ready"

    def _hear(self) -> Any:
        return json.loads(self.process.stdout.readline())

    def begin(self, body: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(body) + "\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, Any]:
        return self._hear()

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        self.begin(body)
        return self.end()

    @property
    def way(self) -> int:
        """The process of the way out; one that it forks to begin with is not it."""
        pids = Processes().descendants(self.process.pid)
        found = [pid for pid in pids if Processes.name(pid).startswith(("slirp4netns", "pasta", "passt"))]
        return next(pid for pid in found if Processes.parent(pid) not in found)

    @property
    def hub(self) -> int:
        """The process of the hub, whose grandchild the way out is."""
        return Processes.parent(Processes.parent(self.way))

    def wait_for(self, words: str) -> int:
        """A process with a command that holds these words, when there is one. Fails at the deadline."""
        end = time.monotonic() + DEADLINE_SECONDS
        while True:
            for pid in Processes().descendants(self.process.pid):
                if words in Processes.command(pid):
                    return pid
            assert time.monotonic() < end, "the job does not begin"

    def beside(self, program: str) -> str:
        """What a Python program prints in the stand-in for the host's network."""
        (engine,) = Processes.children(self.process.pid)
        enter = [f"--{kind}=/proc/{engine}/ns/{kind}" for kind in ("user", "net")]
        command = ["nsenter", *enter, sys.executable, "-Ic", program]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def close(self) -> None:
        self.process.stdin.close()
        try:
            assert self.process.wait(60) == 0
        finally:
            self.process.kill()
            self.process.stdout.close()


def command_environment() -> dict[str, str]:
    """What `jail` needs of our environment, and none of its settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME", "PYTHONPATH", "USER", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
    }


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For running the `jail` command: what it needs of our environment, and none of its settings."""
    return command_environment()


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory that sandboxes can reach, which pytest's own are closed to."""
    with tempfile.TemporaryDirectory(prefix="jail-state-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Start services with settings given as JAIL_* variables; all end with the test."""
    with ExitStack() as started:
        yield lambda **settings: started.enter_context(closing(Service(settings)))


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """One service for the whole session, with the settings of whoever sets none but room for two jobs."""
    with closing(Service({"JAIL_SLOTS": "2"})) as running:
        yield running


@pytest.fixture(scope="session")
def stranger(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    """An engine in a container whose network is a stand-in for the host's and the internet."""
    try:
        find_way()
    except HostError as lack:
        pytest.skip(str(lack))
    resolv = tmp_path_factory.mktemp("outside") / "resolv.conf"
    resolv.write_text("nameserver 198.51.100.2\n")
    # As a host's is, whatever our umask.
    resolv.chmod(0o644)
    with tempfile.TemporaryDirectory(prefix="jail-state-") as state:
        Path(state).chmod(0o711)
        made = Stranger(environment, Path(state), resolv)
        yield made
        made.close()
