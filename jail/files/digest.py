"""Digests as callers write them: "sha256:" and 64 hexadecimal digits, in lower case."""

import re

from jail.errors import FileNotStoredError

PREFIX = "sha256:"
PATTERN = "sha256:[0-9a-f]{64}"

_DIGEST = re.compile(PATTERN)


def is_digest(text: str) -> bool:
    """Whether it is one."""
    return bool(_DIGEST.fullmatch(text))


def digits(digest: str) -> str:
    """Its digits, which are a file's name. Raises FileNotStoredError of what is no digest: no file has it."""
    if not is_digest(digest):
        raise FileNotStoredError(f"{digest!r} is no digest.", f"Those are {PREFIX} and 64 digits.")
    return digest.removeprefix(PREFIX)
