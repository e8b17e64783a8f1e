"""Taking away what no image of a store needs and no living process brings in."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from jail.errors import ImageError
from jail.images import oci
from jail.images.blobs import Blobs
from jail.images.chains import Chains, keys
from jail.images.ledger import Ledger
from jail.images.names import IndexFile
from jail.images.unpack.messages import WORK
from jail.images.unpacker import Unpacker
from jail.images.writers import discard, needed

Doomed = Callable[[Path], bool]
"""Which blobs are to go, of those that nobody needs."""


class Collector:
    """Of one store."""

    def __init__(self, ledger: Ledger, index: IndexFile, blobs: Blobs, chains: Chains, layers: Path) -> None:
        """Take its parts."""
        self._ledger = ledger
        self._index = index
        self._blobs = blobs
        self._chains = chains
        self._layers = layers

    def collect(self, unpacker: Unpacker, is_doomed: Doomed) -> None:
        """Remove layers that nobody needs, and of blobs that nobody needs those that are doomed."""
        with self._ledger.changing():
            needs = needed(self._ledger.incoming)
            for path in self._ledger.directory.glob("*.new"):
                path.unlink()
            with suppress(ImageError):
                self._collect_now(needs, is_doomed)
            doomed = self._orphans(needs)
            for name in doomed:
                # Another who collects leaves it to us.
                self._ledger.writer.need(f"layer-{name}")
        if doomed:
            unpacker.remove(sorted(doomed))
            with self._ledger.changing():
                for name in doomed:
                    self._ledger.writer.forget(f"layer-{name}")

    def _collect_now(self, needs: dict[str, int], is_doomed: Doomed) -> None:
        """The same, but for layers' trees. Raises ImageError: what a damaged image needs nobody knows."""
        blobs, wanted = self._referenced()
        for path in (*self._blobs.directory.iterdir(), *self._ledger.incoming.iterdir()):
            if path.is_file() and path.name not in blobs and f"blob-{path.name}" not in needs:
                _discard(path, is_doomed)
        self._chains.keep(wanted | {name.partition("-")[2] for name in needs if name.startswith("chain-")})

    def _orphans(self, needs: dict[str, int]) -> set[str]:
        """Layers that no chain leads to and nobody is at, and what making them left beside."""
        names = {path.name for path in self._layers.iterdir()} - self._chains.names()
        return {name for name in names if f"layer-{name.removesuffix(WORK)}" not in needs}

    def _referenced(self) -> tuple[set[str], set[str]]:
        """The digits of the blobs, and the layers' keys, that images of the index need. Raises ImageError."""
        blobs: set[str] = set()
        wanted: set[str] = set()
        for each in self._index.read().manifests:
            manifest = oci.parse_manifest(self._blobs.read(each))
            blobs |= {each.hex, manifest.config.hex, *(layer.hex for layer in manifest.layers)}
            wanted |= set(keys(manifest.layers))
        return blobs, wanted


def _discard(path: Path, is_doomed: Doomed) -> None:
    with suppress(FileNotFoundError):
        # What stands for a claim and nothing else is of no use to anybody.
        if is_doomed(path) or path.name.startswith("unpack-"):
            discard(path)
