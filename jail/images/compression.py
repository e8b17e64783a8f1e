"""Compressed archives, piece by piece: no piece is large, however well it was compressed.

To be used where the archive can do no harm: see jail.images.unpack.
"""

import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import zstandard

from jail.errors import ImageError

PIECE_BYTES = 1 << 18
"""The most that one piece has."""

ZSTD_WINDOW_BYTES_MAX = 1 << 27
"""How far back a zstd archive may refer, all of which is kept in memory: what `zstd --long` makes at most."""

ZSTD_LEVEL = 1
"""Of archives that are made here: they are read once, soon, and disks are slower."""

MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
"""What each begins with. RFC 1952, RFC 8878."""

# A frame to be passed over, which readers by parts put in front: RFC 8878, 3.1.2, all sixteen.
_SKIPPABLE = tuple(bytes([0x50 + number, 0x2A, 0x4D, 0x18]) for number in range(16))

# zlib.h: with the header of gzip.
_GZIP = 16 + zlib.MAX_WBITS

# After each member, what is left of this is copied; and members may be tiny.
_GZIP_READ_BYTES = 1 << 14

_CURE = "Get the archive anew from a source that you trust."


def detect(beginning: bytes) -> str:
    """How what begins with these bytes, four at least, is compressed: "gzip", "zstd" or "none"."""
    if beginning.startswith(_SKIPPABLE):
        return "zstd"
    return next((name for name, magic in MAGIC.items() if beginning.startswith(magic)), "none")


def decompressed(read: Callable[[int], bytes], compression: str) -> Iterator[bytes]:
    """What `read`, given how many bytes at most, returns, decompressed: "gzip", "zstd" or "none".

    Several archives one after the other are one, as in gzip(1) and zstd(1). Raises ImageError when they are
    damaged or followed by something else, and when one of gzip is cut short: of zstd, just less comes.
    """
    return {"gzip": _gzip, "zstd": _zstd, "none": _none}[compression](read)


def compressed(source: Any) -> Any:
    """What reads (`read`, given how many bytes at most) the zstd archive of what `source` reads.

    The same bytes make the same archive, as long as it is the same zstd.
    """
    made = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=1)
    return made.stream_reader(source, read_size=PIECE_BYTES)


def _none(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read(PIECE_BYTES):
        yield piece


def _gzip(read: Callable[[int], bytes]) -> Iterator[bytes]:
    rest = read(_GZIP_READ_BYTES)
    while rest:
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            if not rest and not (rest := read(_GZIP_READ_BYTES)):
                raise ImageError("The gzip archive is cut short.", _CURE)
            try:
                piece = member.decompress(rest, PIECE_BYTES)
            except zlib.error as error:
                raise ImageError(f"The gzip archive is damaged: {error}.", _CURE) from None
            rest = member.unconsumed_tail
            if piece:
                yield piece
        rest = member.unused_data or read(_GZIP_READ_BYTES)


def _zstd(read: Callable[[int], bytes]) -> Iterator[bytes]:
    archive = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    source = SimpleNamespace(read=read)
    pieces = archive.stream_reader(source, read_size=PIECE_BYTES, read_across_frames=True)
    try:
        while piece := pieces.read(PIECE_BYTES):
            yield piece
    except zstandard.ZstdError as error:
        raise ImageError(f"The zstd archive is damaged: {error}.", _CURE) from None
