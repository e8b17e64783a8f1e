"""What a process gives up before it reads the first byte of an archive: everything but the layer's tree.

In this order, each step because of the next:

    a mount namespace    its own; nothing that it mounts is seen elsewhere
    the tree             the layers beneath and the new one, as overlay puts them together, writable
    the root             it becomes the root directory, and the host's is gone: nothing else has a name
    descriptors          but for the archive, what the layer itself has, and where to tell
    limits               of address space, file sizes and processor time
    capabilities         but for those over the owners and modes of files, in the outer user namespace
    system calls         but for those on memory and files: policies/service/unpacker.toml
"""

import os
import resource
import stat
from collections.abc import Collection, Sequence

from jail import shed
from jail.images.unpack.messages import WORK, Bounds
from jail.libc import LIBC, check, mount, syscall
from jail.policy.numbers import number
from jail.privileges import bound_capabilities, close_descriptors, set_capabilities

# <linux/sched.h>, <linux/mount.h>
_NEW_MOUNTS, _NEW_USERS, _NEW_IPC, _NEW_NETWORK = 0x00020000, 0x10000000, 0x08000000, 0x40000000
_NODEV, _NOSUID, _NOEXEC, _BIND, _RECURSIVELY, _PRIVATE = 4, 2, 8, 4096, 1 << 14, 1 << 18
_DETACH = 2
_OPEN_TREE_CLONE, _MOVE_EMPTY_PATH = 1, 4

# <linux/fcntl.h>
_HERE = -100

# <linux/capability.h>: CHOWN, DAC_OVERRIDE, FOWNER, FSETID.
_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4

_OPEN_FILES = 64


def enter_outer(namespace: int) -> None:
    """Be root of the outer user namespace, without a network, for good. Raises OSError."""
    check(LIBC.setns(namespace, _NEW_USERS), "setns")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    check(LIBC.unshare(_NEW_MOUNTS | _NEW_IPC | _NEW_NETWORK), "unshare")
    mount("", "/", "", _RECURSIVELY | _PRIVATE)


def leave_host() -> None:
    """Have the working directory as the root directory: nothing else has a name any more. Raises OSError.

    Whoever asks may have been taken over, and names and links of the store's directory are its own.
    """
    own = syscall(number("open_tree"), _HERE, b".", _OPEN_TREE_CLONE | os.O_CLOEXEC)
    syscall(number("move_mount"), own, b"", _HERE, b".", _MOVE_EMPTY_PATH)
    os.fchdir(own)
    os.close(own)
    _become_root()


def range_lengths() -> tuple[int, int]:
    """How many ids the delegated ranges of users and groups have, by user_namespaces(7)'s maps."""
    return _range_length("uid"), _range_length("gid")


def _range_length(kind: str) -> int:
    with open(f"/proc/self/{kind}_map", encoding="ascii") as text:
        lines = [tuple(map(int, line.split())) for line in text]
    return next((length for inside, _, length in lines if inside == 1), 0)


def make_layer(parents: Sequence[str], into: str) -> int | None:
    """Have the new layer `into` upon `parents`, the topmost first, as this process's root directory.

    To be called in the directory of the layers, where `into` and its work directory are. A descriptor of what
    is `into`'s own, or None when it has no parents. Raises OSError.
    """
    check(LIBC.unshare(_NEW_MOUNTS), "unshare")
    safe = _NODEV | _NOSUID | _NOEXEC
    upper = None
    if parents:
        # Of a mount of its own: from a descriptor of the store's directory one could walk up.
        upper = syscall(number("open_tree"), _HERE, into.encode(), _OPEN_TREE_CLONE | os.O_CLOEXEC)
        places = f"lowerdir={':'.join(parents)},upperdir={into},workdir={into}{WORK}"
        # Without an index: its copies of links would be lost with the work directory.
        mount("overlay", into, "overlay", safe, f"{places},userxattr,index=off,volatile")
    else:
        mount(into, into, "", _BIND)
    os.chdir(into)
    _become_root()
    return upper


def _become_root() -> None:
    """Have the mount whose root is the working directory as the root directory, and no other."""
    check(LIBC.syscall(number("pivot_root"), b".", b"."), "pivot_root")
    check(LIBC.umount2(b".", _DETACH), "umount")
    os.chdir("/")


def begin_layer(parents: Sequence[str], into: str) -> None:
    """Make the directories of a layer: its root is as that of the layers beneath. Raises OSError."""
    os.makedirs(into, mode=0o755, exist_ok=True)
    os.chown(into, 0, 0)
    os.chmod(into, 0o755)
    os.utime(into, ns=(0, 0))
    if not parents:
        return
    os.mkdir(into + WORK, 0o700)
    about = os.stat(parents[0])
    os.chown(into, about.st_uid, about.st_gid)
    os.chmod(into, stat.S_IMODE(about.st_mode))
    for key in os.listxattr(parents[0]):
        if key.startswith("user.") and not key.startswith("user.overlay."):
            os.setxattr(into, key, os.getxattr(parents[0], key))
    os.utime(into, ns=(about.st_atime_ns, about.st_mtime_ns))


def give_up(kept: Collection[int], bounds: Bounds) -> None:
    """Keep 0, 1, 2 and `kept`, and of all else what an archive needs. Raises OSError, HostError."""
    close_descriptors(kept)
    os.umask(0)
    for limit, value in (
        (resource.RLIMIT_AS, bounds.memory_bytes),
        (resource.RLIMIT_FSIZE, bounds.bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    # The hard one is told by SIGKILL, which does not say what it is about.
    resource.setrlimit(resource.RLIMIT_CPU, (bounds.cpu_s, bounds.cpu_s + 1))
    bound_capabilities(_CAPABILITIES)
    set_capabilities(_CAPABILITIES)
    # Last, so that it need not allow the above.
    shed.shed_for_unpacker()
