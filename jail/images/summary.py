"""What is told of an image, to people and to programs alike."""

import msgspec

from jail.images.oci import Honoured
from jail.images.store import Brought, Damaged, Store, Stored


class LayerSummary(msgspec.Struct, frozen=True):
    """A layer as it came: its archive's digest, media type and bytes."""

    digest: str
    media_type: str
    bytes: int


class Summary(msgspec.Struct, frozen=True):
    """An image.

    digest: by which jobs can name it for good. platform: OS/ARCHITECTURE. created: a time as RFC 3339 has
    it, or null. layers: the lowest first. archive_bytes: of them as they came. bytes, entries: of them
    unpacked; bytes in blocks of 4 KiB, one for each name and inode. omitted: what was left out of them, and
    how often. config: the settings that jobs follow; ignored: the names of those that they do not.
    """

    names: tuple[str, ...]
    digest: str
    platform: str
    created: str | None
    layers: tuple[LayerSummary, ...]
    archive_bytes: int
    bytes: int
    entries: int
    omitted: dict[str, int]
    config: Honoured
    ignored: tuple[str, ...]


class BroughtSummary(Summary, frozen=True):
    """One that has just come. replaced: which of its names other images had until then, by their digests."""

    replaced: dict[str, str]


class ImageList(msgspec.Struct, frozen=True):
    """All images, those with names first; and those that are damaged, which no job can have."""

    images: tuple[Summary, ...]
    damaged: tuple[Damaged, ...]


def summarize(image: Stored) -> Summary:
    """What there is to tell of an image of the store."""
    layers = image.manifest.layers
    return Summary(
        names=image.names,
        digest=image.digest,
        platform=f"{image.config.os}/{image.config.architecture}",
        created=image.config.created,
        layers=tuple(LayerSummary(each.digest, each.media_type, each.size) for each in layers),
        archive_bytes=sum(each.size for each in layers),
        bytes=image.bytes,
        entries=image.entries,
        omitted=image.omitted,
        config=image.config.honoured,
        ignored=image.config.ignored,
    )


def summarize_brought(image: Brought) -> BroughtSummary:
    """What there is to tell of one that has just come."""
    return BroughtSummary(**msgspec.structs.asdict(summarize(image)), replaced=image.replaced)


def summarize_all(store: Store) -> ImageList:
    """What there is in the store."""
    whole, damaged = store.survey()
    return ImageList(tuple(map(summarize, whole)), tuple(damaged))
