"""Reading and writing the small text files that cgroups are made of."""

import os
from pathlib import Path

END_SECONDS = 10
"""How long a killed process may take to be gone."""


def write(path: Path, value: object) -> None:
    """Write `value` in one go, as the kernel wants it. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def read_fields(path: Path) -> dict[str, int]:
    """The lines "name number" of a file such as cpu.stat. Raises OSError."""
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def read_number(path: Path) -> int:
    """The one number in a file. Raises OSError."""
    return int(path.read_text())


def open_each(directory: Path, names: tuple[str, ...], flags: int) -> tuple[int, ...]:
    """Descriptors of files in `directory`, or none at all. Raises OSError."""
    opened: list[int] = []
    try:
        for name in names:
            opened.append(os.open(directory / name, flags | os.O_CLOEXEC))
    except OSError:
        close_each(opened)
        raise
    return tuple(opened)


def close_each(descriptors: tuple[int, ...] | list[int]) -> None:
    """Close them all."""
    for descriptor in descriptors:
        os.close(descriptor)
