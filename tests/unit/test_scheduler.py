"""Turns: order, slots, memory, the bounded queue, and cancellation at every point."""

import asyncio

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jail.scheduler import QueueFullError, Scheduler

# Reached only by a job that nobody ever calls.
SECONDS = 2


class Job:
    """A task that holds its reservation until it is told to end.

    `keeps`: of that, one slot is given back with the whole memory then, which is kept until that is done.
    """

    def __init__(self, scheduler, memory_bytes=1, keeps=None, slots=1):
        self.memory_bytes = memory_bytes
        self.slots = slots
        self._keeps = keeps
        self.running = False
        self._end = asyncio.Event()
        self.task = asyncio.create_task(self._run(scheduler))
        # Whoever does not ask for its exception knows it: asyncio need not complain.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _run(self, scheduler):
        async with scheduler.reserve(self.memory_bytes, self.slots) as reservation:
            self.running = True
            try:
                await self._end.wait()
            finally:
                self.running = False
                if self._keeps is not None:
                    reservation.give_back(self.memory_bytes, self._keeps)

    def end(self):
        self._end.set()


async def limited(scene):
    await asyncio.wait_for(scene, SECONDS)


async def let_others_run():
    for _ in range(5):
        await asyncio.sleep(0)


async def started(scheduler, *sizes):
    jobs = [Job(scheduler, size) for size in sizes]
    await let_others_run()
    return jobs


async def end_all(jobs):
    for job in jobs:
        job.end()
    await asyncio.gather(*(job.task for job in jobs), return_exceptions=True)


def nothing_is_held(scheduler, slots, memory_bytes):
    held = scheduler.running, scheduler.queued, scheduler.slots_free, scheduler.memory_free_bytes
    return held == (0, 0, slots, memory_bytes)


def scenario(slots=1, memory_bytes=10, queue=10):
    """Run a test's coroutine with a scheduler, and see that nothing is held when it is over."""

    def decorate(test):
        async def run():
            scheduler = Scheduler(slots, memory_bytes, queue)
            await test(scheduler)
            await let_others_run()
            assert nothing_is_held(scheduler, slots, memory_bytes)

        def plain():
            asyncio.run(limited(run()))

        plain.__name__ = test.__name__
        return plain

    return decorate


def states(jobs):
    return [job.running for job in jobs]


@scenario(slots=2)
async def test_jobs_run_as_long_as_there_are_slots(scheduler):
    jobs = await started(scheduler, 1, 1, 1)
    assert states(jobs) == [True, True, False]
    assert (scheduler.running, scheduler.queued) == (2, 1)
    await end_all(jobs)


@scenario()
async def test_jobs_run_in_order_of_arrival(scheduler):
    jobs = await started(scheduler, 1, 1, 1)
    for turn, job in enumerate(jobs):
        assert states(jobs) == [n == turn for n in range(3)]
        job.end()
        await let_others_run()


@scenario(slots=5)
async def test_memory_is_reserved_before_a_job_runs(scheduler):
    jobs = await started(scheduler, 6, 4, 1)
    assert states(jobs) == [True, True, False]
    assert scheduler.memory_free_bytes == 0
    await end_all(jobs)


@scenario(slots=5)
async def test_a_job_may_take_the_whole_memory(scheduler):
    jobs = await started(scheduler, 10)
    assert states(jobs) == [True]
    await end_all(jobs)


@scenario(slots=5)
async def test_a_small_job_does_not_overtake_a_large_one(scheduler):
    jobs = await started(scheduler, 6, 6, 1)
    assert states(jobs) == [True, False, False]
    jobs[0].end()
    await let_others_run()
    assert states(jobs) == [False, True, True]
    await end_all(jobs)


@scenario(slots=5)
async def test_one_end_can_let_several_run(scheduler):
    jobs = await started(scheduler, 10, 3, 3, 3, 3)
    jobs[0].end()
    await let_others_run()
    assert states(jobs) == [False, True, True, True, False]
    await end_all(jobs)


@scenario(queue=1)
async def test_a_job_is_refused_at_once_when_the_queue_is_full(scheduler):
    jobs = await started(scheduler, 1, 1, 1)
    with pytest.raises(QueueFullError):
        await jobs[2].task
    assert (scheduler.running, scheduler.queued) == (1, 1)
    await end_all(jobs[:2])


@scenario(queue=0)
async def test_without_a_queue_a_job_runs_at_once_or_is_refused(scheduler):
    jobs = await started(scheduler, 1, 1)
    with pytest.raises(QueueFullError):
        await jobs[1].task
    await end_all(jobs[:1])


def test_a_refusal_says_when_to_try_again():
    assert QueueFullError.retry_after_s > 0


