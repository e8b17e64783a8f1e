"""What a tree holds, as JSON by path: to be run as root of the outer user namespace.

python tree.py directory PATH            a directory
python tree.py overlay LAYER:LAYER...    layers of the working directory, mounted read-only as sandboxes do
"""

import hashlib
import json
import os
import stat
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from jail.libc import LIBC, check, mount

NEW_MOUNTS, RECURSIVELY, PRIVATE = 0x00020000, 1 << 14, 1 << 18


def describe(path: bytes) -> dict[str, Any]:
    about = os.lstat(path)
    kind = stat.S_IFMT(about.st_mode)
    found = {
        "kind": stat.filemode(about.st_mode)[0],
        "mode": stat.S_IMODE(about.st_mode),
        "ids": [about.st_uid, about.st_gid],
        "mtime_ns": about.st_mtime_ns,
        "xattrs": {
            key: os.getxattr(path, key, follow_symlinks=False).hex()
            for key in os.listxattr(path, follow_symlinks=False)
            if key.startswith("user.") and not key.startswith("user.overlay.")
        },
    }
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            found["content"] = hashlib.file_digest(file, "sha256").hexdigest()
        found["size"], found["disk_bytes"] = about.st_size, about.st_blocks * 512
    elif kind == stat.S_IFLNK:
        found["link"] = os.fsdecode(os.readlink(path))
    return found


def listing(root: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {".": describe(root)}
    names = defaultdict(list)
    left = [root]
    while left:
        with os.scandir(left.pop()) as children:
            for child in children:
                name = os.fsdecode(os.path.relpath(child.path, root))
                found[name] = describe(child.path)
                if child.is_dir(follow_symlinks=False):
                    left.append(child.path)
                else:
                    about = child.stat(follow_symlinks=False)
                    names[about.st_dev, about.st_ino].append(name)
    for group in names.values():
        for name in group:
            found[name]["names"] = sorted(group)
    return found


def main(kind: str, what: str) -> None:
    if kind == "overlay":
        check(LIBC.unshare(NEW_MOUNTS))
        mount("", "/", "", RECURSIVELY | PRIVATE)
        place = tempfile.mkdtemp()
        # An overlay without an upper directory needs two lower ones.
        empty = tempfile.mkdtemp()
        mount("overlay", place, "overlay", 1, f"lowerdir={what}:{empty},userxattr")
        found = listing(place.encode())
        LIBC.umount2(place.encode(), 2)
        Path(place).rmdir()
        Path(empty).rmdir()
    else:
        found = listing(os.fsencode(what))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
