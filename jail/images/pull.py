"""Bring an image of a registry into the store.

A tag is resolved once: to the digest of a manifest, which is what is stored and told. Whatever else comes is
asked for by a digest that the manifest has. Blobs come side by side; what a pull that was cut off left of one
is where the next goes on.
"""

import re
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from jail.errors import ImageError, StoreFullError
from jail.images import oci
from jail.images.names import refuse_name
from jail.images.oci import Descriptor, Manifest, Platform
from jail.images.registry import Repository
from jail.images.store import Brought, Progress, Store
from jail.images.unpacker import Unpacker

AT_ONCE = 4
"""Blobs that are fetched side by side."""

DEPTH_MAX = 3
"""How many indexes may lead to a manifest, one in the other."""

INTERRUPT_S = 0.5
"""How long a signal may go unnoticed that comes when this thread is about to wait: Python asks before."""

_PLATFORM = re.compile("([a-z0-9_]+)/([a-z0-9_]+)(?:/([a-z0-9_.]+))?")


def parse_platform(text: str) -> Platform:
    """OS/ARCHITECTURE[/VARIANT], as image-index.md names them; empty is this host's. Raises ImageError."""
    if not text:
        return oci.host_platform()
    found = _PLATFORM.fullmatch(text)
    if found is None:
        raise ImageError(f"{text!r} is no platform.", "Write OS/ARCHITECTURE[/VARIANT], like linux/amd64.")
    return Platform(found[2], found[1], found[3] or "")


def pull(
    store: Store,
    unpacker: Unpacker,
    repository: Repository,
    name: str = "",
    platform: Platform | None = None,
    progress: Progress = lambda *_: None,
) -> Brought:
    """Fetch the image that the repository's reference means, unpack it and let it be found.

    name: in the store; empty is the reference's own, which is none when it has a digest and no tag. progress:
    called from several threads, for each blob once before any grows. Raises ImageError, StoreFullError: when
    it could not be fetched what has come stays for the next pull, else nothing does.
    """
    name = name or repository.reference.name
    if name:
        refuse_name(name)
    try:
        found = fetch(store, repository, platform or oci.host_platform(), progress)
    except StoreFullError:
        store.abandon(unpacker)
        raise
    try:
        return store.publish(found, [name] if name else [], unpacker, progress)
    except ImageError:
        store.abandon(unpacker)
        raise


def fetch(
    store: Store, repository: Repository, platform: Platform, progress: Progress = lambda *_: None
) -> Descriptor:
    """Bring in a manifest and all blobs that it names, and return its descriptor. Raises ImageError."""
    media_type, raw = resolve(repository, platform)
    manifest = oci.parse_manifest(raw)
    store.refuse_excess(manifest)
    oci.refuse_long(manifest.config.size, "image's configuration")
    _fetch_all(store, repository, [manifest.config], lambda *_: None)
    _refuse_config(store, manifest)
    # A layer may well be there twice.
    layers = {layer.digest: layer for layer in manifest.layers}
    _fetch_all(store, repository, list(layers.values()), progress)
    return store.add_document(raw, media_type)


def resolve(repository: Repository, platform: Platform) -> tuple[str, bytes]:
    """The media type and bytes of the manifest that the reference means on a platform. Raises ImageError."""
    media_type, raw = repository.manifest(repository.reference.wanted)
    for _ in range(DEPTH_MAX):
        if media_type in oci.MANIFEST_TYPES:
            return media_type, raw
        if media_type not in oci.INDEX_TYPES:
            raise ImageError(
                f"{repository.reference} is of the type {media_type!r}, which is not one of images.",
                "Name an image, or have it made by a newer tool.",
            )
        chosen = oci.choose(oci.parse_index(raw), platform)
        oci.refuse_long(chosen.size, "manifest")
        media_type, raw = repository.manifest(chosen.digest)
        if (media_type, len(raw)) != (chosen.media_type, chosen.size):
            raise ImageError(
                f"{chosen.digest} is {len(raw)} bytes of {media_type!r}, and the index of "
                f"{repository.reference} says {chosen.size} of {chosen.media_type!r}.",
                "It is the registry's fault: tell whoever keeps it.",
            )
    raise ImageError(f"{repository.reference} leads from index to index.", "Name an image by its digest.")


def _refuse_config(store: Store, manifest: Manifest) -> None:
    """Raise ImageError for what would be refused in the end, before all of it is fetched."""
    config = oci.parse_config(store.blobs.read(manifest.config))
    oci.refuse_foreign(config, oci.host_platform())


def _fetch_all(
    store: Store, repository: Repository, wanted: Sequence[Descriptor], progress: Progress
) -> None:
    for blob in wanted:
        progress("receive", blob, 0)

    def fetch_one(blob: Descriptor) -> None:
        with store.receive(blob) as incoming:
            repository.fetch(blob, incoming, lambda size: progress("receive", blob, size))
            progress("receive", blob, incoming.offset)

    with ThreadPoolExecutor(AT_ONCE, "pull") as pool:
        try:
            # An interrupt may well come while some of them are not begun.
            _finish([pool.submit(fetch_one, blob) for blob in wanted])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # The others' ends are of no interest any more.
            repository.stop()
            raise


def _finish(fetched: Sequence[Future[None]]) -> None:
    """Wait for all, or the first that fails, and raise what it did."""
    pending = set(fetched)
    while pending:
        done, pending = wait(pending, INTERRUPT_S, FIRST_EXCEPTION)
        for each in done:
            each.result()
