"""What may be done inside a user namespace of ours, tried one call after the other.

    python -I probe.py DESCRIPTOR      of a user namespace in which this user is root

Prints one JSON object, name to errno (0: it can be done). It is a program of its own, since a process
of several threads can enter no user namespace; and it needs nothing but the standard library.
"""

import ctypes
import json
import os
import sys

# <linux/sched.h>; Python 3.11 names none of them. Mounts first: what follows happens beneath them.
_NAMESPACES = {
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}
_CLONE_NEWUSER = 0x10000000

# <linux/mount.h>
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18

# Any directory that every host has: it is covered in our own mount namespace alone.
_PLACE = "/tmp"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (*(ctypes.c_char_p,) * 3, ctypes.c_ulong, ctypes.c_char_p)


def _errno(result: int) -> int:
    return ctypes.get_errno() if result else 0


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> int:
    texts = (text.encode() for text in (source, target, kind))
    return _errno(_libc.mount(*texts, flags, options.encode()))


def _enter(descriptor: int) -> int:
    error = _errno(_libc.setns(descriptor, _CLONE_NEWUSER))
    if not error:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    return error


def _prepare_place() -> int:
    error = _mount("", "/", "", _MS_REC | _MS_PRIVATE)
    error = error or _mount("tmpfs", _PLACE, "tmpfs", _MS_NOSUID | _MS_NODEV)
    if not error:
        for name in ("empty", "overlay", "proc"):
            os.mkdir(f"{_PLACE}/{name}")
    return error


def _mount_overlay() -> int:
    """As the image `host` does: read-only, the host's /usr below."""
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    lower = f"lowerdir=/usr:{_PLACE}/empty"
    return _mount("overlay", f"{_PLACE}/overlay", "overlay", flags, lower)


def _mount_proc() -> int:
    """From a child, the first process of the new pid namespace."""
    child = os.fork()
    if not child:
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        os._exit(_mount("proc", f"{_PLACE}/proc", "proc", flags))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def probe(descriptor: int) -> dict[str, int]:
    """Try everything; what cannot be tried, for what failed before it, is missing."""
    found = {"enter": _enter(descriptor)}
    if found["enter"]:
        return found
    found |= {name: _errno(_libc.unshare(flag)) for name, flag in _NAMESPACES.items()}
    if not found["mnt"]:
        found["mount"] = _prepare_place()
        if not found["mount"]:
            found["overlay"] = _mount_overlay()
            found |= {} if found["pid"] else {"proc": _mount_proc()}
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(int(sys.argv[1]))))
