"""What the unpacker is asked, and what it answers: JSON, a packet each.

A request is followed by any number of Progress and then by one of the other answers.
"""

from typing import Literal

import msgspec

from jail.images.oci import Bytes, Count, Digest

PACKET_BYTES = 1 << 16
"""The most that one takes: a request that names its parents, or an answer that explains itself."""


WORK = ".work"
"""What is added to a layer's name for the directory that overlay needs beside it."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer may cost. More is refused.

    entries: of its archive, with the directories that they imply. bytes: of the uncompressed archive, of each
    file, and of all blocks that the layer takes up: see jail.images.unpack.tree.
    memory_bytes: address space of the process. cpu_s: seconds of processor time, all in all.
    idle_s: seconds without an entry that is done or a piece that is written.
    """

    entries: int = 1_000_000
    bytes: int = 16 << 30
    memory_bytes: int = 1 << 30
    cpu_s: int = 3600
    idle_s: float = 60


BOUNDS = Bounds()


class Unpack(msgspec.Struct, frozen=True, tag="unpack"):
    """Make the layer in the descriptor that comes along the directory `into`, upon `parents`.

    parents: names of layers, the topmost first. compression: of jail.images.compression, or "" for
    whatever its first bytes say.
    """

    parents: tuple[str, ...]
    into: str
    compression: str
    bounds: Bounds


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Remove these layers."""

    names: tuple[str, ...]


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """It goes on. read_bytes: how many are read of the layer as it came."""

    read_bytes: int


class Unpacked(msgspec.Struct, frozen=True, tag="unpacked"):
    """The layer is whole.

    diff_id: "sha256:" and the digest of the uncompressed archive. entries: how many it has. bytes: of the
    blocks that the layer takes up; omitted: how often what was left out: see jail.images.unpack.tree.
    """

    diff_id: Digest
    entries: Count
    bytes: Bytes
    omitted: dict[Literal["devices", "xattrs", "aufs"], int]


class Removed(msgspec.Struct, frozen=True, tag="removed"):
    """They are gone."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot be done: `cause` and `cure` as in ImageError.

    kind: "image", "large" when it has more bytes than it may have, "full" when there is no room for it on the
    disk, "host" when the host lacks something.
    """

    cause: str
    cure: str
    kind: str = "image"


Request = Unpack | Remove
Answer = Progress | Unpacked | Removed | Refused
