"""What is ready at once, and does away with each other."""

import os
import select

import pytest

from jail.network.watch import Watch


@pytest.fixture
def full_pipes():
    made = [os.pipe() for _ in range(2)]
    for _, writing in made:
        os.write(writing, b"x")
    yield [reading for reading, _ in made]
    for pair in made:
        for end in pair:
            os.close(end)


def test_who_is_removed_by_one_before_is_not_called(full_pipes):
    first, second = full_pipes
    watch, called = Watch(), []

    def remove():
        called.append("first")
        watch.remove(second)

    watch.add(first, select.POLLIN, remove)
    watch.add(second, select.POLLIN, lambda: called.append("second"))
    assert watch.wait(0)
    assert called == ["first"]


def test_who_is_added_under_the_same_number_is_called_for_itself_alone(full_pipes):
    first, second = full_pipes
    watch, called = Watch(), []

    def replace():
        watch.remove(first)
        watch.remove(second)
        watch.add(second, select.POLLIN, lambda: called.append("new"))

    watch.add(first, select.POLLIN, replace)
    watch.add(second, select.POLLIN, lambda: called.append("old"))
    assert watch.wait(0)
    assert called == []
    assert watch.wait(0)
    assert called == ["new"]
    watch.remove(second)
    assert not watch.wait(0)
