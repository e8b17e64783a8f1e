"""What a store keeps by digest: manifests, configurations, and layers as they came."""

import os
from pathlib import Path

from jail.errors import ImageError
from jail.images import oci
from jail.images.disk import sync_directory
from jail.images.oci import Descriptor

_AGAIN = "Have it made or fetched anew."
_DAMAGED = "Remove the image and import it again."


class Blobs:
    """The directory of them."""

    def __init__(self, directory: Path) -> None:
        """Take the directory."""
        self.directory = directory

    def has(self, digest: str) -> bool:
        """Whether it is there."""
        return self._path(digest).exists()

    def open(self, wanted: Descriptor) -> int:
        """A descriptor to read it with. Raises ImageError when it is not there, or of another size."""
        descriptor = self.open_any(wanted.digest)
        size = os.fstat(descriptor).st_size
        if size != wanted.size:
            os.close(descriptor)
            raise ImageError(f"{wanted.digest} has {size} bytes, not {wanted.size}.", _AGAIN)
        return descriptor

    def open_any(self, digest: str) -> int:
        """The same, whatever its size is."""
        try:
            return os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise ImageError(f"The store has no blob {digest}.", _AGAIN) from None

    def check(self, wanted: Descriptor) -> None:
        """Raise ImageError when it is not there, or of another size."""
        os.close(self.open(wanted))

    def read(self, wanted: Descriptor) -> bytes:
        """A manifest's, an index's or a configuration's bytes, verified. Raises ImageError."""
        oci.refuse_long(wanted.size, "document")
        with open(self.open(wanted), "rb") as file:
            raw = file.read()
        if oci.digest(raw) != wanted.digest:
            raise ImageError(f"The blob {wanted.digest} is damaged.", _DAMAGED)
        return raw

    def keep(self, path: Path, digest: str) -> None:
        """Move a file there, whose digest was verified and whose bytes are on the disk. Raises OSError."""
        path.rename(self._path(digest))
        sync_directory(self.directory)

    def sizes(self) -> dict[str, int]:
        """The bytes of each, by the digits of its digest."""
        return {path.name: path.stat().st_size for path in self.directory.iterdir()}

    def _path(self, digest: str) -> Path:
        return self.directory / digest.partition(":")[2]
