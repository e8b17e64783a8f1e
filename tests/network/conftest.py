"""A hub of each test's own, and stand-ins for sandboxes. Nothing of `jail` but its client is at work."""

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from jail.namespace import OuterNamespace
from jail.network import addresses
from jail.network.client import Hub
from jail.network.hub import SPARE_BRIDGES

T = TypeVar("T")

AGENT = str(Path(__file__).parent / "agent.py")
DEADLINE_SECONDS = 120
SLOTS = 64

IDENTITY = 1001
"""The hub's id in the outer namespace."""

PRELUDE = """
import ctypes, errno, os, select, socket, struct, time
SECONDS = 60
"""


@pytest.fixture(scope="session")
def outer() -> Iterator[OuterNamespace]:
    namespace = OuterNamespace()
    yield namespace
    namespace.close()


def begun(outer: OuterNamespace, command: list[str], **streams: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-P", AGENT, str(outer.descriptor), *command], pass_fds=[outer.descriptor], **streams
    )


class Member:
    """One stand-in. `slot`, which it is to have; `namespace`, a descriptor of its network; its `pid`."""

    def __init__(self, outer: OuterNamespace, slot: int) -> None:
        self.slot = slot
        self.ipv4, self.ipv6 = str(addresses.ipv4(slot)), str(addresses.ipv6(slot))
        self.mac = addresses.mac(slot)
        self._process = begun(outer, [], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self._process.stdout.readline()) == "ready"
        self.pid = self._process.pid
        self.namespace = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.run(PRELUDE)

    def begin(self, program: str) -> None:
        """Have it run a program, and do not wait."""
        self._process.stdin.write(json.dumps(program) + "\n")
        self._process.stdin.flush()

    def end(self) -> Any:
        """What the program that was begun has left as `result`."""
        answer = json.loads(self._process.stdout.readline())
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def run(self, program: str) -> Any:
        self.begin(program)
        return self.end()

    def value(self, expression: str) -> Any:
        return self.run(f"result = {expression}")

    def die(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        with self._process:
            self._process.kill()
        if self.namespace >= 0:
            os.close(self.namespace)


class Scene:
    """A hub, and what a test does with it. `hub`, its client; `process`, its program.

    Attribute `expected_status`: what the program is to end with.
    """

    def __init__(
        self, outer: OuterNamespace, runner: asyncio.Runner, undo: ExitStack, slots: int = SLOTS
    ) -> None:
        self._outer, self._runner, self._undo, self._slots = outer, runner, undo, slots
        self.expected_status = 0
        self.hub = self.do(self._start())

    async def _start(self) -> Hub:
        return Hub(self._begin)

    def _begin(self, control: socket.socket) -> None:
        command = [sys.executable, "-P", "-m", "jail.network", str(self._slots), str(IDENTITY)]
        self.process = begun(self._outer, command, stdin=control)

    def do(self, work: Awaitable[T]) -> T:
        async def within() -> T:
            return await asyncio.wait_for(work, DEADLINE_SECONDS)

        return self._runner.run(within())

    def member(self, slot: int) -> Member:
        """A stand-in that is not in any segment yet."""
        made = Member(self._outer, slot)
        self._undo.callback(made.close)
        return made

    def members(self, *slots: int) -> list[Member]:
        """Stand-ins that have a segment of their own."""
        made = [self.member(slot) for slot in slots]
        self.open(*made)
        return made

    def open(self, *members: Member) -> Any:
        return self.do(self.hub.open({member.slot: member.namespace for member in members}))

    def inside(self, *command: str) -> str:
        """What a command prints in the hub's network namespace, as root of it."""
        enter = [
            "nsenter",
            f"--user=/proc/{self.process.pid}/ns/user",
            f"--net=/proc/{self.process.pid}/ns/net",
        ]
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=True).stdout

    def links(self) -> set[str]:
        """The names of the links in the hub."""
        return {link["ifname"] for link in json.loads(self.inside("ip", "-j", "link"))}

    def as_hub(self, program: str) -> subprocess.Popen:
        """A program of Python that runs as the hub's user, once it has said a line."""
        script = f"import os; os.setresuid({IDENTITY}, {IDENTITY}, {IDENTITY})\n{program}"
        made = begun(
            self._outer, [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        made.stdout.readline()
        return made

    @contextmanager
    def at_most_descriptors(self, count: int) -> Iterator[None]:
        """Within the context the hub can have no more of them, or only so many on their way."""
        before = resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (count, before[1]))
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, before)

    def threads(self) -> list[int]:
        return [int(name) for name in os.listdir(f"/proc/{self.process.pid}/task")]

    def spare(self) -> int:
        """How many bridges there are that nobody uses."""
        return sum(state == "DOWN" for state in self._bridges().values())

    def _bridges(self) -> dict[str, str]:
        """The state of every bridge: UP, or DOWN when it has no port."""
        told = json.loads(self.inside("ip", "-j", "link"))
        return {link["ifname"]: link["operstate"] for link in told if link["ifname"].startswith("b")}

    def settle(self, *slots: int) -> int:
        """Wait until the hub has the links of these slots and no other; how many descriptors it holds."""
        end = time.monotonic() + DEADLINE_SECONDS
        ports = {addresses.port(slot) for slot in slots}
        while {
            name for name in self.links() if name.startswith("p")
        } != ports or self.spare() != SPARE_BRIDGES:
            assert time.monotonic() < end, self.links()
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@pytest.fixture
def scene(outer: OuterNamespace, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A hub, by default for SLOTS, that ends well and whose client leaves no descriptor."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop()
        before = len(os.listdir("/proc/self/fd"))
        with ExitStack() as undo:
            made = Scene(outer, runner, undo, getattr(request, "param", SLOTS))
            yield made
            made.hub.close()
            status = made.process.wait(DEADLINE_SECONDS)
        assert status == made.expected_status
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(scope="session")
def stand_ins() -> Any:
    """This module, for those that make hubs and members of their own."""
    return sys.modules[__name__]
