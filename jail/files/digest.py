"""Digests as callers write them: "sha256:" and 64 hexadecimal digits, in lower case."""

import re

PREFIX = "sha256:"
PATTERN = "sha256:[0-9a-f]{64}"

_DIGEST = re.compile(PATTERN)


def is_digest(text: str) -> bool:
    """Whether it is one."""
    return bool(_DIGEST.fullmatch(text))


def digits(digest: str) -> str:
    """Its digits, which are a file's name."""
    return digest.removeprefix(PREFIX)
