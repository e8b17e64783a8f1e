"""What sandboxes left in /box, kept to be copied to those that come after them.

A box is mounted where its supervisor alone sees it. It takes no memory of anybody's but the service's own, so
whoever keeps one has reserved that.
"""

import asyncio
import itertools
import os
from pathlib import Path

from jail.errors import SandboxError
from jail.supervisor import Supervisor

_PLACE = "boxes"


class Box:
    """/box of one sandbox, as it was at its end. `place`: for jail.supervisor.Start.keep()."""

    def __init__(self, boxes: "Boxes", place: str, supervisor: Supervisor) -> None:
        """Take over the directory on which it is mounted."""
        self.place = place
        self._boxes = boxes
        self._supervisor = supervisor

    def check(self, supervisor: Supervisor) -> None:
        """Raise SandboxError if that supervisor does not have it: it went with the one that had."""
        if supervisor is not self._supervisor or supervisor.lost.is_set():
            raise SandboxError("box")

    def close(self) -> asyncio.Future[None]:
        """Let go of it, in the background."""
        return self._boxes.remove(self.place)


class Boxes:
    """Makes boxes, each with a name that no other has had. `going`: those that are being removed."""

    def __init__(self, directory: Path, owner: int) -> None:
        """Keep them in the supervisors' directory. owner: of all in them, an id of the outer namespace."""
        self.going: set[asyncio.Future[None]] = set()
        self._directory = directory
        self._owner = owner
        self._numbers = itertools.count()
        (directory / _PLACE).mkdir()

    async def keep(self, supervisor: Supervisor, slot: int) -> Box:
        """That of an ended sandbox. Raises as Supervisor.freeze() does."""
        place = f"{_PLACE}/{next(self._numbers)}"
        os.mkdir(self._directory / place)
        try:
            await supervisor.freeze(slot, place, self._owner)
        except BaseException:
            self.remove(place)
            raise
        return Box(self, place, supervisor)

    def remove(self, place: str) -> asyncio.Future[None]:
        """Remove that directory, and with it what is mounted there: mount_namespaces(7).

        Not here: the kernel does not come back before it has freed all of it.
        """
        going = asyncio.get_running_loop().run_in_executor(None, os.rmdir, self._directory / place)
        self.going.add(going)
        going.add_done_callback(self.going.discard)
        return going
