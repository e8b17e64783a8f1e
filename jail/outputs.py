"""Bringing files home from a sandbox in which nothing lives any more.

The supervisor opens each beneath /box; here they are descriptors of regular files. What is returned is
bounded in bytes by limits.output_bytes; what is stored by limits.disk_bytes, which holds of sparse files too,
and by what its owner may have; both in count and depth by the job specification.
"""

import base64
import errno
import os
import stat
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from jail.errors import StoredFileError
from jail.result import OutputError, OutputFile
from jail.spec import Output

Open = Callable[[str], Awaitable[int]]

Store = Callable[[int], Awaitable[tuple[str, int]]]
"""Keeps the content of a descriptor; answers with its digest and size, or raises StoredFileError, OSError."""

_REASONS = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "a component of the path is not a directory",
    errno.ELOOP: "a symbolic link; links are not followed",
    errno.EISDIR: "a directory",
    errno.EINVAL: "not a regular file",
    errno.ENXIO: "not a regular file",
    errno.EXDEV: "leaves /box",
}


class _OverBudgetError(Exception):
    """The text says of which."""


class Budgets(msgspec.Struct, frozen=True):
    """The most bytes of all outputs together: of those that are returned, and of those that are stored."""

    returned: int
    stored: int


Collected = tuple[dict[str, OutputFile], tuple[OutputError, ...]]


async def collect(wanted: Sequence[Output], open_file: Open, budgets: Budgets, store: Store) -> Collected:
    """The files that could be brought home, and why the others could not.

    `open_file` answers with a descriptor or raises OSError.
    """
    found: dict[str, OutputFile] = {}
    errors: list[OutputError] = []
    left = {False: budgets.returned, True: budgets.stored}
    for output in wanted:
        try:
            descriptor = await open_file(output.path)
        except OSError as error:
            if not (output.optional and error.errno == errno.ENOENT):
                errors.append(OutputError(output.path, _reason(error)))
            continue
        try:
            found[output.path] = await _bring(output, descriptor, left[output.store], store)
            left[output.store] -= found[output.path].bytes
        except (StoredFileError, _OverBudgetError) as error:
            errors.append(OutputError(output.path, str(error)))
        except OSError as error:
            errors.append(OutputError(output.path, _reason(error)))
        finally:
            os.close(descriptor)
    return found, tuple(errors)


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno, error.strerror or str(error))


async def _bring(output: Output, descriptor: int, left_bytes: int, store: Store) -> OutputFile:
    """Raises StoredFileError, OSError, _OverBudgetError."""
    about = os.fstat(descriptor)
    mode = stat.S_IMODE(about.st_mode)
    if about.st_size > left_bytes:
        limit = "disk_bytes" if output.store else "output_bytes"
        raise _OverBudgetError(f"larger than what is left of limits.{limit}, {left_bytes} bytes")
    if output.store:
        digest, size = await store(descriptor)
        return OutputFile(file=digest, bytes=size, mode=mode)
    content = _read(descriptor, about.st_size)
    return OutputFile(base64=base64.b64encode(content).decode(), bytes=len(content), mode=mode)


def _read(descriptor: int, size: int) -> bytes:
    chunks = []
    while size and (chunk := os.read(descriptor, size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
