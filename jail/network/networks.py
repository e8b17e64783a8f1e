"""The segments of a service, whichever hub they are made by."""

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping
from functools import partial

from jail.keeper import Kept
from jail.network.client import Hub, Segment
from jail.network.protocol import Allowed

END_SECONDS = 10
"""How long a hub may take to end: it takes a moment, with all its links."""


class Networks:
    """Starts a hub when one is first needed, and another, with a clean namespace, when that was lost."""

    def __init__(self, start: Callable[[socket.socket], Kept]) -> None:
        """Take what starts a hub's program with a socket: nothing happens yet."""
        self._start = start
        self._hub: Hub | None = None
        self._kept: Kept | None = None
        self._closes = False
        self._losses: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def loss(self) -> tuple[int, str]:
        """Wait for a hub to be lost: its exit status, or the negative of a signal, and its last words."""
        return await self._losses.get()

    @property
    def pid(self) -> int | None:
        """Of the hub, once there has been one."""
        return self._kept and self._kept.started.result()

    async def open(self, namespaces: Mapping[int, int], allowed: Collection[Allowed] = ()) -> Segment:
        """A segment, as Hub.open() says. Raises SandboxError."""
        return await self._running().open(namespaces, allowed)

    @property
    def words(self) -> str:
        """What the hub said last of what it cannot do, for the operator; else empty."""
        return self._hub.words if self._hub else ""

    async def resolve(self, host: str) -> tuple[tuple[str, ...], str]:
        """The addresses of a host, as Hub.resolve() says. Raises SandboxError."""
        return await self._running().resolve(host)

    def _running(self) -> Hub:
        if self._hub is None or self._hub.lost.is_set():
            self._hub = Hub(self._start_hub)
            self._kept.ended.add_done_callback(partial(self._note_loss, self._hub))
        return self._hub

    def _start_hub(self, control: socket.socket) -> None:
        self._kept = self._start(control)

    def _note_loss(self, hub: Hub, ended: asyncio.Future[int]) -> None:
        if not self._closes:
            self._losses.put_nowait((ended.result(), hub.words))

    async def close(self) -> None:
        """End the hub, and wait until it has ended: END_SECONDS at most.

        One that does not run takes no notice; it is killed with the keeper.
        """
        self._closes = True
        if self._hub is not None:
            self._hub.close()
            if self._kept is not None:
                await asyncio.wait([self._kept.ended], timeout=END_SECONDS)
