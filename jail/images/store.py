"""The store of images: see jail.images for what it is made of and why nothing half-made is ever found.

Blocking, and for one thread, but for `receive`, which several may be within at once. Raises ImageError and
its kinds for what an operator can mend, OSError for what is broken.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from jail.errors import (
    HostError,
    ImageError,
    ImageInUseError,
    ImageTooLargeError,
    StoreFullError,
)
from jail.images import chains, oci
from jail.images.blobs import Blobs
from jail.images.chains import Chains, Layer
from jail.images.collecting import Collector
from jail.images.disk import ROOM, replace, room, sync_all
from jail.images.incoming import AlreadyThere, Incoming, Spool
from jail.images.ledger import Ledger
from jail.images.names import IndexFile, entries, named, not_found, refuse_name, replaced, resolve
from jail.images.oci import Config, Descriptor, Index, Manifest
from jail.images.unpacker import Bounds, Unpacker
from jail.images.writers import asked_back, claimed

Progress = Callable[[str, Descriptor, int], None]
"""Told what is done ("receive", "unpack"), to which blob, and how many of its bytes are done."""

PATIENCE_S = 3.0
"""For services to let go of what they only keep ready of an image that is to be removed: see jail.stock."""

RESUMABLE_S = 24 * 3600
"""How long a blob that no image names is kept, in seconds, for whoever goes on fetching its image."""

_TRY_AGAIN_S = 0.05

_AGAIN = "Have it made or fetched anew."
_LARGER = "Raise the setting `image_bytes` or `image_entries`, or have a smaller image made."


class Stored(msgspec.Struct, frozen=True):
    """An image of the store.

    names: sorted; none when only its digest finds it. descriptor: of its manifest. layers: names of
    directories in `Store.layers`, the topmost first. entries, bytes: of its layers, in blocks as a disk has
    them, shared with others or not. omitted: what was left out of them, and how often.
    """

    names: tuple[str, ...]
    descriptor: Descriptor
    manifest: Manifest
    config: Config
    layers: tuple[str, ...]
    entries: int
    bytes: int
    omitted: dict[str, int]

    @property
    def digest(self) -> str:
        """Of its manifest."""
        return self.descriptor.digest


class Brought(Stored, frozen=True):
    """One that has just come. replaced: which of its names other images had until then, by their digests."""

    replaced: dict[str, str]


class Damaged(msgspec.Struct, frozen=True):
    """An image that is not whole. digest: by which it can be removed. cause, cure: for people."""

    names: tuple[str, ...]
    digest: str
    cause: str
    cure: str


class Store:
    """A directory of images, and what this process is bringing in.

    Attributes: `directory`; `layers`, the directory of what sandboxes mount; `blobs`; `image_bytes`, the most
    of one image. Only the service's user gets to any: what is set-id there would give that user away to
    others of the host. Sandboxes need a way of their own to `layers`, whose mode lets them pass.
    """

    def __init__(
        self, directory: Path, bytes_max: int = 0, image_bytes: int = 16 << 30, image_entries: int = 1_000_000
    ) -> None:
        """Open it, and make it if it is not there. Raises HostError when something else is, OSError.

        bytes_max: of all that is in it, 0 for no bound. image_bytes, image_entries: of an image's layers,
        unpacked.
        """
        self.directory = directory
        self.layers = directory / "layers"
        self.blobs = Blobs(directory / "blobs" / "sha256")
        self.image_bytes = image_bytes
        self._image_entries = image_entries
        self._chains = Chains(directory / "chains")
        self._index = IndexFile(directory)
        self._ledger = Ledger(directory, self.blobs, self._chains, bytes_max)
        self._collector = Collector(self._ledger, self._index, self.blobs, self._chains, self.layers)
        self._directories = self.blobs.directory, self.layers, self._chains.directory, self._ledger.incoming
        self.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.directory.mkdir(exist_ok=True, mode=0o700)
        # Whoever works in the store, confined, could be taken over and leave one.
        for path in (self.blobs.directory.parent, *self._directories):
            if path.is_symlink():
                raise HostError(f"{path} is a link, which no store has.", "Remove it, and see who made it.")
        with self._ledger.changing():
            if not (self.directory / "oci-layout").exists():
                self._make()

    def _make(self) -> None:
        known = {"blobs", "layers", "chains", "incoming", "index.json", "index.json.new", "oci-layout.new"}
        foreign = sorted({path.name for path in self.directory.iterdir()} - known)
        if foreign:
            raise HostError(
                f"{self.directory} is no store of images: there is {foreign[0]} in it.",
                "Name another directory in the setting `images`.",
            )
        for path in self._directories:
            path.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        # The ids of sandboxes walk in it, whatever our umask is; nobody needs to list it.
        self.layers.chmod(0o711)
        self._index.write(Index())
        # Last: it says that the rest is there.
        replace(self.directory / "oci-layout", oci.LAYOUT)

    def __enter__(self) -> "Store":
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of what was received and not published: others may take it away."""
        self._ledger.close()

    # What there is

    def find(self, reference: str) -> Stored:
        """The image of this name (without a tag of NAME:latest, too), NAME@DIGEST, or digest.

        With a whole digest the name is no matter: it may have gone on to another image since. Of a digest
        alone at least 12 digits will do when no other begins so. Raises ImageNotFoundError.
        """
        index = self._index.read()
        return self._describe(index, resolve(index, reference).digest)

    def stored(self) -> list[Stored]:
        """All images that are whole, those with names first, by name."""
        return self.survey()[0]

    def survey(self) -> tuple[list[Stored], list[Damaged]]:
        """The same, and what is wrong with each of the others."""
        found, damaged = [], []
        index = self._index.read()
        for digest in dict.fromkeys(each.digest for each in index.manifests):
            try:
                found.append(self._describe(index, digest))
            except ImageError as error:
                names = _names(entries(index, digest))
                damaged.append(Damaged(names, digest, error.cause, error.cure))
        found.sort(key=lambda image: (not image.names, image.names, image.digest))
        # One may have been removed meanwhile.
        left = {each.digest for each in self._index.read().manifests} if damaged else set()
        return found, [each for each in damaged if each.digest in left]

    def names(self) -> list[str]:
        """The names of all images, in order."""
        return sorted({each.name for each in self._index.read().manifests if each.name})

    def state(self) -> tuple[int, ...]:
        """Something else whenever images, or their names, have come or gone."""
        return self._index.state()

    def hold(self, digest: str) -> int:
        """A descriptor that keeps this image until it is closed. Raises ImageNotFoundError, ImageInUseError.

        The latter when somebody is about to remove it; nobody waits for that.
        """
        if not entries(self._index.read(), digest):
            raise not_found(digest)
        descriptor = self.blobs.open_any(digest)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # It may have been removed before, and even brought in again.
            if not entries(self._index.read(), digest) or not os.fstat(descriptor).st_nlink:
                raise not_found(digest)
        except BlockingIOError:
            os.close(descriptor)
            raise ImageInUseError(f"The image {digest} is being removed.", "Try again.") from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def asked_back(self) -> set[str]:
        """The digests of images that somebody waits to remove: whoever holds one idly is to let go of it."""
        return {f"sha256:{digits}" for digits in asked_back(self._ledger.incoming)}

    def usage_bytes(self) -> int:
        """All that blobs and layers take up, and what is reserved for those on their way."""
        return self._ledger.usage_bytes()

    def _describe(self, index: Index, digest: str) -> Stored:
        own = entries(index, digest)
        try:
            return self._described(own)
        except ImageError as error:
            raise ImageError(
                f"The image {own[0].name or digest} is damaged: {error.cause}",
                f"Remove it: jail image rm {digest}",
            ) from None

    def _described(self, own: Sequence[Descriptor]) -> Stored:
        manifest = oci.parse_manifest(self.blobs.read(own[0]))
        config = oci.parse_config(self.blobs.read(manifest.config))
        oci.refuse_other_count(manifest, config)
        keys = chains.keys(manifest.layers)
        layers = list(map(self._chains.layer, keys))
        _refuse_others(layers, config)
        return Stored(
            names=_names(own),
            descriptor=msgspec.structs.replace(own[0], annotations=None),
            manifest=manifest,
            config=config,
            layers=tuple(map(self._chains.name, reversed(keys))),
            entries=sum(layer.entries for layer in layers),
            bytes=sum(layer.bytes for layer in layers),
            omitted=_sums([layer.omitted for layer in layers]),
        )

    # Blobs

    @contextmanager
    def receive(self, wanted: Descriptor) -> Iterator[Incoming]:
        """Bring in a blob: write what is missing within the context.

        At its end the size and digest are verified, and it is in the store until that is closed, or for as
        long as an image names it. Whoever else brings in the same waits. When the context ends with an error
        what was written stays, to go on from. Raises ImageError, StoreFullError.
        """
        self._refuse_large(wanted.size)
        self._ledger.need(f"blob-{wanted.hex}", wanted.size)
        with room(), claimed(self._ledger.incoming / wanted.hex) as descriptor:
            if self.blobs.has(wanted.digest):
                self.blobs.check(wanted)
                yield AlreadyThere(wanted)
                return
            incoming = Incoming(descriptor, wanted, lambda _: None)
            yield incoming
            incoming.check()
            os.fsync(descriptor)
            self.blobs.keep(self._ledger.incoming / wanted.hex, wanted.digest)

    def add_document(self, raw: bytes, media_type: str) -> Descriptor:
        """Bring in a small blob as a whole. Raises ImageError, StoreFullError."""
        found = oci.describe(raw, media_type)
        oci.refuse_long(found.size, "document")
        with self.receive(found) as incoming:
            if not incoming.is_whole:
                incoming.restart()
                incoming.write(raw)
        return found

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        """Bring in what nobody knows the digest of yet. Raises StoreFullError."""
        with self._ledger.changing():
            path = self._ledger.writer.directory / f".{secrets.token_hex(4)}"
        with room():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                yield Spool(path, descriptor, self._ledger.refuse_more_now, self._refuse_large)
            finally:
                path.unlink(missing_ok=True)
                os.close(descriptor)

    def keep(self, spool: Spool, media_type: str) -> Descriptor:
        """Make a blob of what was spooled. Raises StoreFullError."""
        found = Descriptor(media_type, spool.digest, spool.offset)
        with room():
            os.fsync(spool.fileno())
            with self._ledger.changing():
                self._ledger.writer.need(f"blob-{found.hex}")
            self.blobs.keep(spool.path, found.digest)
        return found

    def refuse_excess(self, manifest: Manifest) -> None:
        """Raise ImageError when the layers' archives alone are more bytes than an image may have."""
        oci.refuse_long(manifest.config.size, "image's configuration")
        self._refuse_large(sum(layer.size for layer in manifest.layers))

    def _refuse_large(self, size: int) -> None:
        if size > self.image_bytes:
            raise ImageTooLargeError(
                f"The image's archives have {size} bytes; an image may have {self.image_bytes}.", _LARGER
            )

    # Images that come

    def publish(
        self, manifest: Descriptor, names: Sequence[str], unpacker: Unpacker, progress: Progress | None = None
    ) -> Brought:
        """Unpack the layers that are not there, then let the image be found by its digest and these names.

        Its blobs have been received. Names of other images become its own. Raises ImageError, StoreFullError.
        """
        for name in names:
            refuse_name(name)
        self._ledger.need_blobs([manifest])
        found = oci.parse_manifest(self.blobs.read(manifest))
        self.refuse_excess(found)
        self._ledger.need_blobs([found.config, *found.layers])
        config = oci.parse_config(self.blobs.read(found.config))
        oci.refuse_foreign(config, oci.host_platform())
        oci.refuse_other_count(found, config)
        with room():
            layers = self._unpack_all(found.layers, unpacker, progress or _silence)
            _refuse_others(layers, config)
            # Before anybody finds it: what a power failure takes of it nobody knows of.
            sync_all(self.directory)
            with self._ledger.changing():
                index = self._index.read()
                taken = replaced(index, manifest.digest, names)
                changed = named(index, manifest, names)
                if len(changed.manifests) > oci.ENTRIES_MAX:
                    raise StoreFullError(f"The store has {oci.ENTRIES_MAX} names already.", f"{ROOM}.")
                self._index.write(changed)
        return Brought(**msgspec.structs.asdict(self.find(manifest.digest)), replaced=taken)

    def add_layer(
        self, below: Sequence[Descriptor], blob: Descriptor, unpacker: Unpacker, progress: Progress
    ) -> str:
        """Unpack a layer upon those of an image that is held, or none, and return its diff id.

        It may be there already. Raises ImageError, StoreFullError.
        """
        self._ledger.need_blobs([blob])
        with room():
            return self._unpack_all((*below, blob), unpacker, progress)[-1].diff_id

    def _unpack_all(self, blobs: Sequence[Descriptor], unpacker: Unpacker, progress: Progress) -> list[Layer]:
        """The layers of these, the lowest first, each unpacked if it is not there."""
        keys = chains.keys(blobs)
        layers: list[Layer] = []
        for number, (blob, key) in enumerate(zip(blobs, keys, strict=True)):
            with claimed(self._ledger.incoming / f"unpack-{key}"):
                if not self._has(key):
                    self._unpack(keys[: number + 1], blob, self._bounds(layers), unpacker, progress)
            layers.append(self._chains.layer(key))
            self._bounds(layers)
        return layers

    def _bounds(self, layers: Sequence[Layer]) -> Bounds:
        """What these leave to the next one. Raises ImageError when they are too much themselves."""
        entries = self._image_entries - sum(layer.entries for layer in layers)
        size = self.image_bytes - sum(layer.bytes for layer in layers)
        if entries < 0 or size < 0:
            raise ImageError(
                f"The image has more than {self._image_entries} entries or {self.image_bytes} bytes.", _LARGER
            )
        return Bounds(entries=entries, bytes=size)

    def _has(self, key: str) -> bool:
        """Whether a layer is there; then it stays until this store is closed."""
        with self._ledger.changing():
            self._ledger.writer.need(f"chain-{key}")
            return self._chains.has(key)

    def _unpack(
        self,
        keys: Sequence[str],
        blob: Descriptor,
        bounds: Bounds,
        unpacker: Unpacker,
        progress: Progress,
    ) -> None:
        """Make the layer of a blob, which has the last of these keys, upon those of the others."""
        name = self._reserve_layer()
        parents = [self._chains.name(key) for key in reversed(keys[:-1])]
        with self._ledger.bounded(bounds) as bounded, open(self.blobs.open(blob), "rb") as file:
            found = unpacker.unpack(
                parents,
                file.fileno(),
                blob.media_type,
                name,
                bounded,
                lambda done: progress("unpack", blob, done),
                self._ledger.busy(),
            )
        progress("unpack", blob, blob.size)
        layer = Layer(blob.digest, found.diff_id, found.entries, found.bytes, found.omitted)
        with self._ledger.changing():
            self._ledger.refuse_more(layer.bytes)
            self._chains.add(keys[-1], name, layer)
            self._ledger.writer.forget(f"layer-{name}")

    def _reserve_layer(self) -> str:
        with self._ledger.changing():
            name = chains.new_name()
            while (self.layers / name).exists():
                name = chains.new_name()
            self._ledger.writer.need(f"layer-{name}")
            return name

    # Images that go

    def remove(self, reference: str, unpacker: Unpacker, patience_s: float = 0) -> int:
        """Take a name away, and with its last name, or by its digest, an image; then what no image needs.

        Of an image that is held, those who can are asked to let go, and have so long to do it. Returns the
        bytes that are free again. Raises ImageNotFoundError, ImageInUseError.
        """
        before = self.usage_bytes()
        with room():
            try:
                self._take_away(reference)
            except ImageInUseError:
                self._take_away_within(patience_s, reference)
        self._collector.collect(unpacker, lambda _: True)
        return before - self.usage_bytes()

    def _take_away(self, reference: str) -> None:
        with self._ledger.changing():
            index = self._index.read()
            found = resolve(index, reference)
            names = [found.name] if found.name else [each.name for each in entries(index, found.digest)]
            self._forget(index, found.digest, names)

    def _take_away_within(self, patience_s: float, reference: str) -> None:
        end = time.monotonic() + patience_s
        with self._ledger.asking_back(resolve(self._index.read(), reference).hex):
            while time.monotonic() < end:
                with suppress(ImageInUseError):
                    self._take_away(reference)
                    return
                time.sleep(_TRY_AGAIN_S)
        self._take_away(reference)

    def prune(self, unpacker: Unpacker, nameless: bool = False) -> int:
        """Remove what no image needs and no living process brings in.

        With `nameless`, images without a name that nobody holds, too. Returns the bytes that are free again.
        """
        before = self.usage_bytes()
        with room(), self._ledger.changing():
            for each in self._index.read().manifests if nameless else ():
                with suppress(ImageInUseError):
                    if each.name is None:
                        self._forget(self._index.read(), each.digest, [None])
        self._collector.collect(unpacker, lambda _: True)
        return before - self.usage_bytes()

    def sweep(self, unpacker: Unpacker) -> None:
        """Remove what dead processes left, but for blobs that one can go on with: to be called first."""
        oldest = time.time() - RESUMABLE_S
        self._index.keep_spare()
        self._collector.collect(unpacker, lambda path: path.stat().st_mtime < oldest)

    def abandon(self, unpacker: Unpacker) -> None:
        """Remove what this process brought in and did not publish."""
        with self._ledger.changing():
            own = self._ledger.writer.names()
            for name in own:
                self._ledger.writer.forget(name)
        self._collector.collect(unpacker, lambda path: f"blob-{path.name}" in own)

    def _forget(self, index: Index, digest: str, names: Sequence[str | None]) -> None:
        """Take these names out of the index."""
        rest = [each for each in index.manifests if each.digest != digest or each.name not in names]
        changed = msgspec.structs.replace(index, manifests=tuple(rest))
        if entries(changed, digest):
            self._index.write(changed)
            return
        try:
            descriptor = self.blobs.open_any(digest)
        except ImageError:
            # Damaged: nobody can hold it.
            self._index.write(changed)
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._index.write(changed)
        except BlockingIOError:
            raise ImageInUseError(
                f"The image {names[0] or digest} is in use.",
                "A job runs in it, or it is being given away: try again when that has ended.",
            ) from None
        finally:
            os.close(descriptor)


def _refuse_others(layers: Sequence[Layer], config: Config) -> None:
    """Raise ImageError unless these layers hold what the configuration says."""
    for layer, diff_id in zip(layers, config.rootfs.diff_ids, strict=True):
        if layer.diff_id != diff_id:
            raise ImageError(f"The layer {layer.blob} holds {layer.diff_id}, not {diff_id}.", _AGAIN)


def _names(own: Sequence[Descriptor]) -> tuple[str, ...]:
    return tuple(sorted(each.name for each in own if each.name))


def _sums(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    names = sorted({name for each in counts for name in each})
    return {name: sum(each.get(name, 0) for each in counts) for name in names}


def _silence(*_: object) -> None:
    pass
