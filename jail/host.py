"""What this host has, asked of the kernel."""

import ctypes
import os
from pathlib import Path

_SYS_LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture since Linux 5.13
_LANDLOCK_CREATE_RULESET_VERSION = 1

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


def memory_bytes() -> int:
    """The host's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def swap_bytes() -> int:
    """The host's swap, from /proc/meminfo."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("SwapTotal:"))


def counts_swap() -> bool:
    """Whether memory limits reach swap too: always on cgroup v2, on v1 with swap accounting."""
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            place, _, about = line.partition(" - cgroup ")
            if about and "memory" in about.split()[1].split(","):
                return os.path.exists(f"{place.split()[4]}/memory.memsw.limit_in_bytes")
    return True
