"""cgroup v1 and hybrid: one directory for every controller, the same name in each.

Documentation/admin-guide/cgroup-v1/. A process cannot be born in a v1 cgroup: init writes itself
into the `tasks` files, which are opened here, by the user that may. Not into cgroup.procs: for a
whole process the kernel takes a lock that costs 12 ms after a quiet moment, and init has one thread.
"""

import errno
import os
import select
import signal
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from jail.cgroup import files
from jail.cgroup.interface import Counters, Limits
from jail.locks import held, lock, try_lock

REQUIRED = ("memory", "pids", "cpu", "cpuacct")
# Joined where it is delegated, since it counts; nothing here limits by it.
OPTIONAL = ("blkio",)

IO_COUNTER = "blkio.throttle.io_service_bytes"
"""Of bytes that were read and written, by device; the last line is "Total 0" when there were none."""

_MEMORY_PEAK = "memory.max_usage_in_bytes"
_MEMSW = "memory.memsw.limit_in_bytes"
_PIDS_PEAK = "pids.peak"

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_CPU_COUNTERS = ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys")


class CgroupV1:
    """One sandbox's directories, by controller."""

    born: tuple[int, ...] = ()

    def __init__(self, directories: Mapping[str, str], optional: Collection[str]) -> None:
        """Make the directories and open what the sandbox needs of them. Raises OSError.

        optional: the files that not every kernel has and this one does.
        """
        self._directories = directories
        self._optional = optional
        self._written = files.Written()
        self._limits: Limits | None = None
        # cpu and cpuacct are often one mount.
        self._distinct = tuple(dict.fromkeys(directories.values()))
        with ExitStack() as undo:
            for directory in self._distinct:
                os.mkdir(directory)
                undo.callback(os.rmdir, directory)
            joins: list[int] = []
            undo.callback(files.close_each, joins)
            for directory in self._distinct:
                joins += files.open_each(directory, ("tasks",), os.O_WRONLY)
            self.joins = tuple(joins)
            self.cpu_counters = files.open_each(directories["cpuacct"], _CPU_COUNTERS, os.O_RDONLY)
            undo.callback(files.close_each, self.cpu_counters)
            self.oom_event = (self._watch_oom(),)
            undo.pop_all()

    def _watch_oom(self) -> int:
        """An eventfd that the kernel raises when the group runs out (cgroup-v1/memory.rst, 10)."""
        directory = self._directories["memory"]
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                files.write(f"{directory}/cgroup.event_control", f"{event} {control}")
            except OSError:
                os.close(event)
                raise
        finally:
            os.close(control)
        return event

    def hand_over(self) -> None:
        """Close the descriptors, which the supervisor has now."""
        files.close_each(self.joins + self.cpu_counters + self.oom_event)
        self.joins = self.cpu_counters = self.oom_event = ()

    def limit(self, limits: Limits) -> None:
        """Set the limits, as far as they are others than before. Raises OSError."""
        memory, write = self._directories["memory"], self._written.write
        bounds = [f"{memory}/memory.limit_in_bytes"]
        if _MEMSW in self._optional:
            # Memory and swap together; never below the limit of memory alone.
            bounds.append(f"{memory}/{_MEMSW}")
        rises = self._limits is not None and limits.memory_bytes > self._limits.memory_bytes
        for bound in reversed(bounds) if rises else bounds:
            write(bound, limits.memory_bytes)
        # Socket buffers have a counter of their own here, and are not counted at all without a limit.
        write(f"{memory}/memory.kmem.tcp.limit_in_bytes", limits.memory_bytes)
        write(f"{self._directories['pids']}/pids.max", limits.pids)
        write(f"{self._directories['cpu']}/cpu.cfs_quota_us", limits.quota_us)
        self._limits = limits

    def begin(self) -> int:
        """What is counted from here on is the job's. Returns the bytes charged before it. Raises OSError."""
        # Whatever is written, it begins anew (mem_cgroup_reset() in the kernel).
        files.write(f"{self._directories['memory']}/{_MEMORY_PEAK}", 0)
        self._before = self._throttled_ns(), self._count_io()
        self._setup_bytes = files.read_number(f"{self._directories['memory']}/memory.usage_in_bytes")
        return self._setup_bytes

    def count(self) -> Counters:
        """Read the counters, once the job has begun. Raises OSError."""
        memory, pids = self._directories["memory"], self._directories["pids"]
        peak_bytes = files.read_number(f"{memory}/{_MEMORY_PEAK}")
        throttled_before, io_before = self._before
        read, written = map(_since, self._count_io(), io_before)
        return Counters(
            memory_peak_bytes=peak_bytes,
            memory_setup_bytes=self._setup_bytes,
            memory_source=_MEMORY_PEAK,
            oom_kills=files.read_fields(f"{memory}/memory.oom_control")[b"oom_kill"],
            limit_oom=self._was_full(peak_bytes),
            pids_peak=files.read_number(f"{pids}/{_PIDS_PEAK}") if _PIDS_PEAK in self._optional else None,
            pids_limit_hits=files.read_fields(f"{pids}/pids.events")[b"max"],
            throttled_ns=self._throttled_ns() - throttled_before,
            io_read_bytes=read,
            io_write_bytes=written,
            pressure=None,
        )

    def _was_full(self, peak_bytes: int) -> bool:
        """Whether the limit was reached. Not by memory.failcnt, which newer kernels (6.18) leave at 0.

        The kernel rounds it down to pages, and charges in batches of 64 pages (MEMCG_CHARGE_BATCH): the peak
        may miss the limit by one.
        """
        limit_bytes = self._limits.memory_bytes // _PAGE_BYTES * _PAGE_BYTES
        return peak_bytes + 64 * _PAGE_BYTES >= limit_bytes

    def _throttled_ns(self) -> int:
        return files.read_fields(f"{self._directories['cpu']}/cpu.stat")[b"throttled_time"]

    def _count_io(self) -> tuple[int, int] | tuple[None, None]:
        if "blkio" not in self._directories:
            return None, None
        text = files.read(f"{self._directories['blkio']}/{IO_COUNTER}").decode()
        # "8:0 Read 4096", and at the end "Total 4096".
        lines = [line.split() for line in text.splitlines() if not line.startswith("Total")]
        if not lines:
            # None at all, or not counted: newer kernels (6.18) count from the first throttle setting on.
            return None, None
        return tuple(sum(int(line[2]) for line in lines if line[1] == kind) for kind in ("Read", "Write"))

    def remove(self) -> None:
        """Remove the directories; nothing may live in them. Raises OSError."""
        self.hand_over()
        for directory in self._distinct:
            os.rmdir(directory)


