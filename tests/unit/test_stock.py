"""Roots and their ready sandboxes: what is kept of each, for how long, and within which bounds."""

import asyncio
from contextlib import ExitStack

import pytest
from clocked import Loop

from jail.catalogue import Made
from jail.errors import ImageNotFoundError, SandboxError
from jail.image import Image, Root
from jail.pool import Size
from jail.stock import HOST, IDLE_SECONDS, LOOK_SECONDS, ROOTS_MAX, Stock

MANY = 1 << 30


class Sandbox:
    alive = True
    memory_bytes = 1

    def __init__(self, shelf):
        self.shelf = shelf

    def close(self):
        self.shelf.leave()


class Scene:
    """A stock of what costs nothing to make. `made`, `let_go`: the digests of roots, as that happened."""

    def __init__(self, loop, maximum=64, memory_bytes=MANY, minimum=0):
        self.loop = loop
        self.made = []
        self.let_go = []
        self.gone = set()
        self.wanted_back = set()
        self.stock = Stock(self, self._make, Size(minimum, maximum, memory_bytes), loop.time)

    def make(self, root):
        """As the catalogue does."""
        if root.digest in self.gone:
            raise ImageNotFoundError("Gone.", "Bring it in again.")
        self.made.append(root.digest)
        undo = ExitStack()
        undo.callback(self.let_go.append, root.digest)
        return Made(Image(root.digest, ()), undo)

    def asked_back(self):
        """As the catalogue does."""
        return self.wanted_back

    async def _make(self, shelf):
        shelf.enter()
        return Sandbox(shelf)

    async def take(self, digest=""):
        taken = await self.stock.take(Root(digest))
        await self.rest()
        return taken

    async def rest(self):
        while self.stock.making or self.stock.tasks:
            await asyncio.wait(self.stock.making | self.stock.tasks)
        await asyncio.sleep(0)

    async def wait(self, seconds):
        """Let so much time pass, timer by timer."""
        end = self.loop.now + seconds
        while self.loop.now < end:
            self.loop.now = min(end, self.loop.now + 1)
            await asyncio.sleep(0)
            await self.rest()


@pytest.fixture
def play():
    """Run a scene to its end, where nothing of any root may be left."""

    def run(act, **sizes):
        async def whole():
            scene = Scene(asyncio.get_running_loop(), **sizes)
            await act(scene)
            await scene.stock.close()
            assert sorted(scene.let_go) == sorted(scene.made)

        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(whole())

    return run


def test_a_root_is_made_once_and_has_one_ready(play):
    async def act(scene):
        for _ in range(3):
            (await scene.take("a")).close()
            await scene.wait(2)
        assert scene.made == ["", "a"]
        assert scene.stock.ready == 1

    play(act)


def test_a_root_that_nobody_asks_for_is_let_go(play):
    async def act(scene):
        (await scene.take("a")).close()
        await scene.wait(IDLE_SECONDS / 2)
        assert scene.let_go == []
        await scene.wait(IDLE_SECONDS)
        assert scene.let_go == ["a"]
        assert scene.stock.ready == 0
        (await scene.take("a")).close()
        assert scene.made == ["", "a", "a"]

    play(act)


def test_a_root_in_which_a_job_runs_is_kept(play):
    async def act(scene):
        taken = await scene.take("a")
        await scene.wait(3 * IDLE_SECONDS)
        assert scene.let_go == []
        taken.close()
        await scene.wait(IDLE_SECONDS)
        assert scene.let_go == ["a"]

    play(act)


def test_what_is_kept_ready_of_an_image_that_somebody_removes_is_let_go_at_once(play):
    async def act(scene):
        for name in ("a", "a", "b", "b"):
            (await scene.take(name)).close()
        await scene.wait(LOOK_SECONDS)
        assert scene.stock.ready == 2
        scene.wanted_back.add("a")
        await scene.wait(2 * LOOK_SECONDS)
        assert (scene.let_go, scene.stock.ready) == (["a"], 1)

    play(act)


def test_an_image_that_somebody_removes_is_kept_for_as_long_as_a_job_runs_in_it(play):
    async def act(scene):
        taken = await scene.take("a")
        scene.wanted_back.add("a")
        await scene.wait(2 * LOOK_SECONDS)
        assert scene.let_go == []
        taken.close()
        await scene.wait(2 * LOOK_SECONDS)
        assert scene.let_go == ["a"]

    play(act)


def test_the_hosts_own_root_is_never_let_go(play):
    async def act(scene):
        (await scene.take()).close()
        await scene.wait(3 * IDLE_SECONDS)
        assert scene.let_go == []

    play(act)


def test_of_too_many_roots_that_one_goes_that_was_asked_for_longest_ago(play):
    async def act(scene):
        for number in range(ROOTS_MAX - 1):
            (await scene.take(str(number))).close()
            await scene.wait(0.1)
        (await scene.take("0")).close()
        await scene.take("another")
        await scene.rest()
        assert scene.let_go == ["1"]

    async def whole(scene):
        await act(scene)
        for shelf in scene.stock._shelves.values():
            while not shelf.idle:
                shelf.leave()

    play(whole)


def test_what_is_kept_of_the_hosts_own_root_is_the_operators_choice(play):
    async def act(scene):
        for _ in range(3):
            (await scene.take()).close()
        await scene.wait(3)
        assert scene.stock.ready == 0

    play(act)


def test_an_image_that_is_gone_when_the_job_comes_is_a_failure_of_ours(play):
    async def act(scene):
        scene.gone.add("a")
        with pytest.raises(SandboxError) as error:
            await scene.take("a")
        assert error.value.stage == "image"

    play(act)


@pytest.mark.parametrize("sizes", [{"maximum": 3}, {"memory_bytes": 3}])
def test_what_all_roots_keep_ready_is_bounded(play, sizes):
    async def act(scene):
        for name in "abcdef":
            (await scene.take(name)).close()
            assert scene.stock.ready <= 3
        assert scene.stock.ready == 3

    play(act, **sizes)


def test_with_none_kept_ready_none_is_of_any_root(play):
    async def act(scene):
        (await scene.take("a")).close()
        await scene.wait(2)
        assert scene.stock.ready == 0

    play(act, maximum=0)


def test_the_minimum_is_of_the_hosts_own_root(play):
    async def act(scene):
        await scene.stock.fill()
        assert scene.stock.ready == 4
        (await scene.take("a")).close()
        assert scene.stock._shelves[HOST].pool.ready == 4
        assert scene.stock.ready == 5

    play(act, minimum=4)
