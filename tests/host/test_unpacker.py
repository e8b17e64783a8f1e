"""Layers become directories: as umoci unpacks them, and whatever is in them, nothing else is touched."""

import errno
import gzip
import hashlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from jail.errors import HostError, ImageError, StoreFullError
from jail.images import unpacker as client
from jail.images.unpack.messages import PACKET_BYTES, Answer, Progress, Remove, Unpack
from jail.images.unpack.tree import BLOCK_BYTES
from jail.images.unpacker import Bounds, Unpacked, Unpacker
from jail.namespace import OuterNamespace, image_id

PROGRAMS = Path(__file__).parent / "programs"

KINDS = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}

NANOSECONDS = 1_700_000_000_123_456_789


def entry(name: str, kind: str = "file", content: bytes = b"", **fields: Any) -> bytes:
    """One entry of an archive. fields: of TarInfo; mtime_ns; xattrs."""
    info = tarfile.TarInfo(name)
    info.type = KINDS[kind]
    info.size = len(content)
    info.mode = 0o755 if kind == "dir" else 0o644
    nanoseconds = fields.pop("mtime_ns", NANOSECONDS)
    info.pax_headers = {"mtime": f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09}"}
    for key, value in fields.pop("xattrs", {}).items():
        info.pax_headers[f"SCHILY.xattr.{key}"] = value
    for key, value in fields.items():
        setattr(info, key, value)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + content + bytes(-len(content) % 512)


