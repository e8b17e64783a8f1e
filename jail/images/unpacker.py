"""The unpacker's client: layers become directories, and such directories go, in a confined program.

Files of a layer belong to many ids, which only who is root in the outer user namespace can give away or remove;
and an archive is nothing that this process should read. See jail.images.unpack.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from jail.images.unpack.messages import Bounds, Progress, Unpacked

__all__ = ["Bounds", "Progress", "Unpacked", "Unpacker"]


class Unpacker:
    """One program, for any number of layers, one after the other. To be used by one thread at a time, and closed."""

    def __init__(self, namespace: int, store: Path) -> None:
        """Take the outer user namespace's descriptor and the store's directory, with layers/ and incoming/ in it.

        The program is started by the first request and keeps no descriptor of the caller's.
        """

    def unpack(
        self,
        parents: Sequence[str],
        blob: int,
        media_type: str,
        into: str,
        bounds: Bounds = Bounds(),
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Unpacked:
        """Make the layer in the descriptor `blob`, read from its beginning, the new directory layers/`into`.

        parents: names of layers that are unpacked, the topmost first; `into` too is a name in layers/ and not there.
        media_type: of the blob, by which it is decompressed; "" for whatever its first bytes say.
        progress: called some ten times a second, from this thread.
        What it raises leaves nothing: ImageError with the archive's fault, StoreFullError when the disk is full,
        HostError when this host lacks something. A process that is killed meanwhile leaves layers/`into` and
        incoming/`into`.work, for remove().
        Nothing is flushed to the disk: see os.sync().
        """
        raise NotImplementedError

    def remove(self, paths: Iterable[str]) -> None:
        """Remove trees: paths within the store, such as "layers/1f" or "incoming/1f.work"; none need be there.

        Raises ImageError.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the program, whatever it is doing."""
