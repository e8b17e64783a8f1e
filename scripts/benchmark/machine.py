"""The machine of a run, without its name."""

import os
import platform
import re
from pathlib import Path

import msgspec

from jail import cgroup, host


class Machine(msgspec.Struct, frozen=True):
    """`processors` that this process may use. `cgroup`: the version that is used, "v1" or "v2"."""

    kernel: str
    processor: str
    processors: int
    memory_bytes: int
    cgroup: str
    python: str


def describe() -> Machine:
    """The machine we are on. Raises HostError where no cgroup can be used."""
    # The release without what a distribution or a provider adds to it.
    kernel = re.match(r"[0-9.]+", platform.release())
    return Machine(
        kernel=kernel[0].rstrip(".") if kernel else platform.release(),
        processor=_processor(Path("/proc/cpuinfo").read_text()),
        processors=len(os.sched_getaffinity(0)),
        memory_bytes=host.memory_bytes(),
        cgroup=cgroup.find().version,
        python=platform.python_version(),
    )


def _processor(cpuinfo: str) -> str:
    found = re.search(r"^model name\s*: *(.*)$", cpuinfo, re.MULTILINE)
    return found[1] if found else platform.machine()
