"""Ready sandboxes: how many are made and when, who gets which, and that none is left or given twice."""

import asyncio
from collections import deque

from clocked import Loop
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jail.errors import SandboxError
from jail.pool import AT_ONCE, LEAD_SECONDS, PAUSE_SECONDS, Pool, Size

ENOUGH_BYTES = 1 << 30


class Sandbox:
    def __init__(self, memory_bytes):
        self.memory_bytes = memory_bytes
        self.alive = True
        self.closed = False

    def close(self):
        assert not self.closed, "closed twice"
        self.closed = True


class Workshop:
    """Makes sandboxes: at once, or, once `held`, those that are asked for when finish() or fail() says so."""

    def __init__(self, memory_bytes=1):
        self.memory_bytes = memory_bytes
        self.held = False
        self.made = []
        self.orders = deque()

    async def make(self):
        if self.held:
            order = asyncio.get_running_loop().create_future()
            self.orders.append(order)
            await order
        self.made.append(Sandbox(self.memory_bytes))
        return self.made[-1]

    def finish(self):
        self.orders.popleft().set_result(None)

    def fail(self, error):
        self.orders.popleft().set_exception(error)


class Scene:
    """A pool, what makes for it, and those who take from it."""

    def __init__(self, loop, minimum, maximum, memory_bytes, each_bytes):
        self.loop = loop
        self.workshop = Workshop(each_bytes)
        self.takers = []
        self.pool = Pool(self.workshop.make, Size(minimum, maximum, memory_bytes), loop.time)

    @property
    def given(self):
        """What takers got, in the order of their coming."""
        return [taker.result() for taker in self.takers if got(taker)]

    @property
    def open(self):
        return [sandbox for sandbox in self.workshop.made if not sandbox.closed]

    async def take(self, count=1):
        """Have so many come, and see to it that all who can be served are."""
        self.takers += [asyncio.ensure_future(self.pool.take()) for _ in range(count)]
        for _ in range(count):
            await let_others_run()
        return self.takers[-count:]

    async def wait(self, seconds):
        """Let time pass."""
        self.loop.now += seconds
        await let_others_run()

    async def close(self):
        """Close the pool and what was taken from it; what it makes meanwhile is made at last."""
        closing = asyncio.ensure_future(self.pool.close())
        self.workshop.held = False
        await let_others_run()
        while self.workshop.orders:
            self.workshop.finish()
        await let_others_run()
        assert closing.done()
        for sandbox in self.given:
            sandbox.close()


def got(taker):
    return taker.done() and not taker.cancelled() and not taker.exception()


async def fail_unseen(scene, error):
    """Have one fail to be made when nobody waits for it; it was to take the place of one that was taken."""
    await scene.pool.fill()
    scene.workshop.held = True
    await scene.take()
    scene.workshop.fail(error)
    await let_others_run()


async def let_others_run():
    for _ in range(8):
        await asyncio.sleep(0)


def run(scene):
    """Run a coroutine with a loop whose clock stands still; nothing may go wrong unseen."""
    loop, wrong = Loop(), []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(scene(loop))
    return wrong


def scenario(minimum=0, maximum=10, memory_bytes=ENOUGH_BYTES, each_bytes=1):
    """Run a test's coroutine with a scene, and see that none is left, nor was given twice."""

    def decorate(test):
        async def play(loop):
            scene = Scene(loop, minimum, maximum, memory_bytes, each_bytes)
            await test(scene)
            await scene.close()
            assert scene.open == []
            assert len(set(scene.given)) == len(scene.given)

        def plain():
            assert run(play) == []

        plain.__name__ = test.__name__
        return plain

    return decorate


@scenario(maximum=0)
async def test_of_no_size_it_makes_each_when_it_is_taken(scene):
    await scene.take(3)
    assert scene.given == scene.workshop.made
    assert len(scene.given) == 3
    assert scene.pool.ready == 0


