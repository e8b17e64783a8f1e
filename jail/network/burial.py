"""Deleting links, away from the thread that serves.

The kernel waits some twenty milliseconds for its own readers, for one link as for a hundred, so all go at
once that have piled up meanwhile.
"""

import errno
import os
import queue
import threading
from contextlib import suppress
from typing import TypeVar

import msgspec

from jail.network import netlink

T = TypeVar("T")

_DOOMED = 1  # a group of links


class Burial(msgspec.Struct, frozen=True):
    """Links to delete, by index; some may be gone already. `bridge`, if not 0, is free afterwards."""

    links: tuple[int, ...]
    bridge: int = 0


class Undertaker:
    """A thread that deletes links, all at once that have piled up. `done`: a descriptor to poll."""

    def __init__(self) -> None:
        """Start it, in the network namespace that the caller is in."""
        self._links = netlink.Socket()
        self._asked: queue.SimpleQueue[Burial] = queue.SimpleQueue()
        self._gone: queue.SimpleQueue[Burial | Exception] = queue.SimpleQueue()
        self.done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        threading.Thread(target=self._work, daemon=True).start()

    def bury(self, burial: Burial) -> None:
        """Delete its links, soon."""
        self._asked.put(burial)

    def gone(self) -> list[Burial]:
        """What has been done, as `done` tells. Raises whatever it was that ended the thread."""
        os.eventfd_read(self.done)
        found = _all_in(self._gone)
        for error in found:
            if isinstance(error, Exception):
                raise error
        return found

    def _work(self) -> None:
        try:
            while True:
                burials = [self._asked.get(), *_all_in(self._asked)]
                self._delete([link for burial in burials for link in burial.links])
                self._tell(*burials)
        except Exception as error:
            self._tell(error)

    def _tell(self, *found: Burial | Exception) -> None:
        for one in found:
            self._gone.put(one)
        os.eventfd_write(self.done, 1)

    def _delete(self, links: list[int]) -> None:
        doomed = [netlink.move_to_group(link, _DOOMED) for link in links]
        for messages in (doomed, [netlink.delete_group(_DOOMED)]):
            try:
                self._links.do(messages)
            except OSError as error:
                # A link is gone with the namespace of its other end.
                if error.errno != errno.ENODEV:
                    raise


def _all_in(source: "queue.SimpleQueue[T]") -> list[T]:
    found = []
    with suppress(queue.Empty):
        while True:
            found.append(source.get_nowait())
    return found
