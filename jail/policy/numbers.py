"""Which number a system call has on this machine, and up to which number we know them.

libseccomp knows the calls up to its own release; Debian 12's 2.5.4 ends at Linux 5.17. The
newer ones stand here. From 424 on all architectures share the numbers.
"""

from jail.policy.binding import libseccomp


class PolicyError(Exception):
    """A policy that cannot be used; the text names the file, the key and the cause."""


# scripts/syscall.tbl of Linux 6.18, everything from 424 on. Adding a call here decides
# that it answers EPERM instead of ENOSYS unless a policy says otherwise.
RECENT = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "faccessat2": 439,
    "process_madvise": 440,
    "epoll_pwait2": 441,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "memfd_secret": 447,
    "process_mrelease": 448,
    "futex_waitv": 449,
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
LAST_KNOWN = max(RECENT.values())

# What libseccomp answers for a name it has never heard of; other negative numbers mean
# "not on this architecture" (seccomp_syscall_resolve_name(3)).
_UNKNOWN = -1


def number(call: str) -> int | None:
    """Look up the number of `call` here; None where this architecture has no such call.

    Raises LookupError for a name that neither libseccomp nor RECENT knows.
    """
    if call in RECENT:
        return RECENT[call]
    seccomp = libseccomp()
    found = seccomp.resolve_syscall(seccomp.Arch.NATIVE, call)
    if found == _UNKNOWN:
        raise LookupError(f"no system call is named {call!r}")
    return found if found >= 0 else None


def known() -> frozenset[int]:
    """List the numbers of all calls that this architecture has, as far as we know."""
    older = (nr for nr in range(min(RECENT.values())) if _is_assigned(nr))
    return frozenset(older) | frozenset(RECENT.values())


def _is_assigned(nr: int) -> bool:
    try:
        libseccomp().resolve_syscall(libseccomp().Arch.NATIVE, nr)
    except ValueError:
        return False
    return True


def call_name(nr: int) -> str:
    """Tell the name of call `nr`, or its number in words where it has none that we know."""
    recent = {number: name for name, number in RECENT.items()}
    if nr in recent:
        return recent[nr]
    try:
        found = libseccomp().resolve_syscall(libseccomp().Arch.NATIVE, nr)
    except ValueError:
        return f"call {nr}"
    return found.decode() if isinstance(found, bytes) else str(found)
