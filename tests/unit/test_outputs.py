"""Bringing files home: what is told of those that cannot be, and the budget for those that can."""

import asyncio
import base64
import errno
import os

import pytest

from jail.errors import FilesFullError
from jail.outputs import Budgets, collect
from jail.result import OutputError, OutputFile
from jail.spec import Output

pytestmark = pytest.mark.usefixtures("leaks_nothing")


@pytest.fixture
def stored():
    """What was stored instead of returned."""
    return []


@pytest.fixture
def box(tmp_path, stored):
    """Bring files home from a directory; an integer in place of content is an errno. "!": to be stored."""

    async def store(descriptor):
        content = os.read(descriptor, 1000)
        if content == b"refused":
            raise FilesFullError("The quota is taken up.", "Wait.")
        stored.append(content)
        return f"digest of {content.decode()}", len(content)

    def bring(files, *wanted, budget_bytes=1000, disk_bytes=1000):
        for name, content in files.items():
            if isinstance(content, bytes):
                (tmp_path / name).write_bytes(content)

        async def open_file(path):
            content = files.get(path, errno.ENOENT)
            if isinstance(content, int):
                raise OSError(content, os.strerror(content), path)
            return os.open(tmp_path / path, os.O_RDONLY)

        outputs = [
            Output(name.removesuffix("!").removesuffix("?"), "?" in name, "!" in name) for name in wanted
        ]
        return asyncio.run(collect(outputs, open_file, Budgets(budget_bytes, disk_bytes), store))

    return bring


def brought(content, mode=0o644):
    return OutputFile(base64=base64.b64encode(content).decode(), bytes=len(content), mode=mode)


@pytest.fixture(autouse=True)
def umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_files_come_home_with_content_size_and_mode(box):
    found, errors = box({"a": b"\0\xff", "b": b""}, "a", "b")
    assert found == {"a": brought(b"\0\xff"), "b": brought(b"")}
    assert errors == ()


def test_the_mode_is_the_permission_bits_alone(box, tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "a").chmod(0o751)
    found, _ = box({"a": b"x"}, "a")
    assert found["a"].mode == 0o751


def test_only_what_was_asked_for_comes_home(box):
    found, _ = box({"a": b"1", "b": b"2"}, "b")
    assert list(found) == ["b"]


def test_an_optional_file_may_be_missing(box):
    assert box({}, "a?") == ({}, ())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errno.ENOENT, "no such file"),
        (errno.ENOTDIR, "a component of the path is not a directory"),
        (errno.ELOOP, "a symbolic link; links are not followed"),
        (errno.EISDIR, "a directory"),
        (errno.EINVAL, "not a regular file"),
        (errno.ENXIO, "not a regular file"),
        (errno.EXDEV, "leaves /box"),
        (errno.EACCES, "Permission denied"),
    ],
)
def test_a_file_that_cannot_be_opened_is_told_with_its_reason(box, error, reason):
    found, errors = box({"a": error, "b": b"x"}, "a", "b")
    assert errors == (OutputError("a", reason),)
    assert list(found) == ["b"]


@pytest.mark.parametrize("error", [errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EACCES])
def test_an_optional_file_that_is_there_and_cannot_be_opened_is_told_as_well(box, error):
    _, errors = box({"a": error}, "a?")
    assert [told.path for told in errors] == ["a"]


def test_a_file_that_cannot_be_read_is_told_with_its_reason(tmp_path):
    async def open_file(_path):
        return os.open(tmp_path, os.O_RDONLY)

    assert asyncio.run(collect([Output("a", False)], open_file, Budgets(1 << 20, 0), None)) == (
        {},
        (OutputError("a", "a directory"),),
    )


@pytest.mark.parametrize(
    ("sizes", "budget_bytes", "kept"),
    [
        ([5, 5], 10, [0, 1]),
        ([5, 6], 10, [0]),
        ([11, 5], 10, [1]),
        ([5, 6, 5], 10, [0, 2]),
        ([0, 0], 0, [0, 1]),
        ([1], 0, []),
    ],
)
def test_the_budget_is_for_all_together_and_one_too_large_leaves_it_to_the_others(
    box, sizes, budget_bytes, kept
):
    files = {str(n): b"x" * size for n, size in enumerate(sizes)}
    found, errors = box(files, *files, budget_bytes=budget_bytes)
    assert [int(name) for name in found] == kept
    assert len(errors) == len(sizes) - len(kept)
    assert all("limits.output_bytes" in told.reason for told in errors)


def test_a_file_with_holes_is_as_large_as_it_looks(box, tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)

    async def open_file(path):
        return os.open(tmp_path / path, os.O_RDONLY)

    found, errors = asyncio.run(collect([Output("a", False)], open_file, Budgets(1 << 20, 0), None))
    assert (found, len(errors)) == ({}, 1)


def test_what_is_stored_comes_home_as_its_digest(box, stored):
    found, errors = box({"a": b"one", "b": b"two"}, "a!", "b", "c?!")
    assert found == {"a": OutputFile(file="digest of one", bytes=3, mode=0o644), "b": brought(b"two")}
    assert (stored, errors) == ([b"one"], ())


def test_what_is_stored_does_not_count_for_what_is_returned(box):
    found, errors = box({"a": b"12345", "b": b"12345"}, "a!", "b", budget_bytes=5)
    assert (len(found), errors) == (2, ())


def test_no_more_is_stored_than_the_box_can_hold(box, stored):
    found, errors = box({"a": b"123", "b": b"123", "c": b"12"}, "a!", "b!", "c!", disk_bytes=5)
    assert (found.keys(), stored) == ({"a", "c"}, [b"123", b"12"])
    assert errors == (OutputError("b", "larger than what is left of limits.disk_bytes, 2 bytes"),)


def test_why_something_is_not_stored_is_told_in_its_place(box):
    found, errors = box({"a": b"refused", "b": b"kept"}, "a!", "b!")
    assert found.keys() == {"b"}
    assert errors == (OutputError("a", "The quota is taken up. Wait."),)
