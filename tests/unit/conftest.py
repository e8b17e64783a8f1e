"""What several unit tests share: a check for leaked descriptors, and a kernel made of files."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jail.cgroup import files


@pytest.fixture
def leaks_nothing() -> Iterator[None]:
    """Fail a test that leaves more descriptors open than it found."""
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


class FakeKernel:
    """Fills each directory made beneath `root` with a cgroup's files; rmdir(2) takes them along.

    `files` tells them by the directory. Attributes: `busy`, paths that cannot be removed; `read_only`, names
    of files that nobody may write to; `removed`, what stood in the files of those that were.
    """

    def __init__(self, root: Path, files: Callable[[Path], dict[str, str]]) -> None:
        self.root = root
        self.files = files
        self.busy: set[Path] = set()
        self.read_only: set[str] = set()
        self.removed: dict[Path, dict[str, str]] = {}

    def fill(self, directory: Path) -> None:
        for name, text in self.files(directory).items():
            (directory / name).touch()
            (directory / name).write_text(text)
            if name in self.read_only:
                (directory / name).chmod(0o444)

    def empty(self, directory: Path) -> None:
        if directory in self.busy:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(directory))
        files = [path for path in directory.iterdir() if path.is_file()]
        self.removed[directory] = {path.name: path.read_text() for path in files}
        for path in files:
            path.unlink()


@pytest.fixture
def fake_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call it with what a directory holds, and tmp_path behaves like a cgroup file system."""
    mkdir, rmdir = os.mkdir, os.rmdir

    def install(files: Callable[[Path], dict[str, str]]) -> FakeKernel:
        kernel = FakeKernel(tmp_path, files)

        def make(path: str | Path, *arguments: object, **options: object) -> None:
            mkdir(path, *arguments, **options)
            if Path(path).is_relative_to(tmp_path):
                kernel.fill(Path(path))

        def remove(path: str | Path) -> None:
            kernel.empty(Path(path))
            rmdir(path)

        monkeypatch.setattr(os, "mkdir", make)
        monkeypatch.setattr(os, "rmdir", remove)
        return kernel

    return install


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What is written to files of cgroups from here on, in order: the file's name and the value."""
    write, told = files.write, []

    def note(path: str | os.PathLike, value: object) -> None:
        write(path, value)
        told.append((os.path.basename(path), value))

    monkeypatch.setattr(files, "write", note)
    return told
