"""A file on its way into a store: hashed as it grows, and nothing of it stays unless it is kept."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from jail.errors import FileDigestError, FileTooLargeError
from jail.files.digest import PREFIX
from jail.files.disk import room

MODE = 0o555
"""Of every file: jobs read and execute it, and nobody writes it."""


class Kept(msgspec.Struct, frozen=True):
    """A file that was brought in. is_new: its owner had none of these bytes."""

    digest: str
    bytes: int
    is_new: bool


class Incoming:
    """One file; of several threads, one at a time is within it. Attribute: `offset`, the bytes so far."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        bytes_max: int,
        ahead_max: int,
        reserve: Callable[["Incoming", int, int], None],
        keep: Callable[["Incoming", str], bool],
    ) -> None:
        """Take over an empty file, which is locked.

        bytes_max: the most that it may have; ahead_max: the most that is reserved for it before it is there.
        reserve: have room for it at a length, or at that which is the third, if that evicts nothing; keep:
        give it this digest as a name, and tell whether its owner had none of it. Both are the store's.
        """
        self.path = path
        self.offset = 0
        self.reserved = 0
        self._descriptor = descriptor
        self._bytes_max = bytes_max
        self._ahead_max = ahead_max
        self._reserve = reserve
        self._keep = keep
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Its descriptor, -1 once it is closed."""
        return self._descriptor

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Append. Raises StoredFileError, OSError; then it is of no use any more, but to be closed."""
        with self._lock, room():
            end = self.offset + len(piece)
            refuse_longer(end, self._bytes_max)
            self._have_room(end)
            view = memoryview(piece)
            while view:
                written = os.write(self._descriptor, view)
                self._hash.update(view[:written])
                self.offset += written
                view = view[written:]

    def _have_room(self, end: int) -> None:
        """A little ahead: to count what the owner has takes time."""
        if end > self.reserved:
            ahead = min(self._ahead_max, end + self.offset // 8)
            self._reserve(self, end, max(end, ahead))

    def keep(self, wanted: str = "") -> Kept:
        """Have it in the store, once its bytes are on the disk. Raises StoredFileError, OSError.

        wanted: the digest that it must have, if that is known.
        """
        with self._lock, room():
            digest = f"{PREFIX}{self._hash.hexdigest()}"
            if wanted not in ("", digest):
                raise FileDigestError(f"What should be {wanted} is {digest}.", "Send it again.")
            os.ftruncate(self._descriptor, self.offset)
            os.fchmod(self._descriptor, MODE)
            os.fsync(self._descriptor)
            is_new = self._keep(self, digest)
            return Kept(digest, self.offset, is_new)

    def close(self) -> None:
        """Leave nothing of it, unless it is kept. Again: nothing."""
        with self._lock:
            if self._descriptor < 0:
                return
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def refuse_longer(size: int, bytes_max: int) -> None:
    """Raise FileTooLargeError if that is more than the maximum."""
    if size > bytes_max:
        raise FileTooLargeError(
            f"A file may have {bytes_max} bytes, and this one has more.",
            "Send less, or have `file_bytes` and `files_bytes` raised.",
        )
