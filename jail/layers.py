"""Looking things up in layers as the kernel's overlay shows them, without mounting it.

Documentation/filesystems/overlayfs.rst: what a layer has hides what those beneath have under that name; only
directories are merged. A character device 0/0 is a whiteout: there is nothing. A directory with the attribute
user.overlay.opaque is not merged with those beneath.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_OPAQUE = "user.overlay.opaque"


def lookup(layers: Sequence[Path], path: str) -> tuple[Path, os.stat_result] | None:
    """What `path`, relative, is in these layers, the topmost first: where it lies, and what lstat(2) says.

    None if there is nothing, or if what leads there is not all directories: no link is followed. Raises
    OSError.
    """
    *directories, name = path.split("/")
    for directory in directories:
        layers = _merged(layers, directory)
    return next(_found(layers, name), None)


def read(layers: Sequence[Path], path: str, bytes_max: int) -> bytes | None:
    """The content of the regular file `path`; None of a longer one, and of one that is not ours to read."""
    with suppress(PermissionError):
        found = lookup(layers, path)
        if found is None or not stat.S_ISREG(found[1].st_mode) or found[1].st_size > bytes_max:
            return None
        with open(found[0], "rb", opener=_no_link) as file:
            return file.read(bytes_max)
    return None


def _merged(layers: Sequence[Path], name: str) -> list[Path]:
    """The directories that make up the one of that name: none, if it is something else."""
    found = []
    for path, about in _found(layers, name):
        if not stat.S_ISDIR(about.st_mode):
            break
        found.append(path)
        if _is_opaque(path):
            break
    return found


def _found(layers: Sequence[Path], name: str) -> Iterator[tuple[Path, os.stat_result]]:
    """The name in each layer that has it, down to the first whiteout."""
    for layer in layers:
        path = layer / name
        with suppress(FileNotFoundError):
            about = path.lstat()
            if stat.S_ISCHR(about.st_mode) and not about.st_rdev:
                return
            yield path, about


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError as error:
        # It has none, or the file system has no attributes.
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
