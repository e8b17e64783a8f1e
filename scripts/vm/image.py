"""The images: each is built once, and kept by a digest of all that it is made of."""

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from vm import archives, process, wheels
from vm.build import Plan
from vm.errors import VmError
from vm.recipe import MAKERS, ROOT, Recipe

_UNUSED_SECONDS = 7 * 24 * 3600
_LOG_LINES = 20


class Image(msgspec.Struct, frozen=True):
    """A built one. `directory` has `disk.img` and `vmlinuz`; `kernel` is its version."""

    directory: Path
    kernel: str


def cache() -> Path:
    """The directory that images are kept in. It need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jail-vm"


def digest(plan: Plan, files: dict[str, bytes]) -> str:
    """Of an image: of its plan, and of the files by their names that are copied into it or make it."""
    whole = hashlib.sha256(msgspec.json.encode(plan))
    for name, content in sorted(files.items()):
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()[:12]


def provide(recipe: Recipe, name: str, kernel: str, project: Path, say: Callable[[str], None]) -> Image:
    """The image of that name with that kernel, built if it is not there. Raises VmError.

    `project`, a checkout, says in its pyproject.toml which wheels go into it.
    """
    packages, suite = recipe.packages_of(name), recipe.suite_of(kernel)
    debian, requirements = archives.find(), wheels.requirements(project)
    with _locked(cache()) as place:
        _forget_unused(place)
        plan = Plan(
            codename=debian.codename,
            sources=debian.sources(),
            kernel_source=debian.source(suite),
            packages=packages,
            masked=recipe.masked,
            size=recipe.size,
            wheels=str(wheels.house(place, (*requirements, *wheels.build_requirements(project)))),
            requirements=requirements,
            borrowed=tuple((name, debian.source(name), found) for name, found in recipe.borrowed.items()),
        )
        kept = place / f"{name}-{kernel}-{digest(plan, _files())}"
        if not kept.exists():
            say(f"building the image {name} with kernel {kernel} (about a minute)")
            _build(plan, place, kept)
        os.utime(kept)
    return Image(kept, (kept / "kernel").read_text().strip())


def _files() -> dict[str, bytes]:
    paths = (*MAKERS, *(path for path in ROOT.rglob("*") if path.is_file()))
    return {
        f"{path} {path.stat().st_mode:o}".removeprefix(str(ROOT.parent)): path.read_bytes() for path in paths
    }


@contextmanager
def _locked(place: Path) -> Iterator[Path]:
    """One at a time: two that want the same image would build it twice."""
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield place
    finally:
        os.close(descriptor)


def _forget_unused(place: Path) -> None:
    for kept in place.glob("*-*"):
        if time.time() - kept.stat().st_mtime > _UNUSED_SECONDS:
            shutil.rmtree(kept)


def _build(plan: Plan, place: Path, kept: Path) -> None:
    """Within a user namespace, whose root owns the files of other users than root as well."""
    building, log = place / "building", place / "build.log"
    with log.open("wb") as output:
        _in_namespace(["rm", "-rf", building], stdout=output, stderr=output)
        building.mkdir()
        built = _in_namespace(
            [sys.executable, "-P", "-m", "vm.build", msgspec.json.encode(plan).decode()],
            cwd=building,
            env={**os.environ, "PYTHONPATH": str(ROOT.parents[1]), "TMPDIR": str(building)},
            stdout=output,
            stderr=output,
        )
    if built:
        last = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        raise VmError("\n".join((*last, f"The image could not be built; all of it is in {log}.")))
    building.rename(kept)


def _in_namespace(command: list, **options: object) -> int:
    namespaces = (
        "--map-root-user",
        "--map-auto",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    )
    return process.run(["unshare", *namespaces, *command], **options).returncode
