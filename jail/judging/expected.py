"""What was expected of an output: read in order and in pieces, or at any place."""

import os


class Expected:
    """Bytes, or an open descriptor of a file, which stays the caller's and whose offset does not count."""

    def __init__(self, content: bytes | int) -> None:
        """Nothing was read yet."""
        self._content = content
        self._offset = 0

    def read(self, count: int) -> bytes:
        """The next bytes, `count` of them unless the end is near; none: that was all. Raises OSError."""
        piece = self.at(self._offset, count)
        self._offset += len(piece)
        return piece

    def at(self, offset: int, count: int) -> bytes:
        """The bytes at that place. Raises OSError."""
        if isinstance(self._content, int):
            return self._read_whole(offset, count)
        return self._content[offset : offset + count]

    def _read_whole(self, offset: int, count: int) -> bytes:
        piece = os.pread(self._content, count, offset)
        while 0 < len(piece) < count:
            more = os.pread(self._content, count - len(piece), offset + len(piece))
            if not more:
                break
            piece += more
        return piece
