"""Calls of libc for which Python has no name, or not yet in 3.11."""

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str | None = None) -> None:
    """Raise OSError by libc's errno, about `what`, if that is not 0, the result of a call of LIBC."""
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)


def prctl(option: int, first: int, second: int = 0) -> None:
    """Make that call, with arguments of the width that it takes. Raises OSError."""
    check(LIBC.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), 0, 0), f"prctl {option}")
