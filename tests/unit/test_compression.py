"""What is compressed comes in small pieces, and all of it or an error."""

import gzip
import io
import os
import zlib

import pytest
import zstandard

from jail.errors import ImageError
from jail.images import compression

CONTENT = os.urandom(100_000) + bytes(2_000_000)
SKIPPED = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"other"


def compress_zstd(content):
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


PACKED = {"gzip": gzip.compress, "zstd": compress_zstd, "none": bytes}


def unpacked(content, kind):
    return list(compression.decompressed(io.BytesIO(content).read, kind))


@pytest.mark.parametrize("kind", PACKED)
def test_what_was_packed_comes_in_small_pieces(kind):
    pieces = unpacked(PACKED[kind](CONTENT), kind)
    assert b"".join(pieces) == CONTENT
    assert max(map(len, pieces)) <= compression.PIECE_BYTES
    assert min(map(len, pieces)) > 0


@pytest.mark.parametrize("kind", PACKED)
def test_several_are_one(kind):
    assert b"".join(unpacked(PACKED[kind](CONTENT) * 2, kind)) == CONTENT * 2


@pytest.mark.parametrize("kind", PACKED)
def test_it_is_told_by_its_beginning(kind):
    assert compression.detect(PACKED[kind](CONTENT)[:4]) == kind


def test_a_frame_that_is_to_be_passed_over_is_zstds():
    packed = SKIPPED + compress_zstd(CONTENT) + SKIPPED
    assert compression.detect(packed[:4]) == "zstd"
    assert b"".join(unpacked(packed, "zstd")) == CONTENT


@pytest.mark.parametrize("content", [b"", bytes(3), b"\x1f", b"name of a file"])
def test_what_is_neither_is_none(content):
    assert compression.detect(content) == "none"


@pytest.mark.parametrize("cut", [1, 8, 5000])
def test_gzip_that_is_cut_short_is_refused(cut):
    with pytest.raises(ImageError, match="cut short"):
        unpacked(gzip.compress(CONTENT)[:-cut], "gzip")


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_what_follows_has_to_be_of_the_same_kind(kind):
    with pytest.raises(ImageError, match=kind):
        unpacked(PACKED[kind](CONTENT) + b"something else", kind)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_what_is_damaged_is_refused(kind):
    packed = bytearray(PACKED[kind](CONTENT))
    packed[50_000] ^= 1
    with pytest.raises(ImageError, match="damaged"):
        unpacked(bytes(packed), kind)


def test_no_compression_makes_a_piece_large():
    bomb = zlib.compress(bytes(1 << 27), 9, 31)
    assert max(map(len, compression.decompressed(io.BytesIO(bomb).read, "gzip"))) <= compression.PIECE_BYTES
    bomb = zstandard.compress(bytes(1 << 27))
    assert max(map(len, compression.decompressed(io.BytesIO(bomb).read, "zstd"))) <= compression.PIECE_BYTES


def test_what_would_take_too_much_memory_is_refused():
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28)
    ).compressobj()
    with pytest.raises(ImageError, match="zstd"):
        unpacked(packer.compress(b"x") + packer.flush(), "zstd")
