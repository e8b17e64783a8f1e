"""Layers that are unpacked and can be found: links to them, and what came of unpacking each."""

import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from jail.errors import ImageError
from jail.images.disk import replace

_DAMAGED = "Remove the image and import it again."


class Layer(msgspec.Struct, frozen=True):
    """What came of unpacking a blob: see jail.images.unpacker.Unpacked."""

    blob: str
    diff_id: str
    entries: int
    bytes: int
    omitted: dict[str, int]


class Chains:
    """The store's directory of them. To be changed with the store's lock held."""

    def __init__(self, directory: Path) -> None:
        """Take the directory."""
        self.directory = directory

    def has(self, chain: str) -> bool:
        """Whether a layer can be found."""
        return self._link(chain).is_symlink()

    def name(self, chain: str) -> str:
        """Of the layer's directory in `Store.layers`. Raises OSError."""
        return os.path.basename(os.readlink(self._link(chain)))

    def layer(self, chain: str) -> Layer:
        """What came of unpacking it. Raises ImageError."""
        try:
            return _read(self._facts(chain))
        except FileNotFoundError:
            raise ImageError(f"The layer {chain} is not unpacked.", _DAMAGED) from None

    def add(self, chain: str, name: str, layer: Layer) -> None:
        """Let the layer in the directory of this name be found. Raises OSError."""
        replace(self._facts(chain), msgspec.json.encode(layer))
        self._link(chain).symlink_to(Path("..", "layers", name))

    def keep(self, chains: Collection[str]) -> None:
        """Let none be found but those with these digits. Raises OSError."""
        for path in self.directory.iterdir():
            if path.name.partition(".")[0] not in chains:
                path.unlink()

    def names(self) -> set[str]:
        """Of the directories of all layers that can be found."""
        links = (path for path in self.directory.iterdir() if path.is_symlink())
        return {os.path.basename(os.readlink(path)) for path in links}

    def base(self, blob: str) -> str | None:
        """The chain of the layer of a blob that lies upon no other, if it can be found."""
        for path in self.directory.glob("*.json"):
            layer = _read(path)
            if layer.blob == blob and self._facts(layer.diff_id) == path and self.has(layer.diff_id):
                return layer.diff_id
        return None

    def bytes(self) -> int:
        """Of all layers."""
        return sum(_read(path).bytes for path in self.directory.glob("*.json"))

    def _link(self, chain: str) -> Path:
        return self.directory / chain.partition(":")[2]

    def _facts(self, chain: str) -> Path:
        return self._link(chain).with_suffix(".json")


def _read(path: Path) -> Layer:
    return msgspec.json.decode(path.read_bytes(), type=Layer)
