"""Layers that are unpacked and can be found: links to them, and what came of unpacking each.

A layer has a key: a digest over the digests of its archive and of all archives beneath, as they came, and how
each is compressed. OCI's ChainID is made alike, but of what archives hold, and that is known only from who
unpacked them, whom an archive may have taken over: it could say that it holds what another does, and what it
made would be found for that other's images. The digests of archives as they came are verified before anything
reads them. So who lies about a layer lies to the images alone that have the very archive which made it lie.
The price: of one layer that is compressed in two ways there are two trees.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from jail.errors import ImageError
from jail.images import oci
from jail.images.disk import replace
from jail.images.oci import Bytes, Count, Descriptor

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
# 127 of them, and as many times "l/" and ":", fit in the page that mount(2) takes.
_NAME_LENGTH = 5
_LINK = re.compile(f"\\.\\./layers/([{_ALPHABET}]{{{_NAME_LENGTH}}})")

_UNREADABLE = (OSError, ValueError, RecursionError)

_DAMAGED = "Remove each image that `jail image ls` names as damaged, and bring it in again."


class Layer(msgspec.Struct, frozen=True):
    """What came of unpacking a blob: see jail.images.unpacker.Unpacked, whose word it is."""

    blob: str
    diff_id: str
    entries: Count
    bytes: Bytes
    omitted: dict[str, int]


def keys(blobs: Iterable[Descriptor]) -> tuple[str, ...]:
    """Of the layers of these archives, the lowest first, each upon all before it. Raises ImageError."""
    found = [""]
    for blob in blobs:
        # Three words: no key of a store whose chains were ChainIDs, of one digest or of two.
        words = f"{found[-1]} {blob.digest} {oci.compression(blob.media_type)}"
        found.append(hashlib.sha256(words.encode()).hexdigest())
    return tuple(found[1:])


def new_name() -> str:
    """One for a directory of a layer."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_NAME_LENGTH))


class Chains:
    """The store's directory of them. To be changed with the store's lock held."""

    def __init__(self, directory: Path) -> None:
        """Take the directory."""
        self.directory = directory

    def has(self, key: str) -> bool:
        """Whether a layer was added, damaged or not."""
        return os.path.lexists(self._link(key))

    def name(self, key: str) -> str:
        """Of the layer's directory in `Store.layers`. Raises ImageError."""
        try:
            link = os.readlink(self._link(key))
        except FileNotFoundError:
            raise ImageError(f"The layer {key} is not unpacked.", _DAMAGED) from None
        except OSError:
            raise ImageError(f"In the store, chains/{key} is no link.", _DAMAGED) from None
        found = _LINK.fullmatch(link)
        if not found or not (self.directory / link).is_dir():
            raise ImageError(f"In the store, chains/{key} leads to no layer.", _DAMAGED)
        return found[1]

    def layer(self, key: str) -> Layer:
        """What came of unpacking it, which can be found. Raises ImageError."""
        self.name(key)
        try:
            return _read(self._facts(key))
        except _UNREADABLE as error:
            raise ImageError(f"In the store, chains/{key}.json is damaged: {error}.", _DAMAGED) from None

    def add(self, key: str, name: str, layer: Layer) -> None:
        """Let the layer in the directory of this name be found. Raises OSError."""
        replace(self._facts(key), msgspec.json.encode(layer))
        self._link(key).symlink_to(Path("..", "layers", name))

    def keep(self, wanted: Collection[str]) -> None:
        """Let none be found but those of these keys. Raises OSError."""
        for path in self.directory.iterdir():
            if path.name.partition(".")[0] not in wanted:
                path.unlink()

    def names(self) -> set[str]:
        """Of the directories of all layers that can be found."""
        links = (path for path in self.directory.iterdir() if path.is_symlink())
        return {os.path.basename(os.readlink(path)) for path in links}

    def bytes(self) -> int:
        """Of all layers, but for those whose images are damaged for want of that."""
        total = 0
        for path in self.directory.glob("*.json"):
            with suppress(*_UNREADABLE):
                total += _read(path).bytes
        return total

    def _link(self, key: str) -> Path:
        return self.directory / key

    def _facts(self, key: str) -> Path:
        return self._link(key).with_suffix(".json")


def _read(path: Path) -> Layer:
    return msgspec.json.decode(path.read_bytes(), type=Layer)