def archive(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(1024)


@pytest.fixture(scope="module")
def outer() -> Iterator[OuterNamespace]:
    made = OuterNamespace()
    yield made
    made.close()


class Layers:
    """A directory of layers, each upon the ones before."""

    def __init__(self, outer: OuterNamespace, directory: Path, unpacker: Unpacker) -> None:
        self.outer = outer
        self.directory = directory
        self.unpacker = unpacker
        self.names: list[str] = []
        self.contents: list[bytes] = []

    def add(self, content: bytes, bounds: Bounds | None = None, media_type: str = "") -> Unpacked:
        into = f"{len(self.names):x}"
        with tempfile.TemporaryFile() as blob:
            blob.write(content)
            blob.flush()
            made = self.unpacker.unpack(self.names, blob.fileno(), media_type, into, bounds or Bounds())
        self.names.insert(0, into)
        self.contents.append(content)
        return made

    def refuse(self, content: bytes, bounds: Bounds | None = None) -> ImageError:
        """What is said of this layer, of which nothing may be left."""
        before = sorted(self.directory.iterdir())
        with pytest.raises(ImageError) as caught:
            self.add(content, bounds)
        assert sorted(self.directory.iterdir()) == before
        return caught.value

    def root_runs(self, *command: str | Path, cwd: Path | None = None) -> str:
        """What a command prints as root of the outer user namespace."""
        enter = ["nsenter", f"--user=/proc/self/fd/{self.outer.descriptor}", "--setuid=0", "--setgid=0"]
        done = subprocess.run(
            [*enter, *command],
            capture_output=True,
            text=True,
            cwd=cwd or self.directory,
            pass_fds=[self.outer.descriptor],
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tree(self) -> dict[str, Any]:
        """All layers, one upon the other, as sandboxes see them."""
        program = [sys.executable, "-P", PROGRAMS / "tree.py"]
        return json.loads(self.root_runs(*program, "overlay", ":".join(self.names)))

    def disk_bytes(self) -> int:
        """What the topmost layer takes up, inodes and all, as ext4 makes them."""
        found = self.root_runs("find", self.names[0], "-printf", "%i %b\n").splitlines()
        return sum(256 + 512 * int(line.split()[1]) for line in set(found))

    def listed(self, directory: Path) -> dict[str, Any]:
        return json.loads(self.root_runs(sys.executable, "-P", PROGRAMS / "tree.py", "directory", directory))


@pytest.fixture(scope="module")
def unpacker(outer: OuterNamespace) -> Iterator[tuple[Path, Unpacker]]:
    with (
        tempfile.TemporaryDirectory(prefix="jail-layers-") as directory,
        Unpacker(outer.descriptor, Path(directory)) as made,
    ):
        # The program is there from the first request on.
        made.remove([])
        yield Path(directory), made


@pytest.fixture
def layers(outer: OuterNamespace, unpacker: tuple[Path, Unpacker]) -> Iterator[Layers]:
    directory, program = unpacker
    yield Layers(outer, directory, program)
    program.remove(path.name for path in directory.iterdir())
    assert list(directory.iterdir()) == []


def write_layout(directory: Path, contents: list[bytes]) -> None:
    """An OCI image of these layers, made without us."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(media_type: str, raw: bytes) -> dict[str, Any]:
        name = hashlib.sha256(raw).hexdigest()
        (blobs / name).write_bytes(raw)
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{name}",
            "size": len(raw),
        }

    diff_ids = [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in contents]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [],
        "config": {},
    }
    packed = [add("layer.v1.tar+gzip", gzip.compress(content, 1)) for content in contents]
    manifest = {
        "schemaVersion": 2,
        "config": add("config.v1+json", json.dumps(config).encode()),
        "layers": packed,
    }
    found = add("manifest.v1+json", json.dumps(manifest).encode())
    found["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [found]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def as_umoci(layers: Layers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What umoci unpacks from the same layers, with its ids as ours are mapped."""
    umoci = shutil.which("umoci")
    if umoci is None:
        pytest.skip("the host has no umoci")
    with tempfile.TemporaryDirectory(prefix="jail-umoci-") as place:
        layout, bundle = Path(place, "layout"), Path(place, "bundle")
        write_layout(layout, layers.contents)
        try:
            layers.root_runs(umoci, "unpack", "--image", f"{layout}:latest", bundle)
            found = layers.listed(bundle / "rootfs")
        finally:
            layers.root_runs("rm", "-rf", bundle)
    for about in found.values():
        about["ids"] = [image_id(number, 65536) for number in about["ids"]]
    return found


def same(
    ours: dict[str, Any], theirs: dict[str, Any], implied: Callable[[str], bool] = lambda _: False
) -> None:
    """Compare them file by file, but for the times of what no entry tells of: umoci has it made now."""
    for found in (ours, theirs):
        for name, about in found.items():
            about.pop("disk_bytes", None)
            if name == "." or implied(name):
                about.pop("mtime_ns")
    assert sorted(ours) == sorted(theirs)
    differing = {
        f"{name!r:.99}": {key: (value, theirs[name].get(key)) for key, value in about.items()}
        for name, about in ours.items()
        if about != theirs[name]
    }
    assert differing == {}


DEEP = "deep" * 20

FIRST = (
    entry("./", "dir", mode=0o750, mtime_ns=5),
    entry("usr/", "dir", mode=0o755, uid=3, gid=4, mtime_ns=NANOSECONDS + 7),
    entry("usr/lib/", "dir", mtime_ns=11 * 10**9),
    entry("lib", "link", linkname="usr/lib"),
    entry("usr/lib/a.so", content=b"\x7fELF" * 1000, uid=1000, gid=100, mode=0o755),
    entry("usr/lib/empty", mode=0),
    entry("usr/lib/set-id", content=b"x", mode=0o6755, uid=1),
    entry("usr/lib/large", content=os.urandom(700_000)),
    entry("usr/lib/attributed", content=b"x", xattrs={"user.one": "1", "user.two": "z\xfcr"}),
    entry("absolute", "link", linkname="/etc/nowhere", uid=7, gid=8),
    entry("dangling", "link", linkname="../../../../outside"),
    entry("fifo", "fifo", mode=0o622, uid=2),
    entry("spool/", "dir", mode=0o1777),
    entry("group/", "dir", mode=0o2775, gid=50),
    entry("group/inner", content=b"i", gid=0),
    entry("group/below/", "dir", mode=0o700),
    entry("shut/", "dir", mode=0),
    entry("shut/inner", content=b"s"),
    entry("links/", "dir"),
    entry("links/one", content=b"shared", uid=9),
    entry("links/two", "hard", linkname="links/one"),
    entry("links/three", "hard", linkname="/links/one"),
    entry("links/soft", "link", linkname="one"),
    entry("links/soft-too", "hard", linkname="links/soft"),
    entry("gone/", "dir"),
    entry("gone/file", content=b"g"),
    entry("gone/below/", "dir"),
    entry("gone/below/file", content=b"g"),
    entry("gone-file", content=b"g"),
    entry("opaque/", "dir", mode=0o701, uid=5, gid=6, xattrs={"user.kept": "yes"}, mtime_ns=99),
    entry("opaque/old", content=b"o"),
    entry("opaque/below/", "dir"),
    entry("opaque/below/old", content=b"o"),
    entry("late-opaque/", "dir"),
    entry("late-opaque/old", content=b"o"),
    entry("late-opaque/both/", "dir"),
    entry("late-opaque/both/old", content=b"o"),
    entry("was-file", content=b"w"),
    entry("was-dir/", "dir"),
    entry("was-dir/below/", "dir"),
    entry("was-dir/below/file", content=b"w"),
    entry("was-link", "link", linkname="usr"),
    entry("n" * 200, content=b"long"),
    entry(f"{DEEP}/" * 12 + "file", content=b"long path"),
    entry("latin-\udce9\udcff", content=b"bytes"),
    entry("latin-link", "link", linkname="\udce9"),
    entry("nobody", content=b"n", uid=65534, gid=65534),
    entry("twice", content=b"first", mode=0o600),
    entry("twice", content=b"second", mode=0o604),
    entry("dressed/", "dir", xattrs={"user.gone": "1", "user.changed": "2"}),
    entry("fine/", "dir", mtime_ns=1),
    entry("fine/", "dir", mode=0o711, uid=8, mtime_ns=2),
)

SECOND = (
    entry("usr/lib/", "dir", mode=0o711, mtime_ns=12 * 10**9 + 1),
    entry("lib/through-link", content=b"t"),
    entry("lib/.wh.empty"),
    entry("via-link", "hard", linkname="lib/large"),
    entry("usr/lib/a.so", content=b"new", mode=0o700),
    entry("links/four", "hard", linkname="links/two"),
    entry(".wh.gone"),
    entry(".wh.gone-file"),
    entry(".wh.never-there"),
    entry("opaque/.wh..wh..opq"),
    entry("opaque/new", content=b"n"),
    entry("late-opaque/new", content=b"n"),
    entry("late-opaque/both/new", content=b"n"),
    entry("late-opaque/.wh..wh..opq"),
    entry("was-file/", "dir"),
    entry("was-file/now", content=b"n"),
    entry("was-dir", content=b"now a file"),
    entry("was-link/", "dir"),
    entry("was-link/now", content=b"n"),
    entry("spool/new", content=b"s", xattrs={"user.three": "3"}),
    entry("shut/.wh.inner"),
    entry("dressed/", "dir", xattrs={"user.changed": "3", "user.new": "4"}),
)

THIRD = (
    entry("gone/", "dir", mode=0o700),
    entry("gone/again", content=b"a"),
    entry("links/.wh.one"),
    entry("links/one-new", content=b"1"),
    entry("links/three", content=b"of its own"),
    entry("opaque/below/", "dir", mode=0o700),
    entry("usr/lib/attributed", content=b"y", xattrs={"user.two": "2"}),
    entry("usr/", "dir", mode=0o700, xattrs={"user.late": "l"}),
    entry("usr/lib/.wh.through-link"),
    entry("usr/lib/through-link", content=b"back again"),
)


def test_layers_make_the_tree_that_umoci_unpacks(layers, tmp_path_factory):
    for entries in (FIRST, SECOND, THIRD):
        told = layers.add(archive(*entries))
        assert told.entries == len(entries)
        assert told.omitted == {}
        assert told.diff_id == f"sha256:{hashlib.sha256(archive(*entries)).hexdigest()}"
    ours, theirs = layers.tree(), as_umoci(layers, tmp_path_factory)
    # Of "both" only the layer beneath tells, in what the second hides.
    same(ours, theirs, lambda name: name.endswith(DEEP) or name == "late-opaque/both")
    assert ours["links/four"]["names"] == ["links/four", "links/two"]


NAMES = ("a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "l", "l/a", "l/e", "f/a", "f")


def random_layer(chance: random.Random) -> bytes:
    """Names that meet again and again, and what may stand in each other's place."""
    entries = []
    for number in range(chance.randint(2, 9)):
        name = chance.choice(NAMES)
        above, _, last = name.rpartition("/")
        fields = {
            "mode": chance.choice((0o755, 0o700, 0o4711)),
            "uid": chance.choice((0, 3)),
            "mtime_ns": number + 1,
        }
        kind = chance.choice(("file", "file", "dir", "dir", "link", "hard", "whiteout", "opaque"))
        if kind == "whiteout":
            entries.append(entry(os.path.join(above, f".wh.{last}")))
        elif kind == "opaque":
            entries.append(entry(os.path.join(above or "d", ".wh..wh..opq")))
        elif kind == "link":
            entries.append(
                entry(name, kind, linkname=chance.choice(("d", "a", "b", "d/a", "/d/e")), **fields)
            )
        elif kind == "hard":
            # Of a link to itself umoci removes what it leads to.
            name = "a" if name == "d/b" else name
            entries.append(entry(name, kind, linkname=chance.choice(("d/b", "l/b")), **fields))
        else:
            entries.append(entry(name, kind, name.encode() * number * (kind == "file"), **fields))
    return archive(*entries)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_layers_say_of_names_that_meet_umoci_agrees(layers, tmp_path_factory, seed):
    chance = random.Random(seed)
    layers.add(
        archive(*(entry(f"{name}/", "dir") for name in ("d", "d/e", "f")), entry("l", "link", linkname="d"))
    )
    while len(layers.contents) < 4:
        content = random_layer(chance)
        # What is refused need not be the same.
        with suppress(ImageError):
            layers.add(content)
    told = as_umoci(layers, tmp_path_factory)
    same(layers.tree(), told, lambda name: told[name]["kind"] == "d")


def test_a_hundred_layers_make_the_tree_that_umoci_unpacks(layers, tmp_path_factory):
    layers.add(archive(entry("d/", "dir"), entry("d/kept", content=b"k"), entry("l", "link", linkname="d")))
    for number in range(1, 100):
        layers.add(
            archive(
                entry(f"d/{number}", content=b"%d" % number, uid=number, mtime_ns=number),
                entry("l/top", content=b"%d" % number),
                entry(f"d/.wh.{number - 1}"),
                entry(f"links-{number}", "hard", linkname=f"links-{number - 1}" if number > 1 else "d/kept"),
                entry("d/", "dir", mode=0o700 + number % 8, mtime_ns=number + 1),
            )
        )
    ours, theirs = layers.tree(), as_umoci(layers, tmp_path_factory)
    same(ours, theirs)
    assert sorted(name for name in ours if name.startswith("d/")) == ["d/99", "d/kept", "d/top"]
    assert len(ours["d/kept"]["names"]) == 100


def upper_form(layers: Layers, name: str) -> dict[str, tuple[str, list[str]]]:
    """How overlay has it: the kinds of files in a layer, and the names of its own attributes."""
    program = (
        "import json, os, stat, sys\n"
        "print(json.dumps({os.path.relpath(os.path.join(top, name), sys.argv[1]): ("
        "stat.filemode(os.lstat(os.path.join(top, name)).st_mode)[0], "
        "[key for key in os.listxattr(os.path.join(top, name), follow_symlinks=False) if 'opaque' in key]) "
        "for top, some, others in os.walk(sys.argv[1]) for name in some + others}))"
    )
    return json.loads(layers.root_runs(sys.executable, "-Ic", program, layers.directory / name))


def test_whiteouts_and_opaque_directories_have_overlays_form(layers):
    layers.add(
        archive(
            entry("a", content=b"a"), entry("d/", "dir"), *(entry(f"d/{n}", content=b"d") for n in range(9))
        )
    )
    layers.add(archive(entry("d/.wh..wh..opq"), entry("d/new", content=b"n"), entry(".wh.a")))
    assert upper_form(layers, "1") == {
        "a": ["c", []],
        "d": ["d", ["user.overlay.opaque"]],
        "d/new": ["-", []],
    }
    assert sorted(layers.tree()) == [".", "d", "d/new"]


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("marker", ["d/.wh..wh..opq", ".wh.d"])
def test_what_a_layer_hides_is_never_its_own_in_whatever_order(layers, marker, first):
    layers.add(
        archive(entry("d/", "dir", mode=0o700), entry("d/old", content=b"o"), entry("d/both", content=b"o"))
    )
    own = [entry("d/", "dir", mode=0o711), entry("d/both", content=b"n")]
    own.insert(first, entry(marker))
    layers.add(archive(*own))
    tree = layers.tree()
    assert sorted(tree) == [".", "d", "d/both"]
    assert tree["d"]["mode"] == 0o711
    assert tree["d/both"]["content"] == hashlib.sha256(b"n").hexdigest()


@pytest.mark.parametrize("inner", ["d/.wh.old", "d/.wh..wh..opq", "d/e/.wh.old"])
def test_what_a_layer_hides_something_in_is_not_its_own_for_that(layers, inner):
    layers.add(archive(entry("d/", "dir"), entry("d/old"), entry("d/e/", "dir"), entry("d/e/old")))
    layers.add(archive(entry(inner), entry(".wh.d")))
    assert sorted(layers.tree()) == ["."]


def test_whiteouts_in_the_lowest_layer_hide_nothing(layers):
    layers.add(archive(entry("a", content=b"a"), entry(".wh.a"), entry("d/b"), entry("d/.wh..wh..opq")))
    assert sorted(layers.tree()) == [".", "a", "d", "d/b"]


def test_everything_beneath_can_be_hidden(layers):
    layers.add(archive(entry("./", "dir", mode=0o710), entry("a/b/c"), entry("e")))
    layers.add(archive(entry("own"), entry(".wh..wh..opq")))
    tree = layers.tree()
    assert sorted(tree) == [".", "own"]
    assert tree["."]["mode"] == 0o710


def test_a_link_to_one_name_of_a_file_beneath_leaves_all_its_names_linked(layers):
    """Overlay alone would copy the file and leave its other names behind."""
    layers.add(
        archive(
            entry("a", content=b"x" * 9999, uid=5),
            entry("below/b", "hard", linkname="a"),
            entry("c", "hard", linkname="a"),
            entry("below/", "dir", mtime_ns=77),
        )
    )
    layers.add(archive(entry("d", "hard", linkname="c")))
    tree = layers.tree()
    assert tree["d"]["names"] == ["a", "below/b", "c", "d"]
    assert tree["d"]["ids"] == [image_id(5, 65536), 0]
    assert tree["below"]["mtime_ns"] == 77


@pytest.mark.parametrize("form", ["gnu", "pax 0.0", "pax 0.1", "pax 1.0"])
def test_sparse_files_stay_sparse(layers, tmp_path, form):
    (tmp_path / "in").mkdir()
    with open(tmp_path / "in/sparse", "wb") as file:
        for place in range(0, 5_000_000, 50_000):
            file.seek(place)
            file.write(b"x" * 5000)
        file.truncate(6_000_000)
    with open(tmp_path / "in/hole", "wb") as file:
        file.truncate(100_000_000)
    kind, _, version = form.partition(" ")
    options = [f"--sparse-version={version}"] if version else []
    command = ["tar", "-cS", f"--format={kind}", *options, "-C", tmp_path / "in", "."]
    content = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    layers.add(content)
    tree = layers.tree()
    with open(tmp_path / "in/sparse", "rb") as file:
        assert tree["sparse"]["content"] == hashlib.file_digest(file, "sha256").hexdigest()
    assert tree["sparse"]["size"] == 6_000_000
    assert tree["sparse"]["disk_bytes"] < 3_000_000
    assert (tree["hole"]["size"], tree["hole"]["disk_bytes"]) == (100_000_000, 0)


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_all_forms_of_tar_are_read(layers, tmp_path, form):
    place = tmp_path / "in"
    name = "x" * 80 if form in ("v7", "ustar") else "y" * 190
    (place / name).mkdir(parents=True)
    (place / name / "f").write_bytes(b"content" * 1000)
    (place / "link").symlink_to(name)
    os.link(place / name / "f", place / "hard")
    command = ["tar", "-c", f"--format={form}", "--sort=name", "-C", place, "."]
    layers.add(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    tree = layers.tree()
    assert tree["hard"]["content"] == hashlib.sha256(b"content" * 1000).hexdigest()
    assert tree["hard"]["names"] == ["hard", f"{name}/f"]
    assert tree["link"]["link"] == name


# What is in hostile archives. The ones that are refused, and what is said of each.


def raw(name: bytes, kind: bytes = b"0", size: int = 0, link: bytes = b"", **fields: bytes) -> bytes:
    """A header as it pleases."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:107], block[108:115], block[116:123] = b"0000644", b"0000000", b"0000000"
    block[124:135], block[136:147] = b"%011o" % size, b"00000000000"
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    for place, value in fields.items():
        start = int(place[1:])
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records: bytes) -> bytes:
    content = b"".join(records)
    return raw(b"pax", b"x", len(content)) + content + bytes(-len(content) % 512)


def record(text: bytes) -> bytes:
    length = len(text) + 2
    while length != len(b"%d %s\n" % (length, text)):
        length = len(b"%d %s\n" % (length, text))
    return b"%d %s\n" % (length, text)


REFUSED = {
    "up": (entry("../outside", content=b"x"), "leads up"),
    "up within": (entry("a/../../outside", content=b"x"), "leads up"),
    "hard link up": (entry("h", "hard", linkname="../../outside"), "leads up"),
    "hard link to nothing": (entry("h", "hard", linkname="/etc/passwd"), "not there"),
    "hard link to a directory": (entry("d/", "dir") + entry("h", "hard", linkname="d"), "directory"),
    "hard link to the root": (entry("h", "hard", linkname="/"), "not there"),
    "hard link through a link": (
        entry("out", "link", linkname="/proc/self/root") + entry("h", "hard", linkname="out/etc/passwd"),
        "not there",
    ),
    "file as a directory": (entry("f", content=b"x") + entry("f/inner"), "Not a directory"),
    "link that leads nowhere as a directory": (
        entry("out", "link", linkname="/nowhere") + entry("out/inner", content=b"x"),
        "leads nowhere",
    ),
    "link to itself as a directory": (entry("l", "link", linkname="l") + entry("l/inner"), "symbolic links"),
    "link to nothing": (raw(b"l", b"2"), "link to nothing"),
    "no name": (raw(b""), "no name"),
    "root that is a file": (entry("./", content=b"x"), "no name"),
    "whiteout of itself": (entry("d/.wh.."), "cannot be one"),
    "whiteout of what is above": (entry("d/.wh..."), "cannot be one"),
    "whiteout of nothing": (entry("d/.wh."), "cannot be one"),
    "whiteout as a directory": (entry(".wh.d/inner"), "cannot be one"),
    "name too long": (entry("n" * 256), "File name too long"),
    "path too long": (entry("/".join(["n" * 250] * 17)), "the most is 4095"),
    "too deep": (entry("/".join(["d"] * 300)), "deeper than"),
    "too deep by links": (
        entry("/".join(["d"] * 200) + "/", "dir")
        + entry("l", "link", linkname="/".join(["d"] * 200))
        + entry("l/" + "/".join(["d"] * 100) + "/x"),
        "deeper than",
    ),
    "id beyond the range": (entry("a", uid=50_000), "beyond the delegated range"),
    "id of a sandbox": (raw(b"a", b108=b"\xff" * 7 + b"\x01"), "negative"),
    "attribute too long": (entry("a", xattrs={"user.a": "x" * 70_000}), "no room"),
    "global header that names": (
        raw(b"g", b"g", 16) + record(b"path=outside").ljust(512, b"\0")[:512] + entry("a"),
        "global header",
    ),
    "two extended headers": (pax(record(b"path=a")) + pax(record(b"path=b")) + entry("c"), "two extended"),
    "two long names": (
        raw(b"L", b"L", 2) + b"a".ljust(512, b"\0") + pax(record(b"path=b")) + raw(b"c"),
        "two long names",
    ),
    "name with a NUL": (pax(record(b"path=a\0b")) + raw(b"c"), "NUL"),
    "long header": (raw(b"L", b"L", 1 << 30), "a header has"),
    "size that lies": (raw(b"a", size=1 << 20) + b"x", "cut short"),
    "size that is negative": (raw(b"a", b124=b"\xff" * 12), "negative"),
    "size beyond all": (raw(b"a", b124=b"\x80" + b"\x7f" * 11), "takes up more than"),
    "size of a link": (raw(b"a", b"2", 512, b"b") + bytes(512), "no file has content"),
    "size that is no number": (raw(b"a", b124=b"0x10       \0"), "not octal"),
    "checksum": (raw(b"a")[:-1] + b"x", "checksum"),
    "unknown type": (raw(b"a", b"Q"), "unknown type"),
    "sparse and lying": (
        pax(record(b"GNU.sparse.major=1"), record(b"GNU.sparse.minor=0"), record(b"GNU.sparse.realsize=99"))
        + raw(b"a", size=1024)
        + b"1\n50\n512\n".ljust(512, b"\0")
        + bytes(512),
        "not as long",
    ),
    "sparse and overlapping": (
        pax(record(b"GNU.sparse.size=2000"), record(b"GNU.sparse.map=0,512,100,512"))
        + raw(b"a", size=1024)
        + bytes(1024),
        "not in order",
    ),
    "sparse and immense": (
        pax(record(b"GNU.sparse.size=%d" % (1 << 62)), record(b"GNU.sparse.map=0,1"))
        + raw(b"a", size=1)
        + bytes(512),
        "longer than",
    ),
    "sparse and longer than any": (
        pax(
            record(b"GNU.sparse.major=1"),
            record(b"GNU.sparse.minor=0"),
            record(b"GNU.sparse.realsize=%d" % (1 << 63)),
        )
        + raw(b"a", size=512)
        + b"0\n".ljust(512, b"\0"),
        "longer than any",
    ),
    "time beyond all": (pax(record(b"mtime=99999999999999999")) + raw(b"a"), "out of every range"),
    "time that is none": (pax(record(b"mtime=soon")) + raw(b"a"), "time"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("upon", [False, True])
def test_a_hostile_archive_is_refused_as_a_whole(layers, case, upon):
    content, said = REFUSED[case]
    if upon:
        layers.add(archive(entry("kept", content=b"k")))
    error = layers.refuse(archive(entry("before"), content))
    assert said in str(error), error
    assert error.cure
    # The next one is none the worse for it.
    layers.add(archive(entry("after")))
    assert (layers.directory / layers.names[0] / "after").is_file()


# What is neutralised: it means something within the tree, or is left out and counted.


def test_absolute_names_and_links_that_lead_out_stay_within(layers, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    up = "../" * 20
    told = layers.add(
        archive(
            entry("/absolute", content=b"a"),
            entry(f"{outside}/", "dir"),
            entry("away", "link", linkname=str(outside)),
            entry("away/one", content=b"1"),
            entry("up", "link", linkname=up + str(outside)[1:]),
            entry("up/two", content=b"2"),
            entry("hard", "hard", linkname=f"{outside}/one"),
            entry("proc", "link", linkname="/proc/self/cwd"),
            entry("replaced", "link", linkname=str(outside / "three")),
            entry("replaced", content=b"3"),
        )
    )
    assert told.omitted == {}
    tree = layers.tree()
    place = str(outside)[1:]
    assert tree["absolute"]["size"] == 1
    assert tree[f"{place}/one"]["names"] == ["hard", f"{place}/one"]
    assert tree[f"{place}/two"]["size"] == 1
    assert tree["replaced"]["kind"] == "-"
    assert tree["up"]["link"] == up + place
    assert list(outside.iterdir()) == []


def test_links_of_layers_beneath_lead_nowhere_else(layers, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    tmp_path.chmod(0o777)
    layers.add(archive(entry("d", "link", linkname=str(tmp_path)), entry("f", "link", linkname=str(victim))))
    layers.add(archive(entry("f", content=b"overwritten")))
    layers.refuse(archive(entry("d/victim", content=b"overwritten")))
    layers.refuse(archive(entry("h", "hard", linkname=f"d/{victim.name}")))
    layers.add(archive(entry("d/.wh.victim"), entry("d/.wh..wh..opq")))
    assert victim.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [victim]


def test_devices_are_left_out_and_counted(layers):
    layers.add(archive(entry("null", content=b"a file"), entry("sda", content=b"a file")))
    told = layers.add(
        archive(
            entry("null", "char", devmajor=1, devminor=3),
            entry("whiteout", "char"),
            entry("sda", "block", devmajor=8),
            entry("kept"),
        )
    )
    assert told.omitted == {"devices": 3}
    assert sorted(layers.tree()) == [".", "kept"]


def test_no_attribute_but_users_own_is_kept(layers):
    told = layers.add(
        archive(
            entry("./", "dir", xattrs={"user.overlay.opaque": "y"}),
            entry(
                "ping",
                xattrs={
                    "security.capability": "\x01\0\0\x02",
                    "trusted.overlay.opaque": "y",
                    "user.overlay.redirect": "/etc",
                    "user.overlay.overlay.whiteout": "y",
                    "system.posix_acl_access": "x",
                    "user.mine": "m",
                },
            ),
            entry("link", "link", linkname="x", xattrs={"user.mine": "m"}),
        )
    )
    assert told.omitted == {"xattrs": 7}
    assert layers.tree()["ping"]["xattrs"] == {"user.mine": b"m".hex()}
    program = "import os, sys; print([os.listxattr(path) for path in sys.argv[1:]])"
    place = layers.directory / "0"
    assert eval(layers.root_runs(sys.executable, "-Ic", program, place, place / "ping")) == [
        [],
        ["user.mine"],
    ]


def test_what_aufs_leaves_behind_is_left_out(layers):
    told = layers.add(archive(entry(".wh..wh.aufs"), entry(".wh..wh.plnk/1.2"), entry("a")))
    assert told.omitted == {"aufs": 2}
    assert sorted(layers.tree()) == [".", "a"]


@pytest.mark.parametrize(
    ("beneath", "above"),
    [
        ((entry("x/", "dir"), entry("x/f")), (entry("x", content=b"f"),)),
        ((entry("x/", "dir"), entry("x/f")), (entry("x", "link", linkname="y"),)),
        ((entry("x", content=b"f"),), (entry("x/", "dir"), entry("x/f"))),
        ((entry("x", "link", linkname="y"), entry("y/f")), (entry("x/", "dir"),)),
        ((entry("x", content=b"f"), entry("y")), (entry("x", "hard", linkname="y"),)),
        ((entry("x/y/z"),), (entry("x", "fifo"),)),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_the_last_of_a_name_counts(layers, tmp_path_factory, beneath, above, together):
    if together:
        layers.add(archive(*beneath, *above))
    else:
        layers.add(archive(*beneath))
        layers.add(archive(*above))
    same(layers.tree(), as_umoci(layers, tmp_path_factory), lambda name: name in ("x", "x/y", "y"))


def test_a_file_linked_to_itself_stays(layers):
    layers.add(archive(entry("a", content=b"a"), entry("b", "hard", linkname="a")))
    layers.add(archive(entry("b", "hard", linkname="a"), entry("a", "hard", linkname="./a")))
    assert layers.tree()["b"]["names"] == ["a", "b"]


def test_a_directory_of_the_layers_has_no_more_than_they_say(layers):
    """What an archive does not tell of is root's, readable, and of no time: the same whenever that is."""
    layers.add(archive(entry("a/b", content=b"x")))
    tree = layers.tree()
    for name in (".", "a"):
        assert (tree[name]["mode"], tree[name]["ids"], tree[name]["mtime_ns"]) == (0o755, [0, 0], 0)


# What an archive may cost.


def test_any_number_of_layers_can_be_removed_at_once(layers):
    layers.unpacker.remove(f"{number:064}" for number in range(3000))
    assert layers.add(archive(entry("file"))).entries == 1


def test_too_many_entries_are_refused(layers):
    entries = [entry(f"{number}") for number in range(101)]
    error = layers.refuse(archive(*entries), Bounds(entries=100))
    assert "more than 100 entries" in error.cause
    assert layers.add(archive(*entries), Bounds(entries=101)).entries == 101
    layers.refuse(archive(entry("d/" * 100 + "f")), Bounds(entries=100))


@pytest.mark.parametrize("pack", [lambda raw: gzip.compress(raw, 9), zstandard.compress])
def test_a_bomb_is_refused_when_it_is_longer_than_the_bound(layers, pack):
    once = pack(bytes(100 << 20))
    assert len(once) < 200_000
    start = pack(entry("bomb", content=b"")[:0] + raw(b"bomb", size=1 << 32))
    error = layers.refuse(start + once * 10, Bounds(bytes=64 << 20))
    assert f"more than {64 << 20} bytes" in error.cause


def test_a_sparse_file_is_no_longer_than_the_bound(layers):
    for size, refused in ((1 << 30, False), ((1 << 30) + 1, True)):
        headers = pax(record(b"GNU.sparse.size=%d" % size), record(b"GNU.sparse.map=0,1"))
        content = archive(headers + raw(b"a", size=1) + b"x".ljust(512, b"\0"))
        if refused:
            assert f"longer than {1 << 30} bytes" in layers.refuse(content, Bounds(bytes=1 << 30)).cause
        else:
            layers.add(content, Bounds(bytes=1 << 30))


def test_what_follows_an_archive_is_bounded_too(layers):
    error = layers.refuse(gzip.compress(archive(entry("a")) + bytes(100 << 20)), Bounds(bytes=64 << 20))
    assert "longer than" in error.cause


def test_a_window_that_would_take_the_memory_is_refused(layers):
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False, compression_level=1)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = packed.compress(archive(entry("a"))) + packed.flush()
    assert "zstd" in layers.refuse(content).cause


def test_memory_is_bounded(layers):
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = packed.compress(archive(entry("a", content=os.urandom(3 << 20)))) + packed.flush()
    layers.refuse(content, Bounds(memory_bytes=128 << 20))
    layers.add(content)


def test_headers_take_no_more_memory_than_the_bound(layers):
    records = b"".join(record(b"SCHILY.xattr.user.%d=" % number) for number in range(30_000))
    layers.refuse(archive(*[pax(records) + raw(b"%d" % number) for number in range(20)]), Bounds(entries=20))


def test_processor_time_is_bounded(layers):
    both = entry("d/a") + entry(".wh.nothing")
    layers.add(archive(both))
    error = layers.refuse(archive(both * 50_000), Bounds(cpu_s=1))
    assert "processor time" in error.cause


def test_copies_of_files_beneath_are_bounded(layers):
    layers.add(archive(*(entry(f"{number}", content=bytes(1 << 20)) for number in range(4))))
    links = archive(*(entry(f"l{number}", "hard", linkname=f"{number}") for number in range(4)))
    assert "takes up more than" in layers.refuse(links, Bounds(bytes=4 << 20)).cause
    layers.add(links, Bounds(bytes=(4 << 20) + 8 * BLOCK_BYTES))


def test_small_files_cost_what_they_take_up(layers):
    """As an archive they would be a quarter of that."""
    files = archive(*(entry(f"{number}", content=b"x") for number in range(1000)))
    error = layers.refuse(files, Bounds(bytes=2000 * BLOCK_BYTES - 1))
    assert f"takes up more than {2000 * BLOCK_BYTES - 1} bytes" in error.cause
    assert layers.add(files, Bounds(bytes=2000 * BLOCK_BYTES)).bytes == 2000 * BLOCK_BYTES


DEEP_TREE = [entry(f"{number}/" + "d/" * 100, "dir") for number in range(20)]
OTHERS = [entry(f"{number}") for number in range(2000)]
LONG = "x" * 4000
EXPENSIVE: dict[str, list[list[bytes]]] = {
    "everything": [list(FIRST), list(SECOND), list(THIRD)],
    "copies of directories": [DEEP_TREE, [entry(f"{number}/{'d/' * 100}f") for number in range(20)]],
    "copies of directories for their modes": [DEEP_TREE, DEEP_TREE],
    "copies of directories for a whiteout": [
        [entry(f"{'d/' * 100}f"), entry("e/f")],
        [entry(f"{'d/' * 100}.wh.f"), entry("e/.wh..wh..opq")],
    ],
    "what is hidden": [OTHERS, [entry("own"), entry(".wh..wh..opq")]],
    "long links": [[entry(f"{number}", "link", linkname=LONG) for number in range(100)]],
    "attributes": [[entry(f"{number}", xattrs={"user.x": LONG[:3000]}) for number in range(100)]],
    "links to files beneath": [
        [entry("one", content=bytes(5000)), *(entry(f"l{n}", "hard", linkname="one") for n in range(9))],
        [entry("two", "hard", linkname="one")],
    ],
}


@pytest.mark.parametrize("case", EXPENSIVE)
def test_a_layer_takes_up_no_more_than_is_told(layers, case):
    for entries in EXPENSIVE[case]:
        told = layers.add(archive(*entries))
    disk_bytes = layers.disk_bytes()
    assert disk_bytes <= told.bytes
    names = len(layers.root_runs("find", layers.names[0]).splitlines())
    assert told.bytes <= disk_bytes + 2 * BLOCK_BYTES * (names + told.entries)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bytes])
def test_an_archive_that_is_cut_short_is_refused(layers, pack):
    whole = pack(archive(entry("a", content=os.urandom(100_000))))
    for length in (len(whole) // 2, len(whole) - 2000):
        assert layers.refuse(whole[:length]).cause


@pytest.mark.parametrize(("media", "content"), [("gzip", archive(entry("a"))), ("zstd", gzip.compress(b"x"))])
def test_compression_is_what_the_media_type_says(layers, media, content):
    with pytest.raises(ImageError, match=media):
        layers.add(content, media_type=f"application/vnd.oci.image.layer.v1.tar+{media}")


def test_names_do_not_reach_the_terminal(layers):
    said = str(layers.refuse(archive(entry("\x1b[2J\r\udcff" + "n" * 300))))
    assert said.isprintable()
    assert len(said) < 500


def test_a_full_disk_is_told_and_leaves_nothing(outer, tmp_path, monkeypatch):
    """A small file system of its own, which only the program sees."""
    command = [sys.executable, "-P", str(PROGRAMS / "small_unpacker.py"), "4000000"]
    started = subprocess.Popen
    monkeypatch.setattr(client, "module_command", lambda _: command)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started(*a, **{**k, "env": None}))
    small = archive(entry("a", content=os.urandom(1 << 20)))
    large = archive(*(entry(f"{number}", content=os.urandom(1 << 20)) for number in range(5)))
    with Unpacker(outer.descriptor, tmp_path) as unpacker, tempfile.TemporaryFile() as blob:
        for content, into in ((small, "1"), (large, "2"), (small, "3"), (small, "4"), (small, "5")):
            blob.seek(0)
            blob.write(content)
            blob.flush()
            # Only with what the refused one had taken there is room for all the others.
            if content is large:
                with pytest.raises(StoreFullError, match=r"disk is full.*prune"):
                    unpacker.unpack([], blob.fileno(), "", into)
            elif into != "5":
                unpacker.unpack([], blob.fileno(), "", into)


# What unpacks: it dies with who asked, and has nothing of the host.


def descendants(pid: int) -> list[int]:
    found = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [pid for child in found for pid in (child, *descendants(child))]


@pytest.mark.parametrize("victim", ["child", "program", "both"])
def test_whoever_is_killed_meanwhile_nothing_but_the_layer_is_left(layers, victim):
    """From the first entries on, while it is still at it."""
    killed = []

    def kill(_: int) -> None:
        if not killed:
            program = layers.unpacker._program.pid
            (child,) = descendants(program)
            killed.append(child)
            if victim != "program":
                os.kill(child, signal.SIGKILL)
            if victim != "child":
                os.kill(program, signal.SIGKILL)

    many = archive(*(entry(f"d/{number}", content=bytes(5000)) for number in range(300)))
    with tempfile.TemporaryFile() as blob:
        blob.write(many[:-1024] * 200 + bytes(1024))
        blob.flush()
        with pytest.raises(HostError):
            layers.unpacker.unpack([], blob.fileno(), "", "0", progress=kill)
    assert killed
    assert not (layers.directory / "0").exists()
    layers.add(archive(entry("after")))


def test_what_the_caller_raises_ends_it(layers):
    many = archive(*(entry(f"d/{number}", content=bytes(5000)) for number in range(300)))

    class Enough(Exception):  # noqa: N818
        pass

    def enough(read_bytes: int) -> None:
        raise Enough

    with tempfile.TemporaryFile() as blob:
        blob.write(many[:-1024] * 200 + bytes(1024))
        blob.flush()
        with pytest.raises(Enough):
            layers.unpacker.unpack([], blob.fileno(), "", "0", progress=enough)
    assert list(layers.directory.iterdir()) == []
    layers.add(archive(entry("after")))


def test_a_client_that_is_killed_takes_the_program_with_it(layers, tmp_path):
    layers.add(archive(entry("beneath")))
    path = tmp_path / "archive"
    many = archive(*(entry(f"d/{number}", content=bytes(5000), uid=9) for number in range(300)))
    path.write_bytes(many[:-1024] * 200 + bytes(1024))
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from jail.images.unpacker import Unpacker\n"
        "unpacker = Unpacker(int(sys.argv[1]), Path(sys.argv[2]))\n"
        "def tell(_):\n"
        "    print(unpacker._program.pid, flush=True)\n"
        "with open(sys.argv[3], 'rb') as blob:\n"
        "    unpacker.unpack(['0'], blob.fileno(), '', '1', progress=tell)\n"
    )
    command = [sys.executable, "-Pc", program, str(layers.outer.descriptor), layers.directory, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[layers.outer.descriptor]) as caller:
        unpacking = int(caller.stdout.readline())
        pids = [os.pidfd_open(pid) for pid in (unpacking, *descendants(unpacking))]
        caller.kill()
    for pid in pids:
        assert select.select([pid], [], [], 30)[0]
        os.close(pid)
    left = [path.name for path in layers.directory.iterdir()]
    assert sorted(left) == ["0", "1", "1.work"]
    layers.unpacker.remove(left)
    assert list(layers.directory.iterdir()) == []


