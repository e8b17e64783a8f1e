"""Removing a tree, however deep and wide it is."""

import os
from collections.abc import Callable


def remove(name: bytes, tick: Callable[[], None]) -> None:
    """Remove what has this name in the working directory, and all that is in it. Raises OSError.

    `tick` is called for each thing in it. The caller has to be root over its owners, and alone with it.
    """
    if _unlinked(name):
        return
    # Down and up step by step: no path is long, and there is no more than a descriptor at a time.
    _enter(name)
    names, left = [name], [os.listdir(b".")]
    while left:
        tick()
        if not left[-1]:
            left.pop()
            os.chdir(b"..")
            os.rmdir(names.pop())
        elif not _unlinked(child := left[-1].pop()):
            _enter(child)
            names.append(child)
            left.append(os.listdir(b"."))


def _enter(name: bytes) -> None:
    """Go into a directory, and never through a link: whoever calls may be root where the host is seen."""
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchdir(descriptor)
    finally:
        os.close(descriptor)


def _unlinked(name: bytes) -> bool:
    """Whether it was no directory, and is gone."""
    try:
        os.unlink(name)
    except IsADirectoryError:
        return False
    return True
