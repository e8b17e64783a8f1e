"""The store of files: see jail.files for what it is made of.

Blocking: what reads or writes a disk here belongs into a thread, and several may be in it at once. Raises
StoredFileError and its kinds for what its caller can mend, OSError for what is broken.
"""

import fcntl
import hashlib
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from jail.errors import FileInUseError, FileNotStoredError, FilesFullError, HostError, StoredFileError
from jail.files.digest import PREFIX, digits
from jail.files.disk import make, room, sync
from jail.files.incoming import Incoming, refuse_longer
from jail.files.lent import Lent
from jail.locks import held, lock, try_lock

FILES_MAX = 65_536
"""Of one owner."""

PAGE_BYTES = 4096
"""A file counts as whole pages, and one at least."""

_FORM = b"jail files 1\n"
_KEY_LENGTH = 32
_WAY = "."


class Bounds(msgspec.Struct, frozen=True):
    """The most of one owner's files and of one file, in bytes; for how many seconds one is kept without use.

    0 of `bytes` and `age_s` is no bound.
    """

    bytes: int
    file_bytes: int
    age_s: int

    @property
    def one_bytes(self) -> int:
        """The most of one file that fits in either."""
        return min(self.file_bytes, self.bytes or self.file_bytes)


class Stored(msgspec.Struct, frozen=True):
    """A file. used_s: when it was last put, fetched or used by a job, since 1970; of a published one 0."""

    digest: str
    bytes: int
    used_s: int
    published: bool


class _Entry(msgspec.Struct, frozen=True):
    """A file in an owner's directory. is_free: nobody writes or uses it."""

    path: Path
    bytes: int
    used_ns: int
    is_free: bool
    is_whole: bool


