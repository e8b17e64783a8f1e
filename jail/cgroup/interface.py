"""What a sandbox needs of its cgroup, whatever the version."""

from pathlib import Path
from typing import Protocol

import msgspec

PERIOD_US = 100_000
"""The period of the bandwidth limit, the kernel's default in both versions."""

_QUOTA_US_MIN = 1000


class Limits(msgspec.Struct, frozen=True):
    """Hard limits: bytes of memory with swap off, processes, processors' worth of bandwidth."""

    memory_bytes: int
    pids: int
    cpus: float

    @property
    def quota_us(self) -> int:
        """The bandwidth as microseconds of CPU time in each period; the kernel takes no less than 1 ms."""
        return max(_QUOTA_US_MIN, int(self.cpus * PERIOD_US))


class Pressure(msgspec.Struct, frozen=True):
    """How long processes of the sandbox stood still for want of something (Documentation/accounting/psi.rst).

    cpu_some_ns: one or more were held up by others' use of processors, or by their own bandwidth limit.
    memory_full_ns, io_full_ns: none got on.
    """

    cpu_some_ns: int
    memory_full_ns: int
    io_full_ns: int


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel counted, read once nothing of the job lives.

    The names of sources are those of the kernel's files. None: this host does not count it.

    memory_peak_bytes: the highest charge, page cache included. memory_setup_bytes: what of it was charged
    before the job began.
    oom_kills: processes that the OOM killer took. limit_oom: for want of this cgroup's memory, not
    of the host's.
    pids_peak: most processes and threads at once, init among them; None on a kernel without pids.peak, since
    nothing else tells of it. pids_limit_hits: forks refused.
    throttled_ns: time held back by the bandwidth limit.
    io_read_bytes, io_write_bytes: to block devices.
    pressure: None without pressure stall information: on v1, and where it was left out of the kernel.
    """

    memory_peak_bytes: int
    memory_setup_bytes: int
    memory_source: str
    oom_kills: int
    limit_oom: bool
    pids_peak: int | None
    pids_limit_hits: int
    throttled_ns: int
    io_read_bytes: int | None
    io_write_bytes: int | None
    pressure: Pressure | None


class Cgroup(Protocol):
    """One sandbox's cgroup. The descriptors are for the supervisor; they are open until `hand_over()`.

    joins: tasks files that init writes itself into (v1). born: the directory to be cloned
    into and its cgroup.kill (v2). cpu_counters, oom_event: as struct make in message.h has them.
    """

    joins: tuple[int, ...]
    born: tuple[int, ...]
    cpu_counters: tuple[int, ...]
    oom_event: tuple[int, ...]

    def hand_over(self) -> None:
        """Close the descriptors, which the supervisor has now."""

    def limit(self, limits: Limits) -> None:
        """Set the limits, as far as they are others than before. Raises OSError."""

    def begin(self) -> int:
        """What is counted from here on is the job's. Returns the bytes charged before it. Raises OSError."""

    def count(self) -> Counters:
        """Read the counters, once the job has begun. Raises OSError."""

    def remove(self) -> None:
        """Remove the directory; nothing may live in it. Raises OSError."""


class Hierarchy(Protocol):
    """Where this service may make cgroups.

    `version` is "v1" or "v2"; `missing` names the controllers without which something is not counted.
    """

    version: str
    missing: tuple[str, ...]

    @property
    def bases(self) -> tuple[Path, ...]:
        """The delegated directories, each once."""

    @property
    def claimed(self) -> tuple[Path, ...]:
        """The directories of this service in them, each once."""

    def claim(self, instance: str) -> None:
        """Sweep what dead services left, then make a directory for this one. Raises OSError.

        It is locked for as long as this process lives: that is how the dead are told from the living.
        """

    def make(self, name: str) -> Cgroup:
        """A new cgroup of that name in the claimed directory, not yet limited. Raises OSError."""

    def destroy(self, name: str) -> None:
        """End all that lives in a cgroup that was made here, and remove it. Raises OSError."""

    def close(self) -> None:
        """Remove the claimed directory, in which there are no cgroups any more. Raises OSError."""
