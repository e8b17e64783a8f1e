"""The store of images: what comes in, what is refused, and what is left when something goes wrong.

With real layers, unpacked in the outer user namespace; what goes out is given to skopeo and umoci.
"""

import gzip
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import pages
import pytest
import zstandard

from jail.errors import HostError, ImageError, ImageInUseError, ImageNotFoundError, StoreFullError
from jail.images import archive, oci
from jail.images.store import RESUMABLE_S, Store
from jail.images.unpack.tree import BLOCK_BYTES
from jail.images.unpacker import Unpacker
from jail.namespace import OuterNamespace

DYING = Path(__file__).parent / "programs" / "dying.py"
CONTAINER = Path(__file__).parent / "programs" / "container.py"

TREE = {"bin/": None, "bin/tool": b"#!/bin/sh\n", "etc/": None, "etc/name": b"here\n", "link": "etc/name"}


def tar(entries: dict[str, bytes | str | None]) -> bytes:
    """An archive of files (bytes), symbolic links (text) and directories (None)."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if content is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            else:
                entry.size = len(content)
            made.addfile(entry, io.BytesIO(content if isinstance(content, bytes) else b""))
    return written.getvalue()


def digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def packed(raw: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(raw, mtime=0)
    return zstandard.compress(raw) if compression == "zstd" else raw


class Layout:
    """An OCI layout in memory, made of layers, which may be spoiled before it is written."""

    def __init__(self, *trees: dict[str, Any], compression: str = "gzip", **settings: Any) -> None:
        self.files: dict[str, bytes | str | None] = {}
        self.diff_ids = [digest(tar(tree)) for tree in trees]
        suffix = "" if compression == "none" else f"+{compression}"
        self.layers = [
            self.add(packed(tar(tree), compression), f"application/vnd.oci.image.layer.v1.tar{suffix}")
            for tree in trees
        ]
        self.settings = settings
        self.entries: list[dict[str, Any]] = []

    def add(self, raw: bytes, media_type: str) -> dict[str, Any]:
        self.files[f"blobs/sha256/{digest(raw)[7:]}"] = raw
        return {"mediaType": media_type, "digest": digest(raw), "size": len(raw)}

    def add_json(self, document: Any, media_type: str) -> dict[str, Any]:
        return self.add(json.dumps(document).encode(), media_type)

    def manifest(self, **changed: Any) -> dict[str, Any]:
        config = {"architecture": "amd64", "os": "linux", "config": self.settings}
        config["rootfs"] = {"type": "layers", "diff_ids": self.diff_ids}
        config["architecture"] = oci.host_platform().architecture
        described = self.add_json(config, oci.CONFIG_TYPE)
        return {"schemaVersion": 2, "config": described, "layers": self.layers} | changed

    def named(self, name: str | None = None, **changed: Any) -> "Layout":
        """With this one image in its index."""
        entry = self.add_json(self.manifest(**changed), oci.MANIFEST_TYPE)
        if name:
            entry["annotations"] = {oci.REFERENCE_NAME: name}
        self.entries.append(entry)
        return self

    def everything(self) -> dict[str, bytes | str | None]:
        index = json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode()
        return {"oci-layout": oci.LAYOUT, "index.json": index} | self.files

    def archive(self) -> bytes:
        return tar(self.everything())

    def directory(self, path: Path) -> Path:
        for name, content in self.everything().items():
            place = path / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return path


def docker_save(*trees: dict[str, Any], tags: tuple[str, ...] = ("tools/gcc:13",)) -> dict[str, Any]:
    """What `docker save` wrote up to version 24: a layer that is there before is a link."""
    files: dict[str, Any] = {}
    names: dict[bytes, str] = {}
    layers = []
    for number, tree in enumerate(trees):
        raw, name = tar(tree), f"{digest(str(number).encode())[7:]}/layer.tar"
        files[name.replace("layer.tar", "VERSION")] = b"1.0"
        files[name] = f"../{names[raw]}" if raw in names else raw
        names.setdefault(raw, name)
        layers.append(name)
    rootfs = {"type": "layers", "diff_ids": [digest(tar(tree)) for tree in trees]}
    config = json.dumps({"architecture": oci.host_platform().architecture, "os": "linux", "rootfs": rootfs})
    files[f"{digest(config.encode())[7:]}.json"] = config.encode()
    saved = [{"Config": f"{digest(config.encode())[7:]}.json", "RepoTags": list(tags), "Layers": layers}]
    return files | {"manifest.json": json.dumps(saved).encode(), "repositories": b"{}"}


@pytest.fixture(scope="module")
def namespace() -> Iterator[OuterNamespace]:
    with closing(OuterNamespace()) as made:
        yield made


class Place:
    """A store of a test's own, and what it takes to bring something in."""

    def __init__(self, store: Store, unpacker: Unpacker) -> None:
        self.store = store
        self.unpacker = unpacker

    def bring(self, raw: bytes, name: str | None = None) -> list[Any]:
        found = archive.import_file(self.store, self.unpacker, io.BytesIO(raw), name)
        return [self.store.find(each.digest) for each in found]

    def refusal(self, raw: bytes, name: str | None = None) -> str:
        """Why it is not taken. Nothing of it may be left then."""
        before = self.files()
        with pytest.raises(ImageError) as caught:
            self.bring(raw, name)
        assert self.files() == before
        assert self.store.usage_bytes() == self.counted_bytes()
        return caught.value.cause

    def files(self) -> set[str]:
        """What is in the store but for layers' contents, and for what says who is at it."""
        paths = {path.relative_to(self.store.directory) for path in self.store.directory.glob("*/*")}
        paths |= {path.relative_to(self.store.directory) for path in self.store.directory.glob("blobs/*/*")}
        return {str(path) for path in paths if path.suffix != ".writer"}

    def counted_bytes(self) -> int:
        """What there is, counted from outside."""
        blobs = sum(path.stat().st_size for path in self.store.directory.glob("blobs/sha256/*"))
        facts = [json.loads(path.read_bytes()) for path in self.store.directory.glob("chains/*.json")]
        assert len(facts) == len(list(self.store.layers.iterdir()))
        return blobs + sum(each["bytes"] for each in facts)

    def export(self, reference: str, path: Path) -> Path:
        with path.open("wb") as file:
            archive.export_file(self.store, reference, file)
        return path


