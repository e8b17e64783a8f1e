"""What a sandbox's / is made of.

An Image is a list of overlays, each a target beneath the root and the directories stacked on it,
the topmost first. The image `host` is this host's /usr and the few parts of /etc, and of one compiler
in /var, that programs need, and nothing else of the host. One of the store is its layers. Either can
have volumes of the operator's.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from jail import host
from jail.errors import HostError

MOUNT_POINTS = ("proc", "dev", "tmp", "box")
"""What is mounted there, whatever the image has."""

RESERVED = (*MOUNT_POINTS, "sys")
"""Where no volume can be."""

# What a merged-/usr system has links for; a host without them gets an overlay for each directory.
TOP_DIRECTORIES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

# Read by the loader, by toolchains (Debian's alternatives, and the settings of compilers and runtimes
# that it keeps outside /usr) and by TLS.
PARTS = (
    "etc/alternatives",
    "etc/ca-certificates.conf",
    "etc/fpc*.cfg",
    "etc/java-*-openjdk",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    "etc/localtime",
    "etc/mime.types",
    "etc/mono",
    "etc/perl",
    "etc/php/*/cli/conf.d",
    "etc/php/*/mods-available",
    "etc/protocols",
    "etc/python3*",
    "etc/services",
    "etc/ssl/certs",
    "etc/ssl/openssl.cnf",
    "etc/timezone",
    "var/lib/ghc/package.conf.d",
)
"""What the image `host` has of this host beside programs and libraries: patterns, relative to /."""

ETC_FILES = {
    "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\njail:x:1000:1000:jail:/box:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\njail:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost jail\n::1 localhost jail\n",
    "hostname": "jail\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
}
"""Made up: a job learns no user, group or name of the host."""


class Image(msgspec.Struct, frozen=True):
    """`overlays`: pairs of a target beneath the root ("" first) and a value for lowerdir=.

    Directories in it that are jail's own are relative to the one that the supervisor works in.
    """

    name: str
    overlays: tuple[tuple[str, str], ...]

    @property
    def host_directories(self) -> tuple[str, ...]:
        """What of the host it is made of: absolute paths."""
        paths = [path for _, lower in self.overlays for path in lower.split(":")]
        return tuple(path for path in paths if path.startswith("/"))


class Root(msgspec.Struct, frozen=True):
    """What a sandbox is asked to be made with: by this ready ones are told apart.

    digest: of an image of the store, "" for `host`. volumes: pairs of a path relative to the root, and the
    volume that is to be seen there.
    """

    digest: str = ""
    volumes: tuple[tuple[str, str], ...] = ()


def build_host(directory: Path, name: str) -> Image:
    """Make this host's image as `directory`/`name`, which has to stay. Raises OSError, HostError."""
    root, empty = directory / name / "root", directory / name / "empty"
    for path in (empty, *(root / name for name in MOUNT_POINTS), root / "usr", root / "etc"):
        path.mkdir(parents=True)
    targets = [("usr", Path("/usr")), *_top_directories(root)]
    refuse_mounts([path for _, path in targets])
    _copy_parts(root)
    _open_to_jobs(directory / name)
    # An overlay without an upper directory needs two lower ones.
    overlays = [("", f"{name}/root:{name}/empty")]
    overlays += [(target, f"{path}:{name}/empty") for target, path in targets]
    return Image(name, tuple(overlays))


def build_stored(directory: Path, name: str, stack: Sequence[str], etc: Mapping[str, str]) -> Image:
    """Make an image of the layers in `stack`, the topmost first, with `directory`/`name` upon them.

    That has to stay. It has the mount points and the files of /etc in `etc`, by their names. Raises OSError.
    """
    top = directory / name
    for path in (*(top / name for name in MOUNT_POINTS), top / "etc"):
        path.mkdir(parents=True)
    for file, text in etc.items():
        (top / "etc" / file).write_text(text, errors="surrogateescape")
    _open_to_jobs(top)
    return Image(name, (("", ":".join((name, *stack))),))


def with_volumes(
    directory: Path, name: str, image: Image, volumes: Mapping[str, str], modes: Mapping[str, int]
) -> Image:
    """The same image with directories of the host, read-only, by where they are seen: relative to the root.

    modes: of the directories that the image has on the way there, as lstat(2) tells them. `directory`/`name`
    is made for it, and has to stay. Raises OSError.
    """
    top, empty = directory / name / "top", directory / name / "empty"
    for path in (empty, *(top / target for target in volumes)):
        path.mkdir(parents=True)
    _open_to_jobs(directory / name)
    # Merged, they would have those of ours. The owner, as which no job ever runs, will remove them.
    for path, mode in modes.items():
        _set_mode(top / path, mode & 0o777 | 0o700)
    (_, root), *others = image.overlays
    mounts = ((target, f"{path}:{name}/empty") for target, path in volumes.items())
    return Image(name, (("", f"{name}/top:{root}"), *others, *mounts))


def _open_to_jobs(top: Path) -> None:
    """Jobs read it, whatever the umask of the service is."""
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            _set_mode(path, 0o755 if path.is_dir() else 0o644)


def _set_mode(path: Path, mode: int) -> None:
    # By descriptor: a service that has shed what it does not need has no other call.
    descriptor = os.open(path, os.O_RDONLY)
    os.fchmod(descriptor, mode)
    os.close(descriptor)


def refuse_mounts(paths: list[Path]) -> None:
    """Raise HostError if anything is mounted beneath one of these directories.

    The kernel lets no user namespace take away what was mounted outside it, and no overlay go on it.
    """
    found = [place for path in paths for place in host.mounts_beneath(str(path))]
    if found:
        raise HostError(
            f"No overlay can be mounted on directories in which others are mounted: {', '.join(found)}.",
            "Unmount them, or hide them from the service: BindReadOnlyPaths=/usr:/usr:norbind in its unit, "
            "or `mount --bind /usr /usr` in a mount namespace of its own (unshare -m).",
        )


def _top_directories(root: Path) -> list[tuple[str, Path]]:
    separate = []
    for name in TOP_DIRECTORIES:
        path = Path("/", name)
        if path.is_symlink():
            (root / name).symlink_to(path.readlink())
        elif path.is_dir():
            (root / name).mkdir()
            separate.append((name, path))
    return separate


def host_parts() -> list[Path]:
    """What there is on this host of PARTS: absolute paths."""
    return [path for pattern in PARTS for path in sorted(Path("/").glob(pattern))]


def _copy_parts(root: Path) -> None:
    for part in host_parts():
        _copy(part, root / part.relative_to("/"))
    for name, text in ETC_FILES.items():
        (root / "etc" / name).write_text(text)


def _copy(source: Path, target: Path) -> None:
    """Copy what every user may read; what only root may read is not for a job either."""
    if not os.path.lexists(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        target.mkdir(exist_ok=True)
        for entry in _entries(source):
            _copy(entry, target / entry.name)
    elif source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_file() and source.stat().st_mode & 0o004:
        shutil.copyfile(source, target)
        # Python compiles a module anew at every start when its time is not the one that its bytecode names.
        about = source.stat()
        os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))


def _entries(directory: Path) -> list[Path]:
    if not directory.stat().st_mode & 0o004 or not os.access(directory, os.R_OK | os.X_OK):
        return []
    return sorted(directory.iterdir())
