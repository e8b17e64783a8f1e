"""Writing so that it is on the disk, as a whole or not at all, and telling a full one as such."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jail.errors import StoreFullError
from jail.libc import LIBC, check

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

ROOM = "Remove images (jail image rm) or leftovers (jail image prune)"
"""The cure for a full store, to be gone on with."""


@contextmanager
def room() -> Iterator[None]:
    """Tell what means that the disk is full as such. Raises StoreFullError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StoreFullError(
            f"The disk of the store is full: {error.strerror}.", f"{ROOM}, or make room on its disk."
        ) from None


def replace(path: Path, raw: bytes) -> None:
    """Write a file as a whole or not at all, with the store's lock held. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    # What a killed one left; a link would lead elsewhere.
    new.unlink(missing_ok=True)
    with open(new, "xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the names in it on the disk. Raises OSError."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)


def sync_all(directory: Path) -> None:
    """syncfs(2): everything that was written there is on the disk. Raises OSError for what of it failed."""
    with _opened(directory) as descriptor:
        check(LIBC.syncfs(descriptor), str(directory))


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
