"""What sandboxes left in /box, kept for others, beneath what those write to theirs.

A box is mounted where its supervisor alone sees it. It takes no memory of anybody's but the service's own, so
whoever keeps one has reserved that.
"""

import itertools
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jail.supervisor import Supervisor

_PLACE = "boxes"


class Box:
    """/box of one sandbox, as it was at its end. `layers`: what it is made of, the topmost first."""

    def __init__(self, place: Path, layers: tuple[str, ...]) -> None:
        """Take over the directory on which it is mounted."""
        self.layers = layers
        self._place = place

    def close(self) -> None:
        """Let go of it. Sandboxes that see it go on to do so. Again: nothing."""
        # The mount goes with the directory: mount_namespaces(7), "Restrictions on mount namespaces".
        with suppress(FileNotFoundError):
            self._place.rmdir()


class Boxes:
    """Makes boxes, each with a name that no other has had."""

    def __init__(self, directory: Path, owner: int) -> None:
        """Keep them in the supervisors' directory. owner: of all in them, an id of the outer namespace."""
        self._directory = directory
        self._owner = owner
        self._numbers = itertools.count()
        (directory / _PLACE).mkdir()

    async def keep(self, supervisor: Supervisor, slot: int, layers: Sequence[str]) -> Box:
        """That of an ended sandbox, which had these layers. Raises as Supervisor.freeze() does."""
        name = f"{_PLACE}/{next(self._numbers)}"
        own = f"{name}/upper" if layers else name
        box = Box(self._directory / name, (own, *layers))
        os.mkdir(self._directory / name)
        try:
            await supervisor.freeze(slot, name, self._owner)
        except BaseException:
            box.close()
            raise
        return box
