"""What processes are bringing into a store: who is at it, and what of it nobody may take away.

A writer is a directory in the store's incoming/, locked for as long as its process lives. A file in it stands
for something that it needs and no image names yet, by the name of that, and is as long (and as empty) as the
bytes that it may take up; or for an image that others are asked to let go of, which it waits to remove.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jail.locks import lock, try_lock

BACK = "back-"
"""Before the digits of an image's digest, in the name of what asks others to let go of that."""

_SUFFIX = ".writer"
_BUSY = ".busy"


class Writer:
    """One who writes: this process. To be made, asked and closed with the store's lock held.

    Attributes: `directory`, for files of its own, too, whose names begin with ".": they count by their
    length; `busy`, a locked descriptor, for whoever works for this process and may outlive it for a moment.
    """

    def __init__(self, incoming: Path) -> None:
        """Make the directory and lock it. Raises OSError."""
        self.directory = incoming / f"{secrets.token_hex(4)}{_SUFFIX}"
        self.directory.mkdir(mode=0o700)
        self._lock = lock(self.directory)
        self.busy = _open(self.directory / _BUSY)
        fcntl.flock(self.busy, fcntl.LOCK_EX)

    def need(self, name: str, size: int = 0) -> None:
        """Nobody takes away what has this name, and it takes up so many bytes. Raises OSError."""
        with open(self.directory / name, "ab") as file:
            file.truncate(size)

    def forget(self, name: str) -> None:
        """It is not needed any more."""
        (self.directory / name).unlink(missing_ok=True)

    def names(self) -> set[str]:
        """What it needs."""
        return {path.name for path in self.directory.iterdir() if not path.name.startswith(".")}

    def close(self) -> None:
        """Need nothing any more."""
        shutil.rmtree(self.directory)
        os.close(self._lock)
        os.close(self.busy)


def needed(incoming: Path) -> dict[str, int]:
    """What living writers need, with the bytes that it may take up; what only they can name has a path.

    What the dead left is removed, once those who worked for them have noticed. To be called with the store's
    lock held.
    """
    found: dict[str, int] = {}
    for directory in incoming.glob(f"*{_SUFFIX}"):
        dead = try_lock(directory)
        if dead is not None:
            with claimed(directory / _BUSY):
                shutil.rmtree(directory)
            os.close(dead)
            continue
        for path in set(directory.iterdir()) - {directory / _BUSY}:
            name = f"{directory.name}/{path.name}" if path.name.startswith(".") else path.name
            found[name] = max(found.get(name, 0), path.stat().st_size)
    return found


def asked_back(incoming: Path) -> set[str]:
    """The digits of the images that writers, maybe dead ones, want others to let go of. Needs no lock."""
    found: set[str] = set()
    for name in os.listdir(incoming):
        # What is no such directory, or gone by now, asks for nothing.
        with suppress(FileNotFoundError, NotADirectoryError):
            needs = os.listdir(incoming / name) if name.endswith(_SUFFIX) else ()
            found |= {need.removeprefix(BACK) for need in needs if need.startswith(BACK)}
    return found


@contextmanager
def claimed(path: Path) -> Iterator[int]:
    """Be the only one who writes a file, waiting for it; yields its descriptor. Raises OSError.

    It is made if it is not there, and goes in the end if it is empty. It may be renamed meanwhile: then those
    who wait come to have a new one.
    """
    descriptor = _open(path)
    while not _locked(descriptor, path, 0):
        os.close(descriptor)
        descriptor = _open(path)
    try:
        yield descriptor
    finally:
        if _is(descriptor, path) and not os.fstat(descriptor).st_size:
            path.unlink()
        os.close(descriptor)


def discard(path: Path) -> bool:
    """Remove such a file, unless somebody claims it. Raises OSError."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if not _locked(descriptor, path, fcntl.LOCK_NB):
                return False
            path.unlink()
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
    return True


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked(descriptor: int, path: Path, flags: int) -> bool:
    """Lock it; whether that is still the file of this name."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    return _is(descriptor, path)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
