"""What one job has of the store: a tree of links, so that nothing is copied and nothing goes meanwhile."""

import errno
import os
import shutil
from pathlib import Path

from jail.files.disk import make
from jail.files.incoming import MODE

BOX, STDIN = "box", "stdin"
"""In its directory: the tree that is to be seen in /box, and a file."""

_PIECE_BYTES = 1 << 20


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
        _link(source, self.directory / BOX / path)
        self.files += 1

    def set_stdin(self, source: Path) -> None:
        """Link a file of the store to STDIN. Raises OSError."""
        _link(source, self.directory / STDIN)
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


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        # As many links as its file system can count; a Landlock that lets nobody link to another directory.
        if error.errno not in (errno.EMLINK, errno.EXDEV):
            raise
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("xb") as new:
        while os.copy_file_range(old.fileno(), new.fileno(), _PIECE_BYTES):
            pass
        os.fchmod(new.fileno(), MODE)
