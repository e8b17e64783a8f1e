"""cgroup v2: one tree, delegated to this user.

Documentation/admin-guide/cgroup-v2.rst. Inner nodes hold no processes, so the service itself moves
into a leaf beside the sandboxes. Sandboxes are born in their cgroup and ended by cgroup.kill.
"""

import os
import select
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path

from jail.cgroup import files
from jail.cgroup.interface import PERIOD_US, Counters, Limits
from jail.locks import held, lock, try_lock

REQUIRED = ("memory", "pids", "cpu")
OPTIONAL = ("io",)

_SWAP = "memory.swap.max"
_PIDS_PEAK = "pids.peak"
_IO_STAT = "io.stat"

SERVICE = "service"
SANDBOXES = "sandboxes"


class CgroupV2:
    """One sandbox's directory."""

    joins: tuple[int, ...] = ()
    oom_event: tuple[int, ...] = ()

    def __init__(self, directory: str, optional: Collection[str]) -> None:
        """Make the directory and open what the sandbox needs of it. Raises OSError.

        optional: the files that not every kernel has and this one does.
        """
        self._directory = directory
        self._optional = optional
        self._written = files.Written()
        with ExitStack() as undo:
            os.mkdir(directory)
            undo.callback(os.rmdir, directory)
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, folder)
            (kill,) = files.open_each(directory, ("cgroup.kill",), os.O_WRONLY)
            undo.callback(os.close, kill)
            self.born = (folder, kill)
            self.cpu_counters = files.open_each(directory, ("cpu.stat",), os.O_RDONLY)
            undo.callback(files.close_each, self.cpu_counters)
            # One process of a sandbox never outlives another's OOM kill.
            files.write(f"{directory}/memory.oom.group", 1)
            undo.pop_all()

    def hand_over(self) -> None:
        """Close the descriptors, which the supervisor has now."""
        files.close_each(self.born + self.cpu_counters)
        self.born = self.cpu_counters = ()

    def limit(self, limits: Limits) -> None:
        """Set the limits, as far as they are others than before. Raises OSError."""
        directory, write = self._directory, self._written.write
        write(f"{directory}/memory.max", limits.memory_bytes)
        # A kernel without swap has no such file and nothing to forbid.
        if _SWAP in self._optional:
            write(f"{directory}/{_SWAP}", 0)
        write(f"{directory}/pids.max", limits.pids)
        write(f"{directory}/cpu.max", f"{limits.quota_us} {PERIOD_US}")

    def memory_bytes(self) -> int:
        """What is charged to it now. Raises OSError."""
        return files.read_number(f"{self._directory}/memory.current")

    def count(self) -> Counters:
        """Read the counters, once limits have been set. Raises OSError."""
        directory = self._directory
        events = files.read_fields(f"{directory}/memory.events")
        peak = f"{directory}/{_PIDS_PEAK}"
        read, written = self._count_io()
        return Counters(
            memory_peak_bytes=files.read_number(f"{directory}/memory.peak"),
            memory_source="memory.peak",
            oom_kills=events[b"oom_kill"],
            limit_oom=events[b"oom"] > 0,
            pids_peak=files.read_number(peak) if _PIDS_PEAK in self._optional else None,
            pids_limit_hits=files.read_fields(f"{directory}/pids.events")[b"max"],
            throttled_ns=files.read_fields(f"{directory}/cpu.stat")[b"throttled_usec"] * 1000,
            io_read_bytes=read,
            io_write_bytes=written,
        )

    def _count_io(self) -> tuple[int, int] | tuple[None, None]:
        if _IO_STAT not in self._optional:
            return None, None
        # "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0"
        text = files.read(f"{self._directory}/{_IO_STAT}").decode()
        pairs = [field.split("=") for field in text.split() if "=" in field]
        return tuple(
            sum(int(value) for name, value in pairs if name == kind) for kind in ("rbytes", "wbytes")
        )

    def remove(self) -> None:
        """Remove the directory; nothing may live in it. Raises OSError."""
        self.hand_over()
        os.rmdir(self._directory)


class HierarchyV2:
    """The cgroup beneath which this user may make others."""

    version = "v2"

    def __init__(self, base: Path, controllers: tuple[str, ...]) -> None:
        """Take a directory with `controllers` enabled for its children."""
        self._base = base
        self._enable = _enable(controllers)
        self.missing = tuple(name for name in OPTIONAL if name not in controllers)

    @property
    def bases(self) -> tuple[Path, ...]:
        """The delegated directory."""
        return (self._base,)

    @property
    def claimed(self) -> tuple[Path, ...]:
        """The directory of this service in it."""
        return (self._own,)

    def claim(self, instance: str) -> None:
        """Sweep what dead services left, then make a directory for this one. Raises OSError."""
        # Others cannot open it, and so not lock it either.
        self._base.chmod(0o700)
        with held(self._base):
            for directory in list(self._base.iterdir()):
                if directory.is_dir():
                    _sweep(directory)
            self._own = self._base / instance
            self._own.mkdir()
            self._lock = lock(self._own)
        files.write(self._own / "cgroup.subtree_control", self._enable)
        places = (self._own / name for name in (_SWAP, _PIDS_PEAK, _IO_STAT))
        self._optional = frozenset(place.name for place in places if place.exists())

    def make(self, name: str) -> CgroupV2:
        """A new cgroup of that name in the claimed directory, not yet limited. Raises OSError."""
        return CgroupV2(f"{self._own}/{name}", self._optional)

    def destroy(self, name: str) -> None:
        """End all that lives in a cgroup that was made here, and remove it. Raises OSError."""
        _end(self._own / name)

    def close(self) -> None:
        """Remove the claimed directory, in which there are no cgroups any more. Raises OSError."""
        with held(self._base):
            self._own.rmdir()
        os.close(self._lock)


def _sweep(directory: Path) -> None:
    dead = try_lock(directory)
    if dead is None:
        return
    for sandbox in list(directory.iterdir()):
        if sandbox.is_dir():
            _end(sandbox)
    directory.rmdir()
    os.close(dead)


def _end(directory: Path) -> None:
    """End every process of a cgroup and remove it."""
    files.write(directory / "cgroup.kill", 1)
    _wait_until_empty(directory)
    directory.rmdir()


def _wait_until_empty(directory: Path) -> None:
    """cgroup.events is POLLPRI when "populated" changes."""
    with (directory / "cgroup.events").open() as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while "populated 1" in events.read():
            if not poll.poll(files.END_SECONDS * 1000):
                return
            events.seek(0)


def _enable(controllers: tuple[str, ...]) -> str:
    return " ".join(f"+{name}" for name in controllers)


def move_aside(directory: Path, leaf: Path) -> None:
    """Move every process of a cgroup into a leaf of it: then it can have other children. Raises OSError."""
    leaf.mkdir(exist_ok=True)
    for process in (directory / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            files.write(leaf / "cgroup.procs", process)


def settle(own: Path) -> HierarchyV2:
    """Arrange the delegated cgroup `own`, which this process is in: itself in a leaf, sandboxes beside it.

    Raises OSError.
    """
    sandboxes = own / SANDBOXES
    move_aside(own, own / SERVICE)
    offered = (own / "cgroup.controllers").read_text().split()
    controllers = tuple(name for name in (*REQUIRED, *OPTIONAL) if name in offered)
    files.write(own / "cgroup.subtree_control", _enable(controllers))
    sandboxes.mkdir(exist_ok=True)
    files.write(sandboxes / "cgroup.subtree_control", _enable(controllers))
    return HierarchyV2(sandboxes, controllers)
