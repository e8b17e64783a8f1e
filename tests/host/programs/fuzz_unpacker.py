"""Mutated archives, through the unpacker: each is unpacked or refused, and nothing else happens.

    python fuzz_unpacker.py COUNT [SEED]      as an ordinary user with a delegated range

It prints what became of how many. It fails, and tells the seed of the archive, when the unpacker does, when a
refused layer is still there, when anything outside of the layer has changed, or the program has grown.
"""

import random
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import zstandard

from jail.errors import ImageError
from jail.images.unpacker import Bounds, Unpacker
from jail.namespace import OuterNamespace

BOUNDS = Bounds(entries=500, bytes=1 << 22, memory_bytes=1 << 29, cpu_s=20)
GROWTH_KIB = 8192

PIECES = (
    b"../",
    b"/",
    b"..",
    b".wh.",
    b".wh..wh..opq",
    b"link/",
    b"\0",
    b"\xff",
    b"GNU.sparse.",
    b"GNU.sparse.size=",
    b"path=",
    b"size=",
    b"777777777777",
    b"\x80\0\0\0\0\0\0\0\0\0\0\0",
    b"SCHILY.xattr.user.",
    b"SCHILY.xattr.user.overlay.opaque=y\n",
    b"0123456gxLKSV7",
    b"9" * 20,
)

NAMES = (
    "a",
    "d",
    "d/b",
    "d/c/e",
    "link",
    "link/x",
    "out/y",
    "abs",
    "abs/z",
    "h",
    ".wh.a",
    "d/.wh..wh..opq",
    ".wh.d",
)
NAMES += ("d/.wh.b", "u" * 120, "caf\udce9", "d/", "./", "base/kept", ".wh.base", "base/.wh..wh..opq", "base")
LINKS = ("d", "/etc", "../../..", "a", "base/kept", "d/b", "link", "u" * 120, "/", ".", "base")
TYPES = (*[tarfile.REGTYPE] * 6, *[tarfile.DIRTYPE] * 3, *[tarfile.SYMTYPE] * 3, *[tarfile.LNKTYPE] * 3)
TYPES += (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE)


def made(chance: random.Random) -> bytes:
    """An archive that is well formed, of names that meet again and again."""
    blocks = []
    before = ["base/kept"]
    for _ in range(chance.randint(1, 12)):
        info = tarfile.TarInfo(chance.choice(NAMES))
        info.type = tarfile.DIRTYPE if info.name.endswith("/") else chance.choice(TYPES)
        is_hard = info.type == tarfile.LNKTYPE and chance.random() < 0.8
        info.linkname = chance.choice(before) if is_hard else chance.choice(LINKS)
        if info.type == tarfile.REGTYPE:
            before.append(info.name)
        info.mode = chance.choice((0o644, 0, 0o7777, 0o755))
        info.uid, info.gid = chance.choice((0, 1, 1000, 65534)), chance.choice((0, 50))
        info.mtime = chance.choice((0, 1, 1.5, -1, 1 << 40))
        content = bytes(chance.randrange(3000)) if info.type == tarfile.REGTYPE else b""
        info.size = len(content)
        if chance.random() < 0.2:
            key = chance.choice(("user.x", "security.capability", "user.overlay.opaque", "trusted.y"))
            info.pax_headers = {f"SCHILY.xattr.{key}": "y"}
        form = chance.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        blocks.append(info.tobuf(form, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512))
    return b"".join(blocks) + bytes(1024)


