"""Who has which ids: slots of the delegated range, taken in blocks by the services of one user.

No two sandboxes alive have an id in common, whichever service they belong to: each block is a file in
a directory that all services of the user share, locked by the one that has it. Of its slots a service gives
one to no sandbox: its network hub has that pair of ids, the hub itself the first, what it leaves in the
host's network the second.
"""

import fcntl
import os
from pathlib import Path

from jail.errors import HostError

BLOCK_SLOTS = 64


class IdBlocks:
    """Blocks of BLOCK_SLOTS slots, held until `close()` or the end of the process.

    Attribute `slots`: the numbers of the slots, of those that the delegated range has.
    """

    def __init__(self, directory: Path, available: int, wanted: int) -> None:
        """Take enough blocks for `wanted` slots of `available`. Raises HostError, OSError."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._locks: list[int] = []
        self.slots: list[int] = []
        for block in range(available // BLOCK_SLOTS):
            if len(self.slots) >= wanted:
                return
            if self._take(directory / str(block)):
                self.slots += range(block * BLOCK_SLOTS, (block + 1) * BLOCK_SLOTS)
        if len(self.slots) < wanted:
            self.close()
            raise HostError(
                f"Of {available} pairs of subordinate ids, {wanted} are wanted and not free.",
                "Delegate a longer range (usermod --add-subuids, --add-subgids), or lower `slots`.",
            )

    def _take(self, path: Path) -> bool:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks.append(descriptor)
        return True

    def close(self) -> None:
        """Let others have them."""
        for descriptor in self._locks:
            os.close(descriptor)
        self._locks.clear()
