"""The files of a package: of a directory or of a zip archive, with the same names and within the same bounds.

Only what judging needs is looked at: statements, attachments and whatever else may lie beside are as if they
were not there. No link is followed, no name leads out, and nothing is unpacked: a file of an archive is
decompressed when it is read, up to the size that was counted when the package was opened.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from jail.errors import PackageError

FILES_MAX = 20_000
"""Of one package, as far as they are read."""

BYTES_MAX = 2 << 30
"""Of all of those together, decompressed."""

FILE_BYTES_MAX = 512 << 20
"""Of one file, decompressed."""

YAML_BYTES_MAX = 256 << 10
"""Of all YAML in it together: to read it takes up to ten seconds a mebibyte."""

READ_BYTES_MAX = 16 << 20
"""Of one file that is to be in memory as a whole."""

PIECE_BYTES = 1 << 20

DEPTH_MAX = 12
"""Names in a path, from the package on."""

PROBLEM = "problem.yaml"
TIME_LIMIT = ".timelimit"
DOMJUDGE = "domjudge-problem.ini"

_ROOT_FILES = (PROBLEM, TIME_LIMIT, DOMJUDGE)
_FOLDERS = (
    "data",
    "include",
    "output_validator",
    "output_validators",
    "submissions",
)
# As of 2025-09, and the plus of many a solution's name.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,254}")
# 2025-09 has tools leave such names where they like.
_HIDDEN = (".", "-")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# APPNOTE.TXT, 4.3.16: the record at the end of an archive, and 4.3.15: what stands before it in large ones.
_END = struct.Struct("<4s4H2LH")
_END_MARK = b"PK\5\6"
_LARGE = struct.Struct("<4sLQL")
_LARGE_MARK = b"PK\6\7"
_COMMENT_BYTES_MAX = 0xFFFF
_LIST_BYTES_MAX = 4 << 20
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Files(Protocol):
    """The files of a package that is open. `sizes`: by path, in bytes."""

    sizes: Mapping[str, int]

    def pieces(self, path: str) -> Iterator[bytes]:
        """The content of one, no more at once than PIECE_BYTES. Raises PackageError."""


def read(files: Files, path: str) -> bytes:
    """The content of a file that is no test data. Raises PackageError."""
    if files.sizes[path] > READ_BYTES_MAX:
        raise _wrong(
            f"{path} has {files.sizes[path]} bytes; the maximum beside test data is {READ_BYTES_MAX}"
        )
    return b"".join(files.pieces(path))


@contextmanager
def opened(path: Path) -> Iterator[Files]:
    """The files of the package at `path`. Raises PackageError."""
    with ExitStack() as open_now:
        try:
            if path.is_dir():
                files: Files = open_now.enter_context(_Directory(path))
            else:
                file = open_now.enter_context(path.open("rb"))
                files = open_now.enter_context(Archive(file))
        except OSError as error:
            raise PackageError(f"{path} cannot be read: {error.strerror}.", "Name another package.") from None
        yield files


class Beside:
    """The files of a package, with some beside them that are not of it."""

    def __init__(self, files: Files, more: Mapping[str, bytes]) -> None:
        """more: their content, by paths that no file of the package has."""
        self._files = files
        self._more = more
        self.sizes = {**files.sizes, **{path: len(content) for path, content in more.items()}}

    def pieces(self, path: str) -> Iterator[bytes]:
        """As of Files."""
        if path in self._more:
            yield self._more[path]
        else:
            yield from self._files.pieces(path)


class _Directory:
    """A package that is a directory."""

    def __init__(self, path: Path) -> None:
        self._root = os.open(path, _DIRECTORY & ~os.O_NOFOLLOW)

    def __enter__(self) -> "_Directory":
        try:
            self.sizes = _bounded(self._walk(self._root, ""))
        except BaseException:
            os.close(self._root)
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._root)

    def _walk(self, directory: int, above: str) -> Iterator[tuple[str, int]]:
        with os.scandir(directory) as entries:
            for entry in entries:
                path = above + entry.name
                if not _is_read(path):
                    continue
                _check_depth(path)
                if entry.is_dir(follow_symlinks=False):
                    yield from self._beneath(directory, entry.name, path)
                else:
                    yield path, _size(path, entry.stat(follow_symlinks=False))

    def _beneath(self, directory: int, name: str, path: str) -> Iterator[tuple[str, int]]:
        inner = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            yield from self._walk(inner, f"{path}/")
        finally:
            os.close(inner)

    def pieces(self, path: str) -> Iterator[bytes]:
        """No more of it than there was when the package was opened."""
        left = self.sizes[path]
        with self._open(path) as file:
            while left and (piece := file.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece

    def _open(self, path: str) -> BinaryIO:
        *folders, name = path.split("/")
        directory = os.dup(self._root)
        try:
            for folder in folders:
                above, directory = directory, os.open(folder, _DIRECTORY, dir_fd=directory)
                os.close(above)
            file = os.fdopen(os.open(name, _FILE, dir_fd=directory), "rb")
        except OSError as error:
            raise _wrong(f"{path} cannot be read: {error.strerror}") from None
        finally:
            os.close(directory)
        try:
            _size(path, os.fstat(file.fileno()))
        except PackageError:
            file.close()
            raise
        return file


def _size(path: str, status: os.stat_result) -> int:
    _check_kind(path, status.st_mode)
    return status.st_size


def _check_kind(path: str, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise _wrong(f"{path} is a symbolic link, and none is followed", "Put the file itself there.")
    if not stat.S_ISREG(mode):
        raise _wrong(f"{path} is neither a file nor a directory")


def _check_list(file: BinaryIO) -> None:
    """Refuse an archive with a list of entries that is too long: zipfile reads it as a whole."""
    whole = file.seek(0, os.SEEK_END)
    file.seek(max(0, whole - _END.size - _COMMENT_BYTES_MAX - _LARGE.size))
    tail = file.read()
    # zipfile takes the record at the very end if there is one, and else the last that there seems to be.
    place = len(tail) - _END.size
    if place < 0 or tail[place : place + 4] != _END_MARK or tail[-2:] != b"\0\0":
        place = tail.rfind(_END_MARK)
    if place < 0 or place + _END.size > len(tail):
        raise _wrong("it is neither a directory nor a zip archive", "Name another package.")
    *_, list_bytes, _, _ = _END.unpack_from(tail, place)
    if tail[max(0, place - _LARGE.size) : place].startswith(_LARGE_MARK):
        raise _wrong("it is an archive in the zip64 form", "Leave out what is not needed, or unpack it.")
    if list_bytes > _LIST_BYTES_MAX:
        raise _wrong(f"the list of what is in it has {list_bytes} bytes; the maximum is {_LIST_BYTES_MAX}")
    file.seek(0)


class Archive:
    """A package that is a zip archive: of its files, or of one directory with them."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the list of what is in it. The file stays its caller's. Raises PackageError."""
        _check_list(file)
        try:
            self._archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError) as error:
            raise _wrong(f"it is no zip archive that can be read: {error}", "Have it made anew.") from None
        top = _top(self._archive.namelist())
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self.sizes = _bounded(self._list(top))

    def __enter__(self) -> "Archive":
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._archive.close()

    def _list(self, top: str) -> Iterator[tuple[str, int]]:
        for entry in self._archive.infolist():
            path = entry.filename.removeprefix(top)
            if entry.is_dir() or not entry.filename.startswith(top) or not _is_read(path):
                continue
            _check_depth(path)
            if path in self._entries:
                raise _wrong(f"{path} is in it twice")
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind == stat.S_IFLNK:
                raise _wrong(
                    f"{path} is a symbolic link, which is not followed", "Put the file itself there."
                )
            if kind not in (0, stat.S_IFREG):
                raise _wrong(f"{path} is neither a file nor a directory")
            if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
                raise _wrong(f"{path} is encrypted, or compressed by another method than deflate")
            self._entries[path] = entry
            yield path, entry.file_size

    def pieces(self, path: str) -> Iterator[bytes]:
        """No more of it than the archive's list says."""
        left = self.sizes[path]
        try:
            with self._archive.open(self._entries[path]) as file:
                # The last read, of nothing, is what has its checksum looked at.
                while piece := file.read(PIECE_BYTES):
                    left -= len(piece)
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
            raise _wrong(f"{path} is damaged: {error}", "Have it made anew.") from None
        if left:
            raise _wrong(f"{path} is damaged: it ends early", "Have it made anew.")


