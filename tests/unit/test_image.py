"""The image `host`: what of this host a sandbox sees, and what it must not."""

import os
import stat
from pathlib import Path

import pytest

from jail import image

SECRET = ("shadow", "gshadow", "ssl/private", "ssh", "sudoers", "machine-id", "fstab", "environment")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("image")
    return image.build_host(directory, "ours"), directory


@pytest.fixture(scope="module")
def root(built):
    return built[1] / "ours" / "root"


def test_it_has_the_name_that_it_was_given(built):
    assert built[0].name == "ours"


def test_its_root_comes_first_and_then_usr(built, root):
    targets = [target for target, _ in built[0].overlays]
    assert targets[:2] == ["", "usr"]
    assert len(set(targets)) == len(targets)


def test_every_overlay_has_two_directories_of_which_the_lower_is_empty(built):
    for _, lower in built[0].overlays:
        top, empty = (built[1] / path for path in lower.split(":"))
        assert top.is_dir()
        assert list(empty.iterdir()) == []


def test_nothing_of_the_host_is_stacked_but_programs_and_libraries(built):
    lowers = {target: lower.split(":")[0] for target, lower in built[0].overlays[1:]}
    assert lowers == {target: f"/{target}" for target in lowers}
    assert set(lowers) <= {"usr", *image.TOP_DIRECTORIES}


def test_what_is_jails_own_is_relative_to_where_the_supervisor_works(built):
    assert built[0].overlays[0] == ("", "ours/root:ours/empty")
    assert {lower.split(":")[1] for _, lower in built[0].overlays} == {"ours/empty"}


def test_what_of_the_host_it_is_made_of_is_told(built):
    assert built[0].host_directories == tuple(lower.split(":")[0] for _, lower in built[0].overlays[1:])
    assert "/usr" in built[0].host_directories


def test_every_target_is_a_directory_of_the_root(built, root):
    assert all((root / target).is_dir() for target, _ in built[0].overlays)


@pytest.mark.parametrize("name", [*image.MOUNT_POINTS, "usr"])
def test_a_place_to_mount_on_is_there_and_empty(root, name):
    assert list((root / name).iterdir()) == []


@pytest.mark.parametrize("name", image.TOP_DIRECTORIES)
def test_a_top_directory_is_as_the_host_has_it(root, name):
    ours, theirs = root / name, Path("/", name)
    if theirs.is_symlink():
        assert ours.readlink() == theirs.readlink()
    else:
        assert ours.is_dir() == theirs.is_dir()


def test_the_root_holds_nothing_else(root):
    names = {path.name for path in root.iterdir()}
    assert names <= {*image.MOUNT_POINTS, *image.TOP_DIRECTORIES, "usr", "etc", "var"}


def test_of_var_it_holds_what_a_compiler_has_there_and_nothing_else(root):
    assert {path for path in (root / "var").rglob("*") if path.is_file()} == {
        path for path in (root / "var/lib/ghc/package.conf.d").rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(("name", "text"), image.ETC_FILES.items(), ids=image.ETC_FILES)
def test_a_file_that_names_the_host_is_made_up(root, name, text):
    assert not (root / "etc" / name).is_symlink()
    assert (root / "etc" / name).read_text() == text


@pytest.mark.parametrize("name", SECRET)
def test_what_is_the_hosts_own_is_not_in_it(root, name):
    assert not os.path.lexists(root / "etc" / name)


def test_no_file_in_it_is_special_or_has_a_privilege(root):
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
        assert stat.S_ISLNK(mode) or not mode & (stat.S_ISUID | stat.S_ISGID)


@pytest.fixture
def etc(tmp_path):
    """Copy a part of a made-up /etc."""
    (tmp_path / "from").mkdir()

    def copy():
        image._copy(tmp_path / "from", tmp_path / "to")
        return tmp_path / "to"

    copy.source = tmp_path / "from"
    return copy


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_file_that_not_everyone_may_read_is_left_out(etc, mode):
    (etc.source / "key.pem").write_text("secret")
    (etc.source / "key.pem").chmod(mode)
    assert list(etc().iterdir()) == []


@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_a_directory_that_not_everyone_may_read_is_left_empty(etc, mode):
    (etc.source / "private").mkdir()
    (etc.source / "private" / "public").write_text("")
    (etc.source / "private").chmod(mode)
    assert list((etc() / "private").iterdir()) == []


def test_a_link_stays_a_link_wherever_it_points(etc):
    (etc.source / "shadow").symlink_to("/etc/shadow")
    (etc.source / "gone").symlink_to("nowhere")
    (etc.source / "up").symlink_to("/")
    assert {path.name: str(path.readlink()) for path in etc().iterdir()} == {
        "shadow": "/etc/shadow",
        "gone": "nowhere",
        "up": "/",
    }


def test_a_file_keeps_the_time_by_which_python_knows_its_bytecode(etc):
    (etc.source / "module.py").write_text("")
    os.utime(etc.source / "module.py", ns=(10**18, 10**18 + 1))
    assert (etc() / "module.py").stat().st_mtime_ns == 10**18 + 1


def test_a_pipe_is_left_out_and_nobody_waits_for_it(etc):
    os.mkfifo(etc.source / "pipe", 0o666)
    assert list(etc().iterdir()) == []


def test_a_part_that_the_host_does_not_have_is_left_out(tmp_path):
    image._copy(tmp_path / "absent", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_job_may_read_it_whatever_the_umask_of_the_service(tmp_path):
    before = os.umask(0o077)
    try:
        image.build_host(tmp_path, "ours")
    finally:
        os.umask(before)
    wrong = [
        str(path.relative_to(tmp_path))
        for path in (tmp_path / "ours").rglob("*")
        if not path.is_symlink() and (path.stat().st_mode & 0o005) != (0o005 if path.is_dir() else 0o004)
    ]
    assert wrong == []


def test_an_image_of_the_store_has_its_layers_beneath_what_every_sandbox_has(tmp_path):
    built = image.build_stored(tmp_path, "7", ["l/b", "l/a"], {"hosts": "127.0.0.1 x\n"})
    assert built.overlays == (("", "7:l/b:l/a"),)
    assert sorted(str(path.relative_to(tmp_path / "7")) for path in (tmp_path / "7").rglob("*")) == sorted(
        [*image.MOUNT_POINTS, "etc", "etc/hosts"]
    )


def test_volumes_are_overlays_of_their_own_upon_directories_that_are_made_for_them(tmp_path, built):
    volumes = {"data/words": "/srv/words", "srv": "/srv/other"}
    found = image.with_volumes(tmp_path, "8", built[0], volumes, {"data": 0o40711})
    assert found.overlays[0] == ("", "8/top:ours/root:ours/empty")
    assert found.overlays[1:-2] == built[0].overlays[1:]
    assert found.overlays[-2:] == (("data/words", "/srv/words:8/empty"), ("srv", "/srv/other:8/empty"))
    modes = {
        name: stat.S_IMODE((tmp_path / "8/top" / name).stat().st_mode)
        for name in ("data", "data/words", "srv")
    }
    assert modes == {"data": 0o711, "data/words": 0o755, "srv": 0o755}
