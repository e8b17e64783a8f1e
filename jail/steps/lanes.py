"""Room for one process after the other, of what is reserved: never more of them than that is for.

A job in steps waits for its turn once, and holds one slot and memory until it has ended: so no two jobs wait
for each other. What nobody else waits for it may have besides, to run tests side by side.
"""

import asyncio

from jail.scheduler import Reservation, Scheduler

AT_ONCE = 2
"""Sandboxes of one lane: one that runs, and one that is dying, if there is memory for both."""


class Lane:
    """Room for one process at a time. It is what a process gives its memory back to.

    reservation: what it is of. at_once: for how many of the largest processes that has memory.
    """

    def __init__(self, reservation: Reservation, at_once: int) -> None:
        """Nothing runs in it yet."""
        self.reservation = reservation
        self.at_once = at_once
        self._dying: dict[asyncio.Future, int] = {}

    async def room(self) -> None:
        """Wait until there is memory for one more."""
        while len(self._dying) >= self.at_once:
            await asyncio.wait(self._dying, return_when=asyncio.FIRST_COMPLETED)

    def give_back(self, memory_bytes: int, gone: asyncio.Future) -> None:
        """What a process used is for the next once `gone` is done."""
        self._dying[gone] = memory_bytes
        gone.add_done_callback(lambda _: self._dying.pop(gone, None))

    def end(self) -> None:
        """What is still in use is given back when it is not; the rest goes with the reservation."""
        for gone, memory_bytes in self._dying.items():
            self.reservation.give_back(memory_bytes, gone, slots=0)
        self._dying = {}


class Lanes:
    """More lanes for one job. None is taken from who waits for a turn."""

    def __init__(self, scheduler: Scheduler, memory_bytes: int) -> None:
        """memory_bytes: of the largest process."""
        self._scheduler = scheduler
        self._memory_bytes = memory_bytes

    def more(self) -> Lane | None:
        """One more, if nobody else wants what it takes."""
        for at_once in range(AT_ONCE, 0, -1):
            if reservation := self._scheduler.try_reserve(at_once * self._memory_bytes):
                return Lane(reservation, at_once)
        return None

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for what these lanes have."""
        return bool(self._scheduler.queued)
