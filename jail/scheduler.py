"""Who runs when: slots and their memory are reserved before a job starts, in order of arrival.

The queue is bounded. The first in it waits for all that it needs, and nobody overtakes it: a large job is not
starved by small ones. Nobody who waits holds anything: no two jobs wait for each other.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class QueueFullError(Exception):
    """The host is full. `retry_after_s`: when it may be worth another try, in seconds."""

    retry_after_s = 1


class Reservation:
    """Slots and memory, held for one job."""

    def __init__(self, scheduler: "Scheduler", slots: int, memory_bytes: int) -> None:
        """Take over what was handed out."""
        self._scheduler = scheduler
        self._slots = slots
        self._memory_bytes = memory_bytes

    def give_back(self, memory_bytes: int, gone: asyncio.Future, slots: int = 1) -> None:
        """Of what is held, give so many slots back now, and so much of the memory once `gone` is done."""
        self._slots -= slots
        self._memory_bytes -= memory_bytes
        self._scheduler.take_back(slots, 0)
        gone.add_done_callback(lambda _: self._scheduler.take_back(0, memory_bytes))

    def close(self) -> None:
        """The job has ended: give back what is left."""
        self._scheduler.running -= 1
        self._scheduler.take_back(self._slots, self._memory_bytes)


class Scheduler:
    """Slots and bytes of memory, and those who wait for them.

    Attributes: `running`, `queued`, how many jobs; `slots_free`; `memory_free_bytes`.
    """

    def __init__(self, slots: int, memory_bytes: int, queue_length: int) -> None:
        """Offer `slots` at once, `memory_bytes` together, and let `queue_length` wait."""
        self._queue_length = queue_length
        self._waiting: deque[tuple[int, int, asyncio.Future[Reservation]]] = deque()
        self.slots_free = slots
        self.memory_free_bytes = memory_bytes
        self.memory_bytes = memory_bytes
        self.running = 0

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def reserve(self, memory_bytes: int, slots: int = 1) -> AsyncIterator[Reservation]:
        """Hold so many slots and that much memory. Raises QueueFullError at once when the queue is full.

        There have to be so many, and so much, when all is free: job specifications see to that.
        """
        reservation = await self._take(slots, memory_bytes)
        try:
            yield reservation
        finally:
            reservation.close()

    def try_reserve(self, memory_bytes: int) -> Reservation | None:
        """A slot and that much memory, to be closed, if nobody waits and there is so much."""
        if self._waiting or not self._fits(1, memory_bytes):
            return None
        return self._hand_out(1, memory_bytes)

    def take_back(self, slots: int, memory_bytes: int) -> None:
        """Have so much more to hand out; it may be somebody's turn."""
        self.slots_free += slots
        self.memory_free_bytes += memory_bytes
        self._call_next()

    async def _take(self, slots: int, memory_bytes: int) -> Reservation:
        if not self._waiting and self._fits(slots, memory_bytes):
            return self._hand_out(slots, memory_bytes)
        if len(self._waiting) >= self._queue_length:
            raise QueueFullError
        turn = asyncio.get_running_loop().create_future()
        place = slots, memory_bytes, turn
        self._waiting.append(place)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                turn.result().close()
            elif place in self._waiting:
                self._waiting.remove(place)
                self._call_next()
            raise

    def _fits(self, slots: int, memory_bytes: int) -> bool:
        return slots <= self.slots_free and memory_bytes <= self.memory_free_bytes

    def _hand_out(self, slots: int, memory_bytes: int) -> Reservation:
        self.running += 1
        self.slots_free -= slots
        self.memory_free_bytes -= memory_bytes
        return Reservation(self, slots, memory_bytes)

    def _call_next(self) -> None:
        while self._waiting and self._fits(*self._waiting[0][:2]):
            slots, memory_bytes, turn = self._waiting.popleft()
            # One that was cancelled in this very turn of the loop has yet to wake up and leave the queue.
            if not turn.cancelled():
                turn.set_result(self._hand_out(slots, memory_bytes))
