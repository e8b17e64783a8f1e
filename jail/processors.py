"""Which processors a job has to itself: chosen when it starts, free again when it has ended."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Processors:
    """The processors that jobs are pinned to, and how many jobs each has. Of none, no job is pinned."""

    def __init__(self, numbers: Iterable[int]) -> None:
        """Take the numbers that the kernel knows them by."""
        self._jobs = dict.fromkeys(numbers, 0)

    @contextmanager
    def hold(self, cpus: float) -> Iterator[tuple[int, ...]]:
        """As many whole processors as `cpus` can keep busy, or all: those with the fewest jobs."""
        # Sorting keeps the order of equals: the first ones come back while they are free, their caches warm.
        held = tuple(sorted(self._jobs, key=self._jobs.__getitem__)[: math.ceil(cpus)])
        self._add(held, 1)
        try:
            yield held
        finally:
            self._add(held, -1)

    def _add(self, held: tuple[int, ...], jobs: int) -> None:
        for number in held:
            self._jobs[number] += jobs
