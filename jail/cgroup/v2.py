"""cgroup v2: one tree, delegated to this user.

Documentation/admin-guide/cgroup-v2.rst. Inner nodes hold no processes, so the service itself moves
into a leaf beside the sandboxes. Sandboxes are born in their cgroup and ended by cgroup.kill.
"""

import operator
import os
import select
import stat
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path

from jail.cgroup import files
from jail.cgroup.interface import PERIOD_US, Counters, Limits, Pressure
from jail.locks import held, lock, try_lock

REQUIRED = ("memory", "pids", "cpu")
OPTIONAL = ("io",)

_SWAP = "memory.swap.max"
_MEMORY_PEAK = "memory.peak"
_PIDS_PEAK = "pids.peak"
_IO_STAT = "io.stat"
_CPU_STALLS = "cpu.pressure"
_STALLS = ((_CPU_STALLS, b"some"), ("memory.pressure", b"full"), ("io.pressure", b"full"))

SERVICE = "service"
SANDBOXES = "sandboxes"


class CgroupV2:
    """One sandbox's directory."""

    joins: tuple[int, ...] = ()
    oom_event: tuple[int, ...] = ()

    def __init__(self, directory: str, optional: Collection[str]) -> None:
        """Make the directory and open what the sandbox needs of it. Raises OSError.

        optional: the files that not every kernel has and this one does; of memory.peak, lets us write.
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
            # Since Linux 6.12 it begins anew where it is written to, for that descriptor alone.
            resets = _MEMORY_PEAK in optional
            self._peak = files.open_each(directory, (_MEMORY_PEAK,), os.O_RDWR if resets else os.O_RDONLY)
            undo.callback(files.close_each, self._peak)
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

    def begin(self) -> int:
        """What is counted from here on is the job's. Returns the bytes charged before it. Raises OSError."""
        if _MEMORY_PEAK in self._optional:
            os.write(*self._peak, b"0")
        self._before = self._growing()
        self._setup_bytes = files.read_number(f"{self._directory}/memory.current")
        return self._setup_bytes

    def count(self) -> Counters:
        """Read the counters, once the job has begun. Raises OSError."""
        directory, optional = self._directory, self._optional
        events = files.read_fields(f"{directory}/memory.events")
        peak = f"{directory}/{_PIDS_PEAK}"
        throttled_ns, read, written, *stalls = map(operator.sub, self._growing(), self._before)
        return Counters(
            memory_peak_bytes=int(os.pread(*self._peak, 32, 0)),
            memory_source=_MEMORY_PEAK,
            memory_setup_bytes=self._setup_bytes,
            oom_kills=events[b"oom_kill"],
            limit_oom=events[b"oom"] > 0,
            pids_peak=files.read_number(peak) if _PIDS_PEAK in optional else None,
            pids_limit_hits=files.read_fields(f"{directory}/pids.events")[b"max"],
            throttled_ns=throttled_ns,
            io_read_bytes=read if _IO_STAT in optional else None,
            io_write_bytes=written if _IO_STAT in optional else None,
            pressure=Pressure(*stalls) if stalls else None,
        )

    def _growing(self) -> tuple[int, ...]:
        """What only grows: nanoseconds held back, bytes read, bytes written, nanoseconds stalled."""
        directory, optional = self._directory, self._optional
        throttled_ns = files.read_fields(f"{directory}/cpu.stat")[b"throttled_usec"] * 1000
        transferred = _count_io(files.read(f"{directory}/{_IO_STAT}")) if _IO_STAT in optional else (0, 0)
        stalls = _STALLS if _CPU_STALLS in optional else ()
        stalled = (_count_stalled(files.read(f"{directory}/{name}"), kind) for name, kind in stalls)
        return throttled_ns, *transferred, *stalled

    def remove(self) -> None:
        """Remove the directory; nothing may live in it. Raises OSError."""
        self.hand_over()
        files.close_each(self._peak)
        self._peak = ()
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
        places = (self._own / name for name in (_SWAP, _PIDS_PEAK, _IO_STAT, _CPU_STALLS))
        self._optional = frozenset(place.name for place in places if place.exists())
        if (self._own / _MEMORY_PEAK).stat().st_mode & stat.S_IWUSR:
            self._optional |= {_MEMORY_PEAK}

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


def _count_io(text: bytes) -> tuple[int, ...]:
    """Bytes read and written, of all devices: "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0"."""
    pairs = [field.split(b"=") for field in text.split() if b"=" in field]
    return tuple(sum(int(value) for name, value in pairs if name == kind) for kind in (b"rbytes", b"wbytes"))


def _count_stalled(text: bytes, kind: bytes) -> int:
    """Nanoseconds of one kind: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", in microseconds."""
    (line,) = (line for line in text.splitlines() if line.startswith(kind))
    return int(line.rpartition(b"total=")[2]) * 1000


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
