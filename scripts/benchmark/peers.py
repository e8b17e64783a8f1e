"""Others that run a program in a fresh sandbox without root, as Debian ships them, in turns with jail.

Each gets the same static no-op program in a root of its own with /proc, /dev and /tmp, and all namespaces.
None of them is a service: what is measured is a process, from its start to its end.
"""

import itertools
import json
import os
import selectors
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from benchmark import figures, load
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.latency import PAUSE_SECONDS
from benchmark.load import Load
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import CLIENTS, Session

TITLE = "the same no-op job: jail over HTTP, and others as processes"
IS_PLAIN = True

JAIL = "jail"
_SPARSE = 3
_SECONDS_MAX = 0.7
_TRIAL_SECONDS = 20

Command = Callable[[], list[str]]
"""The arguments of the next job, its program first."""


class Round(msgspec.Struct, frozen=True):
    """One after the other; PAUSE_SECONDS between two; CLIENTS at once."""

    one: Times
    sparse: Times
    many: Load


class Figures(msgspec.Struct, frozen=True):
    """Rounds by name, jail's first; and of those that are installed but do not run here, what they say."""

    rounds: dict[str, tuple[Round, ...]]
    failed: dict[str, str]


def measure(session: Session) -> Figures:
    """Raises OSError."""
    found, failed = _installed(session)
    rounds: dict[str, list[Round]] = {name: [] for name in (JAIL, *found)}
    advance = session.task("peers", session.rounds)
    with serving() as service:
        load.warm_up(service.port)
        for _ in range(session.rounds):
            rounds[JAIL].append(_jail_round(service.port, session.runs))
            for name, command in found.items():
                rounds[name].append(_round(command, session.runs))
            advance()
    return Figures({name: tuple(each) for name, each in rounds.items()}, failed)


def _installed(session: Session) -> tuple[Mapping[str, Command], dict[str, str]]:
    root = session.directory / "bundle" / "rootfs"
    _make_root(root, session.no_op)
    commands = {"bare": lambda: [session.no_op]} | _commands(root)
    failed = {}
    for name, command in list(commands.items()):
        if why := _trial(command()):
            failed[name] = why
            del commands[name]
    return commands, failed


def _make_root(root: Path, no_op: str) -> None:
    for name in ("bin", "dev", "proc", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(no_op, root / "bin" / "true")
    (root.parent / "config.json").write_text(json.dumps(bundle(os.getuid(), os.getgid())))


def _commands(root: Path) -> dict[str, Command]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    numbers = itertools.count()
    found: dict[str, Command] = {}
    if bubblewrap := shutil.which("bwrap", path=path):
        walls = ["--unshare-all", "--die-with-parent", "--ro-bind", str(root), "/"]
        mounts = ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        found["bubblewrap"] = lambda: [bubblewrap, *walls, *mounts, "/bin/true"]
    for name in ("crun", "runc"):
        if program := shutil.which(name, path=path):
            found[name] = _container(program, root.parent, numbers)
    return found


def _container(program: str, bundle_directory: Path, numbers: Iterator[int]) -> Command:
    state = f"{bundle_directory}-{Path(program).name}"
    run = [program, "--root", state, "run", "--bundle", str(bundle_directory)]
    return lambda: [*run, f"job-{next(numbers)}"]


def bundle(uid: int, gid: int) -> dict:
    """A configuration of the OCI runtime specification, 1.0.2, for that user without root."""
    mount = {"destination": "/proc", "type": "proc", "source": "proc"}
    tmpfs = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]}
    kinds = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": [],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [mount, {"destination": "/dev", **tmpfs}, {"destination": "/tmp", **tmpfs}],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
        },
    }


def _trial(command: list[str]) -> str | None:
    """What it says when it cannot run here; None when it can."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"nothing after {_TRIAL_SECONDS} s"
    if done.returncode == 0:
        return None
    return reason(done.stderr.decode(errors="replace"), done.returncode)


def reason(said: str, code: int) -> str:
    """The last line that a program said, or else its exit code."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"


def _jail_round(port: int, runs: int) -> Round:
    one = load.sequence(port, runs)
    sparse = load.sequence(port, _SPARSE, PAUSE_SECONDS)
    return Round(one, sparse, load.crowd(port, CLIENTS, runs * 2))


def _round(command: Command, runs: int) -> Round:
    return Round(
        figures.times(sequence(command, runs, 0)),
        figures.times(sequence(command, _SPARSE, PAUSE_SECONDS)),
        _crowd(command, runs * 2),
    )


def sequence(command: Command, runs: int, pause_seconds: float) -> list[float]:
    """Seconds of each, one after the other; of a slow one, as many as there is time for. Raises OSError."""
    found: list[float] = []
    deadline = time.perf_counter() + _SECONDS_MAX + runs * pause_seconds
    while len(found) < runs and time.perf_counter() < deadline:
        time.sleep(pause_seconds)
        arguments = command()
        began = time.perf_counter()
        _, status = os.waitpid(_start(arguments), 0)
        found.append(time.perf_counter() - began)
        _check(arguments, status)
    return found


def _crowd(command: Command, runs: int) -> Load:
    """CLIENTS at once, the next when one has ended."""
    found: list[float] = []
    with selectors.DefaultSelector() as ends:
        began = time.perf_counter()
        started = 0
        while started < CLIENTS or ends.get_map():
            while started < CLIENTS or (
                started < runs
                and len(ends.get_map()) < CLIENTS
                and time.perf_counter() - began < _SECONDS_MAX
            ):
                _begin(command(), ends)
                started += 1
            for key, _ in ends.select():
                ends.unregister(key.fileobj)
                found.append(_end(*key.data, key.fd))
        rate = len(found) / (time.perf_counter() - began)
    return Load(CLIENTS, rate, figures.times(found))


def _begin(arguments: list[str], ends: selectors.BaseSelector) -> None:
    began = time.perf_counter()
    pid = _start(arguments)
    ends.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, arguments, began))


def _end(pid: int, arguments: list[str], began: float, descriptor: int) -> float:
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - began
    os.close(descriptor)
    _check(arguments, status)
    return seconds


def _start(arguments: list[str]) -> int:
    return os.posix_spawn(arguments[0], arguments, os.environ)


def _check(arguments: list[str], status: int) -> None:
    if status:
        raise OSError(f"{arguments[0]} ended with status {status:#x}")


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """Each, over jail in the same round."""
    jail = found.rounds[JAIL]
    for name, rounds in found.rounds.items():
        pairs = list(zip(rounds, jail, strict=True))
        sparse = statistics.median(each.sparse.p50_ms for each in rounds)
        yield Row(
            name=f"{name}: one at a time, p50",
            value=statistics.median(each.one.p50_ms for each in rounds),
            ratio=statistics.median(each.one.p50_ms / ours.one.p50_ms for each, ours in pairs),
            to="jail",
            note=f"{PAUSE_SECONDS * 1e3:.0f} ms apart: {sparse:.2f} ms",
        )
    for name, rounds in found.rounds.items():
        pairs = list(zip(rounds, jail, strict=True))
        yield Row(
            name=f"{name}: {CLIENTS} at a time",
            value=statistics.median(each.many.jobs_per_s for each in rounds),
            unit="jobs/s",
            ratio=statistics.median(each.many.jobs_per_s / ours.many.jobs_per_s for each, ours in pairs),
            to="jail",
        )
    for name, why in found.failed.items():
        yield Row(name=f"{name} does not run here", note=why)
