"""A snapshot of parts of this host: a tar archive, made as it is read, and an image like any other then.

What is in it depends on the parts alone: they come in order, everything is root's, for this host's ids mean
nothing in an image, and times are those of the files. What not every user of this host may read stays here:
a job could not read it either, and it is nothing to hand on.
"""

import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from jail.errors import ImageError
from jail.image import ETC_FILES, MOUNT_POINTS, TOP_DIRECTORIES, host_parts

_PIECE_BYTES = 1 << 20
_XATTR = "SCHILY.xattr."
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class LeftOut(msgspec.Struct, frozen=True):
    """What is not in a snapshot, and why. path: as it is on the host."""

    path: str
    reason: str


class Snapshot:
    """The archive. Attributes: `bytes`, of the files, about; `left_out`, so far."""

    def __init__(self, paths: Sequence[Path], told: Callable[[int], None] = lambda _: None) -> None:
        """Of these files and trees or, without any, of what the image `host` is made of. Nothing is read yet.

        told: called with how many bytes of files were read. Raises ImageError.
        """
        self._roots = _outermost([_refuse_aside(path) for path in paths] if paths else _host_parts())
        self._told = told
        self._first: dict[tuple[int, int], str] = {}
        self._done = 0
        self._pieces = self._archive()
        self._rest = memoryview(b"")
        self.left_out: list[LeftOut] = []
        self.bytes = sum(about.st_size for root in self._roots for _, about in self._walk(str(root)))
        self.left_out.clear()

    def read(self, most: int) -> bytes:
        """The next bytes, so many at most; none at the end. Raises ImageError, OSError."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        found, self._rest = self._rest[:most], self._rest[most:]
        return bytes(found)

    def _archive(self) -> Iterator[bytes]:
        yield from self._made_up()
        for root in self._roots:
            for path, about in self._walk(str(root)):
                yield from self._entry(path, about)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _made_up(self) -> Iterator[bytes]:
        """What a root needs, and what leads to the parts: as in the image `host`, no name of this host."""
        directories = {*MOUNT_POINTS, "etc"}
        directories |= {str(parent)[1:] for root in self._roots for parent in list(root.parents)[:-1]}
        for name in sorted(directories):
            if not self._has(name):
                yield _header(name, tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755)
        for name in TOP_DIRECTORIES:
            if Path("/", name).is_symlink() and not self._has(name):
                yield _header(name, tarfile.SYMTYPE, 0o777, link=os.readlink(f"/{name}"))
        for name, text in sorted(ETC_FILES.items()):
            if not self._has(f"etc/{name}"):
                raw = text.encode()
                yield _header(f"etc/{name}", tarfile.REGTYPE, 0o644, size=len(raw)) + raw + _padding(len(raw))

    def _has(self, name: str) -> bool:
        """Whether one of the parts has this name in the archive, or may have it within."""
        return any(Path("/", name).is_relative_to(root) for root in self._roots)

    def _walk(self, path: str, device: int | None = None) -> Iterator[tuple[str, os.stat_result]]:
        """What is to be had at and beneath a path, in order. device: of the directory that it is in."""
        try:
            about = os.lstat(path)
        except OSError as error:
            self._leave_out(path, os.strerror(error.errno))
            return
        is_directory = stat.S_ISDIR(about.st_mode)
        if not stat.S_ISLNK(about.st_mode) and not about.st_mode & stat.S_IROTH:
            self._leave_out(path, "not every user may read it")
        elif stat.S_IFMT(about.st_mode) not in _KINDS:
            self._leave_out(path, "neither a file nor a directory, a link or a fifo")
        # Files of an overlay have the device of their layer.
        elif is_directory and device not in (None, about.st_dev):
            self._leave_out(path, "another file system is mounted there")
        elif is_directory:
            yield from self._walk_directory(path, about)
        else:
            yield path, about

    def _walk_directory(self, path: str, about: os.stat_result) -> Iterator[tuple[str, os.stat_result]]:
        if not about.st_mode & stat.S_IXOTH:
            self._leave_out(path, "not every user may enter it")
            return
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            self._leave_out(path, os.strerror(error.errno))
            return
        if path != "/":
            yield path, about
        for name in names:
            yield from self._walk(os.path.join(path, name), about.st_dev)

    def _entry(self, path: str, about: os.stat_result) -> Iterator[bytes]:
        name, kind = path[1:], _KINDS[stat.S_IFMT(about.st_mode)]
        if kind == tarfile.REGTYPE:
            yield from self._file(path)
            return
        try:
            link = os.readlink(path) if kind == tarfile.SYMTYPE else ""
            attributes = _attributes(path)
        except OSError as error:
            self._leave_out(path, os.strerror(error.errno))
            return
        yield _header(name, kind, stat.S_IMODE(about.st_mode), about.st_mtime_ns, link, attributes=attributes)

    def _file(self, path: str) -> Iterator[bytes]:
        try:
            # A fifo may be there by now: not to wait for whoever writes to it.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._leave_out(path, os.strerror(error.errno))
            return
        with open(descriptor, "rb", buffering=0) as file:
            about = os.fstat(descriptor)
            # Whoever may write somewhere on the way could lead us to what only we may enter.
            is_there = os.readlink(f"/proc/self/fd/{descriptor}") == path
            if not is_there or not stat.S_ISREG(about.st_mode) or not about.st_mode & stat.S_IROTH:
                raise _changed(path)
            name, mode = path[1:], stat.S_IMODE(about.st_mode)
            first = self._first.setdefault((about.st_dev, about.st_ino), name) if about.st_nlink > 1 else name
            if first != name:
                yield _header(name, tarfile.LNKTYPE, mode, about.st_mtime_ns, first)
                return
            attributes = _attributes(descriptor)
            yield _header(
                name, tarfile.REGTYPE, mode, about.st_mtime_ns, size=about.st_size, attributes=attributes
            )
            yield from self._content(path, file.read, about.st_size)

    def _content(self, path: str, read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
        left = size
        while left:
            try:
                piece = read(min(left, _PIECE_BYTES))
            except OSError as error:
                raise ImageError(f"{path} cannot be read: {error.strerror}.", "Choose other parts.") from None
            if not piece:
                raise _changed(path)
            left -= len(piece)
            self._done += len(piece)
            self._told(self._done)
            yield piece
        yield _padding(size)

    def _leave_out(self, path: str, reason: str) -> None:
        self.left_out.append(LeftOut(path, reason))


def _host_parts() -> list[Path]:
    """What the image `host` has of this host: see jail.image."""
    tops = [Path("/", name) for name in TOP_DIRECTORIES]
    parts = [Path("/usr"), *(path for path in tops if path.is_dir() and not path.is_symlink())]
    return [*parts, *host_parts()]


def _refuse_aside(path: Path) -> Path:
    """The path, unless it is not there or is reached by a link: then the image would lack that."""
    if not path.is_absolute() or not os.path.lexists(path):
        raise ImageError(f"There is no {path} on this host.", "Name files and directories by absolute paths.")
    parent = os.path.realpath(path.parent)
    if os.path.normpath(path) != str(path) or parent != str(path.parent):
        raise ImageError(
            f"A link leads to {path}.", f"Name it as {os.path.normpath(os.path.join(parent, path.name))}."
        )
    return path


def _outermost(paths: Sequence[Path]) -> list[Path]:
    """In order, without those that are within others."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def _header(
    name: str,
    kind: bytes,
    mode: int,
    mtime_ns: int = 0,
    link: str = "",
    size: int = 0,
    attributes: dict[str, str] | None = None,
) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, size
    entry.mtime, parts_ns = divmod(abs(mtime_ns), 1_000_000_000)
    entry.pax_headers = dict(attributes or {})
    if parts_ns or mtime_ns < 0:
        entry.pax_headers["mtime"] = f"{'-' if mtime_ns < 0 else ''}{entry.mtime}.{parts_ns:09d}"
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _attributes(file: str | int) -> dict[str, str]:
    """The extended attributes that users give, as pax headers. Raises OSError."""
    is_link = isinstance(file, str)
    names = sorted(
        name for name in os.listxattr(file, follow_symlinks=not is_link) if name.startswith("user.")
    )
    values = {name: os.getxattr(file, name, follow_symlinks=not is_link) for name in names}
    return {f"{_XATTR}{name}": value.decode("utf-8", "surrogateescape") for name, value in values.items()}


def _changed(path: str) -> ImageError:
    return ImageError(f"{path} changed while it was read.", "Try again when nothing is installed meanwhile.")
