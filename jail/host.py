"""What this host has, asked of the kernel."""

import ctypes
import math
import os
from collections.abc import Iterator
from pathlib import Path

_SYS_LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture since Linux 5.13
_LANDLOCK_CREATE_RULESET_VERSION = 1

_PROCESS = Path("/proc/self")

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 1 << 19


def return_freed_memory() -> None:
    """Have this process give large pieces of memory back as soon as it frees them.

    glibc learns from the first large body that such sizes come and go, and keeps what it once had:
    mallopt(3), M_MMAP_THRESHOLD. Another libc does as it likes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def landlock_abi() -> int:
    """The highest Landlock ABI of this kernel, 0 when it has none or it is switched off.

    Documentation/userspace-api/landlock.rst, "Landlock ABI versions".
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    return max(0, call(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION))


def mounts_beneath(directory: str) -> tuple[str, ...]:
    """Where something is mounted beneath a directory, as proc_pid_mountinfo(5) writes it. Raises OSError.

    Not what lies under a mount on the directory itself: nobody gets there.
    """
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        about = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    finally:
        os.close(descriptor)
    own = next(line.split()[1] for line in about.splitlines() if line.startswith("mnt_id:"))
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return tuple(
        place for _, parent, _, _, place, *_ in mounts if parent == own and place.startswith(f"{directory}/")
    )


def processors() -> tuple[int, ...]:
    """The numbers of the processors that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def cpus() -> int:
    """How many processors' worth of time this process may use, rounded up: a container may have a part."""
    # cgroup-v2.rst: microseconds of CPU time, in each period of so many.
    shares = (int(quota) / int(period) for quota, period in _limits_above("cpu.max"))
    return math.ceil(min([len(processors()), *shares]))


def memory_bytes() -> int:
    """The host's memory, or what of it the cgroups leave that this process is in, as in a container."""
    limits = (int(value) for (value,) in _limits_above("memory.max"))
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits])


def processes() -> int | None:
    """How many processes the cgroups leave that this one is in; None for no limit."""
    return min((int(value) for (value,) in _limits_above("pids.max")), default=None)


def _limits_above(name: str) -> Iterator[list[str]]:
    """The words of that file in our cgroup v2 and in those above that we see, but where there is no limit."""
    top = cgroup_mounts((_PROCESS / "mountinfo").read_text()).get("cgroup2")
    own = own_path_v2((_PROCESS / "cgroup").read_text())
    if top is None or own is None:
        return
    place = top / own
    for directory in (place, *place.parents):
        if directory.is_relative_to(top) and (directory / name).exists():
            words = (directory / name).read_text().split()
            if words[0] != "max":
                yield words


def cgroup_mounts(mountinfo: str) -> dict[str, Path]:
    """Where each v1 controller is mounted, and under "cgroup2" the v2 tree, from /proc/self/mountinfo.

    The format is proc_pid_mountinfo(5)'s: the type and the super options come after " - ".
    """
    found: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        place, _, about = line.partition(" - ")
        kind, _, options = about.split(" ", 2)
        path = Path(place.split()[4])
        if kind == "cgroup2":
            found.setdefault("cgroup2", path)
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, path)
    return found


def own_path_v2(cgroups: str) -> str | None:
    """The place of this process in the v2 tree, from the line "0::/path" of /proc/self/cgroup."""
    for line in cgroups.splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::").lstrip("/")
    return None


class _Sysinfo(ctypes.Structure):
    """struct sysinfo of <linux/sysinfo.h>, with room for its padding."""

    _fields_ = (
        ("before", ctypes.c_ulong * 8),
        ("totalswap", ctypes.c_ulong),
        ("freeswap", ctypes.c_ulong),
        ("procs", ctypes.c_ushort),
        ("high", ctypes.c_ulong * 2),
        ("mem_unit", ctypes.c_uint),
        ("padding", ctypes.c_char * 64),
    )


def swap_bytes() -> int:
    """The host's swap, by sysinfo(2): /proc may be mounted without what is not of processes."""
    found = _Sysinfo()
    ctypes.CDLL(None).sysinfo(ctypes.byref(found))
    return found.totalswap * found.mem_unit


def counts_swap() -> bool:
    """Whether memory limits reach swap too: always on cgroup v2, on v1 with swap accounting."""
    place = cgroup_mounts((_PROCESS / "mountinfo").read_text()).get("memory")
    return place is None or os.path.exists(place / "memory.memsw.limit_in_bytes")
