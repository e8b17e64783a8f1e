"""What the service and the program of images say to each other: packets of JSON on a SOCK_SEQPACKET pair.

One program carries out one request, its first packet, and says Done or Failed last; before that it tells how
far it is. The end of the socket ends it at any time, and what was not done by then leaves nothing.
"""

from typing import Literal

import msgspec

PACKET_BYTES = 1 << 16
"""More than any packet has."""


class Offer(msgspec.Struct, frozen=True):
    """What the operator has set: the store's directory and its bounds, and that the kernel has Landlock."""

    store: str
    bytes_max: int
    image_bytes: int
    image_entries: int
    landlock: bool = True


class Pull(msgspec.Struct, frozen=True, tag="pull", forbid_unknown_fields=True):
    """Fetch an image from a registry, for `platform`, or this host's; it is called `name`, or as it is there.

    insecure: without TLS. user, password: the registry's own, if it asks for them.
    """

    reference: str
    name: str = ""
    platform: str = ""
    insecure: bool = False
    user: str = ""
    password: str = ""


class Import(msgspec.Struct, frozen=True, tag="import", forbid_unknown_fields=True):
    """Bring in an archive, which the descriptor that comes along gives to read; its only image has this name.

    Its end counts as that only once Whole has come: else it was cut.
    """

    name: str = ""


class Whole(msgspec.Struct, frozen=True, tag="whole", forbid_unknown_fields=True):
    """Everything of the archive has been written."""


class Export(msgspec.Struct, frozen=True, tag="export", forbid_unknown_fields=True):
    """Write an image as an archive to the descriptor that comes along."""

    reference: str


class Remove(msgspec.Struct, frozen=True, tag="remove", forbid_unknown_fields=True):
    """Remove a name or an image."""

    reference: str


class Prune(msgspec.Struct, frozen=True, tag="prune", forbid_unknown_fields=True):
    """Remove what nobody needs; with `nameless`, images without a name, too."""

    nameless: bool = False


Request = Pull | Import | Export | Remove | Prune


class Image(msgspec.Struct, frozen=True):
    """One that has come: its manifest's digest, and all its names.

    replaced: which of these other images had until then, by their digests.
    """

    digest: str
    names: tuple[str, ...]
    replaced: dict[str, str]


class Progress(msgspec.Struct, frozen=True, tag="progress", tag_field="event"):
    """How far it is with a blob: what is done with it, and how many of its bytes are done, of how many.

    Of what follows fast, or when nobody listens, some are left out.
    """

    what: Literal["receive", "unpack"]
    digest: str
    bytes: int
    total: int


class Begun(msgspec.Struct, frozen=True, tag="begun", tag_field="event"):
    """There is such an image, and its archive is on its way. digest: of its manifest in the store."""

    digest: str


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="event", omit_defaults=True):
    """It has been done. images: that have come; freed_bytes: that are free again in the store."""

    images: tuple[Image, ...] | None = None
    freed_bytes: int | None = None


Kind = Literal["image", "not_found", "in_use", "full", "host", "defect"]


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="event"):
    """It has not, and left nothing. `cause` and `cure` as in jail.errors.ExplainedError."""

    kind: Kind
    cause: str
    cure: str


Answer = Progress | Begun | Done | Failed
