"""What the store asks of its disk: to say when it is full, and to keep what it was given."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jail.errors import FilesDiskFullError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def room() -> Iterator[None]:
    """Tell what means that the disk is full as FilesDiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise FilesDiskFullError(
            f"The disk of stored files is full: {error.strerror}.",
            "Remove files, or have its operator make room, or lower `files_bytes`.",
        ) from None


def sync(directory: Path) -> None:
    """Have the names in a directory on the disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make(directory: Path, mode: int) -> None:
    """Make a directory of this mode, whatever our umask is. Raises OSError."""
    directory.mkdir()
    # By descriptor: a service that has shed what it does not need has no other call.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
