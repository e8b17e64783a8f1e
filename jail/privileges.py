"""What processes give up that have more than they need: capabilities and descriptors."""

import ctypes
import os
import signal
import struct
from collections.abc import Collection
from itertools import pairwise

from jail.libc import LIBC, check, prctl

# <linux/prctl.h>
_PR_SET_PDEATHSIG, _PR_CAPBSET_READ, _PR_CAPBSET_DROP = 1, 23, 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_VERSION_3 = 0x20080522  # <linux/capability.h>


def close_descriptors(kept: Collection[int]) -> None:
    """Close all but 0, 1, 2 and these."""
    edges = [2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for before, after in pairwise(edges):
        os.closerange(before + 1, after)


def bound_capabilities(kept: int) -> None:
    """Have no program that is executed gain any but `kept`, bits by capability. Raises OSError."""
    number = 0
    # Those that there are: this has to do without /proc.
    while LIBC.prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) >= 0:
        if not kept >> number & 1:
            prctl(_PR_CAPBSET_DROP, number)
        number += 1
    clear_ambient()


def clear_ambient() -> None:
    """Have no program that is executed get any by being executed. Raises OSError."""
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def set_capabilities(kept: int) -> None:
    """Have no capability but these, of the first 32. Raises OSError."""
    # Effective, permitted, inheritable: of the first 32 capabilities, and of the others.
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    check(LIBC.capset(struct.pack("=Ii", _VERSION_3, 0), sets))


def die_with(parent: int) -> None:
    """End when this process does, our parent. A later change of ids undoes it. Raises OSError."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
