"""What one job has of the store: a tree of links, so that nothing is copied and nothing goes meanwhile."""

import os
import shutil
from pathlib import Path

from jail.files.disk import make

BOX, STDIN = "box", "stdin"
"""In its directory: the tree that is to be seen in /box, and a file."""


class Lent:
    """Until it is closed, nothing of it is evicted. Attribute: `directory`, with BOX and, if need be, STDIN.

    Directories have the mode 0755, files that of stored ones; all belong to the service's user. What is there
    is for jail.supervisor.Start.lend(): `files`, how many there are in BOX, and `stdin`, whether there is
    that.
    """

    def __init__(self, directory: Path) -> None:
        """Make the directory, of a name that is free. Raises OSError."""
        self.directory = directory
        self.files = 0
        self.stdin = False
        make(directory, 0o711)
        make(directory / BOX, 0o755)

    def add(self, path: str, source: Path) -> None:
        """Link a file of the store to a path beneath BOX. Raises OSError."""
        self._make_above(path)
        os.link(source, self.directory / BOX / path, follow_symlinks=False)
        self.files += 1

    def set_stdin(self, source: Path) -> None:
        """Link a file of the store to STDIN. Raises OSError."""
        os.link(source, self.directory / STDIN, follow_symlinks=False)
        self.stdin = True

    def close(self) -> None:
        """Give all of it back. Raises OSError."""
        shutil.rmtree(self.directory)

    def _make_above(self, path: str) -> None:
        parts = path.split("/")[:-1]
        for depth in range(len(parts)):
            directory = self.directory / BOX / "/".join(parts[: depth + 1])
            if not directory.is_dir():
                make(directory, 0o755)
