"""Images in files: OCI archives and layouts, what `docker save` writes in both its forms, plain root trees.

An archive is read once from its beginning to its end, so it may come through a pipe, and compressed: what
looks like a part of an image is taken into the store as it comes, which is then asked for what the archive's
own documents name. No name in an archive is ever a path of ours. What no image turns out to need goes.
"""

import errno
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from jail.errors import ImageError
from jail.images import oci
from jail.images.compression import decompressed, detect
from jail.images.incoming import Incoming
from jail.images.oci import Config, Descriptor, Index, Manifest, RootFs
from jail.images.store import Brought, Progress, Store, Stored
from jail.images.unpack import tar
from jail.images.unpack.stream import Stream
from jail.images.unpacker import Unpacker

CONTAINERD_NAME = "io.containerd.image.name"
"""The annotation with the whole name, where Docker has only the tag in oci.REFERENCE_NAME."""

BLOBS_MAX = 4096
"""Of one archive."""

IMAGES_MAX = 256
"""Of one archive."""

DEPTH_MAX = 4
"""How many indexes may lead to an image, one in the other."""

_DOCUMENTS = ("oci-layout", "index.json", "manifest.json")
_BLOB = re.compile("blobs/sha256/([0-9a-f]{64})")
_DOCKER_PART = re.compile(r"[0-9a-f]{64}(\.json|\.tar|/layer\.tar)")
# What archives of images have beside, and trees might have, too.
_UNDECIDED = re.compile(r"\.|blobs|blobs/sha256|[0-9a-f]{64}(/json|/VERSION)?|repositories")
_UNDECIDED_BYTES_MAX = 1 << 20
_KEPT_BYTES_MAX = 8 << 20
_PIECE_BYTES = 1 << 20
_ENDLESS_BYTES = 1 << 62

_CURE = "Have it made or fetched anew."


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    """An image in the manifest.json of `docker save`: names of entries of the archive."""

    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


def import_file(
    store: Store,
    unpacker: Unpacker,
    file: BinaryIO,
    name: str | None = None,
    progress: Progress | None = None,
    onto: Stored | None = None,
) -> list[Brought]:
    """Bring in the images of an archive, or the one that a plain archive of a root tree makes.

    They have the names that the archive gives them; or its only one has this name. onto: the archive is a
    plain one, and a layer upon those of this image, which is held. Raises ImageError, StoreFullError,
    OSError: then nothing of it stays.
    """
    with _nothing_left_over(store, unpacker):
        return _Import(store, unpacker, name, progress, onto).archive(file)


def import_layout(
    store: Store,
    unpacker: Unpacker,
    path: Path,
    name: str | None = None,
    progress: Progress | None = None,
) -> list[Brought]:
    """The same with a directory, an OCI layout."""
    with _nothing_left_over(store, unpacker):
        return _Import(store, unpacker, name, progress).layout(path)


@contextmanager
def _nothing_left_over(store: Store, unpacker: Unpacker) -> Iterator[None]:
    try:
        yield
    finally:
        store.abandon(unpacker)


class _Source(Protocol):
    """Where the blobs of an image come from."""

    def bring(self, wanted: Descriptor) -> None:
        """Have a blob in the store. Raises ImageError when it is not there to be had."""


