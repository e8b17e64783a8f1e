"""Calls of libc and of the kernel for which Python has no name, or not yet in 3.11."""

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


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call by its number. Raises OSError."""
    longs = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *longs)
    check(result < 0, f"system call {number}")
    return result


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Have that system call mount; what is empty is not given. Raises OSError."""
    texts = [text.encode() or None for text in (source, target, kind, options)]
    check(LIBC.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]), target)
