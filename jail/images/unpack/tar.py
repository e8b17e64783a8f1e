"""Archives of tar(5), read strictly: what two readers would understand differently is refused.

POSIX's ustar and pax, of GNU long names and sparse files of all its four forms, and what was before them.
Names are bytes, as they are in the archive and on Linux. Memory is bounded: HEADER_BYTES_MAX for the headers
of an entry, EXTENTS_MAX for the pieces of a sparse file.

Python's own module reads a header into memory however long that says it is, takes what is damaged for the
end, and is slower.
"""

import re
import struct
from collections.abc import Iterator

from jail.errors import ImageError
from jail.images.unpack.stream import CURE, Stream

BLOCK_BYTES = 512

HEADER_BYTES_MAX = 1 << 20
"""Of an extended header: as many as Go's reader takes, which nearly all tools for images have."""

EXTENTS_MAX = 1 << 16
"""How many pieces of data a sparse file may have."""

NAME_BYTES_MAX = 4095
"""Of a name or what a link leads to: PATH_MAX without its NUL."""

FILE, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0123456"
"""The kinds of entries, by the letter that they have in a header."""

_OLD_FILE, _CONTIGUOUS, _SPARSE = b"\0007S"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"xgLK"
_KINDS = {letter: letter for letter in b"0123456"} | {_OLD_FILE: FILE, _CONTIGUOUS: FILE, _SPARSE: FILE}

# name, mode, uid, gid, size, mtime, checksum, kind, link, magic and version, rest
_HEADER = struct.Struct("100s8s8s8s12s12s8sB100s8s247x")
_ZEROS = bytes(BLOCK_BYTES)
_BLANK = sum(b" " * 8)

# What of a pax header says something that an entry of ours has. POSIX, pax, "pax Extended Header Keywords".
_HONOURED = (
    b"path",
    b"linkpath",
    b"size",
    b"uid",
    b"gid",
    b"mtime",
    b"atime",
    b"SCHILY.xattr.",
    b"GNU.sparse.",
)
_XATTR = b"SCHILY.xattr."
_XATTR_NAME_BYTES_MAX = 255
_TIME = re.compile(rb"(-?)(\d{1,17})(?:\.(\d{0,64}))?")
_RECORD = re.compile(rb"([1-9]\d{0,6}) ")
_DECIMAL = re.compile(rb"\d{1,19}")

# <linux/fs.h>, MAX_LFS_FILESIZE
_OFFSET_MAX = (1 << 63) - 1

# Years that no clock shows, and that the calls which set times take.
_TIME_NS_MAX = 1 << 80


class Entry:
    """What one entry says.

    Attributes: `kind`; `name` and `link`, as they are written; `mode`, permissions; `uid`, `gid`; `mtime_ns`,
    `atime_ns`; `xattrs`; `size`, of the file; `stored`, how many bytes of it follow, all but if it is sparse;
    `extents`, of a sparse file: pairs of where in it these bytes are, and how many.
    """

    __slots__ = (
        "atime_ns",
        "extents",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime_ns",
        "name",
        "size",
        "stored",
        "uid",
        "xattrs",
    )

    def __init__(self, name: bytes, kind: int) -> None:
        """Make one that is empty."""
        self.name = name
        self.kind = kind
        self.link = b""
        self.mode = self.uid = self.gid = self.size = self.stored = self.mtime_ns = self.atime_ns = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.extents: list[tuple[int, int]] | None = None


class MalformedError(ImageError):
    """The archive is not one of tar's."""

    def __init__(self, what: str) -> None:
        """Say what is wrong."""
        super().__init__(f"The archive is damaged: {what}.", CURE)


class _Ahead:
    """What headers say of the entry after them."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] | None = None
        self.pairs: list[bytes] = []
        self.names: dict[int, bytes] = {}

    def take(self, kind: int, content: bytes) -> None:
        """Take in an extended header."""
        if kind == _PAX_GLOBAL:
            # Readers differ in what it is about, so it may say nothing that matters.
            if any(key.startswith(_HONOURED) for key, _ in _records(content)):
                raise MalformedError("a global header tells of entries")
        elif kind == _PAX:
            if self.records is not None:
                raise MalformedError("an entry has two extended headers")
            self.records = {}
            for key, value in _records(content):
                if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                    self.pairs.append(value)
                self.records[key] = value
        else:
            if kind in self.names:
                raise MalformedError("an entry has two long names")
            self.names[kind] = content.partition(b"\0")[0]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said."""
        return self.records is None and not self.names


