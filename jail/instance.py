"""One running service or `jail run`: its private directory, and what dead ones left behind.

Every instance's directory is locked for as long as its process lives. So a later one can tell the dead
from the living, and sweeps what the dead left. Its directory of cgroups goes by the same rule.
"""

import os
import secrets
import shutil
from pathlib import Path

from jail.cgroup import Hierarchy
from jail.locks import held, lock, try_lock


class Instance:
    """Attributes: `name`, eight hexadecimal digits, and `directory`, which nobody else uses."""

    def __init__(self, state: Path, hierarchy: Hierarchy) -> None:
        """Sweep, then make the directories, in `state` and in the hierarchy. Raises OSError."""
        state.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.name = secrets.token_hex(4)
        state = state / "instances"
        state.mkdir(exist_ok=True, mode=0o711)
        self.directory = state / self.name
        self._hierarchy = hierarchy
        with held(state):
            _sweep(state)
            self.directory.mkdir()
            # The ids of sandboxes walk in it, whatever our umask is; nobody needs to list it.
            self.directory.chmod(0o711)
            self._lock = lock(self.directory)
        try:
            hierarchy.claim(self.name)
        except OSError:
            self._remove()
            raise

    def close(self) -> None:
        """Remove the directories. Raises OSError."""
        self._hierarchy.close()
        self._remove()

    def _remove(self) -> None:
        with held(self.directory.parent):
            shutil.rmtree(self.directory)
        os.close(self._lock)


def _sweep(state: Path) -> None:
    for directory in list(state.iterdir()):
        dead = try_lock(directory)
        if dead is not None:
            shutil.rmtree(directory)
            os.close(dead)
