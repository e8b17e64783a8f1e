"""How long a submission may take, when the package does not say: by how long its own submissions take."""

import math

from jail.problems.metadata import Timing


def time_limit_ms(timing: Timing, slowest_ms: float) -> int:
    """The limit that follows from the CPU time of the slowest test of the slowest accepted submission.

    Legacy: to the nearest second as the reference tools have it, one at least. Since 2023-07: the smallest
    multiple of the resolution that is far enough.
    """
    enough_ms = slowest_ms * timing.multiplier
    if not timing.rounds_up:
        return max(1, math.floor(enough_ms / 1000 + 0.5)) * 1000
    return max(1, math.ceil(enough_ms / timing.resolution_ms)) * timing.resolution_ms
