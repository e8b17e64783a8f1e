"""What may be done inside a user namespace of ours, tried one call after the other.

    python -I probe.py DESCRIPTOR NUMBERS      of a user namespace in which this user is root; of system
                                               calls, by name, in JSON

Prints one JSON object: "calls", by name the errno that each answers arguments which ask for nothing, or
the negative of the signal that it ends by; and for all else name to errno (0: it can be done). It is a
program of its own, since a process of several threads can enter no user namespace; and it needs nothing
but the standard library.
"""

import ctypes
import json
import os
import sys
from collections.abc import Callable

# <linux/sched.h>; Python 3.11 names none of them. Mounts first: what follows happens beneath them.
_NAMESPACES = {
    "mnt": 0x00020000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}
_CLONE_NEWUSER, _CLONE_NEWPID = 0x10000000, 0x20000000

# <linux/mount.h>
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18

# Any directory that every host has: it is covered in our own mount namespace alone.
_PLACE = "/tmp"

# Nothing is done and the kernel says EFAULT, EINVAL or EBADF, or 0; never EPERM or ENOSYS to root of a
# user namespace: what does was not the kernel.
_IDLE = {
    "capset": (0, 0),
    "clone3": (0, 0),
    "close_range": (1, 0, 0),
    "eventfd2": (0, -1),
    "keyctl": (-1, 0, 0, 0, 0),
    "landlock_add_rule": (-1, 0, 0, -1),
    "landlock_create_ruleset": (0, 0, -1),
    "landlock_restrict_self": (-1, -1),
    "memfd_create": (0, -1),
    "mknodat": (-1, 0, 0, 0),
    "mount": (0, 0, 0, 0, 0),
    "mount_setattr": (-1, 0, 0, 0, 0),
    "openat2": (-1, 0, 0, 0),
    "pidfd_open": (-1, 0),
    "pidfd_send_signal": (-1, 0, 0, 0),
    "pivot_root": (0, 0),
    "prlimit64": (0, -1, 0, 0),
    "seccomp": (-1, 0, 0),
    "sethostname": (0, -1),
    "setns": (-1, 0),
    "setresgid": (-1, -1, -1),
    "setresuid": (-1, -1, -1),
    "signalfd4": (-1, 0, 0, 0),
    # AF_INET, SOCK_DGRAM: by which the loopback interface is set up.
    "socket": (2, 2, 0),
    "timerfd_create": (-1, 0),
    "umount2": (0, 0),
    "unshare": (0,),
}

_OF_NAMESPACES = {"mnt": ("mount", "mount_setattr", "pivot_root", "umount2"), "uts": ("sethostname",)}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (*(ctypes.c_char_p,) * 3, ctypes.c_ulong, ctypes.c_char_p)


def _errno(result: int) -> int:
    return ctypes.get_errno() if result < 0 else 0


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> int:
    texts = (text.encode() for text in (source, target, kind))
    return _errno(_libc.mount(*texts, flags, options.encode()))


def _enter(descriptor: int) -> int:
    error = _errno(_libc.setns(descriptor, _CLONE_NEWUSER))
    if not error:
        try:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        except OSError as refused:
            return refused.errno or 0
    return error


def _in_child(attempt: Callable[[], int]) -> int:
    """What it returns, in a process of its own, which a filter may end: the negative of the signal then."""
    child = os.fork()
    if not child:
        os._exit(attempt())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _try_calls(numbers: dict[str, int]) -> dict[str, int]:
    found = {}
    for name, arguments in _IDLE.items():
        if name in numbers:
            longs = [ctypes.c_long(argument) for argument in (numbers[name], *arguments)]
            found[name] = _in_child(lambda longs=longs: _errno(_libc.syscall(*longs)))
    return found


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
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    return _in_child(lambda: _mount("proc", f"{_PLACE}/proc", "proc", flags))


def probe(descriptor: int, numbers: dict[str, int]) -> dict[str, int | dict[str, int]]:
    """Try everything; what cannot be tried, for what failed before it, is missing."""
    entered = _enter(descriptor)
    if entered:
        return {"enter": entered, "calls": {"setns": entered}}
    found = {"enter": 0} | {name: _errno(_libc.unshare(flag)) for name, flag in _NAMESPACES.items()}
    # In a namespace that is not ours the kernel itself says EPERM.
    others = {call for name, calls in _OF_NAMESPACES.items() if found[name] for call in calls}
    found["calls"] = _try_calls({name: number for name, number in numbers.items() if name not in others})
    # It lives no longer than the first process in it.
    found["pid"] = _errno(_libc.unshare(_CLONE_NEWPID))
    if not found["mnt"]:
        found["mount"] = _prepare_place()
        if not found["mount"]:
            found["overlay"] = _mount_overlay()
            found |= {} if found["pid"] else {"proc": _mount_proc()}
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(int(sys.argv[1]), json.loads(sys.argv[2]))))
