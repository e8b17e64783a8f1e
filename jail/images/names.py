"""Which images a store has, and by which names they are found: its index.json, an entry for each name.

Functions are of an index that was read; whoever changes one holds the store's lock until it is written.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from jail.errors import ImageError, ImageNotFoundError
from jail.images import oci
from jail.images.disk import FULL, replace
from jail.images.oci import Descriptor, Index

NAME_BYTES_MAX = 255

RESERVED = ("host",)
"""Names that no image of the store can have."""

# What references to registries are made of, but for @, which comes before a digest.
_NAME = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:/+\[\]-]*")
_DIGITS = re.compile("sha256:[0-9a-f]{12,64}")
_SPARE_BYTES = 256 << 10


class IndexFile:
    """index.json, and room for one when the disk is full."""

    def __init__(self, directory: Path) -> None:
        """Of the store in this directory."""
        self._path = directory / "index.json"
        self._spare = directory / "spare"

    def read(self) -> Index:
        """What it has now. Raises ImageError, OSError."""
        return oci.parse_index(self._path.read_bytes())

    def write(self, index: Index) -> None:
        """Have it name these. Raises OSError."""
        raw = oci.encode(index)
        try:
            replace(self._path, raw)
        except OSError as error:
            if error.errno not in FULL or not self._spare.exists():
                raise
            # On a full disk nothing could be removed otherwise.
            self._spare.unlink()
            replace(self._path, raw)

    def keep_spare(self) -> None:
        """Have room for the next, if there is any."""
        if not self._spare.exists():
            with suppress(OSError), self._spare.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, _SPARE_BYTES)

    def state(self) -> tuple[int, ...]:
        """Something else whenever it was written."""
        about = self._path.stat()
        return about.st_ino, about.st_mtime_ns, about.st_size


def refuse_name(name: str) -> None:
    """Raise ImageError unless an image can have this name."""
    if len(name) > NAME_BYTES_MAX or not _NAME.fullmatch(name) or _DIGITS.fullmatch(name):
        raise ImageError(
            f"{name!r} is no name of an image.",
            "Choose one of letters, digits and - . _ : / +, like tools/gcc:13.2.",
        )
    if name in RESERVED:
        raise ImageError(f"{name!r} is an image that is always there.", "Choose another name.")


def resolve(index: Index, reference: str) -> Descriptor:
    """The entry of a reference; without a name when it is by digest. Raises ImageNotFoundError."""
    name, _, digest = reference.partition("@")
    names = {each.name: each for each in index.manifests if each.name}
    found = names.get(name) or names.get(f"{name}:latest")
    if found and digest in ("", found.digest):
        return found
    # A name may have gone on to another image since, and what was pulled by digest alone never had one.
    wanted = digest or reference
    if not (oci.is_digest(wanted) if digest else _DIGITS.fullmatch(wanted)):
        raise not_found(reference)
    digests = {each.digest: each for each in index.manifests if each.digest.startswith(wanted)}
    if len(digests) > 1:
        raise ImageNotFoundError(f"{len(digests)} images begin with {reference}.", "Give more digits.")
    if not digests:
        raise not_found(reference)
    return msgspec.structs.replace(digests.popitem()[1], annotations=None)


def not_found(reference: str) -> ImageNotFoundError:
    """The words for that."""
    return ImageNotFoundError(
        f"There is no image {reference!r}.", "`jail image ls` lists those that there are."
    )


def entries(index: Index, digest: str) -> list[Descriptor]:
    """Those of an image: one for each of its names, or one without."""
    return [each for each in index.manifests if each.digest == digest]


def named(index: Index, manifest: Descriptor, names: Sequence[str]) -> Index:
    """The index with an image of these names, too; one that loses its last to it stays without any."""
    own = {each.name for each in entries(index, manifest.digest)} | set(names)
    changed: dict[tuple[str, str | None], Descriptor] = {}
    for each in index.manifests:
        name = None if each.name in own else each.name
        changed[each.digest, name] = msgspec.structs.replace(each, annotations=_annotations(name))
    for name in own - {None} or {None}:
        added = Descriptor(manifest.media_type, manifest.digest, manifest.size, _annotations(name))
        changed[manifest.digest, name] = added
    with_names = {digest for digest, name in changed if name}
    kept = [each for each in changed.values() if each.name or each.digest not in with_names]
    return Index(manifests=tuple(sorted(kept, key=lambda each: (each.digest, each.name or ""))))


def replaced(index: Index, digest: str, names: Sequence[str]) -> dict[str, str]:
    """Those of these names that other images have, and the digests of these."""
    entries = (each for each in index.manifests if each.digest != digest)
    return {each.name: each.digest for each in entries if each.name in names}


def _annotations(name: str | None) -> dict[str, str] | None:
    return {oci.REFERENCE_NAME: name} if name else None
