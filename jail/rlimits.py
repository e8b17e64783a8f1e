"""The resource limits of a job's processes, for setrlimit(2), all sixteen of them."""

import math
import resource
from pathlib import Path

from jail.errors import HostError
from jail.limits import Limits
from jail.published import CONNECTIONS

COUNT = 16
"""RLIM_NLIMITS of every architecture but the dead ones."""

_MEMLOCK_BYTES = 1 << 20
_SIGNALS_PENDING = 256

# Both pipes, a connection, the network, the cgroup's files, what is collected: more than the supervisor has.
_FILES_PER_SLOT = 19
# In the supervisor, of which one is on its way here.
_FILES_PER_READY = 10
# For each connection to a published port both ends.
_FILES_BASE = 128 + 2 * CONNECTIONS

_NAMED = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "STACK")
_NUMBERS = {name: getattr(resource, f"RLIMIT_{name}") for name in _NAMED}
# From <asm-generic/resource.h>; Python does not name them all.
_NUMBERS |= {"SIGPENDING": 11, "MSGQUEUE": 12, "NICE": 13, "RTPRIO": 14}


def hard_limits() -> tuple[int, ...]:
    """The hard limits of this process: no job's can be higher, as we have no privilege to raise them."""
    infinity = (1 << 64) - 1
    return tuple(
        infinity if hard == resource.RLIM_INFINITY else hard
        for hard in (resource.getrlimit(number)[1] for number in range(COUNT))
    )


def check_host(ceilings: Limits) -> None:
    """Raise HostError if this process's own hard limits are below what jobs are promised."""
    hard = hard_limits()
    promised = {
        "NOFILE": ceilings.open_files,
        "STACK": ceilings.stack_bytes,
        # These are not set for jobs, which have ours: cgroup, supervisor and tmpfs hold what is promised.
        "FSIZE": ceilings.disk_bytes,
        "CPU": math.ceil(ceilings.cpu_ms / 1000),
        "AS": ceilings.memory_bytes,
        "DATA": ceilings.memory_bytes,
    }
    for name, wanted in promised.items():
        if hard[_NUMBERS[name]] < wanted:
            raise HostError(
                f"The hard RLIMIT_{name} here is {hard[_NUMBERS[name]]}; jobs may ask for {wanted}.",
                f"Raise it (Limit{name}={wanted} in the unit, --ulimit of a container, "
                "/etc/security/limits.conf), or lower the ceiling in the settings.",
            )
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    if pattern.startswith("|") and hard[_NUMBERS["CORE"]] < 1:
        raise HostError(
            "kernel.core_pattern is a pipe and the hard RLIMIT_CORE is 0, which a pipe ignores.",
            "Set the hard RLIMIT_CORE to 1 or more (LimitCORE= in the unit).",
        )


def raise_open_files(slots: int, ready: int) -> None:
    """Let this process open as many files as it may. Raises HostError if that is not enough.

    It has to be for `slots` jobs at once, and for as many sandboxes made ahead of time as `ready` says.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES_BASE + slots * _FILES_PER_SLOT + ready * _FILES_PER_READY
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise HostError(
            f"The hard RLIMIT_NOFILE of this process is {hard}; slots and ready sandboxes need {needed}.",
            f"Raise it (LimitNOFILE={needed} in the unit, --ulimit nofile={needed} of a container, "
            "/etc/security/limits.conf), or lower `slots` or `ready_max`.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def for_job(limits: Limits, hard: tuple[int, ...]) -> tuple[int, ...]:
    """Soft and hard limits of a job, by the numbers of RLIMIT_*."""
    wanted = {
        "STACK": limits.stack_bytes,
        "NOFILE": limits.open_files,
        # Not 0: a core_pattern that is a pipe takes 0 for "no limit", and 1 for "no dump" (core(5)).
        "CORE": 1,
        "MEMLOCK": _MEMLOCK_BYTES,
        "SIGPENDING": _SIGNALS_PENDING,
        "MSGQUEUE": 0,
        "NICE": 0,
        "RTPRIO": 0,
    }
    values = list(hard)
    for name, value in wanted.items():
        values[_NUMBERS[name]] = min(value, hard[_NUMBERS[name]])
    return tuple(values)
