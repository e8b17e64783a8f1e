"""`jail serve`, started for a measurement."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from benchmark.client import Connection
from jail.settings import Settings

START_SECONDS = 60
STOP_SECONDS = 60
_LOG_BYTES = 4000
# More than any sandbox takes before it has run anything.
_READY_BYTES = 4 << 20


class Service(msgspec.Struct, frozen=True):
    """A running one. `start_ms`: from its process being made to /readyz saying yes."""

    port: int
    pid: int
    start_ms: float

    def inits(self) -> list[int]:
        """The first process of every sandbox that lives, ready or in use: its supervisor's children."""
        return children(self.supervisor())

    def supervisor(self) -> int:
        """Its process. Raises OSError when there is none."""
        for keeper in children(self.pid):
            for supervisor in children(keeper):
                return supervisor
        raise OSError("the service has no supervisor")

    def jobs(self) -> list[int]:
        """The first process of every job that runs: it is init's child, and a program of its own by now."""
        inits = self.inits()
        own = {command(init) for init in inits}
        return [job for init in inits for job in children(init) if command(job) not in own]

    def await_ready(self, count: int) -> None:
        """Wait until at least so many sandboxes live. Raises OSError."""
        await_many(lambda: len(self.inits()), count)

    def await_jobs(self, count: int) -> None:
        """Wait until at least so many jobs run. Raises OSError."""
        await_many(lambda: len(self.jobs()), count)


def await_many(look: Callable[[], int], count: int) -> None:
    """Look until there are so many. Raises OSError after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while (found := look()) < count:
        if time.monotonic() > deadline:
            raise OSError(f"after {START_SECONDS} s there are {found} of {count}")
        time.sleep(0.01)


def ready(count: int) -> dict[str, object] | None:
    """The settings of a service that keeps so many sandboxes ready; None where there are none."""
    wanted = {"ready_min": count, "ready_max": count, "ready_memory_bytes": (count + 1) * _READY_BYTES}
    return wanted if set(wanted) <= set(Settings.__struct_fields__) else None


@contextmanager
def serving(
    settings: Mapping[str, object] | None = None,
    processors: set[int] | None = None,
    wrapper: Sequence[str] = (),
) -> Iterator[Service]:
    """`jail serve` on a free port for as long as the context lasts, all of it on these processors.

    `settings` by their names: `{"slots": 1000}` is JAIL_SLOTS. `wrapper`: a command that runs it
    as its child. Raises OSError when it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {f"JAIL_{name.upper()}": str(value) for name, value in (settings or {}).items()}
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        process = subprocess.Popen(
            # -P: the installed package, also where the current directory is a checkout.
            [*wrapper, sys.executable, "-P", "-m", "jail", "serve"],
            env={**os.environ, **variables, "JAIL_ADDRESS": f"127.0.0.1:{port}"},
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=(lambda: os.sched_setaffinity(0, processors)) if processors else None,
        )
        try:
            _await_ready(process, port)
            start_ms = (time.monotonic() - began) * 1e3
            yield Service(port, children(process.pid)[0] if wrapper else process.pid, start_ms)
        except OSError as error:
            error.add_note(_end_of(log))
            raise
        finally:
            _stop(process, is_wrapped=bool(wrapper))


def _stop(process: subprocess.Popen, is_wrapped: bool) -> None:
    """Ask it to end, and end it if it does not. A wrapper may keep signals to itself; it ends with it."""
    if is_wrapped:
        for pid in children(process.pid):
            os.kill(pid, signal.SIGTERM)
    else:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise OSError("jail serve did not stop") from None


def _await_ready(process: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with closing(Connection(port)) as connection:
                if b" 200 " in connection.ask("GET /readyz", b"")[:20]:
                    return
        except ConnectionError:
            pass
        time.sleep(0.01)
    raise OSError("jail serve did not get ready")


def _end_of(log: BinaryIO) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-_LOG_BYTES:]


def children(pid: int) -> list[int]:
    """The children of the main thread of a process; of one that is gone: none."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command(pid: int) -> str:
    """The name of a process; of one that is gone: none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def parent(pid: int) -> int:
    """The parent of a process, by its status. Raises OSError."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))
