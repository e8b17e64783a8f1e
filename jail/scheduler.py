"""Who runs when: a slot and its memory are reserved before a job starts, in order of arrival.

The queue is bounded. The first in it waits for what it needs, and nobody overtakes it: a large job is
not starved by small ones.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class QueueFullError(Exception):
    """The host is full. `retry_after_s`: when it may be worth another try, in seconds."""

    retry_after_s = 1


class Reservation:
    """A slot and memory, held. `until`: what has to be done before the memory is given back, if anything."""

    until: asyncio.Future | None = None

    def keep_memory_until(self, done: asyncio.Future) -> None:
        """The slot is given back sooner."""
        self.until = done


class Scheduler:
    """Slots and bytes of memory, and those who wait for them.

    Attributes: `running`, `queued`, how many; `memory_free_bytes`.
    """

    def __init__(self, slots: int, memory_bytes: int, queue_length: int) -> None:
        """Offer `slots` at once, `memory_bytes` together, and let `queue_length` wait."""
        self._slots_free = slots
        self._queue_length = queue_length
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.memory_free_bytes = memory_bytes
        self.memory_bytes = memory_bytes
        self.running = 0

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def reserve(self, memory_bytes: int) -> AsyncIterator["Reservation"]:
        """Hold a slot and that much memory. Raises QueueFullError at once when the queue is full.

        `memory_bytes` is at most the whole of `self.memory_bytes`, which settings see to.
        """
        await self._take(memory_bytes)
        reservation = Reservation()
        try:
            yield reservation
        finally:
            self._give_back_slot()
            if reservation.until is None:
                self._give_back_memory(memory_bytes)
            else:
                reservation.until.add_done_callback(lambda _: self._give_back_memory(memory_bytes))

    async def _take(self, memory_bytes: int) -> None:
        if not self._waiting and self._fits(memory_bytes):
            self._hand_out(memory_bytes)
            return
        if len(self._waiting) >= self._queue_length:
            raise QueueFullError
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((memory_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give_back_slot()
                self._give_back_memory(memory_bytes)
            elif (memory_bytes, turn) in self._waiting:
                self._waiting.remove((memory_bytes, turn))
                self._call_next()
            raise

    def _fits(self, memory_bytes: int) -> bool:
        return self._slots_free > 0 and memory_bytes <= self.memory_free_bytes

    def _hand_out(self, memory_bytes: int) -> None:
        self._slots_free -= 1
        self.running += 1
        self.memory_free_bytes -= memory_bytes

    def _give_back_slot(self) -> None:
        self._slots_free += 1
        self.running -= 1
        self._call_next()

    def _give_back_memory(self, memory_bytes: int) -> None:
        self.memory_free_bytes += memory_bytes
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            memory_bytes, turn = self._waiting.popleft()
            # One that was cancelled in this very turn of the loop has yet to wake up and leave the queue.
            if not turn.cancelled():
                self._hand_out(memory_bytes)
                turn.set_result(None)
