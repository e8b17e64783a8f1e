"""native/floor.c: what this kernel takes for a job, with and without a fresh sandbox."""

import statistics
import subprocess
from collections.abc import Iterator, Sequence

import msgspec

from benchmark.row import Row
from jail.namespace import OuterNamespace

STEADY = 0.15
"""A floor that moves by more than this share within a run is worth a warning."""


class Floor(msgspec.Struct, frozen=True):
    """Milliseconds; see native/floor.c."""

    bare_ms: float
    cold_ms: float
    start_ms: float
    churn_ms: float


def measure(program: str, runs: int) -> Floor:
    """Run the program as the supervisor is run. Raises CalledProcessError."""
    namespace = OuterNamespace()
    try:
        done = subprocess.run(
            [program, str(runs)], stdin=namespace.descriptor, stdout=subprocess.PIPE, check=True
        )
    finally:
        namespace.close()
    return msgspec.convert(
        dict(line.split() for line in done.stdout.decode().splitlines()), Floor, strict=False
    )


def middle(floors: Sequence[Floor]) -> Floor:
    """The median of each figure."""
    columns = zip(*(msgspec.structs.astuple(each) for each in floors), strict=True)
    return Floor(*(statistics.median(column) for column in columns))


def least(before: Floor, after: Floor) -> Floor:
    """What it was between two moments: a neighbour makes it slower, never faster."""
    pairs = zip(msgspec.structs.astuple(before), msgspec.structs.astuple(after), strict=True)
    return Floor(*(min(pair) for pair in pairs))


def moved(floors: Sequence[Floor]) -> float:
    """By what share of its least the figure that moved most did so."""
    columns = zip(*(msgspec.structs.astuple(each) for each in floors), strict=True)
    return max(max(column) / min(column) - 1 for column in columns)


def rows(floor: Floor) -> Iterator[Row]:
    """The floor itself."""
    for name in ("bare", "cold", "start"):
        ms = getattr(floor, f"{name}_ms")
        yield Row(name=name, value=ms, ratio=ms / floor.bare_ms, to="bare")
    yield Row(name="churn", value=floor.churn_ms, note=f"{1e3 / floor.churn_ms:.0f} sandboxes/s")