def sparse() -> bytes:
    """What Python cannot write: GNU's sparse files."""
    map_1_0 = b"2\n0\n512\n4096\n512\n".ljust(512, b"\0")
    records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    records += b"30 GNU.sparse.realsize=10000\n25 GNU.sparse.name=holes\n"
    extended, file = tarfile.TarInfo("pax"), tarfile.TarInfo("holes")
    extended.type, extended.size, file.size = b"x", len(records), 1536
    old = bytearray(tarfile.TarInfo("old").tobuf(tarfile.GNU_FORMAT))
    old[124:136], old[156:157], old[483:495] = b"%011o\0" % 512, b"S", b"%011o\0" % 5000
    old[386:410] = b"%011o\0%011o\0" % (1024, 512)
    return (
        extended.tobuf(tarfile.USTAR_FORMAT)
        + records.ljust(512, b"\0")
        + file.tobuf(tarfile.USTAR_FORMAT)
        + map_1_0
        + bytes(1024)
        + bytes(old)
        + bytes(512)
    )


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, most of them in headers; most checksums are right again."""
    changed = bytearray(content)
    for _ in range(chance.choice((0, 0, 0, 1, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(changed))
        if chance.random() < 0.7:
            place -= place % 512 - chance.choice(
                (0, 100, 108, 124, 136, 156, 157, 257, 345, 386, 482, 483, 20)
            )
        piece = chance.choice(
            (*PIECES, bytes([chance.randrange(256)]), chance.randbytes(chance.randint(1, 12)))
        )
        match chance.randrange(8):
            case 0:
                del changed[place : place + chance.choice((1, 512, 1024))]
            case 1:
                changed[place:place] = changed[chance.randrange(len(changed)) :][: 512 * chance.randint(1, 4)]
            case _:
                changed[place : place + len(piece)] = piece
        if not changed:
            changed = bytearray(512)
    if chance.random() < 0.9:
        for start in range(0, len(changed) - 511, 512):
            block = changed[start : start + 512]
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                changed[start + 148 : start + 156] = b"%06o\0 " % (sum(block) % 0o1000000)
    return bytes(changed)


def compressed(content: bytes, chance: random.Random) -> bytes:
    match chance.randrange(6):
        case 0:
            packed = bytearray(zlib.compress(content, 1, 31))
        case 1:
            packed = bytearray(zstandard.ZstdCompressor(1).compress(content))
        case _:
            return content
    if chance.random() < 0.5:
        packed[chance.randrange(len(packed))] = chance.randrange(256)
    return bytes(packed)


def archive(seed: int) -> bytes:
    chance = random.Random(seed)
    content = made(chance)
    if chance.random() < 0.2:
        content = sparse() + content
    return compressed(mutated(content, chance), chance)


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def snapshot(directory: Path) -> list[tuple[str, int, int, int]]:
    return [
        (str(path), about.st_mode, about.st_ino, about.st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        for about in [path.lstat()]
    ]


def main(count: int, first: int) -> None:
    outcomes: Counter[str] = Counter()
    outer = OuterNamespace()
    with tempfile.TemporaryDirectory(prefix="jail-fuzz-") as place, tempfile.TemporaryFile() as blob:
        directory = Path(place, "layers")
        directory.mkdir()
        Path(place, "outside").write_text("as it was")
        unpacker = Unpacker(outer.descriptor, directory)

        def unpack(content: bytes, parents: list[str], into: str) -> str:
            blob.seek(0)
            blob.truncate()
            blob.write(content)
            blob.flush()
            try:
                unpacker.unpack(parents, blob.fileno(), "", into, BOUNDS)
            except ImageError as error:
                assert not (directory / into).exists(), "a refused layer is there"
                return error.cause.rpartition(": ")[2][:60]
            unpacker.remove([into])
            return "unpacked"

        base = tarfile.TarInfo("base/kept").tobuf()
        blob.write(base + bytes(1024))
        blob.flush()
        unpacker.unpack([], blob.fileno(), "", "base", BOUNDS)
        before = None
        for seed in range(first, first + count):
            try:
                outcomes[unpack(archive(seed), ["base"] if seed % 4 else [], "new")] += 1
                now = snapshot(Path(place))
                before = before or [row for row in now if row[0] != str(directory)]
                assert [row for row in now if row[0] != str(directory)] == before, (
                    "something else has changed"
                )
            except BaseException:
                print(f"seed {seed}", file=sys.stderr)  # noqa: T201
                raise
            if seed == first + 20:
                resident = resident_kib(unpacker._program.pid)
        grown = resident_kib(unpacker._program.pid) - resident
        assert grown < GROWTH_KIB, f"the unpacker has grown by {grown} KiB"
        unpacker.remove(["base"])
        unpacker.close()
    for outcome, number in outcomes.most_common():
        print(f"{number:7} {outcome}")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0)
