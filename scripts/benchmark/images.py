"""What an image of the store costs a job, by its layers, and how fast one comes in."""

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmark import load
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.row import Row
from benchmark.service import ready, serving
from benchmark.session import Advance, Session
from jail.images import oci

TITLE = "images of the store"
IS_PLAIN = True

LAYERS = 100
LAYERS_MAX = 1.3
"""How many times the p50 of a job in an image of one layer."""

IMPORT_MAX = 1.0
"""How many times as long as umoci takes for the same image."""

_IMPORT_BYTES, _IMPORT_BYTES_FULL = 50_000_000, 500_000_000
_SOURCE = "/usr/lib"


class Round(msgspec.Struct, frozen=True):
    """One client back to back, in the image `host`, in one of a layer and one of LAYERS."""

    host: Times
    one: Times
    many: Times


class Import(msgspec.Struct, frozen=True):
    """The same image, unpacked by each, in seconds. files, bytes: what is in it."""

    files: int
    bytes: int
    jail_s: tuple[float, ...]
    umoci_s: tuple[float, ...]


class Figures(msgspec.Struct, frozen=True):
    """`warm`: with ready sandboxes; `cold`: without. `brought_in`: None without umoci."""

    warm: tuple[Round, ...]
    cold: tuple[Round, ...]
    brought_in: Import | None


def measure(session: Session) -> Figures:
    """Raises OSError, UnavailableError, CalledProcessError."""
    images = session.directory / "images"
    true = _archive({"usr/bin/true": Path(session.no_op).read_bytes()})
    more = [_archive({f"usr/bin/{number}": b""}) for number in range(LAYERS - 1)]
    for name, layers in (("one:1", [true]), ("many:1", [true, *more])):
        _import(images, _layout(session.directory / name, layers, ""), name)
    advance = session.task(TITLE, 2 * session.rounds + 1)
    warm, cold = (_rounds(session, images, kept, advance) for kept in ({}, ready(0)))
    brought_in = _bring_in(session) if shutil.which("umoci") else None
    advance()
    return Figures(warm, cold, brought_in)


def _rounds(session: Session, images: Path, kept: dict[str, object], advance: Advance) -> tuple[Round, ...]:
    bodies = [json.dumps({"argv": ["/usr/bin/true"], "image": name}) for name in ("host", "one:1", "many:1")]
    found = []
    with serving({**kept, "images": images}) as service:
        for body in bodies:
            load.sequence(service.port, 20, body=body.encode())
        for _ in range(session.rounds):
            found.append(
                Round(*(load.sequence(service.port, session.runs, body=body.encode()) for body in bodies))
            )
            advance()
    return tuple(found)


def _bring_in(session: Session) -> Import:
    files, size, layer = _tree(session)
    layout = _layout(session.directory / "large", [layer], "+gzip")
    jail_s, umoci_s = [], []
    for number in range(3):
        images, bundle = (session.directory / f"{name}{number}" for name in ("store", "bundle"))
        command = ["umoci", "unpack", "--rootless", "--image", f"{layout}:1", str(bundle)]
        umoci_s.append(
            _seconds(lambda command=command: subprocess.run(command, check=True, capture_output=True))
        )
        jail_s.append(_seconds(lambda images=images: _import(images, layout, "large:1")))
        shutil.rmtree(bundle)
        _jail(images, "rm", "large:1")
    return Import(files, size, tuple(jail_s), tuple(umoci_s))


def _seconds(work: Callable[[], object]) -> float:
    # What one has written is not the next one's to wait for.
    os.sync()
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _tree(session: Session) -> tuple[int, int, bytes]:
    """Files of this host, as many as have so many bytes, in an archive that gzip(1) has compressed."""
    left = _IMPORT_BYTES_FULL if session.is_full else _IMPORT_BYTES
    names, size = [], 0
    for place, _, found in os.walk(_SOURCE):
        for name in sorted(found):
            path = os.path.join(place, name)
            if size < left and os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                names.append(path)
                size += os.path.getsize(path)
    listed = session.directory / "names"
    listed.write_text("\0".join(names))
    command = f"tar --create --null --files-from {listed} --directory / | gzip"
    done = subprocess.run(command, shell=True, check=True, capture_output=True)
    return len(names), size, done.stdout


def _archive(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), 0o755
            tar.addfile(about, io.BytesIO(content))
    return target.getvalue()


def _layout(place: Path, layers: list[bytes], kind: str) -> Path:
    """An OCI layout of these layers, with the name 1. `kind`: what their media type ends with."""
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def keep(content: bytes, media_type: str) -> oci.Descriptor:
        found = oci.describe(content, media_type)
        (blobs / found.hex).write_bytes(content)
        return found

    described = tuple(keep(layer, oci.LAYER_TYPE + kind) for layer in layers)
    plain = [_plain(layer, kind) for layer in layers]
    here = oci.host_platform()
    config = oci.Config(
        architecture=here.architecture, os=here.os, rootfs=oci.RootFs(diff_ids=tuple(map(oci.digest, plain)))
    )
    manifest = oci.Manifest(config=keep(oci.encode(config), oci.CONFIG_TYPE), layers=described)
    found = keep(oci.encode(manifest), oci.MANIFEST_TYPE)
    named = msgspec.structs.replace(found, annotations={oci.REFERENCE_NAME: "1"})
    (place / "index.json").write_bytes(oci.encode(oci.Index(manifests=(named,))))
    (place / "oci-layout").write_bytes(oci.LAYOUT)
    return place


def _plain(layer: bytes, kind: str) -> bytes:
    return (
        subprocess.run(["gzip", "-dc"], input=layer, check=True, capture_output=True).stdout
        if kind
        else layer
    )


def _import(images: Path, layout: Path, name: str) -> None:
    _jail(images, "import", str(layout), "--name", name)


def _jail(images: Path, *words: str) -> None:
    command = [sys.executable, "-P", "-m", "jail", "image", *words]
    subprocess.run(command, env={**os.environ, "JAIL_IMAGES": str(images)}, check=True, capture_output=True)


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """Of many layers over one and of one over the host's; and umoci's time over ours."""
    for rounds, words in ((found.warm, "ready"), (found.cold, "none ready")):
        yield _row(f"one layer, {words}: p50", [(r.one, r.host) for r in rounds], "the image host")
        yield _row(
            f"{LAYERS} layers, {words}: p50", [(r.many, r.one) for r in rounds], "one layer", LAYERS_MAX
        )
    came = found.brought_in
    if came is None:
        yield Row(name="import", note="umoci, to compare with, is not installed")
        return
    yield Row(
        name="import",
        value=statistics.median(came.jail_s),
        unit="s",
        ratio=statistics.median(a / b for a, b in zip(came.jail_s, came.umoci_s, strict=True)),
        to="umoci unpack",
        # Of a small one, starting the command is most.
        at_most=IMPORT_MAX if came.bytes >= _IMPORT_BYTES_FULL else None,
        note=f"{came.bytes / 1e6:.0f} MB in {came.files:,} files",
    )


def _row(name: str, pairs: list[tuple[Times, Times]], to: str, at_most: float | None = None) -> Row:
    ratios = [each.p50_ms / other.p50_ms for each, other in pairs]
    return Row(
        name=name,
        value=statistics.median(each.p50_ms for each, _ in pairs),
        ratio=statistics.median(ratios),
        to=to,
        at_most=at_most,
        note=f"rounds {min(ratios):.2f} to {max(ratios):.2f}",
    )
