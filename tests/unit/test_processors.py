"""Processors are held by one job each while there are enough, and shared evenly when there are not."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jail.processors import Processors


def test_each_job_has_a_processor_of_its_own_while_there_are_enough():
    processors = Processors([0, 2, 5])
    with processors.hold(1.0) as first, processors.hold(1.0) as second, processors.hold(0.25) as third:
        assert (first, second, third) == ((0,), (2,), (5,))


@pytest.mark.parametrize(("cpus", "count"), [(0.01, 1), (1.0, 1), (1.01, 2), (2.5, 3), (4.0, 4), (64.0, 4)])
def test_a_job_has_as_many_as_it_can_keep_busy(cpus, count):
    with Processors(range(4)).hold(cpus) as held:
        assert held == tuple(range(count))


def test_what_was_given_back_is_free_whatever_the_job_came_to():
    processors = Processors([0, 1])
    with processors.hold(1.0), pytest.raises(KeyError), processors.hold(1.0):
        raise KeyError
    with processors.hold(2.0), processors.hold(1.0) as shared:
        assert shared == (0,)
    with processors.hold(1.0) as free:
        assert free == (0,)


def test_of_no_processors_none_is_held():
    with Processors(()).hold(8.0) as held:
        assert held == ()


@given(
    count=st.integers(1, 6),
    steps=st.lists(st.one_of(st.floats(0.01, 8.0), st.integers(0, 9)), max_size=30),
)
def test_no_processor_has_more_jobs_than_another_that_could_have_taken_one(count, steps):
    """A float starts a job with that many cpus, a whole number ends one of those that run."""
    processors, running = Processors(range(count)), []
    for step in steps:
        if isinstance(step, float):
            jobs = [sum(number in held for _, held in running) for number in range(count)]
            with ExitStack() as stack:
                held = stack.enter_context(processors.hold(step))
                running.append((stack.pop_all(), held))
            assert len(set(held)) == len(held) > 0
            others = set(range(count)) - set(held)
            assert max(jobs[number] for number in held) <= min((jobs[o] for o in others), default=len(steps))
        elif running:
            running.pop(step % len(running))[0].close()
