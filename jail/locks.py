"""Locks on directories, which the kernel lets go of when their process dies: flock(2)."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _open(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def lock(directory: Path) -> int:
    """Lock a directory, waiting for it, until the descriptor is closed. Raises OSError."""
    descriptor = _open(directory)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def try_lock(directory: Path) -> int | None:
    """The same without waiting: None when someone living has it, or it is gone. Raises OSError."""
    try:
        descriptor = _open(directory)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the lock for the length of a block. Raises OSError."""
    descriptor = lock(directory)
    try:
        yield
    finally:
        os.close(descriptor)
