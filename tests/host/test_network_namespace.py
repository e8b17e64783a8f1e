"""The service has a descriptor of every sandbox's network namespace, and lets go of it with the sandbox."""

import errno
import os
import resource
import signal

import pytest

from jail.sandbox import Sandbox
from jail.stock import HOST, Stock
from jail.supervisor import Supervisor

SLEEPER = {"argv": ["sleep", "1000"]}


def networks(processes, pid="self"):
    """The network namespaces that a process has open, once for each descriptor."""
    return [name for name in processes.descriptors(pid) if name.startswith("net:[")]


@pytest.fixture
def taken(monkeypatch):
    """Every sandbox that a job is given from now on."""
    found = []
    take = Stock.take

    async def take_and_note(self, root):
        found.append(await take(self, root))
        return found[-1]

    monkeypatch.setattr(Stock, "take", take_and_note)
    return found


def test_it_is_the_namespace_that_the_job_is_in(jail, taken, monkeypatch):
    names = []
    close = Sandbox.close

    def note_and_close(self):
        names.append(os.readlink(f"/proc/self/fd/{self.network}"))
        return close(self)

    monkeypatch.setattr(Sandbox, "close", note_and_close)
    told = [jail.sh("readlink /proc/self/ns/net")["stdout"]["text"].strip() for _ in range(3)]
    assert names == told
    assert len({os.readlink("/proc/self/ns/net"), *told}) == 4


def test_every_ready_sandbox_has_one_and_the_supervisor_keeps_none(jail, ready, processes):
    jail.settle()
    assert len(set(networks(processes))) == len(networks(processes)) == ready
    assert networks(processes, jail.supervisor) == []


def open_files(pid):
    """How many descriptors a process has that is closed to us; 0 where the kernel tells none, up to 6.1."""
    return os.stat(f"/proc/{pid}/fd").st_size


def test_neither_init_nor_the_job_keeps_one(jail, processes, executing):
    async def scene():
        run = jail.submit({"argv": ["sh", "-c", "ls -l /proc/self/fd; exec sleep 1000"]})
        (sleeper,) = await executing(jail.supervisor, "sleep")
        opened = open_files(processes.sandbox(jail.supervisor, sleeper)[0])
        run.cancel()
        return opened, await jail.answer(run)

    opened, result = jail.do(scene())
    # Its socket, the notices of deaths and what the filter hands over.
    assert opened in (3, 0)
    assert "net:" not in result["stdout"]["text"]


def test_it_is_closed_at_once_when_the_sandbox_is(jail, taken):
    async def scene():
        await jail.submit({"argv": ["true"]}).task
        # The burial is a task of its own, which has not begun, or is not over.
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(taken[0].network)

    jail.do(scene())
    jail.settle()


def test_those_of_a_lost_supervisor_are_closed(jail, ready, processes, executing):
    async def scene():
        runs = [jail.submit(SLEEPER) for _ in range(3)]
        await executing(jail.supervisor, "sleep", 3)
        before = networks(processes)
        os.kill(jail.supervisor, signal.SIGKILL)
        assert [(await run.task).status for run in runs] == ["sandbox_error"] * 3
        await jail.submit({"argv": ["true"]}).task
        return before

    before = jail.do(scene())
    jail.settle()
    assert len(before) >= 3
    assert len(networks(processes)) == ready


def test_a_sandbox_whose_network_cannot_be_taken_is_not_used(jail, monkeypatch):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    make = Supervisor.make

    def make_and_leave_no_room(self, *arguments):
        asked = make(self, *arguments)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        return asked

    monkeypatch.setattr(Supervisor, "make", make_and_leave_no_room)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            jail.do(jail.engine.sandboxes._make_at_once(jail.engine.sandboxes.stock._shelves[HOST]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