def test_no_progress_for_long_is_an_end(layers):
    stopped = []

    def stop(_: int) -> None:
        if not stopped:
            stopped.extend(descendants(layers.unpacker._program.pid))
            os.kill(stopped[0], signal.SIGSTOP)

    many = archive(*(entry(f"d/{number}", content=bytes(5000)) for number in range(300)))
    with tempfile.TemporaryFile() as blob:
        blob.write(many[:-1024] * 200 + bytes(1024))
        blob.flush()
        with pytest.raises(ImageError, match="no progress"):
            layers.unpacker.unpack([], blob.fileno(), "", "0", Bounds(idle_s=1), stop)
    assert stopped
    assert list(layers.directory.iterdir()) == []


@pytest.mark.parametrize("parent", ["", "0"])
def test_what_reads_an_archive_can_make_files_and_nothing_else(layers, parent):
    layers.add(archive(entry("of-the-layer-beneath")))
    command = [sys.executable, "-P", PROGRAMS / "confined_unpacker.py", str(layers.outer.descriptor), parent]
    done = subprocess.run(
        command, cwd=layers.directory, pass_fds=[layers.outer.descriptor], capture_output=True, check=True
    )
    found, seen = json.loads(done.stdout)
    allowed = {"make a file", "make a fifo", "give it away"}
    assert {name for name, error in found.items() if error == 0} == allowed
    nowhere = ("name the store", "walk up", "walk up from the layer", "look at processes")
    assert {found[name] for name in nowhere} == {errno.ENOENT}
    assert {error for name, error in found.items() if name not in (*allowed, *nowhere)} == {errno.EPERM}
    assert seen["root"] == ["fifo", "made", *(["of-the-layer-beneath"] if parent else [])]
    assert seen["descriptors"] == [True]


