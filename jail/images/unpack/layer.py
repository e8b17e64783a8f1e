"""From an archive to a layer's tree, in a process that is confined: see jail.images.unpack.confinement."""

import errno
import os
import time
from collections.abc import Callable, Iterator

from jail.errors import ImageError, ImageTooLargeError
from jail.images.compression import decompressed, detect
from jail.images.unpack import tar
from jail.images.unpack.messages import Progress, Refused, Unpack, Unpacked
from jail.images.unpack.stream import CURE, Stream
from jail.images.unpack.tree import Tree

TELL_SECONDS = 0.1
"""How often progress is told, at most."""

_ALL = 1 << 62
_NAME_LENGTH_MAX = 200
_TRUST = "If you trust it, raise the bound on an image's {}."


class Layer:
    """An archive that is being unpacked upon /. `tell` takes what there is to say meanwhile."""

    def __init__(
        self,
        request: Unpack,
        blob: int,
        upper: int | None,
        lengths: tuple[int, int],
        tell: Callable[[Progress], None],
    ) -> None:
        """Take the request, and descriptors of the archive and of what is the layer's own; see Tree."""
        self._request = request
        self._blob = blob
        self._tell = tell
        self._told = time.monotonic()
        self._read_bytes = 0
        self._entries = 0
        self._name: bytes | None = None
        self._tree = Tree(upper, lengths, request.bounds, self._tick)

    def unpack(self) -> Unpacked | Refused:
        """Do it, or say why not."""
        try:
            return self._unpack()
        except ImageError as error:
            kind = "large" if isinstance(error, ImageTooLargeError) else "image"
            return Refused(f"{self._where()}{error.cause}", error.cure, kind)
        except MemoryError:
            most = self._request.bounds.memory_bytes
            return Refused(f"{self._where()}More than {most} bytes of memory are needed.", CURE)
        except OSError as error:
            return self._explain(error)

    def _unpack(self) -> Unpacked:
        stream = Stream(self._pieces(), self._request.bounds.bytes)
        for entry in tar.entries(stream):
            self._entries += 1
            self._name = entry.name
            self._tree.apply(entry, stream)
            self._name = None
        self._tree.leave()
        while stream.some(_ALL):
            # What follows the archive belongs to its digest, and nobody reads it.
            pass
        omitted = {reason: count for reason, count in self._tree.omitted.items() if count}
        return Unpacked(stream.digest, self._entries, self._tree.bytes, omitted)

    def _pieces(self) -> Iterator[bytes]:
        # It is a step forward both when much comes of little and when little comes of much.
        beginning = os.pread(self._blob, 4, 0)
        compression = self._request.compression or detect(beginning)
        for piece in decompressed(self._read, compression):
            self._tick()
            yield piece

    def _read(self, most: int) -> bytes:
        self._tick()
        found = os.pread(self._blob, most, self._read_bytes)
        self._read_bytes += len(found)
        return found

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._told > TELL_SECONDS:
            self._told = now
            self._tell(Progress(self._read_bytes))

    def _where(self) -> str:
        """The entry that it is about. No terminal is to obey a name."""
        if self._name is None:
            return f"After {self._entries} entries: " if self._entries else ""
        name = repr(self._name[:_NAME_LENGTH_MAX].decode(errors="backslashreplace"))
        return f"Entry {self._entries}, {name}: "

    def _explain(self, error: OSError) -> Refused:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return disk_full(error)
        if error.errno == errno.EFBIG:
            most = self._request.bounds.bytes
            return Refused(f"{self._where()}It is longer than {most} bytes.", _TRUST.format("bytes"), "large")
        return Refused(f"{self._where()}It cannot be made: {error.strerror}.", CURE)


def disk_full(error: OSError) -> Refused:
    """The words for that."""
    return Refused(f"The store's disk is full: {error.strerror}.", "Make room: jail image prune.", "full")
