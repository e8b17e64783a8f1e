"""Network namespaces: making one, and doing a thing in another. Only the calling thread moves.

Python has no name for these calls before 3.12.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from jail.libc import LIBC, check

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>


def leave_for_new() -> None:
    """Move to a new network namespace, which belongs to our user namespace. Raises OSError."""
    check(LIBC.unshare(_CLONE_NEWNET))


def enter(namespace: int) -> None:
    """Move to the network namespace of that descriptor. Raises OSError."""
    check(LIBC.setns(namespace, _CLONE_NEWNET))


class Home:
    """The network namespace that the calling thread is in."""

    def __init__(self) -> None:
        """Remember it. Raises OSError."""
        self._descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    @contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        """Within the context be in the network namespace of that descriptor. Raises OSError.

        Who could not come back would work in a sandbox's namespace from then on: that raises SystemExit.
        """
        check(LIBC.setns(namespace, _CLONE_NEWNET))
        try:
            yield
        finally:
            if LIBC.setns(self._descriptor, _CLONE_NEWNET):
                raise SystemExit("The hub cannot come back to its own network namespace.")
