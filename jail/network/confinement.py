"""What the hub gives up for good once its rules are loaded, in the one thread there is by then.

Nothing that a job sends comes to it as data; all it hears is the service. There is no filter of system
calls: to compile one would double the time of its start and take a third more memory.
"""

import ctypes
import os
import struct
from collections.abc import Collection
from itertools import pairwise

from jail.network.namespaces import check

# <linux/prctl.h>
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

# <linux/capability.h>
_VERSION_3 = 0x20080522
_NET_ADMIN, _SYS_ADMIN = 12, 21

KEPT = 1 << _NET_ADMIN | 1 << _SYS_ADMIN
"""The capabilities that stay, in the outer user namespace: to set up links, and to enter namespaces."""


def give_up(kept: Collection[int] = ()) -> None:
    """Keep no descriptor but 0, 1, 2 and `kept`, no other capability, no way to gain one. Raises OSError."""
    close_descriptors(kept)
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(_last_capability() + 1):
        if not KEPT >> number & 1:
            check(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
    check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    # Effective, permitted, inheritable: of the first 32 capabilities, and of the others.
    check(libc.capset(struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", KEPT, KEPT, 0, 0, 0, 0)))
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def close_descriptors(kept: Collection[int]) -> None:
    """Close all but 0, 1, 2 and these."""
    edges = [2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for before, after in pairwise(edges):
        os.closerange(before + 1, after)


def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as text:
        return int(text.read())
