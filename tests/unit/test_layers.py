"""What is found in layers: the same as in an overlay of them, without the mount."""

import os
import stat

import pytest

from jail import layers


@pytest.fixture
def stack(tmp_path):
    """Three layers, the topmost first; each filled by paths: a text, None for a directory, or "-> link"."""
    made = [tmp_path / name for name in ("top", "middle", "base")]

    def fill(*contents):
        for layer, content in zip(made, contents, strict=True):
            layer.mkdir()
            for path, text in content.items():
                (layer / path).parent.mkdir(parents=True, exist_ok=True)
                if text is None:
                    (layer / path).mkdir(exist_ok=True)
                elif text.startswith("-> "):
                    (layer / path).symlink_to(text[3:])
                else:
                    (layer / path).write_text(text)
        return made

    return fill


def read(made, path):
    return layers.read(made, path, 100)


def test_the_topmost_that_has_it_is_found(stack):
    made = stack({"etc/one": "1"}, {"etc/one": "2", "etc/two": "2"}, {"etc/two": "3", "etc/three": "3"})
    assert [read(made, f"etc/{name}") for name in ("one", "two", "three")] == [b"1", b"2", b"3"]
    assert layers.lookup(made, "etc/four") is None
    assert layers.lookup(made, "srv/four") is None


def test_what_is_no_directory_hides_those_beneath(stack):
    made = stack({}, {"etc": "a file"}, {"etc/passwd": "root"})
    assert layers.lookup(made, "etc/passwd") is None
    assert read(made, "etc") == b"a file"


def test_directories_above_what_is_none_are_all_there_is(stack):
    made = stack({"etc/one": "1"}, {"etc": "a file"}, {"etc/passwd": "root"})
    assert read(made, "etc/one") == b"1"
    assert layers.lookup(made, "etc/passwd") is None


def test_no_link_is_followed_anywhere(stack):
    made = stack({}, {"etc": "-> /etc", "alias": "-> passwd"}, {"passwd": "root", "etc/passwd": "root"})
    assert layers.lookup(made, "etc/passwd") is None
    assert read(made, "alias") is None
    assert stat.S_ISLNK(layers.lookup(made, "alias")[1].st_mode)


def test_an_opaque_directory_is_not_merged_with_those_beneath(stack):
    made = stack({"etc": None}, {"etc/two": "2"}, {"etc/three": "3"})
    os.setxattr(made[1] / "etc", "user.overlay.opaque", b"y")
    assert read(made, "etc/two") == b"2"
    assert layers.lookup(made, "etc/three") is None


@pytest.mark.parametrize("path", ["gone", "gone/beneath"])
def test_a_whiteout_hides_those_beneath(stack, path):
    made = stack({}, {}, {"gone/beneath": "3"})
    # Everybody may make one: mknod(2) with the device 0/0.
    os.mknod(made[1] / "gone", stat.S_IFCHR)
    assert layers.lookup(made, path) is None


def test_a_file_that_is_longer_than_wanted_is_not_read(stack):
    made = stack({"long": "x" * 101}, {}, {"long": "short"})
    assert read(made, "long") is None


def test_what_is_no_regular_file_is_not_read(stack):
    made = stack({"directory": None}, {}, {})
    os.mkfifo(made[1] / "fifo")
    assert read(made, "directory") is read(made, "fifo") is None


def test_what_lies_where_only_others_may_look_is_not_ours_to_read(tmp_path):
    closed = tmp_path / "layer/etc"
    closed.mkdir(parents=True)
    (closed / "passwd").write_text("root")
    closed.chmod(0)
    try:
        assert layers.read([tmp_path / "layer"], "etc/passwd", 100) is None
        with pytest.raises(PermissionError):
            layers.lookup([tmp_path / "layer"], "etc/passwd")
    finally:
        closed.chmod(0o700)
