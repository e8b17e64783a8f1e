"""Ready sandboxes of every root that jobs ask for, and what these are made of.

The root of the image `host` is there from beginning to end. Another is made when a job asks for it first,
keeps one sandbox ready from the second job on, and is let go of when nobody has asked for a while, or someone
wants to remove its image, which is held in the store until then. How many there can be is bounded: then the
one goes that was asked for longest ago. What others keep ready leaves room for what the operator wants ready
of `host`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Generic, TypeVar

import msgspec

from jail.catalogue import Catalogue, Made
from jail.errors import ImageError, SandboxError
from jail.image import Root
from jail.pool import Pool, Ready, Size

HOST = Root()
"""The root that jobs have who ask for nothing else."""

IDLE_SECONDS = 60
"""A root that nobody asks for is kept for so long."""

LOOK_SECONDS = 1
"""How soon a root is let go of that is to be."""

ROOTS_MAX = 32
"""As many are kept, and more only while jobs run in all of them."""

# Roots are without number: a job may see a volume anywhere.
_ASKED_AGAIN = 2

S = TypeVar("S", bound=Ready)


class Shelf:
    """What is kept of one root.

    `made`: what its sandboxes are made of; `pool`, of those that are ready; `asked_at`, `asked`: when a job
    wanted one last, and how many did.
    """

    def __init__(self, made: Made) -> None:
        """No sandbox is made of it so far; `pool` is to be set."""
        self.made = made
        self.pool: Pool
        self.asked_at = 0.0
        self.asked = 0
        self._sandboxes = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def idle(self) -> bool:
        """Whether no job has a sandbox of it, or waits for one."""
        return self.pool.idle and self._sandboxes == self.pool.ready

    def enter(self) -> None:
        """A sandbox of it begins to be made."""
        self._sandboxes += 1
        self._empty.clear()

    def leave(self) -> None:
        """One that had been begun is gone."""
        self._sandboxes -= 1
        if not self._sandboxes:
            self._empty.set()

    async def close(self) -> None:
        """Let go of all, once every sandbox is gone. Raises OSError."""
        await self.pool.close()
        await self._empty.wait()
        self.made.undo.close()


class Stock(Generic[S]):
    """The pools of all roots. Attribute `tasks`: in which roots are let go of."""

    def __init__(
        self,
        catalogue: Catalogue,
        make: Callable[[Shelf], Awaitable[S]],
        size: Size,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make` makes a sandbox of a shelf, which it enters and leaves. Raises OSError."""
        self._catalogue = catalogue
        self._make = make
        self._size = size
        self._clock = clock
        self._shelves: dict[Root, Shelf] = {}
        self._pools: list[Pool] = []
        self._timer: asyncio.TimerHandle | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self._open(HOST)

    @property
    def ready(self) -> int:
        """How many sandboxes wait for a job."""
        return sum(pool.ready for pool in self._pools)

    @property
    def making(self) -> set[asyncio.Task[Exception | None]]:
        """The tasks in which others are made."""
        return {task for pool in self._pools for task in pool.tasks}

    async def take(self, root: Root) -> S:
        """A sandbox of that root, for a job; the caller closes it. Raises SandboxError, OSError."""
        shelf = self._shelves.get(root) or self._open(root)
        shelf.asked_at = self._clock()
        shelf.asked += 1
        if shelf.asked == _ASKED_AGAIN and root != HOST:
            shelf.pool.least = 1
        return await shelf.pool.take()

    async def fill(self) -> None:
        """Wait until all that are made ahead of time are ready. Raises SandboxError, OSError."""
        for pool in tuple(self._pools):
            await pool.fill()

    async def close(self) -> None:
        """Leave nothing; every sandbox that was taken has been closed. Raises OSError."""
        if self._timer is not None:
            self._timer.cancel()
        for root in tuple(self._shelves):
            self._let_go(root)
        while self.tasks:
            await asyncio.wait(self.tasks)

    def _open(self, root: Root) -> Shelf:
        while len(self._shelves) >= ROOTS_MAX and (oldest := next(self._idle(), None)):
            self._let_go(oldest)
        try:
            shelf = Shelf(self._catalogue.make(root))
        except ImageError:
            # It was there when the job was taken in.
            raise SandboxError("image") from None
        size = self._size if root == HOST else msgspec.structs.replace(self._size, minimum=0)
        shelf.pool = Pool(partial(self._make, shelf), size, self._clock, self._pools)
        self._pools.append(shelf.pool)
        self._shelves[root] = shelf
        self._look_later()
        return shelf

    def _idle(self) -> Iterator[Root]:
        """Roots that no job needs, beginning with the one that was asked for longest ago."""
        by_age = sorted(self._shelves.items(), key=lambda item: item[1].asked_at)
        return (root for root, shelf in by_age if root != HOST and shelf.idle)

    def _let_go(self, root: Root) -> None:
        shelf = self._shelves.pop(root)
        task = asyncio.create_task(self._close(shelf))
        self.tasks.add(task)
        # What it raises is logged, by asyncio.
        task.add_done_callback(self.tasks.discard)

    async def _close(self, shelf: Shelf) -> None:
        # Until then it counts among what all may keep.
        await shelf.close()
        self._pools.remove(shelf.pool)

    def _look_later(self) -> None:
        if self._timer is None and len(self._shelves) > 1:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        self._look_later()
        oldest, asked_back = self._clock() - IDLE_SECONDS, self._catalogue.asked_back()
        for root in list(self._idle()):
            if self._shelves[root].asked_at <= oldest or root.digest in asked_back:
                self._let_go(root)
