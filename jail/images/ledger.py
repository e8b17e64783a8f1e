"""Who needs what of a store, and how many bytes all of it takes up: see jail.images.writers.

Bytes count from when they are expected. What is more than the store may have is refused before it comes.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from jail.errors import ImageTooLargeError, StoreFullError
from jail.images.blobs import Blobs
from jail.images.chains import Chains
from jail.images.disk import ROOM, room
from jail.images.oci import Descriptor
from jail.images.unpacker import Bounds
from jail.images.writers import BACK, Writer, needed
from jail.locks import held


class Ledger:
    """Of a store, for this process. Attributes: `directory`, the store's; `incoming`, what is on its way."""

    def __init__(self, directory: Path, blobs: Blobs, chains: Chains, bytes_max: int) -> None:
        """Of the store in this directory. bytes_max: of all that is in it, 0 for no bound."""
        self.incoming = directory / "incoming"
        self.directory = directory
        self._blobs = blobs
        self._chains = chains
        self._bytes_max = bytes_max
        self._writer: Writer | None = None

    def changing(self) -> AbstractContextManager[None]:
        """The store's lock, for a moment."""
        return held(self.directory)

    @property
    def writer(self) -> Writer:
        """What this process needs; with the store's lock held."""
        if self._writer is None:
            self._writer = Writer(self.incoming)
        return self._writer

    def busy(self) -> int:
        """What is locked until nobody works for this process any more."""
        with self.changing():
            return self.writer.busy

    def close(self) -> None:
        """Need nothing any more."""
        if self._writer is not None:
            with self.changing():
                self._writer.close()
            self._writer = None

    def need(self, name: str, size: int) -> None:
        """Something that may take up so many bytes. Raises StoreFullError."""
        with room(), self.changing():
            self.writer.need(name, size)
            try:
                self.refuse_more(0)
            except StoreFullError:
                self.writer.forget(name)
                raise

    def need_blobs(self, wanted: Sequence[Descriptor]) -> None:
        """These, which are there. Raises ImageError when one is not."""
        with room(), self.changing():
            for each in wanted:
                self.writer.need(f"blob-{each.hex}")
        for each in wanted:
            self._blobs.check(each)

    @contextmanager
    def asking_back(self, digits: str) -> Iterator[None]:
        """Ask others to let go of the image of this digest until the context ends. Raises OSError."""
        with self.changing():
            self.writer.need(f"{BACK}{digits}")
        try:
            yield
        finally:
            with self.changing():
                self.writer.forget(f"{BACK}{digits}")

    def refuse_more(self, size: int) -> None:
        """Raise StoreFullError unless there may be so many bytes more; with the store's lock held."""
        if not self._bytes_max:
            return
        used = self._usage_bytes()
        if used + size > self._bytes_max:
            raise self._full(
                f"The store may have {self._bytes_max} bytes, and this would make it {used + size}."
            )

    def refuse_more_now(self, size: int) -> None:
        """The same without the lock."""
        if self._bytes_max:
            with self.changing():
                self.refuse_more(size)

    @contextmanager
    def bounded(self, bounds: Bounds) -> Iterator[Bounds]:
        """These, and no more than there is room for in the store. Others may take some of it meanwhile."""
        left = self._bytes_max - self.usage_bytes() if self._bytes_max else bounds.bytes
        try:
            yield msgspec.structs.replace(bounds, bytes=max(0, min(left, bounds.bytes)))
        except ImageTooLargeError as error:
            if left >= bounds.bytes:
                raise
            raise self._full(f"{error.cause} The store may have {self._bytes_max} bytes.") from None

    def usage_bytes(self) -> int:
        """All that blobs and layers take up, and what is reserved for those on their way."""
        with self.changing():
            return self._usage_bytes()

    def _usage_bytes(self) -> int:
        used = {f"blob-{digits}": size for digits, size in self._blobs.sizes().items()}
        needs = needed(self.incoming)
        for path in self.incoming.iterdir():
            if path.is_file():
                needs[f"blob-{path.name}"] = max(needs.get(f"blob-{path.name}", 0), path.stat().st_size)
        return self._chains.bytes() + sum((needs | used).values())

    def _full(self, cause: str) -> StoreFullError:
        return StoreFullError(cause, f"{ROOM}, or raise the setting `images_bytes`.")