class _Import:
    """One import: what it is to make of whatever it finds."""

    def __init__(
        self,
        store: Store,
        unpacker: Unpacker,
        name: str | None,
        progress: Progress | None,
        onto: Stored | None = None,
    ) -> None:
        self._store = store
        self._onto = onto
        self._unpacker = unpacker
        self._name = name
        self._progress = progress or (lambda *_: None)

    def archive(self, file: BinaryIO) -> list[Brought]:
        source = _Replayed(file)
        compression = detect(source.read(4))
        source.replay()
        # What is not compressed is on somebody's disk already.
        bytes_max = _ENDLESS_BYTES if compression == "none" else self._store.image_bytes
        stream = Stream(decompressed(source.read, compression), bytes_max, is_digested=False)
        parts = _Parts(self._store, self._progress)
        for entry in tar.entries(stream):
            name = posixpath.normpath(os.fsdecode(entry.name))
            is_part = _is_part(name)
            if not source.is_forgotten and not is_part and not _UNDECIDED.fullmatch(name):
                return [self._tree(source, compression)]
            if is_part or source.kept_bytes > _UNDECIDED_BYTES_MAX:
                source.forget()
            parts.take(name, entry, stream)
        return self._of_parts(parts) if source.is_forgotten else [self._tree(source, compression)]

    def layout(self, path: Path) -> list[Brought]:
        directory = _Directory(self._store, path, self._progress)
        return self._of_index(directory.document("index.json"), directory, {})

    def _tree(self, source: "_Replayed", compression: str) -> Brought:
        """A plain archive is an image of one layer."""
        source.replay()
        source.forget()
        with self._store.spool() as spool:
            while piece := source.read(_PIECE_BYTES):
                spool.write(piece)
            blob = self._store.keep(spool, _layer_type(compression))
        if self._onto is None:
            here = oci.host_platform()
            below = Config(architecture=here.architecture, os=here.os, rootfs=RootFs())
            layers = ()
        else:
            below, layers = self._onto.config, self._onto.manifest.layers
        diff_id = self._store.add_layer(layers, blob, self._unpacker, self._progress)
        root = RootFs(diff_ids=(*below.rootfs.diff_ids, diff_id))
        config = msgspec.structs.replace(below, rootfs=root)
        described = self._store.add_document(oci.encode(config), oci.CONFIG_TYPE)
        return self._publish(self._add_manifest(described, (*layers, blob)), self._names(()))

    def _of_parts(self, parts: "_Parts") -> list[Brought]:
        if self._onto is not None:
            raise ImageError("The archive is of an image, and no layer.", "Import it without a base.")
        saved = parts.saved()
        tags = {parts.named(image.config).digest: image.repo_tags or () for image in saved}
        if "index.json" in parts.documents:
            return self._of_index(parts.documents["index.json"], parts, tags)
        if not saved:
            raise ImageError("The archive has neither an index.json nor a manifest.json.", _CURE)
        self._refuse_several(len(saved))
        found = []
        for image in saved:
            described = msgspec.structs.replace(parts.named(image.config), media_type=oci.CONFIG_TYPE)
            layers = tuple(map(parts.layer, image.layers))
            names = self._names(image.repo_tags or ())
            found.append(self._publish(self._add_manifest(described, layers), names))
        return found

    def _add_manifest(self, config: Descriptor, layers: tuple[Descriptor, ...]) -> Descriptor:
        raw = oci.encode(Manifest(media_type=oci.MANIFEST_TYPE, config=config, layers=layers))
        return self._store.add_document(raw, oci.MANIFEST_TYPE)

    def _of_index(self, raw: bytes, source: _Source, tags: dict[str, tuple[str, ...]]) -> list[Brought]:
        """tags: names of images by their configuration's digest."""
        images: dict[str, tuple[Descriptor, list[str]]] = {}
        for entry in _separate(oci.parse_index(raw)):
            manifest = self._manifest(entry, source)
            names = images.setdefault(manifest.digest, (manifest, []))[1]
            names += [name for name in [_name_of(entry)] if name]
        self._refuse_several(len(images))
        if not images:
            raise ImageError("The archive has no image.", _CURE)
        return [self._of_manifest(manifest, names, source, tags) for manifest, names in images.values()]

    def _manifest(self, entry: Descriptor, source: _Source) -> Descriptor:
        """The manifest for this host that an entry of an index leads to."""
        for _ in range(DEPTH_MAX):
            if entry.media_type not in oci.INDEX_TYPES:
                return entry
            oci.refuse_long(entry.size, "index")
            source.bring(entry)
            entry = oci.choose(oci.parse_index(self._store.blobs.read(entry)), oci.host_platform())
        raise ImageError(f"More than {DEPTH_MAX} indexes lead to the image.", _CURE)

    def _of_manifest(
        self, described: Descriptor, names: list[str], source: _Source, tags: dict[str, tuple[str, ...]]
    ) -> Brought:
        oci.refuse_long(described.size, "manifest")
        source.bring(described)
        manifest = oci.parse_manifest(self._store.blobs.read(described))
        self._store.refuse_excess(manifest)
        for blob in (manifest.config, *manifest.layers):
            source.bring(blob)
        return self._publish(described, self._names(tags.get(manifest.config.digest) or names))

    def _names(self, given: Sequence[str]) -> list[str]:
        return [self._name] if self._name else list(given)

    def _refuse_several(self, count: int) -> None:
        if self._name and count > 1:
            raise ImageError(
                f"There are {count} images in it, which cannot all be {self._name!r}.",
                "Leave the name to the archive.",
            )
        if count > IMAGES_MAX:
            raise ImageError(f"There are {count} images in it; the most is {IMAGES_MAX}.", _CURE)

    def _publish(self, manifest: Descriptor, names: list[str]) -> Brought:
        return self._store.publish(manifest, names, self._unpacker, self._progress)


