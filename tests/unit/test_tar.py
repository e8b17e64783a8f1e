"""Archives as our own reader has them: what is whole as Python has it, and nothing of what is not."""

import random
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jail.errors import ImageError
from jail.images.unpack import tar
from jail.images.unpack.stream import Stream
from jail.images.unpack.tree import components

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
END = bytes(1024)


def stream(content, piece=1 << 18, bytes_max=1 << 40):
    return Stream((content[start : start + piece] for start in range(0, len(content), piece)), bytes_max)


def read(content, piece=1 << 18):
    """The entries, each with its content."""
    source = stream(content, piece)
    return [(entry, b"".join(map(bytes, source.parts(entry.stored)))) for entry in tar.entries(source)]


def header(info, form="pax"):
    return info.tobuf(FORMATS[form], "utf-8", "surrogateescape")


def one(form="pax", content=b"", **fields):
    info = tarfile.TarInfo("name")
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return header(info, form) + content + bytes(-len(content) % 512)


def pax(*records):
    """An extended header of these records, as they are."""
    info = tarfile.TarInfo("pax")
    info.type, content = b"x", b"".join(records)
    info.size = len(content)
    return header(info, "ustar") + content + bytes(-len(content) % 512)


def record(text):
    length = len(text) + 2
    while (whole := b"%d %s\n" % (length, text)) and len(whole) != length:
        length = len(whole)
    return whole


def patched(block, start, text):
    """A header with this in place, and the checksum that it has then."""
    changed = bytearray(block)
    changed[start : start + len(text)] = text
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed[:512])
    return bytes(changed)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda name: name.strip("/") and not name.endswith("/") and len(name.encode()) < 4000
)


@settings(max_examples=150, deadline=None)
@given(
    name=names,
    content=st.binary(max_size=2000),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 31) - 1),
    mtime=st.integers(-(1 << 33), 1 << 40),
    form=st.sampled_from(["gnu", "pax"]),
    piece=st.sampled_from([1, 7, 511, 512, 513, 1 << 18]),
)
def test_what_python_writes_is_read(name, content, mode, uid, mtime, form, piece):
    archive = one(form, content, name=name, mode=mode, uid=uid, gid=uid, mtime=mtime) * 2 + END
    found = read(archive, piece)
    assert len(found) == 2
    entry, told = found[1]
    assert told == content
    assert (entry.kind, entry.size, entry.extents) == (tar.FILE, len(content), None)
    assert (entry.name, entry.mode, entry.uid, entry.gid) == (name.encode(), mode, uid, uid)
    assert entry.mtime_ns == entry.atime_ns == mtime * 10**9


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", [b"1", b"2"])
@pytest.mark.parametrize("length", [1, 99, 100])
def test_links_have_their_names_in_every_form(form, kind, length):
    ((entry, _),) = read(one(form, type=kind, linkname="l" * length) + END)
    assert (entry.kind, entry.link) == (kind[0], b"l" * length)


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_names_are_bytes(form):
    ((entry, _),) = read(one(form, name="\udce9" * 150, type=b"2", linkname="\udcff" * 150) + END)
    assert (entry.name, entry.link) == (b"\xe9" * 150, b"\xff" * 150)


def test_a_name_of_ustar_has_a_prefix():
    ((entry, _),) = read(one("ustar", name="a" * 100 + "/" + "b" * 100) + END)
    assert entry.name == b"a" * 100 + b"/" + b"b" * 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0", 0),
        (b"1.5", 1_500_000_000),
        (b"1.", 1_000_000_000),
        (b"1.000000001", 1_000_000_001),
        (b"1.0000000019", 1_000_000_001),
        (b"-1.25", -1_250_000_000),
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
    ],
)
def test_times_have_nanoseconds(text, expected):
    ((entry, _),) = read(pax(record(b"mtime=" + text), record(b"atime=7.7")) + one("ustar") + END)
    assert (entry.mtime_ns, entry.atime_ns) == (expected, 7_700_000_000)


@pytest.mark.parametrize(
    "text", [b"1e3", b"1,5", b"0x1", b"1_0", b" 1", b"+1", b"inf", b"1" * 18, b".5", b"1.\n"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ImageError):
        read(pax(record(b"mtime=" + text)) + one("ustar") + END)


def test_extended_attributes_are_bytes_and_may_be_empty():
    headers = pax(record(b"SCHILY.xattr.user.a=\0=\n\xff"), record(b"SCHILY.xattr.user.b="))
    ((entry, _),) = read(headers + one("ustar") + END)
    assert entry.xattrs == {b"user.a": b"\0=\n\xff", b"user.b": b""}


def test_an_extended_header_is_for_one_entry():
    first, second = read(pax(record(b"path=other"), record(b"uid=5")) + one("ustar") + one("ustar") + END)
    assert (first[0].name, first[0].uid) == (b"other", 5)
    assert (second[0].name, second[0].uid) == (b"name", 0)


def test_the_size_of_an_extended_header_counts():
    content = b"x" * 1000
    headers = pax(record(b"size=1000"))
    block = patched(one("ustar"), 124, b"00000000000")
    ((entry, told),) = read(headers + block + content + bytes(24) + END)
    assert (entry.size, told) == (1000, content)


def test_content_that_nobody_takes_is_passed_over():
    source = stream(one(content=b"x" * 5000) + one(name="next") + END)
    assert [entry.name for entry in tar.entries(source)] == [b"name", b"next"]


def test_old_directories_are_told_by_their_names():
    block = patched(one("ustar", name="d/"), 156, b"\0")
    assert read(block + END)[0][0].kind == tar.DIRECTORY


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"0000017 \0", 15),
        (b"     17\0", 15),
        (b"17\0\xff\xff\xff\xff\xff", 15),
        (b"\0" * 8, 0),
        (b" " * 8, 0),
        (b"\x80" + b"\0" * 6 + b"\x0f", 15),
    ],
)
def test_numbers_have_many_forms(field, expected):
    assert read(patched(one("ustar"), 108, field) + END)[0][0].uid == expected