def _top(names: Iterable[str]) -> str:
    """What stands before the names of the package's files: nothing, or the one directory that holds them."""
    places = [name.removesuffix(PROBLEM) for name in names if name.rpartition("/")[2] == PROBLEM]
    places = [place for place in places if place.count("/") <= 1]
    if not places:
        raise _wrong(f"there is no {PROBLEM} in it, or in the one directory that it holds", _LAYOUT)
    if "" in places:
        return ""
    if len(set(places)) > 1:
        raise _wrong(f"it holds {len(set(places))} problems", "Judge one package at a time.")
    return places[0]


def _is_read(path: str) -> bool:
    """Whether judging needs a file, or a directory, of this path. Raises PackageError for a name."""
    names = path.split("/")
    if names[0] not in _FOLDERS:
        return path in _ROOT_FILES
    if any(name.startswith(_HIDDEN) and name not in (".", "..") for name in names):
        return False
    for name in names:
        if not _NAME.fullmatch(name):
            cure = "Names are of ASCII letters, digits, '.', '_', '+' and '-', 255 at most."
            raise _wrong(f"{path[:200]!r} has the name {name[:100]!r} in it", cure)
    return True


def _check_depth(path: str) -> None:
    if path.count("/") >= DEPTH_MAX:
        raise _wrong(f"{path[:200]} lies deeper than {DEPTH_MAX} directories")


def _bounded(found: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Path and size of each, as long as all together are within the bounds. Raises PackageError."""
    sizes: dict[str, int] = {}
    total = 0
    for path, size in found:
        sizes[path] = size
        total += size
        if size > FILE_BYTES_MAX:
            raise _wrong(f"{path} has {size} bytes; the maximum of a file is {FILE_BYTES_MAX}")
        if len(sizes) > FILES_MAX:
            raise _wrong(f"it has more than {FILES_MAX} files")
        if total > BYTES_MAX:
            raise _wrong(f"its files have more than {BYTES_MAX} bytes together")
    documents = sum(size for path, size in sizes.items() if path.endswith(".yaml"))
    if documents > YAML_BYTES_MAX:
        raise _wrong(f"it has {documents} bytes of YAML; the maximum is {YAML_BYTES_MAX}")
    if PROBLEM not in sizes:
        raise _wrong(f"there is no {PROBLEM} in it", _LAYOUT)
    return sizes


_LAYOUT = "The layout is that of https://icpc.io/problem-package-format."


def _wrong(reason: str, cure: str = "Mend the package.") -> PackageError:
    return PackageError(f"The package cannot be used: {reason}.", cure)