def test_a_client_that_was_taken_over_names_nothing_outside_the_layers(outer, layers, tmp_path):
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    (layers.directory / "link").symlink_to(outside)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, tempfile.TemporaryFile() as blob:
        blob.write(archive(entry("new")))
        blob.flush()
        program = client.run(outer.descriptor, layers.directory, theirs)
        theirs.close()
        ours.settimeout(60)
        up = os.path.relpath(outside, layers.directory)
        for request in (
            Remove((f"{outside}/kept", f"{up}/kept", "link/kept")),
            Unpack((), f"{outside}/new", "", Bounds()),
            Unpack((), f"{up}/new", "", Bounds()),
            Unpack((), "link", "", Bounds()),
        ):
            socket.send_fds(ours, [msgspec.json.encode(request)], [blob.fileno()])
            while isinstance(msgspec.json.decode(ours.recv(PACKET_BYTES), type=Answer), Progress):
                pass
    assert program.wait() == 0
    assert [path.name for path in outside.rglob("*")] == ["kept"]


def test_what_reads_an_archive_is_given_no_directory(layers):
    """By its descriptor one could walk up, out of the tree."""
    directory = os.open(layers.directory, os.O_RDONLY)
    with tempfile.TemporaryFile() as blob:
        blob.write(archive(entry("a")))
        blob.flush()
        with pytest.raises(HostError, match="leads out"):
            layers.unpacker.unpack([], blob.fileno(), "", "0", lock=directory)
    os.close(directory)
    assert list(layers.directory.iterdir()) == []


def test_mutated_archives_are_unpacked_or_refused_and_nothing_else_happens():
    """More of them, as by hand: python fuzz_unpacker.py 100000"""
    command = [sys.executable, "-P", PROGRAMS / "fuzz_unpacker.py", "1500"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.partition(" unpacked")[0].split()[-1]) > 200
