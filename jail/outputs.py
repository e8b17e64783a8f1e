"""Bringing files home from a sandbox in which nothing lives any more.

The supervisor opens each beneath /box; here they are descriptors of regular files. Bounded in
bytes by limits.output_bytes, in count and depth by the job specification.
"""

import base64
import errno
import os
import stat
from collections.abc import Awaitable, Callable, Sequence

from jail.result import OutputError, OutputFile
from jail.spec import Output

Open = Callable[[str], Awaitable[int]]

_REASONS = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "a component of the path is not a directory",
    errno.ELOOP: "a symbolic link; links are not followed",
    errno.EISDIR: "a directory",
    errno.EINVAL: "not a regular file",
    errno.ENXIO: "not a regular file",
    errno.EXDEV: "leaves /box",
}

Collected = tuple[dict[str, OutputFile], tuple[OutputError, ...]]


async def collect(wanted: Sequence[Output], open_file: Open, budget_bytes: int) -> Collected:
    """The files that could be brought home, and why the others could not.

    `open_file` answers with a descriptor or raises OSError; `budget_bytes` is for all together.
    """
    found: dict[str, OutputFile] = {}
    errors: list[OutputError] = []
    for output in wanted:
        try:
            descriptor = await open_file(output.path)
        except OSError as error:
            if not (output.optional and error.errno == errno.ENOENT):
                errors.append(OutputError(output.path, _reason(error)))
            continue
        try:
            content, mode = _read(descriptor, budget_bytes)
        except OSError as error:
            errors.append(OutputError(output.path, _reason(error)))
            continue
        finally:
            os.close(descriptor)
        if content is None:
            reason = f"larger than what is left of limits.output_bytes, {budget_bytes} bytes"
            errors.append(OutputError(output.path, reason))
            continue
        budget_bytes -= len(content)
        encoded = base64.b64encode(content).decode()
        found[output.path] = OutputFile(base64=encoded, bytes=len(content), mode=mode)
    return found, tuple(errors)


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno, error.strerror or str(error))


def _read(descriptor: int, budget_bytes: int) -> tuple[bytes | None, int]:
    """The content, or None when it is over the budget, and the permission bits."""
    about = os.fstat(descriptor)
    mode = stat.S_IMODE(about.st_mode)
    if about.st_size > budget_bytes:
        return None, mode
    chunks = []
    left = about.st_size
    while left and (chunk := os.read(descriptor, left)):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks), mode
