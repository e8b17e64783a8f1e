"""The store of images: see jail.images for what it is made of and why nothing half-made is ever found.

Blocking, and for one thread, but for `receive`, which several may be within at once. Raises ImageError and
its kinds for what an operator can mend, OSError for what is broken.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from jail.images.oci import Config, Descriptor, Manifest

Progress = Callable[[str, Descriptor, int], None]
"""Told what is done ("receive", "unpack"), of which blob, and how many of its bytes so far."""


class Bounds(msgspec.Struct, frozen=True):
    """Of an image: how many files, directories and links its layers may have, and how many bytes."""

    entries: int = 1_000_000
    bytes: int = 16 << 30


BOUNDS = Bounds()


class Unpacked(Protocol):
    """What the unpacker says of a layer."""

    diff_id: str
    entries: int
    bytes: int
    omitted: Any


class Unpacks(Protocol):
    """What the store wants of jail.images.unpacker.Unpacker. Names are those of directories in layers/."""

    def unpack(
        self,
        parents: Sequence[str],
        blob: int,
        media_type: str,
        into: str,
        bounds: Bounds,
        progress: Callable[[int], None],
    ) -> Unpacked:
        """Unpack the blob (a descriptor) upon `parents`, the topmost first, as the layer `into`.

        That is an empty directory. `progress` is called with the bytes of the blob read, and may raise: then
        the unpacking ends.
        """

    def remove(self, names: Sequence[str]) -> None:
        """Remove these layers, whatever is in them; those that are not there are no error."""


class Stored(msgspec.Struct, frozen=True):
    """An image of the store.

    names: sorted; none when only its digest finds it. digest: of its manifest. layers: names of directories
    in `Store.layers`, the topmost first. entries, bytes: of its layers unpacked, shared with others or not.
    """

    names: tuple[str, ...]
    digest: str
    manifest: Manifest
    config: Config
    layers: tuple[str, ...]
    entries: int
    bytes: int
    omitted: dict[str, int]


class Incoming:
    """A blob on its way into the store.

    Attributes: `offset`, how many bytes are there, to go on from; `is_whole`, nothing is missing.
    """

    offset: int
    is_whole: bool

    def write(self, chunk: bytes) -> None:
        """Append. Raises ImageError when that is more than its descriptor says, StoreFullError."""
        raise NotImplementedError

    def restart(self) -> None:
        """Forget what is there: whoever sends it cannot go on from `offset`."""
        raise NotImplementedError


class Store:
    """A directory of images, and what this process is bringing in.

    Attributes: `directory`; `layers`, the directory of what sandboxes mount. Only the service's user gets to
    either: what is set-id there would give it away to whoever could. Sandboxes need a way of their own.
    """

    def __init__(self, directory: Path, bytes_max: int = 0, bounds: Bounds = BOUNDS) -> None:
        """Open it, and make it if it is not there. bytes_max: of all that is in it, 0 for no bound."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what was received and not published: others may take it away."""

    def find(self, reference: str) -> Stored:
        """The image of this name (without a tag of NAME:latest, too), NAME@DIGEST, or digest.

        Of a digest at least 12 digits will do when no other begins so. Raises ImageNotFoundError.
        """
        raise NotImplementedError

    def stored(self) -> list[Stored]:
        """All images, those with names first, by name."""
        raise NotImplementedError

    def hold(self, digest: str) -> int:
        """A descriptor that keeps this image until it is closed. Raises ImageNotFoundError."""
        raise NotImplementedError

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether it is there, whole; then it stays until this store is closed."""
        raise NotImplementedError

    def open_blob(self, descriptor: Descriptor) -> int:
        """A descriptor to read it with. Raises ImageError when it is not there, or of another size."""
        raise NotImplementedError

    def read_document(self, descriptor: Descriptor) -> bytes:
        """A manifest's, an index's or a configuration's bytes, verified. Raises ImageError."""
        raise NotImplementedError

    def receive(self, descriptor: Descriptor) -> AbstractContextManager[Incoming]:
        """Bring in a blob: write what is missing within the context.

        At its end the size and digest are verified, and it is in the store, until it is closed or an image
        that names it removed. Whoever else brings in the same waits. When the context ends with an error what
        was written stays, to go on from. Raises ImageError, StoreFullError.
        """
        raise NotImplementedError

    def add_document(self, raw: bytes, media_type: str) -> Descriptor:
        """Bring in a whole small blob."""
        raise NotImplementedError

    def refuse_excess(self, manifest: Manifest) -> None:
        """Raise ImageError when the layers' archives alone are more bytes than an image may have."""

    def publish(
        self, manifest: Descriptor, names: Sequence[str], unpacker: Unpacks, progress: Progress | None = None
    ) -> Stored:
        """Unpack the layers that are not there, then let the image be found by its digest and these names.

        Its blobs have been received. Raises ImageError, StoreFullError.
        """
        raise NotImplementedError

    def remove(self, reference: str, unpacker: Unpacks) -> int:
        """Take a name away, and with its last name, or by its digest, an image; then what no image needs.

        Returns the bytes that are free again. Raises ImageNotFoundError, ImageInUseError.
        """
        raise NotImplementedError

    def prune(self, unpacker: Unpacks, nameless: bool = False) -> int:
        """Remove what no image needs and no living process brings in.

        With `nameless`, images without a name that nobody holds, too. Returns the bytes that are free again.
        """
        raise NotImplementedError

    def sweep(self, unpacker: Unpacks) -> None:
        """Remove what dead processes left, but for blobs that one can go on with. To be called first."""

    def usage_bytes(self) -> int:
        """All that is in the store, and what writers may still add."""
        raise NotImplementedError