class _Replayed:
    """What a file has, which can be had again from the beginning until `forget`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._kept: list[bytes] = []
        self._again = b""
        self.is_forgotten = False
        self.kept_bytes = 0

    def read(self, most: int) -> bytes:
        piece, self._again = self._again[:most], self._again[most:]
        if piece:
            return piece
        piece = self._file.read(most)
        if not self.is_forgotten:
            self._kept.append(piece)
            self.kept_bytes += len(piece)
            if self.kept_bytes > _KEPT_BYTES_MAX:
                # Or one that nobody can decide about would be kept in memory, as long as it is.
                self.forget()
        return piece

    def replay(self) -> None:
        """Begin anew."""
        self._again = b"".join(self._kept)

    def forget(self) -> None:
        """There is no way back."""
        self.is_forgotten = True
        self._kept.clear()


class _Parts:
    """What an archive of images has in it, in the store by now. Attribute: `documents`, those on its top."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self.documents: dict[str, bytes] = {}
        self._store = store
        self._progress = progress
        self._blobs: dict[str, Descriptor] = {}
        self._links: dict[str, str] = {}

    def take(self, name: str, entry: tar.Entry, stream: Stream) -> None:
        """Keep an entry if it looks like a part of an image. Raises ImageError."""
        if not _is_part(name) or entry.kind == tar.DIRECTORY:
            return
        if name in self.documents or name in self._blobs or name in self._links:
            raise ImageError(f"The archive has {name} twice.", _CURE)
        if len(self._blobs) + len(self._links) >= BLOBS_MAX:
            raise ImageError(f"The archive has more than {BLOBS_MAX} blobs.", _CURE)
        if entry.kind in (tar.HARD_LINK, tar.SYMBOLIC_LINK):
            self._links[name] = _target(name, entry)
        elif entry.kind != tar.FILE or entry.extents is not None:
            raise ImageError(f"In the archive, {name} is no plain file.", _CURE)
        elif name in _DOCUMENTS:
            oci.refuse_long(entry.size, name)
            self.documents[name] = stream.exactly(entry.size)
        else:
            self._blobs[name] = self._keep(name, entry.size, stream)

    def _keep(self, name: str, size: int, stream: Stream) -> Descriptor:
        if blob := _BLOB.fullmatch(name):
            wanted = Descriptor("", f"sha256:{blob[1]}", size)
            with self._store.receive(wanted) as incoming:
                if not incoming.is_whole:
                    incoming.restart()
                    self._fill(wanted, incoming, stream.parts(size))
            return wanted
        with self._store.spool() as spool:
            self._fill(Descriptor("", name, size), spool, stream.parts(size))
            return self._store.keep(spool, "")

    def _fill(self, wanted: Descriptor, incoming: Incoming, pieces: Iterable[memoryview]) -> None:
        for piece in pieces:
            incoming.write(piece)
            self._progress("receive", wanted, incoming.offset)

    def bring(self, wanted: Descriptor) -> None:
        """All that there is has come, and the store will say what has not."""

    def saved(self) -> tuple[_Saved, ...]:
        """What manifest.json says, if there is one. Raises ImageError."""
        raw = self.documents.get("manifest.json")
        return oci.parse(raw, tuple[_Saved, ...], "manifest.json") if raw is not None else ()

    def layer(self, name: str) -> Descriptor:
        """The same, of a layer, whose first bytes say how it is compressed."""
        found = self.named(name)
        with open(self._store.blobs.open(found), "rb") as file:
            return msgspec.structs.replace(found, media_type=_layer_type(detect(file.read(4))))

    def named(self, name: str) -> Descriptor:
        """The blob that an entry of this name has become, also by links. Raises ImageError."""
        found = posixpath.normpath(name)
        for _ in range(DEPTH_MAX):
            if found in self._blobs:
                return self._blobs[found]
            found = self._links.get(found, "")
        raise ImageError(f"There is no {name!r} in the archive, which its manifest.json names.", _CURE)


class _Directory:
    """An OCI layout that lies there. No link in it is followed, and what is no plain file is not read."""

    def __init__(self, store: Store, path: Path, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._path = path

    def document(self, name: str) -> bytes:
        """A document on its top. Raises ImageError."""
        with self._open(name) as file:
            oci.refuse_long(os.fstat(file.fileno()).st_size, name)
            return file.read(oci.DOCUMENT_BYTES_MAX)

    def bring(self, wanted: Descriptor) -> None:
        """Have a blob in the store. Raises ImageError when it is not what it should be."""
        with self._open("blobs", "sha256", wanted.hex) as file, self._store.receive(wanted) as incoming:
            file.seek(incoming.offset)
            while piece := file.read(_PIECE_BYTES):
                incoming.write(piece)
                self._progress("receive", wanted, incoming.offset)

    def _open(self, *names: str) -> BinaryIO:
        flags = os.O_RDONLY | os.O_CLOEXEC
        current = os.open(self._path, flags | os.O_DIRECTORY)
        try:
            for name in names:
                # Not to wait for whoever might write to a fifo.
                opened = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=current)
                os.close(current)
                current = opened
            if not stat.S_ISREG(os.fstat(current).st_mode):
                raise IsADirectoryError(errno.EISDIR, "no plain file")
        except OSError as error:
            os.close(current)
            what = "a link" if error.errno == errno.ELOOP else error.strerror
            raise ImageError(f"In {self._path}, {'/'.join(names)} cannot be read: {what}.", _CURE) from None
        return open(current, "rb")


