"""What the hub gives up for good once its rules are loaded, in the one thread there is by then.

It begins as the user who made every sandbox's user namespace, to whom the kernel gives every capability over
them, whatever that process has given up: so it becomes another, with ids that no sandbox has and the host
knows nothing of. Then it can neither look into the service, its files and the sandboxes, nor signal them.

Nothing that a job sends comes to it as data; all it hears is the service. There is no compiled filter of
system calls, which would double the time of its start and take a third more memory: only one of setns(2).
A network namespace tells which user namespace it belongs to, and who enters that has every capability there.
"""

import ctypes
import os
import struct
from collections.abc import Collection

from jail.libc import LIBC, check, prctl
from jail.privileges import bound_capabilities, close_descriptors, die_with, set_capabilities

# <linux/prctl.h>
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 8, 22, 38

# <linux/capability.h>
_NET_ADMIN, _SYS_ADMIN = 12, 21

# <linux/bpf_common.h>, <linux/seccomp.h>, <linux/sched.h>
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_FILTER_MODE, _KILL, _REFUSE, _ALLOW = 2, 0x80000000, 0x00050000, 0x7FFF0000
_EPERM = 1
_CLONE_NEWNET = 0x40000000
_CALLS_OF_X32 = 0x40000000

# By machine, <linux/audit.h> and the number of setns(2).
_SETNS = {"x86_64": (0xC000003E, 308), "aarch64": (0xC00000B7, 268)}

KEPT = 1 << _NET_ADMIN | 1 << _SYS_ADMIN
"""The capabilities that stay, in the outer user namespace: to set up links, and to enter namespaces."""


def give_up(identity: int, kept: Collection[int] = ()) -> None:
    """Keep no descriptor but 0, 1, 2 and `kept`, no other capability, no way to gain one. Raises OSError.

    identity: the user and group to be, of the outer namespace. It ends with its parent.
    """
    close_descriptors(kept)
    parent = os.getppid()
    bound_capabilities(KEPT)
    prctl(_PR_SET_KEEPCAPS, 1)
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)
    prctl(_PR_SET_KEEPCAPS, 0)
    set_capabilities(KEPT)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    prctl(_PR_SET_DUMPABLE, 0)
    # Not before the change of ids.
    die_with(parent)
    _enter_networks_only()


def _enter_networks_only() -> None:
    """Have setns(2) enter network namespaces, by that name, and no others."""
    architecture, call = _SETNS[os.uname().machine]
    # struct seccomp_data: the call, the architecture, and from 16 on the arguments, of which the second.
    instructions = (
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, 6, architecture),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 4, 0, _CALLS_OF_X32),
        (_EQUAL, 0, 4, call),
        (_LOAD, 0, 0, 24),
        (_EQUAL, 2, 0, _CLONE_NEWNET),
        (_RETURN, 0, 0, _REFUSE | _EPERM),
        (_RETURN, 0, 0, _KILL),
        (_RETURN, 0, 0, _ALLOW),
    )
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    text = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog
    filters = struct.pack("@HP", len(instructions), ctypes.addressof(text))
    check(LIBC.prctl(_PR_SET_SECCOMP, _FILTER_MODE, filters, 0, 0))
