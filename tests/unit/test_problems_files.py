"""The files of a package, which nobody vouches for: what is read, and what is refused."""

import os
import stat
import struct
import zipfile
from pathlib import Path

import packages
import pytest

from jail.errors import PackageError
from jail.problems import files


def sizes(path: Path) -> dict[str, int]:
    with files.opened(path) as found:
        return dict(found.sizes)


def whole(path: Path) -> dict[str, str]:
    with files.opened(path) as found:
        return {name: files.read(found, name).decode() for name in found.sizes}


def refused(path: Path) -> str:
    with pytest.raises(PackageError) as caught:
        whole(path)
    return caught.value.cause


def entry(name: str, kind: int = 0) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = (kind | 0o644) << 16
    made.compress_type = zipfile.ZIP_DEFLATED
    return made


@pytest.fixture(params=["directory", "archive", "archive with a directory"])
def package(request, tmp_path):
    """Makes a package of what it is given, in each of the forms."""

    def make(content: packages.Content) -> Path:
        if request.param == "directory":
            return packages.write(tmp_path / "echo", content)
        above = "echo/" if "with" in request.param else ""
        return packages.archive(tmp_path / "echo.zip", content, above)

    return make


def test_a_package_has_the_same_files_in_each_form(package):
    assert whole(package(packages.ECHO)) == dict(packages.ECHO)


def test_what_judging_needs_not_is_not_looked_at(package):
    others = {".git/config": "x", "statement/what is this?.md": "x", "data/.DS_Store": "x", "data/-x": "x"}

    assert sizes(package({**packages.ECHO, **others})).keys() == packages.ECHO.keys()


def test_a_name_that_is_no_name_is_refused_where_it_would_be_read(package):
    assert "'data/secret/a b.in'" in refused(package({**packages.ECHO, "data/secret/a b.in": "1"}))


@pytest.mark.parametrize("name", ["data/../../x", "data//x", "data/./x", "data/secret/\udcff.in", "data/\n"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    path = packages.archive(tmp_path / "echo.zip", packages.ECHO)
    with zipfile.ZipFile(path, "a") as made:
        made.writestr(entry("data/placeholder"), b"x")
    mark = name.encode("utf-8", "surrogateescape").ljust(16, b"x")
    path.write_bytes(path.read_bytes().replace(b"data/placeholder", mark))

    assert "cannot be used" in refused(path)


def test_absolute_names_are_not_read(tmp_path):
    path = packages.archive(tmp_path / "echo.zip", {**packages.ECHO, "/data/secret/2.in": "x"})

    assert sizes(path).keys() == packages.ECHO.keys()


def test_links_are_refused(tmp_path):
    linked = packages.write(tmp_path / "echo", packages.ECHO)
    (linked / "data/secret/2.in").symlink_to("/etc/passwd")
    assert "data/secret/2.in is a symbolic link" in refused(linked)

    path = packages.archive(tmp_path / "echo.zip", packages.ECHO)
    with zipfile.ZipFile(path, "a") as made:
        made.writestr(entry("data/secret/2.in", stat.S_IFLNK), "/etc/passwd")
    assert "data/secret/2.in is a symbolic link" in refused(path)


def test_a_linked_directory_is_refused(tmp_path):
    package = packages.write(tmp_path / "echo", packages.ECHO)
    (package / "data/secret/more").symlink_to("/etc")

    assert "data/secret/more is a symbolic link" in refused(package)


def test_a_directory_that_becomes_a_link_is_not_followed(tmp_path):
    package = packages.write(tmp_path / "echo", packages.ECHO)
    with files.opened(package) as found:
        (package / "data").rename(package / "elsewhere")
        (package / "data").symlink_to("elsewhere")
        with pytest.raises(PackageError, match="cannot be read"):
            files.read(found, "data/secret/1.in")


def test_a_file_that_becomes_a_link_is_not_followed(tmp_path):
    package = packages.write(tmp_path / "echo", packages.ECHO)
    (tmp_path / "secret").write_text("7\n")
    with files.opened(package) as found:
        (package / "data/secret/1.in").unlink()
        (package / "data/secret/1.in").symlink_to(tmp_path / "secret")
        with pytest.raises(PackageError, match="cannot be read"):
            files.read(found, "data/secret/1.in")


def test_pipes_and_devices_are_refused(tmp_path):
    package = packages.write(tmp_path / "echo", packages.ECHO)
    os.mkfifo(package / "data/secret/2.in")
    assert "neither a file nor a directory" in refused(package)

    path = packages.archive(tmp_path / "echo.zip", packages.ECHO)
    with zipfile.ZipFile(path, "a") as made:
        made.writestr(entry("data/secret/2.in", stat.S_IFCHR), "")
    assert "neither a file nor a directory" in refused(path)


def test_a_file_that_became_a_pipe_is_not_waited_for(tmp_path):
    package = packages.write(tmp_path / "echo", packages.ECHO)
    with files.opened(package) as found:
        (package / "data/secret/1.in").unlink()
        os.mkfifo(package / "data/secret/1.in")
        with pytest.raises(PackageError, match="neither a file"):
            files.read(found, "data/secret/1.in")


def test_no_more_is_read_of_a_file_than_was_counted(tmp_path):
    package = packages.write(tmp_path / "echo", packages.ECHO)
    with files.opened(package) as found:
        (package / "data/secret/1.in").write_text("7" * 1000)
        assert files.read(found, "data/secret/1.in") == b"77"


@pytest.mark.parametrize(
    ("bound", "most", "told"),
    [
        ("FILES_MAX", 5, "more than 5 files"),
        ("FILE_BYTES_MAX", 14, "submissions/accepted/echo.py has 15 bytes"),
        ("BYTES_MAX", 33, "more than 33 bytes together"),
        ("YAML_BYTES_MAX", 10, "it has 11 bytes of YAML"),
        ("DEPTH_MAX", 2, "lies deeper than 2 directories"),
    ],
)
def test_packages_are_bounded(monkeypatch, package, bound, most, told):
    made = package(packages.ECHO)
    monkeypatch.setattr(files, bound, most)

    assert told in refused(made)


def test_a_bomb_is_refused_by_what_it_would_become_before_any_of_it_does(tmp_path, monkeypatch):
    path = packages.archive(tmp_path / "echo.zip", {**packages.ECHO, "data/secret/2.in": bytes(10 << 20)})
    monkeypatch.setattr(files, "FILE_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)

    assert path.stat().st_size < 20_000
    assert "data/secret/2.in has 10485760 bytes" in refused(path)


def test_a_file_that_is_larger_than_its_archive_says_is_damaged(tmp_path):
    content = {**packages.ECHO, "data/secret/2.in": bytes(999_983)}
    path = packages.archive(tmp_path / "echo.zip", content)
    # In the list and before the file itself.
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 999_983), struct.pack("<L", 10)))

    assert "data/secret/2.in is damaged" in refused(path)