@pytest.mark.parametrize(
    "field", [b"0000018\0", b"-000017\0", b"+17\0", b"1_7\0", b"0o17\0", b"1 7\0", b"\xff" * 8, b"x"]
)
def test_what_is_no_number_is_refused(field):
    with pytest.raises(ImageError):
        read(patched(one("ustar"), 108, field) + END)


def test_a_checksum_of_signed_bytes_is_right_too():
    block = bytearray(one("gnu", name="\udce9\udcff"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in block)
    assert read(bytes(block) + END)[0][0].name == b"\xe9\xff"


def test_an_archive_may_end_with_one_block_and_no_more():
    assert len(read(one() + bytes(512))) == 1
    for end in (b"", bytes(100)):
        with pytest.raises(ImageError, match="cut short"):
            read(one() + end)


@pytest.mark.parametrize("cut", [1, 100, 511])
def test_content_or_a_header_that_is_cut_is_refused(cut):
    with pytest.raises(ImageError, match="cut short"):
        read((one(content=b"x" * 512) + END)[: 512 + cut])


@pytest.mark.parametrize(
    "records",
    [
        b"5 a=b\n",
        b"7 a=b\n",
        b"6 a=bc",
        b"06 a=b\n",
        b" 6 a=b\n",
        b"-6 a=b\n",
        b"99999999 a=b\n",
        b"4 a\n",
        b"5 =b\n",
        b"6 a=b\n\0\0",
        b"0 a=b\n",
        b"2 \n",
    ],
)
def test_what_is_no_record_is_refused(records):
    with pytest.raises(ImageError):
        read(pax(records) + one("ustar") + END)


def test_a_sparse_file_may_have_so_many_pieces():
    count = tar.EXTENTS_MAX
    for pieces in (count, count + 1):
        text = b"%d\n" % pieces + b"".join(b"%d\n1\n" % (2 * number) for number in range(pieces))
        text += bytes(-len(text) % 512)
        headers = pax(
            record(b"GNU.sparse.major=1"),
            record(b"GNU.sparse.minor=0"),
            record(b"GNU.sparse.realsize=%d" % (3 * count)),
        )
        archive = headers + one("gnu", text + bytes(pieces)) + END
        if pieces == count:
            assert len(read(archive)[0][0].extents) == count
        else:
            with pytest.raises(ImageError, match="more than"):
                read(archive)


def test_mutations_are_entries_or_refused():
    """And nothing else is raised. Through all of the unpacker: tests/host/programs/fuzz_unpacker.py."""
    chance = random.Random(7)
    whole = bytearray(
        one("gnu", b"x" * 600, name="n" * 150)
        + pax(record(b"SCHILY.xattr.user.a=b"), record(b"mtime=1.5"))
        + one("ustar", type=b"2", linkname="l")
        + pax(record(b"GNU.sparse.size=2000"), record(b"GNU.sparse.map=0,512,1024,512"))
        + one("ustar", bytes(1024))
        + END
    )
    for _ in range(3000):
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            start = chance.randrange(len(changed) // 512) * 512
            piece = chance.choice(
                [b"\xff" * 12, b"9" * 8, b"\0", b"\x80", chance.randbytes(chance.randint(1, 12))]
            )
            place = start + chance.choice(
                [0, 100, 108, 124, 136, 156, 257, 345, 386, 482, chance.randrange(512)]
            )
            changed[place : place + len(piece)] = piece
            if chance.random() < 0.9 and len(changed) >= start + 512:
                changed[start : start + 512] = patched(bytes(changed[start : start + 512]), 0, b"")
        try:
            found = read(bytes(changed), chance.choice([100, 512, 1 << 18]))
        except ImageError:
            continue
        assert all(len(content) == entry.stored <= len(changed) for entry, content in found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"a", [b"a"]),
        (b"/a//b/./c/", [b"a", b"b", b"c"]),
        (b"./", []),
        (b"/", []),
        (b"...", [b"..."]),
        (b"a/..b", [b"a", b"..b"]),
    ],
)
def test_a_name_is_made_of_parts(name, expected):
    assert components(name) == expected


@pytest.mark.parametrize("name", [b"..", b"../a", b"a/..", b"a/../b", b"/..", b"./../a", b"d/" * 257])
def test_a_name_that_leads_up_or_too_deep_is_none(name):
    with pytest.raises(ImageError):
        components(name)