def entries(stream: Stream) -> Iterator[Entry]:
    """Its entries in order. What is not taken of one's content is passed over. Raises ImageError."""
    ahead = _Ahead()
    while (block := stream.exactly(BLOCK_BYTES)) != _ZEROS:
        kind, size = _kind_and_size(block)
        if kind in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
            if size > HEADER_BYTES_MAX:
                raise MalformedError(f"a header has {size} bytes; the most is {HEADER_BYTES_MAX}")
            ahead.take(kind, stream.exactly(size))
            stream.skip(-size % BLOCK_BYTES)
            continue
        entry = _entry(block, kind, size, ahead)
        end = stream.position + entry.stored
        _find_extents(entry, block, kind, ahead, stream)
        if kind == _SPARSE:
            end = stream.position + entry.stored
        yield entry
        stream.skip(end - stream.position + -end % BLOCK_BYTES)
        ahead = _Ahead()
    if not ahead.is_empty:
        raise MalformedError("it ends after a header")
    if (last := stream.some(BLOCK_BYTES)) and bytes(last) + stream.exactly(BLOCK_BYTES - len(last)) != _ZEROS:
        raise MalformedError("there is more after its end")


def _kind_and_size(block: bytes) -> tuple[int, int]:
    _, _, _, _, size, _, checksum, kind, _, _ = _HEADER.unpack(block)
    # Old programs added the bytes as signed numbers.
    told, found = _number(checksum), sum(block) - sum(checksum) + _BLANK
    if told != found and told != found - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        raise MalformedError("the checksum of a header is wrong")
    return kind, _positive(size)


def _entry(block: bytes, kind: int, size: int, ahead: _Ahead) -> Entry:
    if kind not in _KINDS:
        raise MalformedError(f"an entry is of the unknown type {chr(kind)!r}")
    records = ahead.records or {}
    name, mode, uid, gid, _, mtime, _, _, link, magic = _HEADER.unpack(block)
    entry = Entry(_name(b"path", _prefix(block, magic) + _text(name), ahead, _GNU_NAME), _KINDS[kind])
    entry.link = _name(b"linkpath", _text(link), ahead, _GNU_LINK)
    if kind == _OLD_FILE and entry.name.endswith(b"/"):
        entry.kind = DIRECTORY
    entry.mode = _positive(mode) & 0o7777
    entry.uid = _decimal(records[b"uid"]) if records.get(b"uid") else _positive(uid)
    entry.gid = _decimal(records[b"gid"]) if records.get(b"gid") else _positive(gid)
    entry.size = entry.stored = _decimal(records[b"size"]) if records.get(b"size") else size
    if entry.kind != FILE and entry.size:
        raise MalformedError("an entry that is no file has content")
    if records.get(b"mtime"):
        entry.mtime_ns = _time(records[b"mtime"])
    else:
        entry.mtime_ns = _number(mtime) * 10**9
    entry.atime_ns = _time(records[b"atime"]) if records.get(b"atime") else entry.mtime_ns
    if max(abs(entry.mtime_ns), abs(entry.atime_ns)) > _TIME_NS_MAX:
        raise MalformedError("a time is out of every range")
    for key, value in records.items():
        if key.startswith(_XATTR):
            entry.xattrs[_xattr(key[len(_XATTR) :])] = value
    return entry


def _prefix(block: bytes, magic: bytes) -> bytes:
    """What comes before a name that did not fit."""
    if not magic.startswith(b"ustar\0"):
        return b""
    # Of star, times stand after a shorter one.
    prefix = _text(block[345:476] if block[508:] == b"tar\0" else block[345:500])
    return prefix + b"/" if prefix else b""


def _name(key: bytes, own: bytes, ahead: _Ahead, letter: int) -> bytes:
    given = [text for text in ((ahead.records or {}).get(key), ahead.names.get(letter)) if text]
    if len(given) > 1:
        raise MalformedError("an entry has two long names")
    found = given[0] if given else own
    if b"\0" in found:
        raise MalformedError("a name has a NUL")
    if len(found) > NAME_BYTES_MAX:
        raise MalformedError(f"a name has {len(found)} bytes; the most is {NAME_BYTES_MAX}")
    return found