@scenario()
async def test_a_job_that_fails_gives_back_what_it_held(scheduler):
    with pytest.raises(ZeroDivisionError):
        async with scheduler.reserve(3):
            raise ZeroDivisionError


@scenario(slots=1)
async def test_memory_can_be_kept_when_the_slot_is_given_back(scheduler):
    gone = asyncio.get_running_loop().create_future()
    first = Job(scheduler, 6, keeps=gone)
    await let_others_run()
    second, third = await started(scheduler, 4, 1)
    first.end()
    await let_others_run()
    # The slot is the second's, and the memory of the first is nobody's yet.
    assert states([first, second, third]) == [False, True, False]
    assert scheduler.memory_free_bytes == 0
    second.end()
    await let_others_run()
    assert states([third]) == [True]
    assert scheduler.memory_free_bytes == 3
    gone.set_result(None)
    await let_others_run()
    assert scheduler.memory_free_bytes == 9
    await end_all([first, second, third])


@scenario(slots=2)
async def test_who_waits_for_memory_that_is_kept_runs_when_it_is_given_back(scheduler):
    gone = asyncio.get_running_loop().create_future()
    first = Job(scheduler, 6, keeps=gone)
    await let_others_run()
    (second,) = await started(scheduler, 6)
    first.end()
    await let_others_run()
    assert (scheduler.running, second.running) == (0, False)
    gone.set_result(None)
    await let_others_run()
    assert second.running
    await end_all([first, second])


@pytest.mark.parametrize("end", ["fails", "is cancelled", "is done already"])
def test_memory_is_given_back_however_what_it_was_kept_for_ends(end):
    @scenario()
    async def play(scheduler):
        gone = asyncio.get_running_loop().create_future()
        if end == "is done already":
            gone.set_result(None)
        job = Job(scheduler, 6, keeps=gone)
        await let_others_run()
        job.end()
        await let_others_run()
        if end == "fails":
            gone.set_exception(OSError("busy"))
            gone.exception()
        elif end == "is cancelled":
            gone.cancel()

    play()


@scenario()
async def test_a_running_job_that_is_cancelled_lets_the_next_run(scheduler):
    jobs = await started(scheduler, 1, 1)
    jobs[0].task.cancel()
    await let_others_run()
    assert states(jobs) == [False, True]
    await end_all(jobs)


@scenario()
async def test_a_waiting_job_that_is_cancelled_leaves_the_queue(scheduler):
    jobs = await started(scheduler, 1, 1, 1)
    jobs[1].task.cancel()
    await let_others_run()
    assert scheduler.queued == 1
    jobs[0].end()
    await let_others_run()
    assert states(jobs) == [False, False, True]
    await end_all(jobs)


@scenario(slots=5)
async def test_those_behind_a_cancelled_job_that_now_fit_run(scheduler):
    jobs = await started(scheduler, 6, 6, 1)
    jobs[1].task.cancel()
    await let_others_run()
    assert states(jobs) == [True, False, True]
    await end_all(jobs)


@scenario()
async def test_a_job_cancelled_before_it_begins_holds_nothing(scheduler):
    job = Job(scheduler)
    job.task.cancel()
    await let_others_run()
    assert scheduler.running == 0


@scenario()
async def test_a_job_cancelled_after_it_was_called_gives_its_turn_back(scheduler):
    jobs = await started(scheduler, 1, 1, 1)
    jobs[0].end()
    # Its turn is given now, and it wakes up only after this.
    await jobs[0].task
    jobs[1].task.cancel()
    await let_others_run()
    assert states(jobs) == [False, False, True]
    await end_all(jobs)


@scenario()
async def test_a_job_cancelled_while_the_slot_comes_free_lets_the_next_run(scheduler):
    jobs = await started(scheduler, 1, 1, 1)
    jobs[0].end()
    jobs[1].task.cancel()
    await let_others_run()
    assert states(jobs) == [False, False, True]
    assert jobs[0].task.exception() is None
    await end_all(jobs)


