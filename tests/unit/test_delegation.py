"""How root gives a cgroup away."""

import os
from pathlib import Path

import pytest

from jail import delegation

FILES = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")


@pytest.fixture
def done(fake_kernel, tmp_path, monkeypatch, written):
    """What delegating a subtree of v2 writes, and whom it gives what, in order."""
    fake_kernel(lambda _directory: dict.fromkeys(FILES, ""))
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").touch()
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: written.append((Path(path).name, (uid, gid))))
    delegation._delegate_v2(tmp_path, "jail-7", 7, 8)
    return written


def test_it_is_entered_while_it_is_still_roots(done):
    # In a container root has no power over files of others.
    entered = done.index(("cgroup.procs", os.getpid()))
    assert entered < done.index(("jail-7", (7, 8)))
    assert entered < done.index(("service", (7, 8)))


def test_what_the_kernel_lets_be_given_away_is(done, tmp_path):
    given = [name for name, owner in done if owner == (7, 8)]
    assert sorted(given) == sorted(("jail-7", "service", *FILES, *FILES))
    assert (tmp_path / "jail-7" / "service").is_dir()


def test_its_controllers_are_those_that_are_used(done):
    assert ("cgroup.subtree_control", "+memory +pids +cpu +io") in done
