"""Removing trees: never anything else."""

import os

import pytest

from jail.images.unpack import removal


def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(tmp_path, monkeypatch):
    """Whoever unpacks a hostile archive may not have ended yet."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (tmp_path / "layer/inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    unlinked = removal._unlinked

    def swapped(name):
        found = unlinked(name)
        if name == b"inner":
            os.rmdir(name)
            os.symlink(outside, name)
        return found

    monkeypatch.setattr(removal, "_unlinked", swapped)
    with pytest.raises(NotADirectoryError):
        removal.remove(b"layer", lambda: None)
    assert (outside / "kept").exists()


def test_a_deep_tree_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("layer/" + "d/" * 300)
    removal.remove(b"layer", lambda: None)
    assert os.listdir() == []