@scenario(slots=2)
async def test_all_can_be_cancelled_at_once(scheduler):
    jobs = await started(scheduler, 1, 1, 1, 1)
    for job in jobs:
        job.task.cancel()
    ends = await asyncio.gather(*(job.task for job in jobs), return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 4


@scenario(slots=4)
async def test_a_job_of_several_slots_waits_for_all_of_them(scheduler):
    (small,) = await started(scheduler, 1)
    large = Job(scheduler, slots=4)
    await let_others_run()
    # It holds none of the three that are free.
    assert (large.running, scheduler.slots_free, scheduler.memory_free_bytes) == (False, 3, 9)
    small.end()
    await let_others_run()
    assert (large.running, scheduler.slots_free) == (True, 0)
    await end_all([small, large])


@scenario(slots=4, memory_bytes=10)
async def test_two_jobs_that_each_want_more_than_half_do_not_wait_for_each_other(scheduler):
    jobs = [Job(scheduler, 6, slots=3), Job(scheduler, 6, slots=3)]
    await let_others_run()
    assert states(jobs) == [True, False]
    jobs[0].end()
    await let_others_run()
    assert states(jobs) == [False, True]
    await end_all(jobs)


@scenario(slots=4)
async def test_small_jobs_do_not_overtake_one_of_several_slots(scheduler):
    small = await started(scheduler, 1)
    large = Job(scheduler, slots=4)
    await let_others_run()
    later = await started(scheduler, 1, 1)
    assert states([large, *later]) == [False, False, False]
    small[0].end()
    await let_others_run()
    assert states([large, *later]) == [True, False, False]
    large.end()
    await let_others_run()
    assert states([large, *later]) == [False, True, True]
    await end_all([*small, large, *later])


@scenario(slots=4)
async def test_a_job_of_several_slots_counts_once(scheduler):
    large = Job(scheduler, slots=3)
    waiting = Job(scheduler, slots=3)
    await let_others_run()
    assert (scheduler.running, scheduler.queued) == (1, 1)
    await end_all([large, waiting])


@scenario(slots=3)
async def test_what_one_process_held_can_be_given_back_before_its_job_has_ended(scheduler):
    gone = asyncio.get_running_loop().create_future()
    async with scheduler.reserve(9, 3) as reservation:
        (other,) = await started(scheduler, 5)
        reservation.give_back(4, gone)
        await let_others_run()
        # A slot is free, and not yet its memory.
        assert (other.running, scheduler.slots_free, scheduler.memory_free_bytes) == (False, 1, 1)
        gone.set_result(None)
        await let_others_run()
        assert (other.running, scheduler.slots_free, scheduler.memory_free_bytes) == (True, 0, 0)
        assert scheduler.running == 2
    await end_all([other])


@scenario(slots=2)
async def test_a_job_of_several_slots_that_is_cancelled_while_it_waits_lets_others_run(scheduler):
    (small,) = await started(scheduler, 1)
    large = Job(scheduler, slots=2)
    await let_others_run()
    (later,) = await started(scheduler, 1)
    large.task.cancel()
    await let_others_run()
    assert states([small, later]) == [True, True]
    await end_all([small, large, later])


@scenario(slots=2)
async def test_a_job_of_several_slots_cancelled_after_it_was_called_gives_all_back(scheduler):
    (small,) = await started(scheduler, 1)
    large = Job(scheduler, 3, slots=2)
    await let_others_run()
    small.end()
    # Its turn is given now, and it wakes up only after this.
    await small.task
    assert (scheduler.slots_free, scheduler.memory_free_bytes) == (0, 7)
    large.task.cancel()
    await let_others_run()
    assert large.task.cancelled()


# More starts than ends, so that there is somebody to wait.
ACTIONS = ["start", "start", "end", "cancel", "wait", "gone"]
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 3), st.integers(1, 10), st.integers(1, 3)), max_size=15
)


async def play(steps):
    scheduler, jobs, kept = Scheduler(3, 10, 4), [], []
    for action, which, size, slots in steps:
        if action == "start":
            kept.append(asyncio.get_running_loop().create_future())
            jobs.append(Job(scheduler, size, keeps=kept[-1] if which else None, slots=slots))
            await asyncio.sleep(0)
        elif action == "wait":
            await asyncio.sleep(0)
        elif action == "gone" and kept:
            kept.pop(which % len(kept)).set_result(None)
        elif jobs:
            job = jobs[which % len(jobs)]
            job.end() if action == "end" else job.task.cancel()
        assert scheduler.running <= 3
        assert scheduler.queued <= 4
        assert scheduler.slots_free >= 0
        assert scheduler.memory_free_bytes >= 0
        assert sum(job.memory_bytes for job in jobs if job.running) <= 10
        assert sum(job.slots for job in jobs if job.running) <= 3
    for future in kept:
        future.set_result(None)
    for job in jobs:
        job.end()
    ends = await asyncio.gather(*(job.task for job in jobs), return_exceptions=True)
    await let_others_run()
    assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError, QueueFullError}
    assert nothing_is_held(scheduler, 3, 10)


# Not made smaller when they fail: a turn that is never called costs its full time, each time.
@settings(derandomize=True, database=None, deadline=None, max_examples=300, phases=[Phase.generate])
@given(STEPS)
def test_whatever_happens_in_whatever_order_nothing_leaks(steps):
    asyncio.run(limited(play(steps)))
