"""Numbers from many measurements."""

import math
import statistics
from collections.abc import Sequence

import msgspec


class Times(msgspec.Struct, frozen=True):
    """Milliseconds, from one job being sent to its answer being there; of how many jobs."""

    p50_ms: float
    p99_ms: float
    jobs: int


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that at least that share of them does not exceed; of none: ValueError."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def times(seconds: Sequence[float]) -> Times:
    """What one may say of that many jobs."""
    return Times(statistics.median(seconds) * 1e3, percentile(seconds, 0.99) * 1e3, len(seconds))


def middle(found: Sequence[Times]) -> Times:
    """The medians over several rounds."""
    return Times(
        statistics.median(each.p50_ms for each in found),
        statistics.median(each.p99_ms for each in found),
        sum(each.jobs for each in found),
    )
