"""System calls of one no-op job, counted by strace where it is installed.

The service is started under strace, which follows its main thread alone; it runs some jobs, and then in
another run more of them: what it takes to start falls out of the difference. The supervisor of another
service is attached to, once alone and once with all that it makes.
"""

import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmark import load
from benchmark.floor import Floor
from benchmark.row import Row
from benchmark.service import Service, serving
from benchmark.session import Session, UnavailableError

TITLE = "system calls of a no-op job"
IS_PLAIN = False

_FEW, _MANY = 50, 150
_ATTACH_SECONDS = 10
_SHOWN = 6


class Figures(msgspec.Struct, frozen=True):
    """Calls for each job by name: of `jail serve`'s main thread, of the supervisor, of all that it makes.

    `program`: of /bin/true itself, which are among those of what is made.
    """

    service: dict[str, float]
    supervisor: dict[str, float]
    made: dict[str, float]
    program: dict[str, float]


def measure(session: Session) -> Figures:
    """Raises OSError, UnavailableError."""
    strace = shutil.which("strace")
    if strace is None:
        raise UnavailableError("strace is not installed")
    advance = session.task("system calls", 4)
    table = session.directory / "strace"
    begun = [strace, "-qq", "-c", "-U", "name,calls", "-o", str(table)]
    few = _serve(begun, table, _FEW)
    advance()
    many = _serve(begun, table, _MANY)
    advance()
    with serving() as service:
        load.warm_up(service.port)
        alone = _attached(begun, table, service, [])
        advance()
        all_of_it = _attached(begun, table, service, ["-f"])
    subprocess.run([*begun, "/bin/true"], check=True)
    advance()
    return Figures(
        service=difference(many, few, _MANY - _FEW),
        supervisor=difference(alone, {}, _FEW),
        made=difference(all_of_it, alone, _FEW),
        program=difference(parse(table.read_text()), {}, 1),
    )


def _serve(begun: list[str], table: Path, jobs: int) -> Counter[str]:
    """What a service calls in its whole life."""
    with serving(wrapper=begun) as service:
        load.warm_up(service.port, jobs)
    return parse(table.read_text())


def _attached(begun: list[str], table: Path, service: Service, options: Sequence[str]) -> Counter[str]:
    """What the supervisor calls while there are some jobs."""
    with _attach([*begun, *options], service.supervisor()):
        load.warm_up(service.port, _FEW)
    return parse(table.read_text())


@contextmanager
def _attach(command: list[str], pid: int) -> Iterator[None]:
    with subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE) as process:
        try:
            _await_tracer(process, pid)
            yield
        finally:
            process.send_signal(signal.SIGINT)


def _await_tracer(process: subprocess.Popen, pid: int) -> None:
    deadline = time.monotonic() + _ATTACH_SECONDS
    while f"TracerPid:\t{process.pid}\n" not in Path(f"/proc/{pid}/status").read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise UnavailableError("strace may not attach to the supervisor")
        time.sleep(0.01)


def parse(table: str) -> Counter[str]:
    """Calls by name, of a table with these two columns."""
    found: Counter[str] = Counter()
    for line in table.splitlines():
        name, *rest = line.split() or [""]
        if len(rest) == 1 and rest[0].isdigit() and name != "total":
            found[name] += int(rest[0])
    return found


def difference(more: Counter[str], less: Counter[str] | dict[str, int], jobs: int) -> dict[str, float]:
    """What each of that many jobs more takes, the most frequent first."""
    found = {name: (count - less.get(name, 0)) / jobs for name, count in more.items()}
    # What strace itself interrupts is called again.
    found.pop("restart_syscall", None)
    return {name: n for name, n in sorted(found.items(), key=lambda item: -item[1]) if n >= 0.02}


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """How many, and which most."""
    made = {name: max(0.0, n - found.program.get(name, 0)) for name, n in found.made.items()}
    told = {
        "jail serve, its main thread": found.service,
        "the supervisor": found.supervisor,
        "init and the job, without its program's": made,
        "the program's own: /bin/true": found.program,
    }
    for name, counts in told.items():
        most = sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN]
        note = ", ".join(f"{call} {count:.1f}" for call, count in most)
        yield Row(name=name, value=sum(counts.values()), unit="calls", note=note)