def _since(count: int | None, before: int | None) -> int | None:
    """The kernel may begin to count in between, from nothing."""
    return None if count is None else count - (before or 0)


class HierarchyV1:
    """The directories beneath which this user may make cgroups, by controller."""

    version = "v1"

    def __init__(self, bases: Mapping[str, Path]) -> None:
        """Take the delegated directory of each controller, of REQUIRED all and of OPTIONAL some."""
        self._bases = bases
        self.missing = tuple(name for name in OPTIONAL if name not in bases)

    @property
    def bases(self) -> tuple[Path, ...]:
        """The delegated directories, each once."""
        return tuple(dict.fromkeys(self._bases.values()))

    @property
    def claimed(self) -> tuple[Path, ...]:
        """The directories of this service in them, each once."""
        return tuple(dict.fromkeys(self._own.values()))

    def claim(self, instance: str) -> None:
        """Sweep what dead services left, then make a directory for this one. Raises OSError."""
        for base in self._bases.values():
            # Others cannot open it, and so not lock it either.
            base.chmod(0o700)
        with held(self._bases["memory"]):
            for directory in list(self._bases["memory"].iterdir()):
                if directory.is_dir():
                    self._sweep(directory)
            self._own = {controller: base / instance for controller, base in self._bases.items()}
            for directory in dict.fromkeys(self._own.values()):
                directory.mkdir()
            self._lock = lock(self._own["memory"])
        places = (self._own["memory"] / _MEMSW, self._own["pids"] / _PIDS_PEAK)
        self._optional = frozenset(place.name for place in places if place.exists())

    def _sweep(self, directory: Path) -> None:
        """The lock is on the directory of the memory controller, which therefore goes last."""
        dead = try_lock(directory)
        if dead is None:
            return
        others = {base / directory.name for base in self._bases.values()} - {directory}
        for instance in (*others, directory):
            for sandbox in list(instance.iterdir()) if instance.exists() else ():
                if sandbox.is_dir():
                    _end(sandbox)
            if instance.exists():
                instance.rmdir()
        os.close(dead)

    def make(self, name: str) -> CgroupV1:
        """A new cgroup of that name in the claimed directory, not yet limited. Raises OSError."""
        directories = {controller: f"{own}/{name}" for controller, own in self._own.items()}
        return CgroupV1(directories, self._optional)

    def destroy(self, name: str) -> None:
        """End all that lives in a cgroup that was made here, and remove it. Raises OSError."""
        for directory in {own / name for own in self._own.values()}:
            if directory.exists():
                _end(directory)

    def close(self) -> None:
        """Remove the claimed directory, in which there are no cgroups any more. Raises OSError."""
        with held(self._bases["memory"]):
            # The memory controller's last: it is through that one that the others would be found.
            for directory in reversed(dict.fromkeys(self._own.values())):
                directory.rmdir()
        os.close(self._lock)


def _end(directory: Path) -> None:
    """End every process of a cgroup and remove it. Raises OSError when something does not die."""
    deadline = time.monotonic() + files.END_SECONDS
    while True:
        for process in (directory / "cgroup.procs").read_text().split():
            _kill(int(process), directory)
        try:
            directory.rmdir()
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        # Dead, and not yet let go of; v1 has no event for "empty" that an ordinary user can wait for.
        time.sleep(0.001)


def _kill(process: int, directory: Path) -> None:
    """End a process if it is in that cgroup still: the descriptor makes sure which one it is."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        if str(process) in (directory / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(files.END_SECONDS * 1000)
    finally:
        os.close(descriptor)
