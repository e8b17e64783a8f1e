"""Instances: what the dead left is swept, what the living have stays."""

import os
import re

import pytest

from jail.instance import Instance

pytestmark = pytest.mark.usefixtures("leaks_nothing")


class FakeHierarchy:
    """Remembers what it was asked to do."""

    def __init__(self):
        self.done = []

    def claim(self, instance):
        self.done.append(f"claim {instance}")

    def close(self):
        self.done.append("close")


def make(state):
    return Instance(state, FakeHierarchy())


def leave_behind(state, name):
    (state / "instances" / name / "host" / "etc").mkdir(parents=True)


def instances(state):
    return {path.name for path in (state / "instances").iterdir()}


def test_an_instance_has_a_directory_of_its_own_that_is_gone_after_it(tmp_path):
    instance = make(tmp_path)
    assert re.fullmatch("[0-9a-f]{8}", instance.name)
    assert instance.directory.is_dir()
    assert instances(tmp_path) == {instance.name}
    instance.close()
    assert instances(tmp_path) == set()


def test_its_cgroups_go_by_its_name_and_go_first(tmp_path):
    hierarchy = FakeHierarchy()
    instance = Instance(tmp_path, hierarchy)
    instance.close()
    assert hierarchy.done == [f"claim {instance.name}", "close"]


def test_the_state_directory_is_made_with_all_above_it(tmp_path):
    make(tmp_path / "a/b").close()
    assert (tmp_path / "a/b").is_dir()


def test_nobody_else_can_list_the_directories_but_sandboxes_can_pass_them(tmp_path):
    instance = make(tmp_path / "state")
    places = (tmp_path / "state", instance.directory.parent, instance.directory)
    assert [os.stat(path).st_mode & 0o777 for path in places] == [0o711] * 3
    instance.close()


def test_what_a_dead_one_left_is_swept(tmp_path):
    leave_behind(tmp_path, "0123abcd")
    instance = make(tmp_path)
    assert instances(tmp_path) == {instance.name}
    instance.close()


def test_what_a_living_one_has_stays(tmp_path):
    living = make(tmp_path)
    leave_behind(tmp_path, "0123abcd")
    other = make(tmp_path)
    assert instances(tmp_path) == {living.name, other.name}
    other.close()
    assert living.directory.is_dir()
    living.close()


def test_what_lives_by_another_state_directory_stays(tmp_path):
    living = make(tmp_path / "a")
    make(tmp_path / "b").close()
    assert living.directory.is_dir()
    living.close()


def test_what_else_is_in_the_state_directory_stays(tmp_path):
    (tmp_path / "note").touch()
    (tmp_path / "0123abcd").mkdir()
    make(tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {"note", "0123abcd", "instances"}
