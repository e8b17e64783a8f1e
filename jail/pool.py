"""Ready sandboxes: made ahead of time, each used once; how many there are follows the demand.

Every sandbox comes this way. There is a pool for each root that sandboxes are made with; what they keep ready
together is bounded. Whoever takes one gets a ready one, or waits for the next to be made. Others
are made in a pause, or when half are gone: to make one takes the processors longer than a short job does, so
what is made while a job runs makes it slower. A pool of any size, none included, changes nothing but time.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from jail.errors import SandboxError

LEAD_SECONDS = 0.125
"""As many are kept ready as are taken in this time: longer than a loaded host takes to make one."""

AT_ONCE = 4
"""How many are made at once while nobody waits: more are in each other's way.

While jobs wait it is as many as wait, and none for others: what is made for later would hold them up.
"""

PAUSE_SECONDS = 0.02
"""When none was taken for so long, nobody is disturbed by the making of others."""

_RATE_SECONDS = 1.0


class Ready(Protocol):
    """What a pool holds. `memory_bytes`: what it costs to keep. `alive`: it still waits for a job."""

    memory_bytes: int

    @property
    def alive(self) -> bool:
        """Whether it can be used."""

    def close(self) -> None:
        """Leave nothing of it, in the background."""


class Size(msgspec.Struct, frozen=True):
    """How many are kept ready: at least by a pool, at most by all, and in how much memory of all."""

    minimum: int
    maximum: int
    memory_bytes: int


class Demand:
    """How many were taken within the last second, as far as it matters: not beyond `most`."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        """None so far."""
        self._clock = clock
        self._taken: deque[float] = deque(maxlen=most)

    def note(self) -> None:
        """One more was taken, now."""
        self._taken.append(self._clock())

    def pauses(self) -> bool:
        """Whether none was taken for PAUSE_SECONDS."""
        return not self._taken or self._taken[-1] <= self._clock() - PAUSE_SECONDS

    def per_second(self) -> float:
        """The rate at which they are taken now."""
        oldest = self._clock() - _RATE_SECONDS
        while self._taken and self._taken[0] < oldest:
            self._taken.popleft()
        return len(self._taken) / _RATE_SECONDS


class Pool:
    """Ready sandboxes that are alike.

    Attributes: `tasks`, in which they are made; `least`, how many are kept while there is room, at first as
    many as its size says at least, for which there is always room.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[Ready]],
        size: Size,
        clock: Callable[[], float] = time.monotonic,
        pools: Iterable["Pool"] = (),
    ) -> None:
        """Keep as many as `size` says of what `make` makes, from the first one on that is taken.

        pools: all that share what `size` says at most; this may be among them.
        """
        self._make = make
        self._size = size
        self.least = size.minimum
        self._pools = pools
        self._ready: deque[Ready] = deque()
        self._turns: deque[tuple[int, asyncio.Future[Ready]]] = deque()
        self._comers = 0
        self.tasks: set[asyncio.Task[Exception | None]] = set()
        self._demand = Demand(math.ceil(size.maximum / LEAD_SECONDS), clock)
        self._memory_bytes = 1
        self._later: asyncio.TimerHandle | None = None
        self._fills = False
        self._closed = False

    @property
    def ready(self) -> int:
        """How many wait for a job."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nobody waits for one, and none is on its way."""
        return not (self._turns or self.tasks)

    async def take(self) -> Ready:
        """One for a job; the caller closes it. Raises what `make` raises."""
        self._demand.note()
        found = self._pop()
        loop = asyncio.get_running_loop()
        if found is not None:
            # Not before the job has begun.
            loop.call_soon(self._adjust)
            return found
        turn = loop.create_future()
        self._comers += 1
        self._turns.append((self._comers, turn))
        self._adjust()
        try:
            return await turn
        except asyncio.CancelledError:
            # Too late: its turn had come.
            if not turn.cancelled() and not turn.exception():
                self._hand_out(turn.result())
            raise

    async def fill(self) -> None:
        """Wait until as many are ready as there are to be now. Raises what `make` raises."""
        while len(self._ready) < self._target():
            self._fills = True
            self._adjust()
            done, _ = await asyncio.wait(self.tasks)
            for error in filter(None, (task.result() for task in done)):
                raise error

    async def close(self) -> None:
        """Leave nothing of those that are ready, and make no more."""
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        self._adjust()
        while self.tasks:
            await asyncio.wait(self.tasks)

    def _pop(self) -> Ready | None:
        while self._ready:
            found = self._ready.popleft()
            if found.alive:
                return found
            found.close()
        return None

    def _target(self) -> int:
        if self._closed:
            return 0
        wanted = max(self.least, math.ceil(self._demand.per_second() * LEAD_SECONDS))
        return max(0, min(wanted, self._room()))

    def _room(self) -> int:
        """How many it may keep beside what the others do."""
        count, memory_bytes = self._size.maximum, self._size.memory_bytes
        for other in self._pools:
            if other is not self:
                kept = len(other._ready) + max(0, len(other.tasks) - len(other._turns))
                kept = max(kept, other._size.minimum)
                count -= kept
                memory_bytes -= kept * other._memory_bytes
        return min(count, memory_bytes // self._memory_bytes)

    def _adjust(self) -> None:
        """Close what is too much; make what is missing when half is, or in a pause; and look again later."""
        target = self._target()
        missing = target + len(self._turns) - len(self._ready) - len(self.tasks)
        is_low = len(self._ready) <= target // 2 or self._demand.pauses()
        self._fills = missing > 0 and (self._fills or is_low)
        if self._fills:
            for _ in range(min(missing, (len(self._turns) or AT_ONCE) - len(self.tasks))):
                self.tasks.add(asyncio.create_task(self._make_one(self._comers)))
        elif missing > 0:
            self._look_later(PAUSE_SECONDS)
        while len(self._ready) > target:
            self._ready.popleft().close()
        if target > self.least:
            self._look_later(_RATE_SECONDS)

    def _look_later(self, seconds: float) -> None:
        """Look again after so long, or sooner if that was said before."""
        loop = asyncio.get_running_loop()
        if self._later is not None:
            if self._later.when() <= loop.time() + seconds:
                return
            self._later.cancel()
        if not self._closed:
            self._later = loop.call_later(seconds, self._look_again)

    def _look_again(self) -> None:
        self._later = None
        self._adjust()

    async def _make_one(self, comers: int) -> Exception | None:
        """Make one for whoever has waited longest. Returns the error that nobody was told of, if any.

        An error is told to one of the first `comers` alone. Whoever came later has another one made: what
        was wrong may have passed since.
        """
        try:
            self._hand_out(await self._make())
            return None
        except Exception as error:
            # Of a defect too: whoever is not told waits for ever.
            turn = self._next_turn(comers)
            if turn is not None:
                turn.set_exception(error)
                return None
            # Another will be tried: for somebody at once, else later, and not again and again.
            self._fills = bool(self._turns)
            self._look_later(_RATE_SECONDS)
            if not isinstance(error, SandboxError | OSError):
                raise
            return error
        finally:
            # Here, and not when the task is found to be done: what it made would be counted twice meanwhile.
            self.tasks.discard(asyncio.current_task())
            if self._fills:
                self._adjust()

    def _hand_out(self, made: Ready) -> None:
        self._memory_bytes = max(1, made.memory_bytes)
        turn = self._next_turn(self._comers)
        if turn is not None:
            turn.set_result(made)
        elif len(self._ready) >= self._target():
            made.close()
        else:
            self._ready.append(made)

    def _next_turn(self, comers: int) -> asyncio.Future[Ready] | None:
        """The one of the first `comers` who has waited longest, if any of them still does."""
        while self._turns and self._turns[0][0] <= comers:
            _, turn = self._turns.popleft()
            if not turn.done():
                return turn
        return None
