"""Layers become directories: as umoci unpacks them, and whatever is in them, nothing else is touched."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jail.errors import ImageError
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
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{name}", "size": len(raw)}

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


def same(ours: dict[str, Any], theirs: dict[str, Any], implied: Callable[[str], bool] = lambda _: False) -> None:
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
    entry("fine/", "dir", mtime_ns=1),
    entry("fine/", "dir", mode=0o711, uid=8, mtime_ns=2),
)

SECOND = (
    entry("usr/lib/", "dir", mode=0o711, mtime_ns=12 * 10**9 + 1),
    entry("lib/through-link", content=b"t"),
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
)

THIRD = (
    entry("gone/", "dir", mode=0o700),
    entry("gone/again", content=b"a"),
    entry("links/.wh.one"),
    entry("links/one-new", content=b"1"),
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
        assert told.bytes == len(archive(*entries))
    ours, theirs = layers.tree(), as_umoci(layers, tmp_path_factory)
    # Of "both" only the layer beneath tells, in what the second hides.
    same(ours, theirs, lambda name: name.endswith(DEEP) or name == "late-opaque/both")
    assert ours["links/four"]["names"] == ["links/four", "links/three", "links/two"]


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
        archive(entry("a", content=b"a"), entry("d/", "dir"), *(entry(f"d/{n}", content=b"d") for n in range(9)))
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
        for place in range(0, 50_000_000, 500_000):
            file.seek(place)
            file.write(b"x" * 5000)
        file.truncate(60_000_000)
    with open(tmp_path / "in/hole", "wb") as file:
        file.truncate(1 << 30)
    kind, _, version = form.partition(" ")
    options = [f"--sparse-version={version}"] if version else []
    command = ["tar", "-cS", f"--format={kind}", *options, "-C", tmp_path / "in", "."]
    content = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    layers.add(content)
    tree = layers.tree()
    with open(tmp_path / "in/sparse", "rb") as file:
        assert tree["sparse"]["content"] == hashlib.file_digest(file, "sha256").hexdigest()
    assert tree["sparse"]["size"] == 60_000_000
    assert tree["sparse"]["disk_bytes"] < 2_000_000
    assert (tree["hole"]["size"], tree["hole"]["disk_bytes"]) == (1 << 30, 0)


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
    "size beyond all": (raw(b"a", b124=b"\x80" + b"\x7f" * 11), "cut short"),
    "size of a link": (raw(b"a", b"2", 512, b"b") + bytes(512), "no file has content"),
    "size that is no number": (raw(b"a", b124=b"0x10       \0"), "not octal"),
    "checksum": (raw(b"a")[:-1] + b"x", "checksum"),
    "unknown type": (raw(b"a", b"Q"), "unknown type"),
    "sparse and lying": (
        pax(
            record(b"GNU.sparse.major=1"), record(b"GNU.sparse.minor=0"), record(b"GNU.sparse.realsize=99")
        )
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
        pax(record(b"GNU.sparse.size=%d" % (1 << 62)), record(b"GNU.sparse.map=0,1")) + raw(b"a", size=1) + bytes(512),
        "longer than",
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
    assert "after" in layers.tree()
