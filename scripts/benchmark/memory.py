"""What the kernel tells anybody about memory, in KiB."""

import re
from pathlib import Path

import msgspec


class Memory(msgspec.Struct, frozen=True):
    """Of /proc/meminfo: what new programs could have; slab that cannot be reclaimed, and the like."""

    available: float
    slab: float
    percpu: float
    tables: float
    stacks: float

    def lost(self, later: "Memory", count: int) -> "Memory":
        """What each of `count` things took that were made between now and later."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(later), strict=True)
        available, *others = ((after - before) / count for before, after in pairs)
        return Memory(-available, *others)


class Pages(msgspec.Struct, frozen=True):
    """Of /proc/PID/smaps_rollup: a fair share of what is shared and all of what is not; what is not."""

    fair: int
    private: int


def now() -> Memory:
    """What there is at this moment."""
    return parse(Path("/proc/meminfo").read_text())


def parse(meminfo: str) -> Memory:
    """Those lines of /proc/meminfo. Raises KeyError."""
    found = _numbers(meminfo)
    names = ("MemAvailable", "SUnreclaim", "Percpu", "PageTables", "KernelStack")
    return Memory(*(found[name] for name in names))


def pages(pid: int) -> Pages | None:
    """Those of a process; None when it is gone or is none of ours to look into."""
    try:
        found = _numbers(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return None
    return Pages(found["Pss"], found["Private_Clean"] + found["Private_Dirty"])


def anonymous(pid: int) -> int:
    """What a process that nobody may look into has of its own and of its parents', from its statm."""
    resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return (resident - shared) * 4


def _numbers(text: str) -> dict[str, int]:
    return {name: int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
