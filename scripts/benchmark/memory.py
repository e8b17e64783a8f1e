"""What the kernel tells anybody about memory, in KiB."""

import re
import resource
from pathlib import Path

import msgspec

_PAGE_KIB = resource.getpagesize() // 1024


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


def now() -> Memory:
    """What there is at this moment."""
    return parse(Path("/proc/meminfo").read_text())


def parse(meminfo: str) -> Memory:
    """Those lines of /proc/meminfo. Raises KeyError."""
    found = _numbers(meminfo)
    names = ("MemAvailable", "SUnreclaim", "Percpu", "PageTables", "KernelStack")
    return Memory(*(found[name] for name in names))


def own(pid: int) -> float:
    """Pages that only this process has; of one that nobody may look into, all that are of no file.

    Then those are among them that it shares with the process that it was forked from. Raises OSError.
    """
    try:
        found = _numbers(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except PermissionError:
        resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
        return (resident - shared) * _PAGE_KIB
    return found["Private_Clean"] + found["Private_Dirty"]


def _numbers(text: str) -> dict[str, int]:
    return {name: int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
