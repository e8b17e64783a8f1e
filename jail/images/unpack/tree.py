"""The tree that a layer is applied to: the root of this process, which sees nothing else.

It is an overlay, whose upper directory becomes the layer, in overlay's form, by the kernel's own doing, while
the layers beneath stay as they are; the lowest layer is such a directory itself. So absolute names, and links
wherever they lead, mean what they mean in the image, and nothing outside has a name.

What an image can hold and no sandbox should have is left out and counted in `omitted`:

    devices            and what had their name before is gone
    xattrs             extended attributes but user.*: capabilities and labels of files, ACLs; overlay's own;
                       and all of what is neither file nor directory
    aufs               that file system's own files, .wh..wh.*
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable

from jail.errors import ImageError, ImageTooLargeError
from jail.images.unpack import tar
from jail.images.unpack.messages import Bounds
from jail.images.unpack.removal import remove
from jail.images.unpack.stream import CURE, Stream
from jail.images.unpack.tar import Entry
from jail.namespace import image_id

BLOCK_BYTES = 4096
"""What counts for each name and its inode, and in which its content counts: so most file systems have it."""

DEPTH_MAX = 256
"""How many directories deep a tree may be."""

# Each name in a directory has a path that the kernel takes: PATH_MAX less the longest name.
_PLACE_BYTES_MAX = 4095 - 256

# OCI image-spec, layer.md, "Whiteouts"; the last is aufs's.
_WHITEOUT, _OPAQUE, _AUFS = b".wh.", b".wh..wh..opq", b".wh..wh."

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """A layer's tree. Attributes: `omitted`: what was left out, and how often; `bytes`: of all its blocks.

    The working directory of this process is the one that entries come into. It has its own times again when
    it is left: what an image says of a directory stays, whatever comes into it.
    """

    def __init__(
        self, upper: int | None, lengths: tuple[int, int], bounds: Bounds, tick: Callable[[], None]
    ) -> None:
        """Apply to /. `upper`: what of it is this layer's own, a descriptor; None where all of it is.

        lengths: of the delegated ranges of users and groups. bounds: of entries and the directories that they
        imply, and of `bytes`. tick: called for each thing that is done.
        """
        self.omitted: Counter[str] = Counter()
        self.bytes = 0
        self._upper = upper
        self._lengths = lengths
        self._bounds = bounds
        self._made = 0
        self._tick = tick
        self._parent: bytes | None = None
        self._here = b"/"
        self._times = (0, 0)
        self._foreign = 0
        self._without_lower: set[bytes] = set()
        self._own_directories: set[bytes] = set()
        self._names_by_inode: dict[tuple[int, int], list[bytes]] | None = None

    def apply(self, entry: Entry, stream: Stream) -> None:
        """Do what an entry says; its content comes from the stream. Raises ImageError, OSError."""
        self._count()
        parts = components(entry.name)
        if any(part.startswith(_WHITEOUT) for part in parts):
            self._apply_whiteout(parts)
        elif parts:
            self._enter(b"/".join(parts[:-1]))
            self._make(entry, parts[-1], stream)
        elif entry.kind == tar.DIRECTORY and entry.name:
            self.leave()
            os.chdir(b"/")
            self._dress(b".", entry)
        else:
            raise ImageError("It has no name.", CURE)

    def leave(self) -> None:
        """Give the directory that we are in its times again. To be called at the end, too."""
        if self._parent is not None:
            if os.stat(b".").st_mtime_ns != self._times[1]:
                os.utime(b".", ns=self._times)
            if self._foreign and self._own_mode(self._here) is not None:
                # What came into it made copies of these.
                self._take(2 * self._foreign)
        self._parent = None

    def _count(self) -> None:
        self._tick()
        self._take(1)
        self._made += 1
        if self._made > self._bounds.entries:
            raise ImageError(
                f"The layer has more than {self._bounds.entries} entries, and directories that they imply.",
                "If you trust it, raise the bound on an image's entries.",
            )

    def _take(self, blocks: int) -> None:
        self.bytes += blocks * BLOCK_BYTES
        if self.bytes > self._bounds.bytes:
            raise ImageTooLargeError(
                f"The layer takes up more than {self._bounds.bytes} bytes, in blocks of {BLOCK_BYTES}.",
                "If you trust it, raise the bound on an image's bytes.",
            )

    def _enter(self, parent: bytes, may_make: bool = True) -> None:
        """Make it the working directory. Raises FileNotFoundError where it is missing and not to be made."""
        if parent == self._parent:
            return
        self.leave()
        try:
            os.chdir(b"/" + parent)
        except FileNotFoundError:
            if not may_make:
                raise
            self._make_missing(parent)
            os.chdir(b"/" + parent)
        # Without links.
        here = os.getcwdb()
        if here.count(b"/") > DEPTH_MAX or len(here) > _PLACE_BYTES_MAX:
            raise ImageError(f"It is deeper than {DEPTH_MAX} directories, or its path too long.", CURE)
        about = os.stat(b".")
        self._parent, self._here, self._foreign = parent, here, self._count_foreign(here)
        self._times = about.st_atime_ns, about.st_mtime_ns

    def _count_foreign(self, directory: bytes) -> int:
        """How many directories on the way there, itself included, only layers beneath have."""
        count = 0
        while self._upper is not None and directory != b"/" and self._own_mode(directory) is None:
            count += 1
            directory = directory.rpartition(b"/")[0] or b"/"
        return count

    def _make_missing(self, path: bytes) -> None:
        """A directory that the archive does not tell of is root's, and of no time."""
        self._count()
        self._take(1)
        above, _, name = path.rpartition(b"/")
        self._enter(above)
        try:
            os.mkdir(name)
        except FileExistsError:
            raise ImageError("It is beneath a link that leads nowhere.", CURE) from None
        os.chown(name, 0, 0)
        os.chmod(name, 0o755)
        os.utime(name, ns=(0, 0))
        self.leave()

    def _path(self, name: bytes) -> bytes:
        return b"/" + name if self._here == b"/" else self._here + b"/" + name

    def _make(self, entry: Entry, name: bytes, stream: Stream) -> None:
        match entry.kind:
            case tar.FILE:
                self._make_file(entry, name, stream)
            case tar.DIRECTORY:
                self._make_directory(entry, name)
            case tar.SYMBOLIC_LINK:
                self._make_symbolic_link(entry, name)
            case tar.HARD_LINK:
                self._make_hard_link(entry, name)
            case tar.FIFO:
                self._anew(name, lambda: os.mkfifo(name, 0o600))
                self._dress(name, entry)
            case _:
                self._remove(name)
                self.omitted["devices"] += 1

    def _anew(self, name: bytes, make: Callable[[], int | None]) -> int | None:
        """Make it in place of whatever has that name."""
        try:
            return make()
        except FileExistsError:
            self._remove(name)
            return make()

    def _remove(self, name: bytes) -> None:
        try:
            remove(name, self._tick)
        except FileNotFoundError:
            return

    def _make_file(self, entry: Entry, name: bytes, stream: Stream) -> None:
        extents = entry.extents or [(0, entry.stored)]
        self._take(sum(_blocks(length, offset) for offset, length in extents))
        descriptor = self._anew(name, lambda: os.open(name, _NEW_FILE, 0o600))
        assert descriptor is not None
        try:
            for offset, length in extents:
                os.lseek(descriptor, offset, os.SEEK_SET)
                for part in stream.parts(length):
                    _write(descriptor, part)
            if entry.extents is not None:
                os.ftruncate(descriptor, entry.size)
            self._dress(descriptor, entry)
        finally:
            os.close(descriptor)

    def _make_directory(self, entry: Entry, name: bytes) -> None:
        self._take(1)
        try:
            os.mkdir(name, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name).st_mode):
                self._remove(name)
                os.mkdir(name, 0o700)
        if self._upper is not None:
            self._own_directories.add(self._path(name))
        self._dress(name, entry)

    def _make_symbolic_link(self, entry: Entry, name: bytes) -> None:
        if not entry.link:
            raise ImageError("It is a link to nothing.", CURE)
        self._take(_blocks(len(entry.link)))
        self._anew(name, lambda: os.symlink(entry.link, name))
        os.chown(name, *self._ids(entry), follow_symlinks=False)
        os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), follow_symlinks=False)
        self.omitted["xattrs"] += len(entry.xattrs)

    def _make_hard_link(self, entry: Entry, name: bytes) -> None:
        """What it is a link to keeps its metadata: an archive has them there."""
        parent = self._parent
        target, about = self._find_target(components(entry.link))
        others = self._lower_names(target, about)
        assert parent is not None
        self._enter(parent)
        try:
            os.link(target, name, follow_symlinks=False)
        except FileExistsError:
            if os.path.samestat(os.lstat(name), about):
                return
            self._remove(name)
            os.link(target, name, follow_symlinks=False)
        for other in others:
            self._link_again(target, about, other)

    def _find_target(self, parts: list[bytes]) -> tuple[bytes, os.stat_result]:
        try:
            self._enter(b"/".join(parts[:-1]), may_make=False)
            target = self._path(parts[-1])
            about = os.lstat(target)
        except (FileNotFoundError, IndexError):
            raise ImageError("It is a hard link to what is not there.", CURE) from None
        if stat.S_ISDIR(about.st_mode):
            raise ImageError("It is a hard link to a directory.", CURE)
        return target, about

    def _lower_names(self, target: bytes, about: os.stat_result) -> list[bytes]:
        """The other names of a file of the layers beneath, of which a link makes a copy in this one."""
        if self._upper is None or self._own_mode(target) is not None:
            return []
        self._take(1 + _blocks(about.st_size))
        if about.st_nlink < 2:
            return []
        if self._names_by_inode is None:
            self._names_by_inode = self._find_linked()
        found = self._names_by_inode.pop((about.st_dev, about.st_ino), [])
        return [path for path in found if path != target]

    def _find_linked(self) -> dict[tuple[int, int], list[bytes]]:
        """All files that have several names, by inode."""
        found: dict[tuple[int, int], list[bytes]] = {}
        left = [b"/"]
        while left:
            with os.scandir(left.pop()) as children:
                for child in children:
                    self._tick()
                    if child.is_dir(follow_symlinks=False):
                        left.append(child.path)
                    elif (about := child.stat(follow_symlinks=False)).st_nlink > 1:
                        found.setdefault((about.st_dev, about.st_ino), []).append(child.path)
        return found

    def _link_again(self, target: bytes, about: os.stat_result, path: bytes) -> None:
        """Give the copy that name, too, where it is still that of the file beneath."""
        if not os.path.lexists(path) or not os.path.samestat(os.lstat(path), about):
            return
        above, _, name = path[1:].rpartition(b"/")
        self._enter(above)
        self._take(1)
        os.unlink(name)
        os.link(target, name, follow_symlinks=False)

    def _apply_whiteout(self, parts: list[bytes]) -> None:
        name = next(part for part in parts if part.startswith(_WHITEOUT))
        hidden = name[len(_WHITEOUT) :]
        if name.startswith(_AUFS) and name != _OPAQUE:
            self.omitted["aufs"] += 1
        elif name is not parts[-1] or hidden in (b"", b".", b".."):
            raise ImageError("Its name says that it is a whiteout, and it cannot be one.", CURE)
        elif self._upper is not None:
            try:
                self._enter(b"/".join(parts[:-1]), may_make=False)
            except FileNotFoundError:
                return
            if name == _OPAQUE:
                self._make_opaque()
            else:
                self._hide(hidden)

    def _hide(self, name: bytes) -> None:
        """Hide what the layers beneath have of that name; not what this one has."""
        path = self._path(name)
        mode = self._own_mode(path)
        if mode is None:
            self._remove(name)
        elif stat.S_ISDIR(mode):
            above = self._here
            self._hide_lower(path)
            self._enter(above[1:])
            self._remove_hollow(name)

    def _make_opaque(self) -> None:
        """Hide what the layers beneath have in the directory that we are in."""
        here = self._here
        if here == b"/" or here in self._without_lower or self._has_own(here):
            self._hide_lower(here)
            return
        # With nothing of our own in it, the kernel's own way to say so is to have it made anew.
        self._without_lower.add(here)
        about, times = os.stat(b"."), self._times
        xattrs = {key: os.getxattr(b".", key) for key in os.listxattr(b".") if _is_kept(os.fsencode(key))}
        above, _, name = here[1:].rpartition(b"/")
        self._enter(above)
        self._remove(name)
        self._take(1)
        os.mkdir(name, 0o700)
        os.chown(name, about.st_uid, about.st_gid)
        os.chmod(name, stat.S_IMODE(about.st_mode))
        for key, value in xattrs.items():
            os.setxattr(name, key, value)
        os.utime(name, ns=times)

    def _hide_lower(self, directory: bytes) -> None:
        """Remove what is beneath and not this layer's own."""
        left = [] if directory in self._without_lower else [directory]
        self._without_lower.add(directory)
        passed = []
        while left:
            place = left.pop()
            passed.append(place)
            self._enter(place[1:])
            for name in os.listdir(b"."):
                path = self._path(name)
                mode = self._own_mode(path)
                if mode is None:
                    self._take(1)
                    self._remove(name)
                elif stat.S_ISDIR(mode):
                    left.append(path)
                self._tick()
        for place in reversed(passed[1:]):
            above, _, name = place[1:].rpartition(b"/")
            self._enter(above)
            self._remove_hollow(name)

    def _remove_hollow(self, name: bytes) -> None:
        """Remove a directory that is ours only for what was hidden in it."""
        if self._path(name) not in self._own_directories and not os.listdir(name):
            os.rmdir(name)

    def _own_mode(self, path: bytes) -> int | None:
        """The mode of what this layer itself has at a path without links; None where it has nothing."""
        try:
            mode = os.stat(path[1:] or b".", dir_fd=self._upper, follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if stat.S_ISCHR(mode) else mode

    def _has_own(self, directory: bytes) -> bool:
        """Whether this layer itself has something in a directory."""
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            descriptor = os.open(directory[1:], flags, dir_fd=self._upper)
        except FileNotFoundError:
            return False
        try:
            names = os.listdir(descriptor)
        finally:
            os.close(descriptor)
        return any(self._own_mode(directory + b"/" + os.fsencode(name)) is not None for name in names)

    def _dress(self, target: int | bytes, entry: Entry) -> None:
        """Give a file or directory what the entry says it has besides content."""
        # A change of owner takes set-id bits away.
        os.chown(target, *self._ids(entry))
        os.chmod(target, entry.mode)
        kept = {key: value for key, value in entry.xattrs.items() if _is_kept(key)}
        self._take(_blocks(sum(len(key) + len(value) for key, value in kept.items())))
        if entry.kind == tar.FIFO:
            kept = {}
        elif entry.kind == tar.DIRECTORY:
            # It may have been there.
            for key in os.listxattr(target):
                if os.fsencode(key) not in kept and _is_kept(os.fsencode(key)):
                    os.removexattr(target, key)
        for key, value in kept.items():
            _set_xattr(target, key, value)
        self.omitted["xattrs"] += len(entry.xattrs) - len(kept)
        os.utime(target, ns=(entry.atime_ns, entry.mtime_ns))

    def _ids(self, entry: Entry) -> tuple[int, int]:
        found = image_id(entry.uid, self._lengths[0]), image_id(entry.gid, self._lengths[1])
        if None in found:
            raise ImageError(
                f"Its owner, {entry.uid}:{entry.gid}, is beyond the delegated range.",
                "Delegate a longer one: as root, usermod --add-subuids and --add-subgids.",
            )
        return found


def components(name: bytes) -> list[bytes]:
    """The parts of a name, wherever it begins. Raises ImageError when it leads up."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageError('A name leads up, by "..".', CURE)
    if len(parts) > DEPTH_MAX:
        raise ImageError(f"It is deeper than {DEPTH_MAX} directories.", CURE)
    return parts


def _blocks(length: int, offset: int = 0) -> int:
    """How many blocks a piece of a file lies in."""
    return -(-(offset + length) // BLOCK_BYTES) - offset // BLOCK_BYTES if length else 0


def _is_kept(xattr: bytes) -> bool:
    return xattr.startswith(b"user.") and not xattr.startswith(b"user.overlay.")


def _set_xattr(target: int | bytes, key: bytes, value: bytes) -> None:
    try:
        os.setxattr(target, key, value)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EOPNOTSUPP):
            raise
        raise ImageError(
            f"There is no room for an extended attribute of {len(value)} bytes: {error.strerror}.",
            "Keep the store on a file system with room for them, such as XFS or Btrfs.",
        ) from None


def _write(descriptor: int, part: memoryview) -> None:
    while part:
        part = part[os.write(descriptor, part) :]
