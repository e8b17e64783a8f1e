"""The program itself: how it starts, and how it ends."""

import asyncio
import errno
import signal
import subprocess
import sys

import pytest

from jail.errors import SandboxError
from jail.keeper import Kept
from jail.network import client, confinement, networks
from jail.network.client import Hub
from jail.supervisor import SLOTS_MAX


def test_a_hub_that_is_killed_is_lost_with_all_that_is_asked_of_it(scene, until):
    made = [scene.member(1), scene.member(2)]
    segment = scene.open(*made)
    scene.expected_status = -signal.SIGKILL
    scene.process.send_signal(signal.SIGSTOP)

    async def ask_and_kill():
        asked = [
            asyncio.create_task(work)
            for work in (scene.hub.open({3: made[0].namespace}), segment.dial(1, 80), segment.close())
        ]
        await until(lambda: len(scene.hub._asked) == 3)
        scene.process.kill()
        await scene.hub.lost.wait()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = scene.do(ask_and_kill())
    assert [type(answer) for answer in answers] == [SandboxError] * 3
    assert {answer.stage for answer in answers} == {"network"}
    for work in (scene.hub.open({4: made[0].namespace}), segment.close(), scene.hub.ready()):
        with pytest.raises(SandboxError):
            scene.do(work)


@pytest.mark.parametrize("what", ["start", "answer"])
def test_a_hub_that_does_not_answer_is_lost_and_ends(scene, monkeypatch, what):
    if what == "answer":
        scene.do(scene.hub.ready())
        segment = scene.open(scene.member(1))
        monkeypatch.setattr(client, "ANSWER_SECONDS", 0.01)
        scene.process.send_signal(signal.SIGSTOP)
        asked = segment.close()
    else:
        monkeypatch.setattr(client, "START_SECONDS", 0.01)

        async def start():
            return Hub(scene._begin)

        scene.hub.close()
        scene.process.wait()
        scene.hub = scene.do(start())
        scene.process.send_signal(signal.SIGSTOP)
        asked = scene.hub.ready()
    with pytest.raises(SandboxError):
        scene.do(asked)
    assert scene.hub.lost.is_set()
    # It finds its socket closed: the fixture sees that it ends.
    scene.process.send_signal(signal.SIGCONT)


def test_a_service_ends_though_its_hub_does_not_run(scene, monkeypatch):
    monkeypatch.setattr(networks, "END_SECONDS", 0.01)

    def start(control):
        scene._begin(control)
        kept = Kept("hub")
        kept.started.set_result(scene.process.pid)
        return kept

    async def use_and_close():
        made = networks.Networks(start)
        await made._running().ready()
        scene.process.send_signal(signal.SIGSTOP)
        await made.close()

    scene.hub.close()
    scene.process.wait()
    scene.do(use_and_close())
    scene.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    "packet", [b"{", b"[]", b'{"type":"stop"}', b'{"type":"close","number":1}', b" " * 9000]
)
def test_a_request_that_is_none_ends_the_hub(scene, packet):
    scene.do(scene.hub.ready())
    scene.expected_status = 1
    scene.hub._socket.send(packet)
    scene.do(scene.hub.lost.wait())


def test_a_hub_that_cannot_start_says_why(scene):
    """Who is nobody cannot make a network namespace."""
    ended = []

    def start(control):
        command = [sys.executable, "-P", "-m", "jail.network", "4", "1001"]
        ended.append(subprocess.Popen(command, stdin=control, stderr=subprocess.DEVNULL))

    async def begin():
        hub = Hub(start)
        with pytest.raises(SandboxError) as error:
            await hub.ready()
        await hub.lost.wait()
        return hub.words, error.value.error

    words, error = scene.do(begin())
    assert error == errno.EPERM
    assert "not permitted" in words
    assert ended[0].wait() == 1


@pytest.mark.parametrize("scene", [SLOTS_MAX], indirect=True)
def test_a_hub_has_rules_for_as_many_slots_as_a_supervisor(scene):
    """More than fit into one message of nft's."""
    one, last = scene.members(0, SLOTS_MAX - 1)
    last.run("server = socket.create_server(('', 80))")
    reached = one.value(f"socket.create_connection(({last.ipv4!r}, 80), SECONDS).getpeername()[0]")
    assert reached == last.ipv4


def test_a_hub_keeps_no_more_than_it_needs(scene, processes):
    scene.do(scene.hub.ready())
    for thread in scene.threads():
        status = processes.status(thread)
        assert status["NoNewPrivs"] == "1"
        assert status["CapInh"] == status["CapAmb"] == "0" * 16
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(status[name], 16) == confinement.KEPT
    # With one it was started.
    assert not [one for one in processes.descriptors(scene.process.pid) if one.startswith("user:")]