@pytest.fixture
def place_with(namespace: OuterNamespace) -> Iterator[Callable[..., Place]]:
    """Stores with bounds of their own; what is in them goes with the test, whosoever it is."""
    with ExitStack() as open_now:

        def make(**bounds: int) -> Place:
            directory = Path(open_now.enter_context(temporary(namespace)))
            store = open_now.enter_context(Store(directory / "images", **bounds))
            return Place(store, open_now.enter_context(closing(Unpacker(namespace.descriptor, store.layers))))

        yield make


@contextmanager
def temporary(namespace: OuterNamespace) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="jail-images-") as directory:
        yield directory
        layers = Path(directory, "images", "layers")
        if layers.exists():
            with closing(Unpacker(namespace.descriptor, layers)) as unpacker:
                unpacker.remove(path.name for path in layers.iterdir())


@pytest.fixture
def place(place_with: Callable[..., Place]) -> Place:
    return place_with()


def tool(*command: str | Path, **options: Any) -> subprocess.CompletedProcess:
    """Run one of the tools that others wrote."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"the host has no {command[0]}")
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=100, **options)


@pytest.fixture
def jail_image(environment, state) -> Callable[..., subprocess.CompletedProcess]:
    """The command, with a state directory of its own."""

    def run(*arguments: Any, status: int = 0, **options: Any) -> subprocess.CompletedProcess:
        command = [sys.executable, "-P", "-m", "jail", "image", *map(str, arguments)]
        given = {**environment, "JAIL_STATE": str(state)}
        done = subprocess.run(command, capture_output=True, env=given, timeout=100, check=False, **options)
        assert done.returncode == status, done.stderr.decode()
        return done

    yield run
    for each in itertools.chain(*json.loads(run("ls", "--json").stdout).values()):
        run("rm", each["digest"])


# What comes in


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_plain_archive_becomes_an_image_of_one_layer(place, compression):
    (image,) = place.bring(packed(tar(TREE), compression), "tree:1")
    assert (image.names, len(image.layers)) == (("tree:1",), 1)
    root = place.store.layers / image.layers[0]
    assert (root / "link").read_text() == "here\n"
    assert image.config.rootfs.diff_ids == (digest(tar(TREE)),)
    assert place.store.find("tree:1") == image


def test_a_layer_is_unpacked_once_for_each_archive_of_it(place):
    for name in ("once:1", "again:1"):
        layers = {place.bring(packed(tar(TREE), each), name)[0].layers for each in ("none", "gzip", "zstd")}
        assert len(layers) == 3
    assert len(list(place.store.layers.iterdir())) == len(place.store.stored()) == 3


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("outer", ["none", "gzip", "zstd"])
def test_an_oci_archive_brings_its_images_and_their_names(place, compression, outer):
    layout = Layout(TREE, {"etc/.wh.name": b"", "new": b"2"}, compression=compression).named("two:1")
    (image,) = place.bring(packed(layout.archive(), outer))
    assert (image.names, len(image.layers)) == (("two:1",), 2)
    assert image.digest == layout.entries[0]["digest"]
    top = place.store.layers / image.layers[0]
    assert sorted(path.name for path in top.iterdir()) == ["etc", "new"]
    assert stat.S_ISCHR((top / "etc/name").lstat().st_mode)


def test_an_archive_may_be_of_a_directory_as_tar_makes_it(place, tmp_path):
    Layout(TREE).named("dot:1").directory(tmp_path / "layout")
    made = tool("tar", "-C", tmp_path / "layout", "-cf", tmp_path / "made.tar", ".")
    assert made.returncode == 0
    (image,) = place.bring((tmp_path / "made.tar").read_bytes())
    assert image.names == ("dot:1",)


def test_a_layout_is_read_where_it_lies(place, tmp_path):
    layout = Layout(TREE).named("laid/out:1").directory(tmp_path / "layout")
    (image,) = archive.import_layout(place.store, place.unpacker, layout)
    assert image.names == ("laid/out:1",)
    assert place.store.find("laid/out:1").digest == image.digest


def test_what_docker_saves_in_its_old_form(place):
    (image,) = place.bring(tar(docker_save(TREE, {"etc/name": b"there\n"}, TREE)))
    assert (image.names, len(image.layers)) == (("tools/gcc:13",), 3)
    assert (place.store.layers / image.layers[0] / "etc/name").read_text() == "here\n"
    assert (place.store.layers / image.layers[1] / "etc/name").read_text() == "there\n"


def test_what_docker_saves_in_its_new_form(place):
    layout = Layout(TREE).named("13")
    config = layout.manifest()["config"]["digest"][7:]
    layout.entries[0]["annotations"][archive.CONTAINERD_NAME] = "registry.example/tools/gcc:13"
    saved = {"Config": f"blobs/sha256/{config}", "RepoTags": ["tools/gcc:13"]}
    saved["Layers"] = [f"blobs/sha256/{layer['digest'][7:]}" for layer in layout.layers]
    layout.files["manifest.json"] = json.dumps([saved]).encode()
    (image,) = place.bring(layout.archive())
    assert image.names == ("tools/gcc:13",)
    del layout.files["manifest.json"]
    (image,) = place.bring(layout.archive())
    assert image.names == ("registry.example/tools/gcc:13", "tools/gcc:13")


def test_the_archive_of_another_tool(place, tmp_path):
    place.bring(Layout(TREE, {"new": b"2"}).named("two:1").archive())
    exported = place.export("two:1", tmp_path / "two.tar")
    for form in ("docker-archive", "oci-archive"):
        tool("skopeo", "copy", f"oci-archive:{exported}", f"{form}:{tmp_path / form}:copied/two:1")
        (image,) = place.bring((tmp_path / form).read_bytes())
        assert len(image.layers) == 2
    diff_ids = {image.config.rootfs.diff_ids for image in place.store.stored()}
    assert len(diff_ids) == 1


def test_of_an_index_of_platforms_the_one_for_this_host_comes(place):
    layout = Layout(TREE)
    own = layout.add_json(layout.manifest(), oci.MANIFEST_TYPE)
    own["platform"] = {"architecture": oci.host_platform().architecture, "os": "linux"}
    other = own | {"digest": digest(b"elsewhere"), "platform": {"architecture": "s390x", "os": "linux"}}
    nested = layout.add_json({"schemaVersion": 2, "manifests": [other, own]}, oci.INDEX_TYPE)
    layout.entries = [nested | {"annotations": {oci.REFERENCE_NAME: "multi:1"}}]
    (image,) = place.bring(layout.archive())
    assert (image.names, image.digest) == (("multi:1",), own["digest"])
    layout.entries = [other, own]
    (image,) = place.bring(layout.archive(), "flat:1")
    assert image.names == ("flat:1", "multi:1")


def test_a_name_goes_to_the_image_that_had_it_last(place):
    (first,) = place.bring(tar(TREE), "name:1")
    (second,) = place.bring(tar({"other": b"1"}), "name:1")
    assert place.store.find("name:1").digest == second.digest
    assert place.store.find(first.digest).names == ()
    assert place.store.find(first.digest[:19]).digest == first.digest


def test_layers_are_shared_and_there_once(place):
    (first,) = place.bring(Layout(TREE, {"a": b"1"}).named("first").archive())
    before = place.store.usage_bytes()
    (second,) = place.bring(Layout(TREE, {"b": b"2"}).named("second").archive())
    assert first.layers[1] == second.layers[1]
    assert len(list(place.store.layers.iterdir())) == 3
    assert before < place.store.usage_bytes() == place.counted_bytes()


class Liar:
    """An unpacker that one archive has taken over: of that it says that it holds what another does."""

    def __init__(self, unpacker: Unpacker, own: bytes, claimed: bytes) -> None:
        self.remove = unpacker.remove
        self._unpacker = unpacker
        self._own, self._claimed = digest(own), digest(claimed)

    def unpack(self, *request: Any) -> Any:
        found = self._unpacker.unpack(*request)
        return msgspec.structs.replace(found, diff_id=self._claimed) if found.diff_id == self._own else found


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("below", [[], [{"base": b"1"}]])
def test_a_lying_unpacker_harms_no_image_but_the_one_that_made_it_lie(place, below, is_first):
    evil, honest = {"bin/tool": b"evil"}, TREE
    liar = Liar(place.unpacker, tar(evil), tar(honest))
    lying = Layout(*below, evil)
    lying.diff_ids[-1] = digest(tar(honest))
    others = (Layout(*below, honest).named("honest:1"), Layout(*below, honest, {"top": b"1"}).named("upon:1"))
    if not is_first:
        for other in others:
            place.bring(other.archive())
    archive.import_file(place.store, liar, io.BytesIO(lying.named("lying:1").archive()))
    archive.import_file(place.store, liar, io.BytesIO(tar(evil)), "plain:1")
    for number, other in enumerate(others):
        (image,) = place.bring(other.archive())
        root = place.store.layers / image.layers[number]
        assert (root / "bin/tool").read_bytes() == TREE["bin/tool"]
    for name in ("lying:1", "plain:1"):
        root = place.store.layers / place.store.find(name).layers[0]
        assert (root / "bin/tool").read_bytes() == b"evil"


def test_an_archive_that_is_there_does_not_hold_what_another_configuration_says(place):
    place.bring(Layout(TREE).named("there:1").archive())
    lying = Layout(TREE)
    lying.diff_ids = [digest(b"elsewhere")]
    assert f"not {digest(b'elsewhere')}" in place.refusal(lying.named("lying:1").archive())


def test_what_chains_of_an_older_store_lead_to_is_not_trusted_and_goes(place):
    """They were named by what unpackers said: ChainIDs, the lowest a diff id."""
    layout = Layout(TREE).named("tree:1")
    chain = place.store.directory / "chains" / layout.diff_ids[0][7:]
    (place.store.layers / "older").mkdir()
    chain.symlink_to("../layers/older")
    chain.with_suffix(".json").write_text("of an older form")
    (image,) = place.bring(layout.archive())
    assert (place.store.layers / image.layers[0] / "bin/tool").exists()
    place.store.sweep(place.unpacker)
    assert [path.name for path in place.store.layers.iterdir()] == list(image.layers)
    assert not chain.is_symlink()
    assert place.store.usage_bytes() == place.counted_bytes()


class Zeros(io.RawIOBase):
    """A header and as many zeros as are asked for. Attribute `left`."""

    def __init__(self, header: bytes, left: int) -> None:
        self.header = header
        self.left = left

    def read(self, most: int = -1) -> bytes:
        found, self.header = self.header[:most], self.header[most:]
        if not found:
            found = bytes(min(most, self.left))
            self.left -= len(found)
        return found


@pytest.mark.parametrize("name", ["blobs", "bin/large"])
def test_no_archive_is_kept_in_memory(place, name):
    header = tarfile.TarInfo(name)
    header.size = 64 << 20
    source = Zeros(header.tobuf(), header.size + 1024)
    tracemalloc.start()
    try:
        with suppress(ImageError):
            archive.import_file(place.store, place.unpacker, source, "large")
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()


def test_the_store_is_an_oci_layout_for_other_tools(place):
    (image,) = place.bring(tar(TREE), "tree:1")
    told = json.loads(tool("skopeo", "inspect", f"oci:{place.store.directory}:tree:1").stdout)
    assert told["Digest"] == image.digest


def test_only_its_user_gets_into_the_store(place):
    assert stat.S_IMODE(place.store.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.store.layers.stat().st_mode) == 0o711


# What goes out


def test_umoci_makes_the_same_tree_of_what_is_exported(place, tmp_path):
    place.bring(Layout(TREE, {"etc/.wh.name": b"", "new": b"2"}).named("two:1").archive())
    exported = place.export("two:1", tmp_path / "two.tar")
    tool("skopeo", "copy", f"oci-archive:{exported}:two:1", f"oci:{tmp_path / 'layout'}:two")
    tool("umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'layout'}:two", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    assert found == ["bin", "bin/tool", "etc", "link", "new"]


def test_what_is_exported_comes_in_again_as_the_same(place, tmp_path):
    (image,) = place.bring(Layout(TREE, {"a": b"1"}, compression="zstd").named("two:1").archive())
    first = place.export("two:1", tmp_path / "first.tar").read_bytes()
    place.store.remove("two:1", place.unpacker)
    (again,) = place.bring(first)
    assert (again.digest, again.names) == (image.digest, ("two:1",))
    assert place.export("two:1", tmp_path / "again.tar").read_bytes() == first


def test_an_image_of_docker_goes_out_as_one_of_oci(place, tmp_path):
    layout = Layout(TREE)
    described = layout.manifest()
    described["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
    described["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    described["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    entry = layout.add_json(described, described["mediaType"])
    layout.entries.append(entry | {"annotations": {oci.REFERENCE_NAME: "docker:1"}})
    (image,) = place.bring(layout.archive())
    assert image.digest == entry["digest"]
    exported = place.export("docker:1", tmp_path / "docker.tar")
    tool("tar", "-xf", exported, "-C", tmp_path)
    tool("umoci", "unpack", "--rootless", "--image", f"{tmp_path}:docker:1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/etc/name").read_text() == "here\n"


# What is refused


def spoiled(spoil: Callable[[Layout], None]) -> bytes:
    layout = Layout(TREE, {"a": b"1"}).named("spoiled:1")
    spoil(layout)
    return layout.archive()


def first_layer(layout: Layout) -> str:
    return f"blobs/sha256/{layout.layers[0]['digest'][7:]}"


def change(name: Callable[[Layout], str], content: Any) -> Callable[[Layout], None]:
    return lambda layout: layout.files.update({name(layout): content})


def rewrite(**changed: Any) -> Callable[[Layout], None]:
    """Another manifest, correctly described by the index."""

    def spoil(layout: Layout) -> None:
        layout.entries.clear()
        layout.named(**changed)

    return spoil


def described(**changed: Any) -> Callable[[Layout], None]:
    """Another entry in the index."""
    return lambda layout: layout.entries[0].update(changed)


def other_diff_ids(count: int) -> Callable[[Layout], None]:
    def spoil(layout: Layout) -> None:
        layout.diff_ids = [digest(b"elsewhere")] * count
        rewrite()(layout)

    return spoil


def index_of(raw: bytes) -> Callable[[Layout], None]:
    return change(lambda _: "index.json", raw)


def foreign(layout: Layout) -> None:
    layout.settings = {}
    config = {
        "architecture": "s390x",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": layout.diff_ids},
    }
    rewrite(config=layout.add_json(config, oci.CONFIG_TYPE))(layout)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (change(first_layer, b"x" * 200), "What should be sha256:"),
        (change(first_layer, "/etc/hostname"), "The store has no blob"),
        (change(first_layer, "../../../../etc/hostname"), "The store has no blob"),
        (change(first_layer, None), "The store has no blob"),
        (lambda layout: layout.files.pop(first_layer(layout)), "The store has no blob"),
        (described(digest=digest(b"elsewhere")), "The store has no blob"),
        (described(digest="sha256:../../../../../etc/hostname"), "The index is not valid"),
        (described(size=3), "bytes, not 3"),
        (described(size=50 << 20), f"longer than {oci.DOCUMENT_BYTES_MAX} bytes"),
        (described(mediaType=oci.INDEX_TYPE), "'config'"),
        (rewrite(layers=[]), "The manifest is not valid"),
        (rewrite(junk="x" * (50 << 20)), f"longer than {oci.DOCUMENT_BYTES_MAX} bytes"),
        (rewrite(junk=[[[]]] * 100_000, manifests=[]), "'manifests'"),
        (index_of(b"[" * 1_000_000), "The index is not valid"),
        (index_of(b" " * (50 << 20)), f"longer than {oci.DOCUMENT_BYTES_MAX} bytes"),
        (index_of(b'{"schemaVersion":2,"manifests":[]}'), "no image"),
        (other_diff_ids(1), "The image has 2 layers, and its configuration names 1"),
        (other_diff_ids(2), f"not {digest(b'elsewhere')}"),
        (foreign, "The image is for linux/s390x"),
    ],
)
def test_a_spoiled_archive_is_refused_and_leaves_nothing(place, spoil, cause):
    place.bring(tar(TREE), "other:1")
    assert cause in place.refusal(spoiled(spoil))


def test_an_index_that_names_itself_is_refused(place):
    layout = Layout(TREE)
    # No digest can be its own; a long way does as well.
    entry = layout.add_json(layout.manifest(), oci.MANIFEST_TYPE)
    for _ in range(archive.DEPTH_MAX + 1):
        entry = layout.add_json({"schemaVersion": 2, "manifests": [entry]}, oci.INDEX_TYPE)
    layout.entries = [entry]
    assert "indexes lead to the image" in place.refusal(layout.archive(), "deep:1")


@pytest.mark.parametrize(
    ("saved", "cause"),
    [
        ([{"Config": "../../../etc/hostname", "Layers": []}], "There is no"),
        ([{"Config": "/etc/hostname", "Layers": []}], "There is no"),
        ([], "neither an index.json nor a manifest.json"),
        ({}, "manifest.json is not valid"),
        ([{"Config": 1}], "manifest.json is not valid"),
    ],
)
def test_a_spoiled_archive_of_docker_is_refused_and_leaves_nothing(place, saved, cause):
    files = docker_save(TREE) | {"manifest.json": json.dumps(saved).encode()}
    assert cause in place.refusal(tar(files))


def test_a_layer_that_is_a_link_to_itself_is_refused(place):
    files = docker_save(TREE, {"a": b"1"})
    name = next(name for name in files if name.endswith("/layer.tar"))
    assert "There is no" in place.refusal(tar(files | {name: "layer.tar"}))


def test_an_entry_that_is_there_twice_is_refused(place):
    raw = Layout(TREE).named("twice:1").archive()
    once = raw.rstrip(b"\0")
    assert "oci-layout twice" in place.refusal(once + bytes(-len(once) % 512) + raw)


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 2000])
def test_an_archive_that_is_cut_short_is_refused(place, cut):
    assert "cut short" in place.refusal(Layout(TREE).named("cut:1").archive()[:cut], "cut:1")


def test_a_plain_archive_with_an_entry_cut_short_is_refused(place):
    assert "cut short" in place.refusal(packed(tar(TREE)[:1500], "gzip"), "cut:1")


@pytest.mark.parametrize(
    "name", ["", "host", "-x", "a b", "a@b", "../x", "sha256:" + "a" * 64, "a" * 256, "a\n"]
)
def test_a_name_that_an_image_cannot_have_is_refused(place, name):
    layout = Layout(TREE).named("x")
    layout.entries[0]["annotations"][oci.REFERENCE_NAME] = name
    if name:
        assert repr(name) in place.refusal(layout.archive())
    else:
        assert place.bring(layout.archive())[0].names == ()


def test_several_images_cannot_have_one_name(place):
    layout = Layout(TREE).named("one:1")
    layout.named("two:1", annotations={"other": "1"})
    assert "2 images" in place.refusal(layout.archive(), "name:1")
    assert {image.names for image in place.bring(layout.archive())} == {("one:1",), ("two:1",)}


@pytest.mark.parametrize("name", ["index.json", "blobs/sha256", "blobs"])
@pytest.mark.parametrize("kind", ["link", "fifo", "gone"])
def test_a_layout_is_not_followed_out_of_its_directory(place, tmp_path, name, kind):
    Layout(TREE).named("laid:1").directory(tmp_path / "layout")
    shutil.move(tmp_path / "layout" / name, tmp_path / "elsewhere")
    if kind == "link":
        (tmp_path / "layout" / name).symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(tmp_path / "layout" / name)
    with pytest.raises(ImageError, match="cannot be read"):
        archive.import_layout(place.store, place.unpacker, tmp_path / "layout")
    assert place.store.stored() == []
    assert place.counted_bytes() == place.store.usage_bytes() == 0


def test_a_blob_that_is_a_link_is_not_read(place, tmp_path):
    layout = Layout(TREE).named("laid:1")
    path = layout.directory(tmp_path / "layout") / first_layer(layout)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match="cannot be read: a link"):
        archive.import_layout(place.store, place.unpacker, tmp_path / "layout")
    assert place.counted_bytes() == place.store.usage_bytes() == 0


# Bounds


def test_an_image_has_no_more_entries_than_the_operator_allows(place_with):
    place = place_with(image_entries=len(TREE) + 1)
    assert "entries" in place.refusal(Layout(TREE, {"a": b"1", "b": b"2"}).named("much:1").archive())
    place.bring(Layout(TREE, {"a": b"1"}).named("enough:1").archive())


def test_an_image_has_no_more_bytes_than_the_operator_allows(place_with):
    bomb = {"zeros": bytes(1 << 20)}
    place = place_with(image_bytes=(1 << 20) - 1)
    assert "takes up more than" in place.refusal(packed(tar(bomb), "zstd"), "bomb:1")
    assert "takes up more than" in place.refusal(Layout(TREE, bomb).named("bomb:1").archive())
    assert "archives have" in place.refusal(Layout(bomb, compression="none").named("bomb:1").archive())


def test_the_store_has_no_more_bytes_than_the_operator_allows(place_with):
    first, second = tar(TREE), tar({"file": os.urandom(100_000)})
    needed = place_with()
    needed.bring(first, "first:1")
    needed.bring(second, "second:1")
    most = needed.store.usage_bytes()
    place = place_with(bytes_max=most - 1)
    place.bring(first, "first:1")
    with pytest.raises(StoreFullError, match=f"The store may have {most - 1} bytes"):
        place.bring(second, "second:1")
    assert place.store.usage_bytes() == place.counted_bytes()
    assert [image.names for image in place.store.stored()] == [("first:1",)]
    place.store.remove("first:1", place.unpacker)
    place.bring(second, "second:1")


def test_the_store_counts_what_small_files_take_up(place_with):
    place = place_with(bytes_max=4 << 20)
    many = packed(tar({f"{number}": b"x" for number in range(1000)}), "gzip")
    with pytest.raises(StoreFullError, match=f"takes up more than .* The store may have {4 << 20} bytes"):
        place.bring(many, "many:1")
    assert place.store.usage_bytes() == place.counted_bytes() == 0


@pytest.mark.parametrize("short_by", [1, 60_000, 150_000, 240_000])
def test_wherever_the_bound_is_reached_nothing_is_left(place_with, short_by):
    raw = Layout(TREE, {"file": os.urandom(100_000)}).named("much:1").archive()
    needed = place_with()
    needed.bring(raw)
    place = place_with(bytes_max=max(1, needed.store.usage_bytes() - short_by))
    with pytest.raises(StoreFullError):
        place.bring(raw)
    assert place.files() == place_with().files()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_archive_of_images_is_no_bomb_either(place_with, compression):
    place = place_with(image_bytes=1 << 20)
    layout = Layout(TREE).named("bomb:1")
    layout.files[f"blobs/sha256/{'0' * 64}"] = bytes(8 << 20)
    assert "bytes" in place.refusal(packed(layout.archive(), compression))
    del layout.files[f"blobs/sha256/{'0' * 64}"]
    for size in (1 << 19, 1 << 20):
        layout.add(bytes(size), "")
    assert "longer than" in place.refusal(packed(layout.archive(), compression))


def test_an_image_may_have_as_many_layers_as_a_mount_takes(place):
    trees = [{f"{number}": b"1"} for number in range(oci.LAYERS_MAX)]
    (image,) = place.bring(Layout(*trees).named("deep:1").archive())
    assert len(set(image.layers)) == oci.LAYERS_MAX
    assert len(":".join(f"l/{name}" for name in image.layers)) < 2048


# Uses


def test_a_damaged_image_is_told_and_can_be_removed(place):
    (damaged,) = place.bring(Layout(TREE).named("damaged:1").archive())
    (other,) = place.bring(Layout({"a": b"1"}).named("other:1").archive())
    path = place.store.directory / "blobs/sha256" / damaged.digest[7:]
    path.write_bytes(path.read_bytes().replace(b"sha256:", b"sha257:"))
    with pytest.raises(ImageError, match="The image damaged:1 is damaged"):
        place.store.find("damaged:1")
    # Nor does it keep anybody from the others.
    place.store.sweep(place.unpacker)
    assert place.store.stored() == [other]
    (told,) = place.store.survey()[1]
    assert (told.names, told.digest) == (("damaged:1",), damaged.digest)
    assert told.cure == f"Remove it: jail image rm {damaged.digest}"
    place.store.remove("damaged:1", place.unpacker)
    assert place.store.stored() == [other]
    assert place.store.survey() == ([other], [])
    assert place.store.usage_bytes() == place.counted_bytes()


def lead(target: str) -> Callable[[Path], None]:
    def spoil(link: Path) -> None:
        link.unlink()
        link.symlink_to(target)

    return spoil


def record(raw: bytes) -> Callable[[Path], None]:
    return lambda link: link.with_suffix(".json").write_bytes(raw)


def negative(link: Path) -> None:
    facts = json.loads(link.with_suffix(".json").read_bytes())
    record(json.dumps(facts | {"bytes": -(1 << 40)}).encode())(link)


def plain(link: Path) -> None:
    link.unlink()
    link.write_text("layer")


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (record(b""), r"chains/\w{64}\.json is damaged"),
        (record(b"{}"), "missing required field"),
        (record(b'{"blob": "\xff"}'), "is damaged"),
        (record(b"[" * 100_000), "is damaged"),
        (negative, "is damaged"),
        (lambda link: link.with_suffix(".json").unlink(), "No such file"),
        (lead("../layers/00000"), "leads to no layer"),
        (lead("/etc"), "leads to no layer"),
        (lead("../layers/a,b:c"), "leads to no layer"),
        (plain, "is no link"),
        (Path.unlink, "is not unpacked"),
    ],
)
def test_a_damaged_layer_is_told_with_cause_and_cure(place_with, spoil, cause):
    place = place_with(bytes_max=1 << 30)
    raw = Layout(TREE).named("damaged:1").archive()
    (damaged,) = place.bring(raw)
    (link,) = (path for path in (place.store.directory / "chains").iterdir() if path.is_symlink())
    (other,) = place.bring(Layout({"a": b"1"}).named("other:1").archive())
    spoil(link)
    with pytest.raises(ImageError, match=f"^The image damaged:1 is damaged: .*{cause}") as caught:
        place.store.find("damaged:1")
    assert caught.value.cure == f"Remove it: jail image rm {damaged.digest}"
    whole, (told,) = place.store.survey()
    assert (whole, told.digest, told.cause) == ([other], damaged.digest, caught.value.cause)
    # Whoever brings it in again hears of it, or makes it whole.
    with pytest.raises(ImageError, match="chains/") if os.path.lexists(link) else nullcontext():
        place.bring(raw)
    place.store.remove("damaged:1", place.unpacker)
    assert place.store.survey() == ([other], [])
    assert place.store.usage_bytes() == place.counted_bytes()
    assert place.bring(raw)[0].digest == damaged.digest


@pytest.mark.parametrize("name", ["layers", "blobs", "blobs/sha256", "chains", "incoming"])
def test_a_link_in_the_store_is_not_followed(tmp_path, name):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    link = tmp_path / "store" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="is a link, which no store has"):
        Store(tmp_path / "store")
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o700
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_what_is_written_anew_follows_no_link(tmp_path, name):
    (tmp_path / "store").mkdir()
    (tmp_path / "other").write_text("whole")
    (tmp_path / "store" / f"{name}.new").symlink_to(tmp_path / "other")
    with Store(tmp_path / "store") as store:
        assert store.stored() == []
    assert (tmp_path / "other").read_text() == "whole"


def test_an_image_in_use_is_not_removed(place):
    (image,) = place.bring(Layout(TREE).named("used:1").archive())
    place.bring(Layout(TREE, {"a": b"1"}).named("other:1").archive())
    held = place.store.hold(image.digest)
    for reference in ("used:1", image.digest):
        with pytest.raises(ImageInUseError, match="is in use"):
            place.store.remove(reference, place.unpacker)
    place.store.remove("other:1", place.unpacker)
    assert place.store.find("used:1") == image
    assert (place.store.layers / image.layers[0] / "etc/name").exists()
    os.close(held)
    place.store.remove("used:1", place.unpacker)
    with pytest.raises(ImageNotFoundError):
        place.store.hold(image.digest)
    assert list(place.store.layers.iterdir()) == []


def test_whoever_holds_an_image_idly_is_asked_to_let_go_of_it(place):
    (image,) = place.bring(Layout(TREE).named("kept:1").archive())
    held = place.store.hold(image.digest)

    def let_go() -> None:
        with Store(place.store.directory) as other:
            while other.asked_back() != {image.digest}:
                pass
        os.close(held)

    with ThreadPoolExecutor() as pool:
        idle = pool.submit(let_go)
        place.store.remove("kept:1", place.unpacker, patience_s=100)
        idle.result()
    assert place.store.asked_back() == set()
    assert place.store.stored() == []


def test_whoever_is_in_vain_asked_for_an_image_is_not_asked_for_ever(place):
    (image,) = place.bring(Layout(TREE).named("used:1").archive())
    held = place.store.hold(image.digest)
    with pytest.raises(ImageInUseError, match="A job runs in it"):
        place.store.remove("used:1", place.unpacker, patience_s=0.1)
    assert place.store.asked_back() == set()
    assert place.store.find("used:1") == image
    os.close(held)


def test_a_name_of_an_image_in_use_can_be_taken_away_while_it_has_another(place):
    (image,) = place.bring(Layout(TREE).named("used:1").archive(), "used:1")
    place.bring(Layout(TREE).named("used:1").archive(), "used:2")
    held = place.store.hold(image.digest)
    assert place.store.remove("used:1", place.unpacker) == 0
    assert place.store.find(image.digest).names == ("used:2",)
    os.close(held)


def test_prune_leaves_what_has_a_name_or_is_used(place):
    (used,) = place.bring(tar({"a": b"1"}))
    (nameless,) = place.bring(tar({"b": b"2"}))
    place.bring(tar(TREE), "tree:1")
    held = place.store.hold(used.digest)
    assert place.store.prune(place.unpacker) == 0
    before = place.store.usage_bytes()
    freed = place.store.prune(place.unpacker, nameless=True)
    assert place.store.usage_bytes() == place.counted_bytes() == before - freed
    assert {image.digest for image in place.store.stored()} == {
        used.digest,
        place.store.find("tree:1").digest,
    }
    with pytest.raises(ImageNotFoundError):
        place.store.find(nameless.digest)
    os.close(held)


def test_what_somebody_else_brings_in_is_left_alone(place):
    raw = packed(tar(TREE), "gzip")
    wanted = oci.describe(raw, f"{oci.LAYER_TYPE}+gzip")
    with Store(place.store.directory) as other:
        with other.receive(wanted) as incoming:
            incoming.write(raw[:50])
            place.store.prune(place.unpacker)
            incoming.write(raw[50:])
        place.store.prune(place.unpacker)
        diff_id = other.add_layer((), wanted, place.unpacker, lambda *_: None)
        place.store.prune(place.unpacker)
        assert other.add_layer((), wanted, place.unpacker, lambda *_: None) == diff_id
        assert len(list(place.store.layers.iterdir())) == 1
    # Blocks: of each entry, of each directory and file, and of the link.
    blocks = len(TREE) + len(TREE)
    assert place.store.prune(place.unpacker) == len(raw) + blocks * BLOCK_BYTES
    assert place.store.usage_bytes() == place.counted_bytes() == 0


def test_what_was_cut_off_is_kept_for_a_while_and_gone_on_with(place):
    raw = packed(tar(TREE), "gzip")
    wanted = oci.describe(raw, f"{oci.LAYER_TYPE}+gzip")
    ended = pytest.raises(ImageError, match="ends after 50")
    with Store(place.store.directory) as cut_off, ended, cut_off.receive(wanted) as incoming:
        incoming.write(raw[:50])
    place.store.sweep(place.unpacker)
    with Store(place.store.directory) as again, again.receive(wanted) as incoming:
        assert incoming.offset == 50
        incoming.write(raw[50:])
    (blob,) = (place.store.directory / "blobs/sha256").iterdir()
    place.store.sweep(place.unpacker)
    assert blob.read_bytes() == raw
    old = blob.stat().st_mtime - RESUMABLE_S - 1
    os.utime(blob, (old, old))
    place.store.sweep(place.unpacker)
    assert not blob.exists()


# The command


def test_the_command_lists_shows_and_removes(jail_image, tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(Layout(TREE, Env=["A=1"], Cmd=["tool"], Volumes={"/data": {}}).named("two:1").archive())
    done = jail_image("import", path)
    digest_told, name = done.stdout.decode().split()
    assert name == "two:1"
    assert b"do not follow: Volumes" in done.stderr
    (listed,) = json.loads(jail_image("ls", "--json").stdout)["images"]
    shown = json.loads(jail_image("inspect", digest_told[:19], "--json").stdout)
    assert listed == shown
    assert (shown["digest"], shown["names"], shown["ignored"]) == (digest_told, ["two:1"], ["Volumes"])
    assert (shown["config"]["Env"], shown["config"]["Cmd"]) == (["A=1"], ["tool"])
    text = jail_image("inspect", "two:1").stdout.decode()
    assert f"digest       {digest_told}\n" in text
    jail_image("rm", "two:1")
    assert json.loads(jail_image("ls", "--json").stdout) == {"images": [], "damaged": []}


def test_the_command_names_damaged_images(jail_image, state):
    jail_image("import", "-", "--name", "damaged:1", input=tar(TREE))
    (facts,) = (state / "images" / "chains").glob("*.json")
    facts.write_text("no record")
    done = jail_image("ls", "--json")
    found = json.loads(done.stdout)
    (told,) = found["damaged"]
    assert (found["images"], told["names"]) == ([], ["damaged:1"])
    assert f"jail: {told['cause']}\n      {told['cure']}\n" == done.stderr.decode()
    refused = jail_image("import", "-", "--name", "again:1", status=1, input=tar(TREE)).stderr.decode()
    assert "Remove each image that `jail image ls` names as damaged" in refused
    assert "Traceback" not in refused


def test_whoever_takes_over_a_name_is_told_whose_it_was(jail_image):
    def bring(content: bytes, *options: str) -> Any:
        return jail_image("import", "-", "--name", "name:1", *options, input=tar({"a": content}))

    first = bring(b"1").stdout.split()[0].decode()
    assert bring(b"1").stderr == b""
    second = bring(b"2")
    assert second.stderr.decode() == f"name:1 was {first} until now.\n"
    (third,) = json.loads(bring(b"3", "--json").stdout)
    assert third["replaced"] == {"name:1": second.stdout.split()[0].decode()}
    assert json.loads(bring(b"3", "--json").stdout)[0]["replaced"] == {}


def test_the_command_reads_stdin_and_writes_stdout(jail_image):
    done = jail_image("import", "-", "--json", input=Layout(TREE).named("two:1").archive())
    (found,) = json.loads(done.stdout)
    raw = jail_image("export", "two:1", "-").stdout
    assert digest_of(raw) == found["digest"]


def test_the_command_says_what_is_wrong_and_what_helps(jail_image, tmp_path):
    done = jail_image("inspect", "nothing:1", status=1)
    assert done.stderr.decode().splitlines() == [
        "jail: There is no image 'nothing:1'.",
        "      `jail image ls` lists those that there are.",
    ]
    jail_image("import", "-", status=1, input=b"x" * 1024)
    jail_image("export", "nothing:1", tmp_path / "exported.tar", status=1)
    assert list(tmp_path.iterdir()) == []


def test_what_an_image_says_of_itself_moves_no_terminal(jail_image):
    evil = "\x1b[2J"
    layout = Layout(TREE, Env=[f"A={evil}"], Cmd=[evil], **{evil: "1"}).named("evil:1")
    done = jail_image("import", "-", input=layout.archive())
    outputs = [done.stdout, done.stderr, jail_image("ls").stdout, jail_image("inspect", "evil:1").stdout]
    assert b"\x1b" not in b"".join(outputs)
    assert b"A=?[2J" in outputs[3]


def test_what_is_no_store_is_left_alone(jail_image, state):
    (state / "images").mkdir()
    (state / "images" / "photograph").touch()
    assert b"is no store of images" in jail_image("ls", "--json", status=1).stderr
    (state / "images" / "photograph").unlink()


def test_a_store_of_somebody_elses_is_told(environment):
    given = {**environment, "JAIL_IMAGES": "/proc/images"}
    command = [sys.executable, "-P", "-m", "jail", "image", "ls"]
    done = subprocess.run(command, capture_output=True, text=True, env=given, timeout=100, check=False)
    assert done.returncode == 1
    assert "cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_export_that_is_cut_off_leaves_the_file_that_was_there(jail_image, tmp_path):
    jail_image("import", "-", input=Layout(TREE).named("two:1").archive())
    (tmp_path / "file").write_text("before")
    jail_image("export", "nothing:1", tmp_path / "file", status=1)
    assert (tmp_path / "file").read_text() == "before"
    jail_image("export", "two:1", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_examples_of_the_page_answer_as_it_says(environment, state, tmp_path, jail_image):
    for needed in ("skopeo", "umoci"):
        tool(needed, "--version")
    given = {**environment, "JAIL_STATE": str(state)}
    for line, pattern, answer in pages.typed("images.md", 16, tmp_path, given):
        assert re.fullmatch(pattern, answer), (line, answer)


# Ends


def import_command(path: Path, name: str) -> list[str]:
    return [sys.executable, "-P", "-m", "jail", "image", "import", str(path), "--name", name]


def test_two_imports_of_one_image_at_once_make_one_copy(environment, jail_image, state, tmp_path):
    path = tmp_path / "image.tar"
    files = {f"{number}": os.urandom(1000) for number in range(300)}
    path.write_bytes(Layout(files, {"a": b"1"}).named().archive())
    given = {**environment, "JAIL_STATE": str(state)}
    both = [subprocess.Popen(import_command(path, f"same:{number}"), env=given) for number in range(2)]
    assert [process.wait(100) for process in both] == [0, 0]
    (image,) = json.loads(jail_image("ls", "--json").stdout)["images"]
    assert image["names"] == ["same:0", "same:1"]
    assert len(list((state / "images/layers").iterdir())) == 2
    assert len(list((state / "images/blobs/sha256").iterdir())) == 4
    assert list((state / "images/incoming").iterdir()) == []


def test_an_import_that_is_killed_at_any_moment_leaves_a_clean_store(namespace, environment, tmp_path):
    raw = Layout(TREE, {"etc/.wh.name": b"", "b": b"2"}).named().archive()
    (tmp_path / "image.tar").write_bytes(raw)
    with temporary(namespace) as directory:
        command = [sys.executable, "-P", DYING, Path(directory, "images"), tmp_path / "image.tar"]
        done = subprocess.run(command, capture_output=True, env=environment, timeout=300, check=True)
    *died, last = map(json.loads, done.stdout.splitlines())
    assert last == {"exit": 0}
    assert len(died) > 40
    assert {"os.mkdir", "os.rename", "os.symlink", "os.truncate", "open"} <= {each["event"] for each in died}
    for each in died:
        assert each["visible"] in ([], [digest_of(raw)]), each
        assert each["layers"] == each["linked"], each
        assert (each["strays"], each["bytes"]) == ([], 0), each
        assert each["rest"] == ["index.json", "oci-layout", "spare"], each
    # Once it can be found it stays.
    seen = [bool(each["visible"]) for each in died]
    assert seen == sorted(seen)
    assert any(seen)


def test_an_import_that_is_killed_while_it_unpacks_leaves_a_clean_store(
    environment, jail_image, state, tmp_path
):
    path, layers = tmp_path / "image.tar", state / "images" / "layers"
    path.write_bytes(Layout(TREE, {str(number): b"x" for number in range(20_000)}).named().archive())
    given = {**environment, "JAIL_STATE": str(state)}
    for count in (1, 50, 1000, 5000):
        with subprocess.Popen(import_command(path, "killed:1"), env=given) as process:
            while sum(len(os.listdir(layer)) for layer in layers.glob("?????")) < count:
                assert process.poll() is None
            process.kill()
        jail_image("prune")
        assert list(layers.iterdir()) == []
        assert list((state / "images/blobs/sha256").iterdir()) == []
        assert list((state / "images/incoming").iterdir()) == []


def digest_of(raw: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(raw)) as read:
        return json.load(read.extractfile("index.json"))["manifests"][0]["digest"]


FILL = """
set -e
jail="$1 -P -m jail image"; cd "$2"
cp "$3" small.tar; cp "$4" big.tar
$jail import small.tar --name small:1
for kilobytes in 2900 2000 1200 0; do
    head -c ${kilobytes}000 /dev/urandom > ballast
    if $jail import big.tar --name big:1; then $jail rm big:1; fi
    rm ballast
    $jail export small:1 again.tar
    cmp again.tar small.tar
    rm again.tar
    $jail ls --json
