"""What the unpacker is asked, and what it answers: JSON, a packet each.

A request is followed by any number of Progress and then by one of the other answers.
"""

import msgspec

PACKET_BYTES = 1 << 16
"""The most that one takes: a request that names its parents, or an answer that explains itself."""

MIB = 1 << 20


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer may cost. More is refused.

    entries_max: of its archive. bytes_max: of the uncompressed archive, and of each file.
    memory_bytes: address space of the process. cpu_s: seconds of processor time, all in all.
    idle_s: seconds without an entry that is done or a piece that is written.
    """

    entries_max: int = 2_000_000
    bytes_max: int = 64 << 30
    memory_bytes: int = 1 << 30
    cpu_s: int = 3600
    idle_s: int = 60


class Unpack(msgspec.Struct, frozen=True, tag="unpack"):
    """Make the layer in the descriptor that comes along the directory layers/`into`, upon `parents`.

    parents: names of layers, the topmost first. compression: of jail.images.compression.
    """

    parents: tuple[str, ...]
    into: str
    compression: str
    bounds: Bounds


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Remove these trees, paths within the store."""

    paths: tuple[str, ...]


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """So far: entries that are done, and bytes that are read of the layer as it came."""

    entries: int
    read_bytes: int


class Unpacked(msgspec.Struct, frozen=True, tag="unpacked"):
    """The layer is whole.

    diff_id: "sha256:" and the digest of the uncompressed archive. entries: how many it has. bytes: the length
    of the uncompressed archive. omitted: what was left out, and how often, by reason: see `entries`.
    """

    diff_id: str
    entries: int
    bytes: int
    omitted: dict[str, int]


class Removed(msgspec.Struct, frozen=True, tag="removed"):
    """They are gone."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot be done: `cause` and `cure` as in ImageError. is_full: there is no room for it on the disk."""

    cause: str
    cure: str
    is_full: bool = False


Request = Unpack | Remove
Answer = Progress | Unpacked | Removed | Refused
