"""One running service or `jail run`: its private directory, and what dead ones left behind.

Every instance has a directory with a lock that dies with its process. So a later one can tell the
dead from the living, and sweeps what the dead left: their directories and their cgroups.
"""

import fcntl
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from jail.cgroup import Hierarchy

_LOCK = "lock"
# Held while an instance is born or swept, so that no one takes a half-made directory for a dead one's.
_DOOR = "door"


class Instance:
    """Attributes: `name`, eight hexadecimal digits, and `directory`, which nobody else uses."""

    def __init__(self, state: Path, hierarchy: Hierarchy) -> None:
        """Sweep, then make the directory beneath `state`. Raises OSError."""
        state.mkdir(parents=True, exist_ok=True, mode=0o711)
        with (state / _DOOR).open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            _sweep(state, hierarchy)
            self.name = secrets.token_hex(4)
            self.directory = state / self.name
            self.directory.mkdir(mode=0o711)
            self._lock = _hold(self.directory / _LOCK)

    def close(self) -> None:
        """Remove the directory. Raises OSError."""
        shutil.rmtree(self.directory)
        os.close(self._lock)


def _hold(path: Path) -> int:
    """Take the lock at once; raises BlockingIOError if its owner lives."""
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    return lock


def _sweep(state: Path, hierarchy: Hierarchy) -> None:
    alive = set()
    for directory in state.iterdir():
        if not directory.is_dir():
            continue
        try:
            lock = _hold(directory / _LOCK)
        except BlockingIOError:
            alive.add(directory.name)
            continue
        shutil.rmtree(directory)
        os.close(lock)
    for name in hierarchy.names():
        owner, _, _ = name.partition(".")
        if owner not in alive:
            with suppress(FileNotFoundError):
                hierarchy.destroy(name)
