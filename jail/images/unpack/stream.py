"""The uncompressed archive, read once from its beginning to its end: counted, bounded and digested."""

import hashlib
from collections.abc import Iterator

from jail.errors import ImageError, ImageTooLargeError

CURE = "Get the image anew from a source that you trust, or have it made anew."


class Stream:
    """The bytes that pieces make. Attribute `bytes`: how many have come."""

    def __init__(self, pieces: Iterator[bytes], bytes_max: int, is_digested: bool = True) -> None:
        """Read these pieces, and refuse more than `bytes_max` bytes. `digest` may be done without."""
        self.bytes = 0
        self._pieces = pieces
        self._bytes_max = bytes_max
        self._digest = hashlib.sha256()
        self._is_digested = is_digested
        self._piece = memoryview(b"")

    @property
    def position(self) -> int:
        """How many bytes were taken."""
        return self.bytes - len(self._piece)

    @property
    def digest(self) -> str:
        """Of what has come, as OCI writes it."""
        return f"sha256:{self._digest.hexdigest()}"

    def some(self, most: int) -> memoryview:
        """At least one byte and at most so many; none at the end. Raises ImageError."""
        if not self._piece:
            self._next()
        found, self._piece = self._piece[:most], self._piece[most:]
        return found

    def exactly(self, count: int) -> bytes:
        """So many bytes, to be kept in memory. Raises ImageError when there are not as many."""
        return b"".join(self.parts(count))

    def parts(self, count: int) -> Iterator[memoryview]:
        """So many bytes in parts. Raises ImageError when there are not as many."""
        while count:
            part = self._more(count)
            count -= len(part)
            yield part

    def skip(self, count: int) -> None:
        """Pass over so many bytes. Raises ImageError when there are not as many."""
        for _ in self.parts(count):
            pass

    def _more(self, most: int) -> memoryview:
        if found := self.some(most):
            return found
        raise ImageError("The archive is cut short.", CURE)

    def _next(self) -> None:
        piece = next(self._pieces, b"")
        self.bytes += len(piece)
        if self.bytes > self._bytes_max:
            raise ImageTooLargeError(
                f"The layer is longer than {self._bytes_max} bytes when it is decompressed.",
                "If you trust it, raise the bound on an image's bytes.",
            )
        if self._is_digested:
            self._digest.update(piece)
        self._piece = memoryview(piece)