class Files:
    """A directory of files, shared by all who have opened it.

    Attributes: `directory`, which only the service's user gets to; `lent`, the one in it beneath which all is
    that jobs have: sandboxes need a way of their own to it, and its mode lets them pass; `bounds`.
    """

    def __init__(self, directory: Path, bounds: Bounds, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Open it, made if it is not there, and sweep what dead processes left. Raises HostError, OSError."""
        self.directory = directory
        self.bounds = bounds
        self.lent = directory / "lent"
        self._owned = directory / "owned"
        self._published = directory / "published"
        self._clock_ns = clock_ns
        directory.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        directory.mkdir(exist_ok=True, mode=0o700)
        with held(directory):
            if not (directory / "store").exists():
                self._make()
            self._sweep_lent()
            self._own = self.lent / secrets.token_hex(4)
            make(self._own, 0o711)
            self._lock = lock(self._own)
        self._numbers = itertools.count()
        for owned in self._owned.iterdir():
            with held(owned):
                _sweep_incoming(owned)

    def _make(self) -> None:
        known = {"owned", "published", "lent"}
        foreign = sorted({path.name for path in self.directory.iterdir()} - known)
        if foreign:
            raise HostError(
                f"{self.directory} is no store of files: there is {foreign[0]} in it.",
                "Name another directory in the setting `files`.",
            )
        self.directory.chmod(0o700)
        for path, mode in ((self._owned, 0o700), (self._published, 0o700), (self.lent, 0o711)):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        # Last: it says that the rest is there.
        (self.directory / "store").write_bytes(_FORM)

    def __enter__(self) -> "Files":
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Take back whatever is lent. Raises OSError."""
        with held(self.directory):
            shutil.rmtree(self._own)
        os.close(self._lock)

    # What there is

    def find(self, digest: str, owner: str) -> int | None:
        """How many bytes a file of the owner's, or a published one, has; None: there is none."""
        try:
            return os.lstat(self._place(digest, owner)).st_size
        except FileNotStoredError:
            return None

    def stored(self, owner: str) -> list[Stored]:
        """The owner's files and the published ones, in the order of their digests."""
        found = [_described(path, True) for path in self._published.iterdir() if path.name[0] != _WAY]
        with suppress(FileNotFoundError):
            for entry in _entries(self._directory(owner)):
                if entry.is_whole and not (entry.is_free and self._is_old(entry.used_ns)):
                    found.append(_described(entry.path, False))
        return sorted(filter(None, found), key=lambda each: each.digest)

    def open(self, digest: str, owner: str) -> int:
        """A descriptor to read it with; that is a use of it. Raises FileNotStoredError."""
        path = self._place(digest, owner)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise _not_stored(digest) from None
        self._use(path)
        return descriptor

    def lend(self, files: Mapping[str, str], stdin: str | None, owner: str) -> Lent:
        """Have digests at paths beneath /box, and one as stdin, for one job; none of them is evicted then.

        Paths are such as jail.spec.check_path() lets pass. Raises FileNotStoredError, OSError.
        """
        with self._locked(owner):
            lent = Lent(self._own / str(next(self._numbers)))
            try:
                for path, digest in files.items():
                    self._lend(digest, owner, lambda source, path=path: lent.add(path, source))
                if stdin is not None:
                    self._lend(stdin, owner, lent.set_stdin)
            except BaseException:
                lent.close()
                raise
            return lent

    def _lend(self, digest: str, owner: str, link: Callable[[Path], None]) -> None:
        path = self._place(digest, owner)
        try:
            link(path)
        except FileNotFoundError:
            raise _not_stored(digest) from None
        self._use(path)

    # Files that come

    @contextmanager
    def receive(self, owner: str) -> Iterator[Incoming]:
        """Bring in a file: write and keep it within the context, or nothing stays of it. See begin()."""
        incoming = self.begin(owner)
        try:
            yield incoming
        finally:
            incoming.close()

    def begin(self, owner: str, expected_bytes: int | None = None) -> Incoming:
        """A file on its way, to be closed by the caller. Raises StoredFileError, OSError.

        expected_bytes: how long it will be, if that is known: if it cannot fit then, nothing is evicted.
        """
        refuse_longer(expected_bytes or 0, self.bounds.one_bytes)
        with room(), self._locked(owner) as directory:
            entries = list(_entries(directory))
            self._doomed(entries, _pages(expected_bytes or 0), 1)
            _remove(self._doomed(entries, PAGE_BYTES, 1))
            path = directory / f"{_WAY}{secrets.token_hex(8)}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Before others, who wait for the directory, look whether anybody has.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        ahead_max = self.bounds.one_bytes if expected_bytes is None else expected_bytes
        return Incoming(path, descriptor, self.bounds.one_bytes, ahead_max, self._reserve, self._keep)

    def _reserve(self, incoming: Incoming, size: int, ahead: int) -> None:
        directory = incoming.path.parent
        with held(directory):
            entries = list(_entries(directory))
            doomed = self._doomed(entries, _pages(size) - _pages(incoming.reserved))
            with suppress(FilesFullError):
                if not self._doomed(entries, _pages(ahead) - _pages(incoming.reserved)):
                    size = ahead
            _remove(doomed)
            os.ftruncate(incoming.fileno(), size)
            incoming.reserved = size

    def _doomed(self, entries: list[_Entry], more: int, files: int = 0) -> list[Path]:
        """What has to go for so many bytes and files more. Raises FilesFullError if that is not enough."""
        bytes_over = sum(entry.bytes for entry in entries) + more - self.bounds.bytes
        bytes_over = bytes_over if self.bounds.bytes else 0
        files_over = len(entries) + files - FILES_MAX
        doomed = []
        for entry in sorted((entry for entry in entries if entry.is_free), key=lambda entry: entry.used_ns):
            if bytes_over <= 0 and files_over <= 0 and not self._is_old(entry.used_ns):
                break
            doomed.append(entry.path)
            bytes_over -= entry.bytes
            files_over -= 1
        if bytes_over > 0 or files_over > 0:
            raise FilesFullError(
                f"The quota is {self.bounds.bytes} bytes and {FILES_MAX} files, and what is in use or on its "
                "way leaves too little of it.",
                "Wait for jobs or uploads to end, or have `files_bytes` raised.",
            )
        return doomed

    def _keep(self, incoming: Incoming, digest: str) -> bool:
        directory = incoming.path.parent
        target = directory / digits(digest)
        with held(directory):
            is_new = not target.exists()
            if is_new:
                incoming.path.rename(target)
            else:
                incoming.path.unlink()
            self._use(target)
        sync(directory)
        return is_new

    # Files that go

    def remove(self, digest: str, owner: str) -> None:
        """Take a file of the owner's away. Raises FileNotStoredError, FileInUseError.

        The latter since it would take up the disk as long as it is used, and count in no quota.
        """
        with self._locked(owner) as directory:
            path = directory / digits(digest)
            if path.exists() and path.lstat().st_nlink > 1:
                raise FileInUseError(
                    f"A job or a download has the file {digest}.", "Wait until it has ended."
                )
            _unlink(path, digest)

    def publish(self, digest: str, owner: str) -> None:
        """Let everybody read a file of the owner's, whose quota it leaves. Raises FileNotStoredError."""
        with room(), self._locked(owner) as directory:
            source = directory / digits(digest)
            target = self._published / digits(digest)
            try:
                source.rename(target)
            except FileNotFoundError:
                if not target.exists():
                    raise _not_stored(digest) from None
        sync(self._published)

    def withdraw(self, digest: str) -> None:
        """Take a published file away; a job that has it goes on having it. Raises FileNotStoredError."""
        _unlink(self._published / digits(digest), digest)

    def sweep(self) -> None:
        """Remove what nobody has used for too long, of every owner."""
        for directory in self._owned.iterdir():
            with held(directory):
                for entry in list(_entries(directory)):
                    if entry.is_free and self._is_old(entry.used_ns):
                        entry.path.unlink()

    def _sweep_lent(self) -> None:
        for directory in list(self.lent.iterdir()):
            dead = try_lock(directory)
            if dead is not None:
                shutil.rmtree(directory)
                os.close(dead)

    # The directory

    def _directory(self, owner: str) -> Path:
        # What is not a name of a file, or too long for one, becomes one, too.
        return self._owned / hashlib.sha256(owner.encode()).hexdigest()[:_KEY_LENGTH]

    @contextmanager
    def _locked(self, owner: str) -> Iterator[Path]:
        """The owner's directory, with nobody else in it."""
        directory = self._directory(owner)
        directory.mkdir(exist_ok=True, mode=0o700)
        with held(directory):
            yield directory

    def _place(self, digest: str, owner: str) -> Path:
        """Where it is. Raises FileNotStoredError."""
        own = self._directory(owner) / digits(digest)
        with suppress(FileNotFoundError):
            about = own.lstat()
            if about.st_nlink > 1 or not self._is_old(about.st_atime_ns):
                return own
        published = self._published / digits(digest)
        if published.exists():
            return published
        raise _not_stored(digest)

    def _is_old(self, used_ns: int) -> bool:
        return bool(self.bounds.age_s) and self._clock_ns() - used_ns > self.bounds.age_s * 10**9

    def _use(self, path: Path) -> None:
        """Note that it is used now, but of what is published: its users could tell of each other by that."""
        if path.parent == self._published:
            return
        with suppress(FileNotFoundError):
            os.utime(path, ns=(self._clock_ns(), path.lstat().st_mtime_ns), follow_symlinks=False)


def _pages(size: int) -> int:
    return max(1, -(-size // PAGE_BYTES)) * PAGE_BYTES


def _entries(directory: Path) -> Iterator[_Entry]:
    with os.scandir(directory) as found:
        for each in found:
            with suppress(FileNotFoundError):
                about = each.stat(follow_symlinks=False)
                is_whole = not each.name.startswith(_WAY)
                is_free = is_whole and about.st_nlink == 1
                yield _Entry(Path(each.path), _pages(about.st_size), about.st_atime_ns, is_free, is_whole)


def _unlink(path: Path, digest: str) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        raise _not_stored(digest) from None


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _described(path: Path, published: bool) -> Stored | None:
    try:
        about = path.lstat()
    except FileNotFoundError:
        return None
    used_s = 0 if published else about.st_atime_ns // 10**9
    return Stored(f"{PREFIX}{path.name}", about.st_size, used_s, published)


def _not_stored(digest: str) -> StoredFileError:
    return FileNotStoredError(f"There is no file {digest}.", "Send it again: PUT /v1/files.")


def _sweep_incoming(directory: Path) -> None:
    """Remove what nobody writes any more, with the directory locked."""
    for path in directory.glob(f"{_WAY}*"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        os.close(descriptor)