def _xattr(name: bytes) -> bytes:
    if not name or b"\0" in name or len(name) > _XATTR_NAME_BYTES_MAX:
        raise MalformedError("an extended attribute has no possible name")
    return name


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a pax header: each "LENGTH KEY=VALUE" and a newline; all of it is counted."""
    start = 0
    while start < len(content):
        length = _RECORD.match(content, start)
        end = start + int(length[1]) if length else 0
        if not length or not length.end() < end <= len(content) or content[end - 1] != ord("\n"):
            raise MalformedError("an extended header is not made of records")
        key, equals, value = content[length.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise MalformedError("an extended header has a record without a key")
        yield key, value
        start = end


def _find_extents(entry: Entry, block: bytes, kind: int, ahead: _Ahead, stream: Stream) -> None:
    """Read where the pieces of a sparse file belong, and what its name and size are then."""
    records = ahead.records or {}
    if kind == _SPARSE:
        numbers = list(_gnu_numbers(block, stream))
        entry.size = _positive(block[483:495])
    elif b"GNU.sparse.major" in records:
        if (records[b"GNU.sparse.major"], records.get(b"GNU.sparse.minor")) != (b"1", b"0"):
            raise MalformedError("a sparse file is of an unknown form")
        entry.size = _decimal(records.get(b"GNU.sparse.realsize", b""))
        start = stream.position
        numbers = _leading_numbers(entry.stored, stream)
        entry.stored -= stream.position - start
    elif b"GNU.sparse.size" in records:
        entry.size = _decimal(records[b"GNU.sparse.size"])
        listed = (
            records[b"GNU.sparse.map"].split(b",", 2 * EXTENTS_MAX)
            if b"GNU.sparse.map" in records
            else ahead.pairs
        )
        numbers = [_decimal(text) for text in listed]
    else:
        return
    if entry.kind != FILE:
        raise MalformedError("an entry that is no file is sparse")
    if records.get(b"GNU.sparse.name"):
        entry.name = _name(b"GNU.sparse.name", b"", ahead, 0)
    entry.extents = _pairs(numbers, entry)


def _pairs(numbers: list[int], entry: Entry) -> list[tuple[int, int]]:
    if len(numbers) % 2 or len(numbers) > 2 * EXTENTS_MAX:
        raise MalformedError(
            f"a sparse file has {len(numbers)} numbers; the most is {2 * EXTENTS_MAX}, in pairs"
        )
    pairs, end = list(zip(numbers[::2], numbers[1::2], strict=True)), 0
    for offset, length in pairs:
        if offset < end:
            raise MalformedError("pieces of a sparse file are not in order")
        end = offset + length
    if entry.size > _OFFSET_MAX:
        raise MalformedError("a sparse file is longer than any")
    if end > entry.size or sum(numbers[1::2]) != entry.stored:
        raise MalformedError("a sparse file is not as long as its pieces")
    return pairs


def _gnu_numbers(block: bytes, stream: Stream) -> Iterator[int]:
    """Of the old form: in the header, and in blocks after it."""
    if not block[257:265] == b"ustar  \0":
        raise MalformedError("a sparse file is in an archive that is not GNU's")
    fields, goes_on = block[386:482], block[482]
    count = 0
    while True:
        for start in range(0, len(fields), 24):
            pair = fields[start : start + 24]
            if pair.strip(b"\0"):
                yield _positive(pair[:12])
                yield _positive(pair[12:])
        count += len(fields) // 24
        if not goes_on:
            return
        if count > EXTENTS_MAX:
            raise MalformedError(f"a sparse file has more than {EXTENTS_MAX} pieces")
        more = stream.exactly(BLOCK_BYTES)
        fields, goes_on = more[:504], more[504]


def _leading_numbers(stored: int, stream: Stream) -> list[int]:
    """Of the form 1.0: lines before the content, in blocks; the first says how many pairs there are."""
    text, lines, wanted = bytearray(), 0, 1
    while lines < wanted:
        if len(text) + BLOCK_BYTES > stored:
            raise MalformedError("a sparse file ends before it begins")
        block = stream.exactly(BLOCK_BYTES)
        lines += block.count(b"\n")
        text += block
        if wanted == 1 and lines:
            pairs = _decimal(bytes(text[: text.index(b"\n")]))
            if pairs > EXTENTS_MAX:
                raise MalformedError(f"a sparse file has more than {EXTENTS_MAX} pieces")
            wanted += 2 * pairs
    return [_decimal(line) for line in bytes(text).split(b"\n", wanted)[1:wanted]]


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits; or, of what does not fit, GNU's binary: the first bit is set, the next is the sign."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") - (1 << bits)
        return value - (1 << bits) if field[0] & 0x40 else value
    text = _text(field).strip(b" ")
    if not text:
        return 0
    # int() would take signs and underscores.
    if not text.isdigit() or b"8" in text or b"9" in text:
        raise MalformedError("a number is not octal")
    return int(text, 8)


def _positive(field: bytes) -> int:
    value = _number(field)
    if value < 0:
        raise MalformedError("a number is negative")
    return value


def _decimal(text: bytes) -> int:
    if not _DECIMAL.fullmatch(text):
        raise MalformedError("a number is not decimal")
    return int(text)


def _time(text: bytes) -> int:
    """Nanoseconds; digits beyond them are cut off."""
    found = _TIME.fullmatch(text)
    if not found:
        raise MalformedError("a time is no number")
    sign, seconds, fraction = found.groups(default=b"")
    total = int(seconds) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -total if sign else total