@scenario(minimum=3)
async def test_it_fills_up_to_its_least_size_and_no_further(scene):
    filling = asyncio.ensure_future(scene.pool.fill())
    await let_others_run()
    assert filling.done()
    assert len(scene.workshop.made) == scene.pool.ready == 3


@scenario(minimum=4)
async def test_others_are_made_when_half_are_gone(scene):
    await scene.pool.fill()
    scene.workshop.held = True
    await scene.take()
    assert len(scene.workshop.orders) == 0
    await scene.take()
    assert len(scene.workshop.orders) == 2


@scenario(minimum=4)
async def test_others_are_made_in_a_pause(scene):
    await scene.pool.fill()
    scene.workshop.held = True
    await scene.take()
    await scene.wait(PAUSE_SECONDS * 0.9)
    assert len(scene.workshop.orders) == 0
    await scene.wait(PAUSE_SECONDS * 0.2)
    assert len(scene.workshop.orders) == 1


@scenario(minimum=20, maximum=20)
async def test_not_many_are_made_at_once(scene):
    scene.workshop.held = True
    filling = asyncio.ensure_future(scene.pool.fill())
    await let_others_run()
    assert len(scene.workshop.orders) == AT_ONCE
    scene.workshop.finish()
    await let_others_run()
    assert len(scene.workshop.orders) == AT_ONCE
    filling.cancel()


@scenario(minimum=20, maximum=20)
async def test_while_jobs_wait_none_is_made_but_for_them(scene):
    scene.workshop.held = True
    await scene.take(3)
    assert len(scene.workshop.orders) == 3
    scene.workshop.finish()
    await let_others_run()
    assert len(scene.given) == 1
    assert len(scene.workshop.orders) == 2


@scenario(minimum=2)
async def test_who_comes_while_one_is_made_that_fails_has_another_made(scene):
    await scene.pool.fill()
    scene.workshop.held = True
    await scene.take(2)
    first = len(scene.workshop.orders)
    (later,) = await scene.take()
    for _ in range(first):
        scene.workshop.fail(SandboxError("clone"))
    await let_others_run()
    assert not later.done()
    scene.workshop.finish()
    await let_others_run()
    assert got(later)


@scenario(minimum=3)
async def test_filling_waits_for_what_is_being_made_already(scene):
    scene.workshop.held = True
    await scene.take()
    filling = asyncio.ensure_future(scene.pool.fill())
    for _ in range(4):
        await let_others_run()
        assert not filling.done()
        scene.workshop.finish()
    await let_others_run()
    assert filling.done()
    assert scene.pool.ready == 3


@scenario(minimum=2)
async def test_filling_tells_why_it_cannot(scene):
    scene.workshop.held = True
    filling = asyncio.ensure_future(scene.pool.fill())
    await let_others_run()
    scene.workshop.finish()
    scene.workshop.fail(SandboxError("clone"))
    await let_others_run()
    assert filling.exception().stage == "clone"


@scenario(minimum=2)
async def test_who_takes_a_ready_one_does_not_wait_and_another_is_made(scene):
    await scene.pool.fill()
    first, second = scene.workshop.made
    scene.workshop.held = True
    await scene.take()
    assert scene.given == [first]
    assert (scene.pool.ready, len(scene.workshop.orders)) == (1, 1)
    await scene.take()
    assert scene.given == [first, second]
    assert (scene.pool.ready, len(scene.workshop.orders)) == (0, 2)


@scenario(minimum=1, maximum=1)
async def test_whoever_waits_longest_is_served_first_and_before_the_pool(scene):
    scene.workshop.held = True
    takers = await scene.take(3)
    for served in range(1, 4):
        scene.workshop.finish()
        await let_others_run()
        assert [taker.done() for taker in takers] == [True] * served + [False] * (3 - served)
        assert scene.pool.ready == 0
    scene.workshop.finish()
    await let_others_run()
    assert scene.pool.ready == 1


