"""Problem packages for tests: what is in one, as a directory, an archive or nothing but a dict."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

Content = Mapping[str, str | bytes]

ECHO: Content = {
    "problem.yaml": "name: Echo\n",
    "data/sample/1.in": "1\n",
    "data/sample/1.ans": "1\n",
    "data/secret/1.in": "7\n",
    "data/secret/1.ans": "7\n",
    "submissions/accepted/echo.py": "print(input())\n",
}
"""A package of the legacy format with no more than it must have."""


class Package:
    """The files of a package that is nowhere, as jail.problems.files has them."""

    def __init__(self, content: Content) -> None:
        self._content = {path: encoded(text) for path, text in content.items()}
        self.sizes = {path: len(text) for path, text in self._content.items()}

    def pieces(self, path: str) -> Iterator[bytes]:
        yield self._content[path]

    def read(self, path: str) -> bytes:
        return self._content[path]


def encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def write(directory: Path, content: Content) -> Path:
    for path, text in content.items():
        place = directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(text))
    return directory


def archive(path: Path, content: Content, above: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in content.items():
            made.writestr(above + name, encoded(text))
    return path
