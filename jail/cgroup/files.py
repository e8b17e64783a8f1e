"""Reading and writing the small text files that cgroups are made of.

Paths are strings here: a job's way leads by dozens of them.
"""

import os

END_SECONDS = 10
"""How long a killed process may take to be gone."""

_READ_BYTES = 1 << 16


def write(path: str | os.PathLike, value: object) -> None:
    """Write `value` in one go, as the kernel wants it. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def read(path: str) -> bytes:
    """What stands in a file, as far as its first 64 KiB. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


def read_fields(path: str) -> dict[bytes, int]:
    """The lines "name number" of a file such as cpu.stat. Raises OSError."""
    words = read(path).split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def read_number(path: str) -> int:
    """The one number in a file. Raises OSError."""
    return int(read(path))


class Written:
    """The files that limits are written to: each only when its value is another than it was told last."""

    def __init__(self) -> None:
        """Nothing was written so far."""
        self._values: dict[str, object] = {}

    def write(self, path: str, value: object) -> None:
        """Have that value stand there. Raises OSError."""
        if self._values.get(path) != value:
            write(path, value)
            self._values[path] = value


def open_each(directory: str, names: tuple[str, ...], flags: int) -> tuple[int, ...]:
    """Descriptors of files in `directory`, or none at all. Raises OSError."""
    opened: list[int] = []
    try:
        for name in names:
            opened.append(os.open(f"{directory}/{name}", flags | os.O_CLOEXEC))
    except OSError:
        close_each(opened)
        raise
    return tuple(opened)


def close_each(descriptors: tuple[int, ...] | list[int]) -> None:
    """Close them all."""
    for descriptor in descriptors:
        os.close(descriptor)
