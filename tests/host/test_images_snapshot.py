"""Images made of parts of this host: what is in them, and what stays here."""

import io
import json
import os
import socket
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest

from jail.errors import ImageError
from jail.image import ETC_FILES, MOUNT_POINTS
from jail.images.snapshot import Snapshot

DEADLINE_S = 60
LONG = "n" * 200
FOREIGN = b"caf\xe9"
TIME_NS = 1_600_000_000_123_456_789


@pytest.fixture
def tree():
    """Some of everything, where every user may read it."""
    with tempfile.TemporaryDirectory(prefix="jail-tree-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "deep" / LONG / LONG).mkdir(parents=True)
        (root / "deep" / LONG / LONG / "leaf").write_text("leaf")
        (root / "program").write_bytes(os.urandom(3 << 20))
        (root / "program").chmod(0o4755)
        (root / "another").hardlink_to(root / "program")
        (root / "link").symlink_to("../program")
        (root / "empty").mkdir()
        (root / "ünïcode").write_text("u")
        Path(os.fsdecode(os.fsencode(root) + b"/" + FOREIGN)).write_text("f")
        os.mkfifo(root / "fifo")
        for path in (root, *root.rglob("*")):
            if not path.is_symlink() and not path.stat().st_mode & stat.S_ISUID:
                path.chmod(0o755 if path.is_dir() else 0o644)
            os.utime(path, ns=(TIME_NS, TIME_NS), follow_symlinks=False)
        yield root


@pytest.fixture
def unpacked(command, state):
    """The one layer of the image that is made of some paths, unpacked."""

    def build(*paths):
        (told,) = json.loads(command("build-host", "made:1", *paths, "--json").stdout)
        assert told["names"] == ["made:1"]
        (layer,) = (state / "images" / "layers").iterdir()
        return layer

    return build


def entries(*paths):
    """What the archive of these has, by name."""
    made = Snapshot(paths)
    raw = io.BytesIO()
    while piece := made.read(100_000):
        raw.write(piece)
    raw.seek(0)
    with tarfile.open(fileobj=raw) as archive:
        found = {entry.name: entry for entry in archive}
        assert len(found) == len(archive.getmembers())
    return found, {each.path: each.reason for each in made.left_out}


def drain(made):
    while made.read(1 << 16):
        pass


def described(root):
    """Everything in a tree: what it is, whose, of when, with what in it."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        inside = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        link = os.readlink(path) if path.is_symlink() else None
        attributes = {name: os.getxattr(path, name) for name in os.listxattr(path, follow_symlinks=False)}
        mode = oct(about.st_mode)
        found[str(path.relative_to(root))] = (
            mode,
            about.st_mtime_ns,
            inside,
            link,
            about.st_nlink,
            attributes,
        )
    return found


def test_what_is_chosen_is_there_as_it_was(unpacked, tree):
    layer = unpacked(tree)
    here = described(tree)
    assert len(here) > 8
    assert described(layer / str(tree)[1:]) == here
    assert (layer / str(tree)[1:] / "another").samefile(layer / str(tree)[1:] / "program")


def test_attributes_of_users_are_kept(unpacked, tree):
    try:
        os.setxattr(tree / "program", "user.note", b"caf\xe9\n1=2")
    except OSError:
        pytest.skip("the host has no attributes in its temporary directory")
    assert os.getxattr(unpacked(tree) / str(tree)[1:] / "program", "user.note") == b"caf\xe9\n1=2"


def test_everything_is_root_s(tree):
    found, _ = entries(tree)
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in found.values()} == {(0, 0, "", "")}


def test_a_root_is_there_around_it(unpacked, tree):
    layer = unpacked(tree)
    assert all((layer / name).is_dir() for name in MOUNT_POINTS)
    assert {path.name: path.read_text() for path in (layer / "etc").iterdir()} == ETC_FILES
    if os.path.islink("/lib"):
        assert os.readlink(layer / "lib") == os.readlink("/lib")
    assert not (layer / "etc").stat().st_mode & 0o022


def test_the_same_files_make_the_same_image(command, tree):
    first = command("build-host", "made:1", tree).stdout.split()
    second = command("build-host", "made:2", tree).stdout.split()
    assert (first[0], second[1:]) == (second[0], ["made:1", "made:2"])
    (tree / "new").write_text("new")
    assert command("build-host", "made:2", tree).stdout.split()[0] != first[0]


def test_the_order_of_the_paths_is_no_matter(tree):
    """Nor is naming one that is within another."""
    paths = [tree / "program", tree / "empty", tree / "deep"]
    assert list(entries(*paths)[0]) == list(entries(*reversed(paths), tree / "deep" / LONG)[0])


def test_parents_come_before_what_is_in_them(tree):
    found, _ = entries(tree, Path("/usr/bin/env"))
    seen = {""}
    for name in found:
        assert os.path.dirname(name) in seen
        seen.add(name)


def test_what_not_every_user_may_read_stays_here(command, tree, state):
    (tree / "secret").write_text("secret")
    (tree / "secret").chmod(0o640)
    (tree / "closed").mkdir()
    (tree / "closed" / "open").write_text("x")
    (tree / "closed").chmod(0o754)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
        (tree / "socket").chmod(0o666)
        done = command("build-host", "made:1", tree)
    assert sorted(done.stderr.splitlines()) == [
        f"Left out: {tree}/closed: not every user may enter it.",
        f"Left out: {tree}/secret: not every user may read it.",
        f"Left out: {tree}/socket: neither a file nor a directory, a link or a fifo.",
    ]
    (layer,) = (state / "images" / "layers").iterdir()
    assert {path.name for path in (layer / str(tree)[1:]).iterdir()}.isdisjoint(
        {"secret", "closed", "socket"}
    )


def test_of_much_that_is_left_out_some_is_told(command, tree):
    for number in range(30):
        (tree / f"secret{number}").touch(0o600)
    told = command("build-host", "made:1", tree).stderr.splitlines()
    assert len(told) == 21
    assert told[-1] == "Left out: 10 more."


def test_devices_and_other_file_systems_stay_here():
    found, left_out = entries(Path("/dev"))
    assert left_out["/dev/null"] == "neither a file nor a directory, a link or a fifo"
    assert left_out["/dev/pts"] == "another file system is mounted there"
    assert "dev/null" not in found
    assert "dev" in found


@pytest.mark.parametrize("path", ["relative", "/there/is/none", "../up", "/usr/../usr"])
def test_a_path_that_is_not_one_is_refused(path):
    with pytest.raises(ImageError, match=r"There is no|A link leads to"):
        Snapshot([Path(path)])


def test_a_path_that_a_link_leads_to_is_refused_with_the_one_that_it_means(tree, command):
    (tree / "aside").symlink_to("deep")
    done = command("build-host", "made:1", tree / "aside" / LONG, status=1)
    assert f"A link leads to {tree}/aside/{LONG}." in done.stderr
    assert f"Name it as {tree}/deep/{LONG}." in done.stderr


def test_a_link_itself_can_be_chosen(tree):
    found, _ = entries(tree / "link")
    assert found[str(tree / "link")[1:]].linkname == "../program"


def test_a_file_that_shrinks_meanwhile_is_told(tree):
    made = Snapshot([tree / "program"], lambda _: os.truncate(tree / "program", 1 << 20))
    with pytest.raises(ImageError, match="program changed while it was read"):
        drain(made)


def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(tree, tmp_path):
    for name in ("first", "second"):
        (tree / "empty" / name).write_text(name)
        (tree / "empty" / name).chmod(0o644)
    (tmp_path / "second").write_text("not for everyone: the directory is closed")
    (tmp_path / "second").chmod(0o644)

    def swap(_):
        (tree / "empty").rename(tree / "aside")
        (tree / "empty").symlink_to(tmp_path)

    with pytest.raises(ImageError, match="empty/second changed while it was read"):
        drain(Snapshot([tree / "empty"], swap))


def test_how_much_was_read_is_told(tree):
    told = []
    made = Snapshot([tree], told.append)
    drain(made)
    assert told == sorted(told)
    assert made.bytes >= told[-1] >= 3 << 20


def test_without_paths_it_has_what_the_image_host_has():
    made = Snapshot(())
    with tarfile.open(fileobj=made, mode="r|", bufsize=1 << 16) as archive:
        found = {}
        for entry in archive:
            found[entry.name] = entry
            if entry.name.startswith("usr/"):
                break
    assert {*MOUNT_POINTS, "etc", *(f"etc/{name}" for name in ETC_FILES)} <= set(found)
    assert {f"etc/{path.name}" for path in Path("/etc").glob("alternatives")} <= set(found)
    assert "etc/shadow" not in found


def test_a_name_that_no_image_can_have_is_refused_first(command, tree):
    assert "'host' is an image that is always there." in command("build-host", "host", tree, status=1).stderr