done
if head -c 9m /dev/zero > ballast; then exit 9; fi
! $jail export small:1 again.tar
ls -A
$jail rm small:1
rm ballast
find images -type f
"""


def test_a_full_disk_is_told_and_the_store_still_whole(environment, tmp_path, place):
    disk, big = tmp_path / "disk", tmp_path / "big.tar"
    disk.mkdir()
    place.bring(tar(TREE), "small:1")
    small = place.export("small:1", tmp_path / "small.tar")
    big.write_bytes(Layout({"one": os.urandom(700_000)}, {"two": os.urandom(700_000)}).named().archive())
    command = [sys.executable, "-P", CONTAINER, f"small_disk:{disk}:5m", "sh", "-c", FILL, "sh"]
    command += [sys.executable, disk, small, big]
    given = {**environment, "JAIL_STATE": str(disk)}
    done = subprocess.run(command, capture_output=True, text=True, env=given, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stderr.count("is full: No space left on device") == 3, done.stderr
    assert "again.tar cannot be written: No space left on device" in done.stderr
    assert done.stdout.count('"small:1"') == 4
    assert '"big:1"' not in done.stdout
    assert sorted(done.stdout.splitlines()[-2:]) == ["images/index.json", "images/oci-layout"]
    assert "Traceback" not in done.stderr