def export_file(store: Store, reference: str, file: BinaryIO, progress: Progress | None = None) -> Descriptor:
    """Write an image as an OCI archive, with its name if it is found by one.

    Its manifest, which it returns, is one of OCI also where that of the store is Docker's, and has another
    digest then. The same image makes the same archive. Raises ImageNotFoundError, OSError.
    """
    digest = store.find(reference).digest
    held = store.hold(digest)
    try:
        image = store.find(digest)
        manifest, raw = _as_oci(store, image)
        name = next((each for each in (reference, f"{reference}:latest") if each in image.names), None)
        described = msgspec.structs.replace(manifest, annotations=name and {oci.REFERENCE_NAME: name})
        blobs = {each.digest: each for each in (image.manifest.config, *image.manifest.layers)}
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
            _add(archive, "oci-layout", oci.LAYOUT)
            _add(archive, "index.json", oci.encode(Index(manifests=(described,))))
            for directory in ("blobs", "blobs/sha256"):
                _add_directory(archive, directory)
            _add(archive, f"blobs/sha256/{manifest.hex}", raw)
            for blob in blobs.values():
                with open(store.blobs.open(blob), "rb") as content:
                    _add_file(archive, f"blobs/sha256/{blob.hex}", blob.size, content)
                if progress:
                    progress("export", blob, blob.size)
        return manifest
    finally:
        os.close(held)


def _as_oci(store: Store, image: Stored) -> tuple[Descriptor, bytes]:
    """The manifest in OCI's media types: other tools refuse Docker's in a layout."""
    found = image.manifest
    config = msgspec.structs.replace(found.config, media_type=oci.CONFIG_TYPE)
    layers = tuple(
        msgspec.structs.replace(layer, media_type=_layer_type(oci.compression(layer.media_type)))
        for layer in found.layers
    )
    if (config, layers) == (found.config, found.layers):
        raw = store.blobs.read(image.descriptor)
    else:
        raw = oci.encode(Manifest(media_type=oci.MANIFEST_TYPE, config=config, layers=layers))
    return oci.describe(raw, oci.MANIFEST_TYPE), raw


def _add(archive: tarfile.TarFile, name: str, raw: bytes) -> None:
    _add_file(archive, name, len(raw), BytesIO(raw))


def _add_directory(archive: tarfile.TarFile, name: str) -> None:
    """Without them, tools that are not root give those that they make to root, and fail."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(entry)


def _add_file(archive: tarfile.TarFile, name: str, size: int, content: BinaryIO) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    archive.addfile(entry, content)


def _layer_type(compression: str) -> str:
    return oci.LAYER_TYPE if compression == "none" else f"{oci.LAYER_TYPE}+{compression}"


def _is_part(name: str) -> bool:
    """Whether an entry of this name is of use when the archive is one of images."""
    return bool(name in _DOCUMENTS or _BLOB.fullmatch(name) or _DOCKER_PART.fullmatch(name))


def _target(name: str, entry: tar.Entry) -> str:
    """The name of the entry that a link leads to; what is outside is the name of none."""
    link = os.fsdecode(entry.link)
    beside = posixpath.dirname(name) if entry.kind == tar.SYMBOLIC_LINK else ""
    return posixpath.normpath(posixpath.join(beside, link))


def _name_of(entry: Descriptor) -> str | None:
    return (entry.annotations or {}).get(CONTAINERD_NAME) or entry.name


def _separate(index: Index) -> Iterator[Descriptor]:
    """One entry for each image of an index.json: of those for several platforms, the one for this host."""
    groups: dict[str | None, list[Descriptor]] = {}
    for entry in index.manifests:
        groups.setdefault(_name_of(entry), []).append(entry)
    for group in groups.values():
        if len(group) > 1 and all(entry.platform for entry in group):
            yield oci.choose(Index(manifests=tuple(group)), oci.host_platform())
        else:
            yield from group
