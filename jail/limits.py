"""What a job may use: every limit, its unit, its default and its range.

An omitted limit is the operator's default, never "none". A caller may ask for less than the
ceiling, never for more.
"""

import math

import msgspec

MIB = 1 << 20

PROCESSES_MAX = 16
"""How many processes a job can be made of, whatever the operator offers."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The limits of one sandbox, all set.

    cpu_ms: CPU time of all processes together, from exec on.
    wall_ms: real time from exec on.
    memory_bytes: memory of the sandbox: processes, page cache, kernel objects, files in tmpfs.
    pids: processes and threads alive at once, init among them.
    cpus: processors' worth of bandwidth.
    disk_bytes, files: what each of /box, /tmp and /dev/shm may hold.
    open_files: descriptors per process. stack_bytes: stack per process.
    stdout_bytes, stderr_bytes: what is kept of each stream. output_bytes: of all outputs together.
    """

    cpu_ms: int = 10_000
    wall_ms: int = 30_000
    memory_bytes: int = 512 * MIB
    pids: int = 64
    cpus: float = 1.0
    disk_bytes: int = 64 * MIB
    files: int = 4096
    open_files: int = 256
    stack_bytes: int = 8 * MIB
    stdout_bytes: int = MIB
    stderr_bytes: int = MIB // 16
    output_bytes: int = 16 * MIB


class LimitsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The limits that a caller sets; the others are the operator's defaults. Units as in Limits."""

    cpu_ms: int | None = None
    wall_ms: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None
    disk_bytes: int | None = None
    files: int | None = None
    open_files: int | None = None
    stack_bytes: int | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    output_bytes: int | None = None


CEILINGS = Limits(
    cpu_ms=600_000,
    wall_ms=1_200_000,
    memory_bytes=4096 * MIB,
    pids=1024,
    cpus=64.0,
    disk_bytes=1024 * MIB,
    files=65_536,
    open_files=4096,
    stack_bytes=1024 * MIB,
    stdout_bytes=16 * MIB,
    stderr_bytes=16 * MIB,
    output_bytes=64 * MIB,
)
"""The ceilings of an operator who sets none."""

MINIMA = Limits(
    cpu_ms=1,
    wall_ms=1,
    memory_bytes=2 * MIB,
    pids=2,
    cpus=0.01,
    disk_bytes=4096,
    files=4,
    open_files=8,
    stack_bytes=65_536,
    stdout_bytes=1,
    stderr_bytes=1,
    output_bytes=1,
)
"""Below these a sandbox cannot be set up, whoever asks: init is a process and needs memory."""


class LimitError(ValueError):
    """A limit out of range. Attributes: `field`, `value`, `minimum`, `maximum`."""

    def __init__(self, field: str, value: float, minimum: float, maximum: float) -> None:
        """Name the limit, what was asked and what can be had."""
        where = "below the minimum" if value < minimum else "above the maximum"
        bound = minimum if value < minimum else maximum
        super().__init__(f"{value} is {where} {bound} (allowed: {minimum} to {maximum})")
        self.field = field
        self.value = value
        self.minimum = minimum
        self.maximum = maximum


def check(limits: Limits, ceilings: Limits) -> Limits:
    """Return `limits`, each within MINIMA and `ceilings`; raises LimitError for the first that is not."""
    for field in Limits.__struct_fields__:
        value = getattr(limits, field)
        minimum, maximum = getattr(MINIMA, field), getattr(ceilings, field)
        if not (minimum <= value <= maximum and value < math.inf):
            raise LimitError(field, value, minimum, maximum)
    return limits


def resolve(request: LimitsRequest, defaults: Limits, ceilings: Limits) -> Limits:
    """The limits of a job: what was asked, else `defaults`, which are in range; raises LimitError."""
    asked = {
        field: value
        for field in LimitsRequest.__struct_fields__
        if (value := getattr(request, field)) is not None
    }
    return check(msgspec.structs.replace(defaults, **asked), ceilings) if asked else defaults