def test_a_file_that_ends_early_is_damaged(tmp_path):
    content = {**packages.ECHO, "data/secret/2.in": bytes(1000)}
    path = packages.archive(tmp_path / "echo.zip", content)
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 1000), struct.pack("<L", 2000)))

    assert "data/secret/2.in is damaged" in refused(path)


def test_a_list_of_entries_that_is_too_long_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = packages.archive(tmp_path / "echo.zip", packages.ECHO)
    monkeypatch.setattr(files, "_LIST_BYTES_MAX", 100)
    monkeypatch.setattr(zipfile, "ZipFile", None)

    assert "the list of what is in it has" in refused(path)


def test_the_list_is_that_which_zipfile_reads_whatever_the_comment_says(tmp_path, monkeypatch):
    path = packages.archive(tmp_path / "echo.zip", packages.ECHO)
    with zipfile.ZipFile(path, "a") as made:
        made.comment = b"a comment"
    monkeypatch.setattr(files, "_LIST_BYTES_MAX", 100)

    assert "the list of what is in it has" in refused(path)


def test_large_archives_are_refused_whose_list_is_told_elsewhere(tmp_path):
    path = packages.archive(tmp_path / "echo.zip", packages.ECHO)
    content = path.read_bytes()
    mark = b"PK\6\7" + bytes(16)
    path.write_bytes(content[:-22] + mark + content[-22:])

    assert "zip64" in refused(path)


def test_an_entry_that_stands_twice_is_refused(tmp_path):
    path = packages.archive(tmp_path / "echo.zip", packages.ECHO)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as made:
        made.writestr("data/secret/1.ans", "8\n")

    assert "data/secret/1.ans is in it twice" in refused(path)


def test_other_methods_and_encryption_are_refused(tmp_path):
    path = packages.archive(tmp_path / "echo.zip", packages.ECHO)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as made:
        made.writestr("data/secret/2.in", "x")

    assert "another method" in refused(path)


@pytest.mark.parametrize("cut", [0, 10, 21, 100, 400])
def test_what_is_cut_off_is_refused(tmp_path, cut):
    path = packages.archive(tmp_path / "echo.zip", packages.ECHO)
    path.write_bytes(path.read_bytes()[:cut])

    assert "cannot be used" in refused(path)


def test_what_is_no_test_data_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "READ_BYTES_MAX", 14)

    assert "echo.py has 15 bytes; the maximum beside test data is 14" in refused(
        packages.write(tmp_path / "echo", packages.ECHO)
    )


def test_long_files_come_in_pieces(package, monkeypatch):
    monkeypatch.setattr(files, "PIECE_BYTES", 4)
    with files.opened(package(packages.ECHO)) as found:
        pieces = list(found.pieces("submissions/accepted/echo.py"))

    assert pieces == [b"prin", b"t(in", b"put(", b"))\n"]


def test_a_package_needs_a_problem(package):
    content = {path: text for path, text in packages.ECHO.items() if path != files.PROBLEM}

    assert "there is no problem.yaml" in refused(package(content))


def test_one_package_at_a_time(tmp_path):
    content = {f"{name}/{path}": text for name in "ab" for path, text in packages.ECHO.items()}

    assert "holds 2 problems" in refused(packages.archive(tmp_path / "both.zip", content))


def test_a_package_that_is_not_there_is_told():
    with pytest.raises(PackageError, match="No such file"), files.opened(Path("/nowhere/at/all")):
        pass


@pytest.mark.usefixtures("leaks_nothing")
def test_whatever_happens_nothing_stays_open(tmp_path):
    package = packages.write(tmp_path / "echo", packages.ECHO)
    sizes(package)
    (package / "data/secret/x").symlink_to("y")
    refused(package)
    refused(packages.archive(tmp_path / "echo.zip", {"x": "y"}))