@scenario(minimum=2, maximum=20)
async def test_its_size_follows_the_demand_of_the_last_second(scene):
    per_second = int(8 / LEAD_SECONDS)
    for _ in range(per_second):
        await scene.take()
    await scene.wait(PAUSE_SECONDS)
    assert scene.pool.ready == 8
    await scene.wait(0.9)
    await scene.take()
    await scene.wait(PAUSE_SECONDS)
    assert 8 <= scene.pool.ready <= 9
    # Of those that were taken in the last second there is none left.
    await scene.wait(1.1)
    assert scene.pool.ready == 2
    assert len(scene.open) == 2 + len(scene.given)


@scenario(minimum=0, maximum=5)
async def test_it_is_never_larger_than_its_most(scene):
    await scene.take(1000)
    assert scene.pool.ready == 5


@scenario(minimum=10, memory_bytes=100, each_bytes=30)
async def test_it_is_never_larger_than_its_memory(scene):
    await scene.take(20)
    assert scene.pool.ready == 3
    scene.workshop.memory_bytes = 101
    await scene.take(3)
    assert scene.pool.ready == 0
    # Without any it still makes what is taken.
    await scene.take()
    assert len(scene.given) == 24


@scenario(maximum=0)
async def test_a_failure_is_told_to_whoever_has_waited_longest(scene):
    scene.workshop.held = True
    first, second = await scene.take(2)
    scene.workshop.fail(SandboxError("cgroup"))
    scene.workshop.finish()
    await let_others_run()
    assert first.exception().stage == "cgroup"
    assert scene.given == [second.result()]


@scenario(maximum=0)
async def test_a_defect_is_told_to_whoever_waits(scene):
    scene.workshop.held = True
    (taker,) = await scene.take()
    scene.workshop.fail(KeyError("of ours"))
    await let_others_run()
    assert isinstance(taker.exception(), KeyError)


@scenario(minimum=1, maximum=1)
async def test_after_a_failure_that_nobody_waited_for_the_next_to_come_has_one_made(scene):
    await fail_unseen(scene, OSError("no memory"))
    assert (scene.pool.ready, len(scene.workshop.orders)) == (0, 0)
    await scene.take()
    assert len(scene.workshop.orders) == 1
    scene.workshop.finish()
    await let_others_run()
    assert len(scene.given) == 2


def test_a_defect_that_nobody_waits_for_is_logged():
    async def play(loop):
        scene = Scene(loop, 1, 1, ENOUGH_BYTES, 1)
        await fail_unseen(scene, KeyError("of ours"))
        await scene.close()

    (told,) = run(play)
    assert isinstance(told["exception"], KeyError)


@scenario(minimum=1)
async def test_a_failure_that_nobody_waited_for_is_tried_again_later(scene):
    await fail_unseen(scene, OSError("no memory"))
    assert (scene.pool.ready, len(scene.workshop.orders)) == (0, 0)
    await scene.wait(1.1)
    scene.workshop.finish()
    await let_others_run()
    assert scene.pool.ready == 1


@scenario(minimum=3, maximum=3)
async def test_those_that_died_while_they_were_ready_are_given_to_nobody(scene):
    await scene.pool.fill()
    first, second, third = scene.workshop.made
    first.alive = second.alive = False
    await scene.take()
    assert scene.given == [third]
    assert first.closed
    assert second.closed
    assert scene.pool.ready == 3


@scenario(minimum=2, maximum=2)
async def test_when_all_have_died_one_is_made(scene):
    await scene.pool.fill()
    dead = list(scene.workshop.made)
    for sandbox in dead:
        sandbox.alive = False
    await scene.take()
    assert not set(scene.given) & set(dead)
    assert scene.pool.ready == 2


