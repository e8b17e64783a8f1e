"""Network namespaces: making one, and doing a thing in another. Only the calling thread moves.

Python has no name for these calls before 3.12.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>


def leave_for_new() -> None:
    """Move to a new network namespace, which belongs to our user namespace. Raises OSError."""
    check(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET))


def enter(namespace: int) -> None:
    """Move to the network namespace of that descriptor. Raises OSError."""
    check(ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET))


class Home:
    """The network namespace that the calling thread is in."""

    def __init__(self) -> None:
        """Remember it. Raises OSError."""
        self._descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._setns = ctypes.CDLL(None, use_errno=True).setns

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    @contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        """Within the context be in the network namespace of that descriptor. Raises OSError.

        Who could not come back would work in a sandbox's namespace from then on: that raises SystemExit.
        """
        check(self._setns(namespace, _CLONE_NEWNET))
        try:
            yield
        finally:
            if self._setns(self._descriptor, _CLONE_NEWNET):
                raise SystemExit("The hub cannot come back to its own network namespace.")


def check(result: int) -> None:
    """Raise OSError by libc's errno if that is not 0, the result of a call of it."""
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
