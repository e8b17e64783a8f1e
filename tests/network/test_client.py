"""The client, where the hub does not do as it should, or the caller does not wait."""

import asyncio
import errno
import select
import signal
import socket
from contextlib import suppress

import msgspec
import pytest
import uvloop

from jail.errors import SandboxError
from jail.network.client import Hub
from jail.network.protocol import Done, Ready

SECONDS = 60


class Peer:
    """The other end of a client, in place of a hub; ready."""

    def __init__(self, runner, until):
        self._runner, self._until = runner, until
        self.hub = self.do(self._start())
        self.say(Ready())
        self.do(self.hub.ready())

    async def _start(self):
        return Hub(self._keep)

    def _keep(self, control):
        self.control = control.dup()

    def do(self, work):
        return self._runner.run(asyncio.wait_for(work, SECONDS))

    def say(self, answer):
        self.control.send(msgspec.json.encode(answer))

    async def open(self):
        opening = asyncio.create_task(self.hub.open({1: self.control.fileno()}))
        await self.done()
        return await opening

    async def done(self):
        """Say that the next thing that is asked is done."""
        await self._until(lambda: self.hub._asked)
        self.say(Done(next(iter(self.hub._asked))))


@pytest.fixture
def peer(until):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        made = Peer(runner, until)
        yield made
        made.hub.close()
        made.control.close()


@pytest.mark.parametrize("packet", [b"{", b"[]", b'{"type":"ready"}', b'{"type":"done","number":7}'])
def test_a_hub_that_says_what_nobody_understands_is_lost(peer, packet):
    segment = peer.do(peer.open())
    socket.send_fds(peer.control, [packet], [peer.control.fileno()])
    peer.do(peer.hub.lost.wait())
    assert segment.lost.is_set()
    with pytest.raises(SandboxError):
        peer.do(segment.close())


def test_counters_of_others_are_none(peer):
    segment = peer.do(peer.open())

    async def close():
        closing = asyncio.create_task(segment.close())
        await peer.done()
        return await closing

    with pytest.raises(SandboxError):
        peer.do(close())
    assert peer.hub.lost.is_set()


def test_a_segment_whose_end_cannot_be_told_takes_the_hub_along(peer):
    segment = peer.do(peer.open())
    with suppress(BlockingIOError):
        while peer.hub._socket.send(b" " * 1000):
            pass
    with pytest.raises(SandboxError) as error:
        peer.do(segment.close())
    assert error.value.error == errno.EAGAIN
    assert peer.hub.lost.is_set()


def test_who_does_not_wait_any_more_makes_no_room(scene):
    """What is asked is under way until the hub has answered."""
    segment = scene.open(scene.member(1))
    scene.process.send_signal(signal.SIGSTOP)

    async def begin_and_cancel():
        begun = [asyncio.create_task(segment.dial(1, 81)) for _ in range(200)]
        while begun:
            await asyncio.sleep(0)
            begun.pop().cancel()
        return len(scene.hub._asked)

    under_way = scene.do(begin_and_cancel())
    assert 0 < under_way <= 32
    scene.process.send_signal(signal.SIGCONT)
    scene.do(segment.close())
    assert not scene.hub._asked


def test_a_connection_that_comes_while_its_caller_goes_is_closed(scene, until):
    """The fixture counts descriptors."""
    one = scene.member(1)
    segment = scene.open(one)
    one.run("server = socket.create_server(('127.0.0.1', 80))")

    async def cancel_as_it_comes():
        scene.process.send_signal(signal.SIGSTOP)
        dialling = asyncio.create_task(segment.dial(1, 80))
        await until(lambda: scene.hub._asked)
        # Nothing is awaited from here on: the loop does not see the answer.
        scene.process.send_signal(signal.SIGCONT)
        assert select.select([scene.hub._socket], [], [], SECONDS)[0]
        scene.hub._read()
        assert not scene.hub._asked
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling

    scene.do(cancel_as_it_comes())