@scenario(maximum=0)
async def test_who_goes_while_he_waits_takes_nothing_with_him(scene):
    scene.workshop.held = True
    first, second = await scene.take(2)
    first.cancel()
    await let_others_run()
    scene.workshop.finish()
    scene.workshop.finish()
    await let_others_run()
    assert first.cancelled()
    assert got(second)
    # The other was made for nobody, and none is kept.
    assert scene.open == [second.result()]


@scenario(maximum=0)
async def test_who_goes_in_the_moment_of_his_turn_leaves_it_to_the_next(scene):
    scene.workshop.held = True
    first, second = await scene.take(2)
    scene.workshop.finish()
    # It is made, and handed out, and wakes up only after this.
    await asyncio.sleep(0)
    assert len(scene.workshop.made) == 1
    assert not first.done()
    first.cancel()
    await let_others_run()
    assert first.cancelled()
    assert second.result() is scene.workshop.made[0]


@scenario(minimum=2, maximum=2)
async def test_closing_leaves_none_that_is_ready_and_none_that_is_on_its_way(scene):
    await scene.pool.fill()
    scene.workshop.held = True
    await scene.take()
    closing = asyncio.ensure_future(scene.pool.close())
    await let_others_run()
    assert not closing.done()
    scene.workshop.finish()
    await let_others_run()
    assert closing.done()
    assert scene.open == scene.given


@scenario(maximum=0)
async def test_what_has_just_been_made_is_not_taken_for_one_that_is_to_come(scene):
    scene.workshop.held = True
    await scene.take()
    scene.workshop.finish()
    await scene.take()
    assert len(scene.workshop.orders) == 1
    scene.workshop.finish()
    await let_others_run()
    assert len(scene.given) == 2


@scenario(minimum=2, maximum=2)
async def test_what_is_made_in_the_moment_of_a_taking_is_counted_once(scene):
    await scene.pool.fill()
    scene.workshop.held = True
    await scene.take()
    scene.loop.call_soon(scene.workshop.finish)
    await scene.take()
    assert scene.pool.ready + len(scene.workshop.orders) == 2


ACTIONS = ["take", "take", "finish", "finish", "fail", "leave", "die", "pass", "turn"]
STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9)), max_size=40)
SIZES = st.tuples(st.integers(0, 3), st.integers(0, 3))


async def act(scene, action, which):
    waiting = [taker for taker in scene.takers if not taker.done()]
    if action == "take":
        scene.takers.append(asyncio.ensure_future(scene.pool.take()))
    elif action == "finish" and scene.workshop.orders:
        scene.workshop.finish()
    elif action == "fail" and scene.workshop.orders:
        scene.workshop.fail(SandboxError("clone"))
    elif action == "leave" and waiting:
        waiting[which % len(waiting)].cancel()
    elif action == "die" and scene.workshop.made:
        scene.workshop.made[which % len(scene.workshop.made)].alive = False
    elif action == "pass":
        scene.loop.now += which / 10
    else:
        await asyncio.sleep(0)


async def whatever_happens(loop, sizes, steps):
    minimum, more = sizes
    scene = Scene(loop, minimum, minimum + more, ENOUGH_BYTES, 1)
    scene.workshop.held = True
    for action, which in steps:
        await act(scene, action, which)
        assert scene.pool.ready <= minimum + more
    await let_others_run()
    # For everybody who waits one is on its way.
    waiting = [taker for taker in scene.takers if not taker.done()]
    assert len(waiting) <= len(scene.workshop.orders)
    await scene.close()
    await let_others_run()
    assert all(taker.done() for taker in scene.takers)
    assert len(set(scene.given)) == len(scene.given)
    assert scene.open == []


@settings(derandomize=True, database=None, deadline=None, max_examples=300, phases=[Phase.generate])
@given(SIZES, STEPS)
def test_whatever_happens_in_whatever_order_nobody_waits_in_vain(sizes, steps):
    assert run(lambda loop: whatever_happens(loop, sizes, steps)) == []
