"""A blob on its way into the store: a file that is hashed as it grows."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from jail.errors import ImageError
from jail.images.oci import Descriptor

_PIECE_BYTES = 1 << 20
_AGAIN = "Have it made or fetched anew."


class Incoming:
    """What is there of a blob, and a way to append to it.

    Attributes: `wanted`, what it has to become, if that is known; `offset`, how many bytes are there, to go
    on from.
    """

    def __init__(self, descriptor: int, wanted: Descriptor | None, reserve: Callable[[int], None]) -> None:
        """Go on with an open file, which stays the caller's.

        reserve: told how many bytes come before they are written. Raises OSError.
        """
        self.wanted = wanted
        self.offset = 0
        self._descriptor = descriptor
        self._reserve = reserve
        self._hash = hashlib.sha256()
        while piece := os.pread(descriptor, _PIECE_BYTES, self.offset):
            self._hash.update(piece)
            self.offset += len(piece)
        if wanted and self.offset > wanted.size:
            self.restart()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self.wanted is not None and self.offset == self.wanted.size

    @property
    def digest(self) -> str:
        """Of what is there."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, chunk: bytes | memoryview) -> None:
        """Append. Raises ImageError when that is more than its descriptor says, StoreFullError, OSError."""
        if self.wanted and self.offset + len(chunk) > self.wanted.size:
            raise ImageError(f"{self.wanted.digest} is longer than its {self.wanted.size} bytes.", _AGAIN)
        self._reserve(len(chunk))
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._descriptor, view, self.offset)
            self._hash.update(view[:written])
            self.offset += written
            view = view[written:]

    def restart(self) -> None:
        """Forget what is there: whoever sends it cannot go on from `offset`. Raises OSError."""
        os.ftruncate(self._descriptor, 0)
        self.offset = 0
        self._hash = hashlib.sha256()

    def check(self) -> None:
        """Raise ImageError unless it is what it has to be; what cannot become that is forgotten."""
        if self.wanted is None:
            return
        if not self.is_whole:
            there = f"{self.offset} of {self.wanted.size} bytes"
            raise ImageError(f"{self.wanted.digest} ends after {there}.", _AGAIN)
        if (found := self.digest) != self.wanted.digest:
            self.restart()
            raise ImageError(f"What should be {self.wanted.digest} is {found}.", _AGAIN)


class AlreadyThere(Incoming):
    """One that the store has: there is nothing to write."""

    def __init__(self, wanted: Descriptor) -> None:
        """Take what it is."""
        self.wanted = wanted
        self.offset = wanted.size

    @property
    def digest(self) -> str:
        """What it was when it came."""
        return self.wanted.digest

    def restart(self) -> None:
        """It stays."""


class Spool(Incoming):
    """A file that lasts for the context of Store.spool(), unless it is kept. Attribute: `path`."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        reserve: Callable[[int], None],
        refuse_large: Callable[[int], None],
    ) -> None:
        """Take an empty file. refuse_large: told how long it would become before it does."""
        super().__init__(descriptor, None, self._reserve_more)
        self.path = path
        self._ask = reserve
        self._refuse_large = refuse_large

    def _reserve_more(self, size: int) -> None:
        self._refuse_large(self.offset + size)
        self._ask(size)

    def fileno(self) -> int:
        """The descriptor, for reading."""
        return self._descriptor
