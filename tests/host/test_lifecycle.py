"""What happens to jobs when a part of jail dies, or when they are cancelled."""

import asyncio
import errno
import json
import os
import resource
import signal

import httpx
import msgspec
import pytest
from jail._protocol import ffi, lib

from jail import settings, spec
from jail.engine import Engine
from jail.outcome import Failure
from jail.supervisor import Supervisor

SLEEPER = {"argv": ["sleep", "1000"]}


def test_jobs_of_a_killed_supervisor_answer_sandbox_error_and_the_next_has_a_new_one(
    jail, processes, executing
):
    async def scene():
        killed = jail.supervisor
        runs = [jail.submit(SLEEPER) for _ in range(3)]
        await executing(killed, "sleep", 3)
        family = processes.descendants(killed)
        os.kill(killed, signal.SIGKILL)
        results = [await jail.answer(run) for run in runs]
        processes.wait_for_end(family)
        return killed, results, await jail.answer(jail.submit({"argv": ["echo", "next"]}))

    killed, results, following = jail.do(scene())
    assert [result["status"] for result in results] == ["sandbox_error"] * 3
    assert "supervisor" in results[0]["detail"]
    assert following["stdout"]["text"] == "next\n"
    assert jail.supervisor != killed


def test_why_a_supervisor_ended_is_told(jail, executing):
    async def scene():
        run = jail.submit(SLEEPER)
        await executing(jail.supervisor, "sleep")
        # No request is that short.
        jail.engine.sandboxes.supervisor._socket.send(b"x")
        await run.task
        return run

    assert jail.do(scene()).failure == Failure("supervisor", errno.EPROTO, 0)


@pytest.fixture
def spoilt(jail, ready, monkeypatch):
    """Run jobs, whose requests are changed on their way if they are of that kind; where one failed."""

    def run(kind, number, change):
        send = Supervisor._send

        def spoil(self, packet, descriptors=()):
            packet = bytearray(packet)
            if ffi.from_buffer("struct header *", packet).type == number:
                descriptors = change(ffi.from_buffer(f"struct {kind} *", packet), descriptors)
            send(self, bytes(packet), descriptors)

        async def scene():
            # Those that are ready were made before.
            for _ in range(ready + 1):
                found = jail.submit({"argv": ["true"]})
                await found.task
                if found.failure:
                    break
            return found.failure

        monkeypatch.setattr(Supervisor, "_send", spoil)
        failure = jail.do(scene())
        jail.settle()
        return failure

    return run


def without_cgroup(make, descriptors):
    skipped, make.joins, make.born = make.joins + 2 * make.born, 0, 0
    return descriptors[skipped:]


def with_ids(text):
    def change(make, descriptors):
        make.id_map = text
        return descriptors

    return change


@pytest.mark.parametrize(
    "change",
    [
        without_cgroup,
        # The service's own user; one for both; more than one.
        with_ids(b"0 7 1\n1000 0 1\n"),
        with_ids(b"0 7 1\n1000 7 1\n"),
        with_ids(b"0 7 1\n1000 8 9\n"),
    ],
)
def test_a_service_that_was_taken_over_gets_no_sandbox_without_a_barrier(spoilt, change):
    assert spoilt("make", lib.TYPE_MAKE, change) == Failure("supervisor", errno.EPROTO, 0)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_service_that_was_taken_over_can_give_no_directory_to_a_job(spoilt, place):
    outside = os.open("/", os.O_PATH | os.O_CLOEXEC)

    def change(_start, descriptors):
        return (*descriptors[:place], outside, *descriptors[place + 1 :])

    try:
        assert spoilt("start", lib.TYPE_START, change) == Failure("supervisor", errno.EPROTO, 0)
    finally:
        os.close(outside)


def test_why_there_can_be_no_supervisor_is_told_and_the_next_job_has_one(jail):
    sandboxes = jail.engine.sandboxes
    limits = resource.prlimit(sandboxes.keeper.pid, resource.RLIMIT_NPROC)

    async def scene():
        resource.prlimit(sandboxes.keeper.pid, resource.RLIMIT_NPROC, (0, limits[1]))
        os.kill(jail.supervisor, signal.SIGKILL)
        await sandboxes.supervisor.lost.wait()
        run = jail.submit({"argv": ["true"]})
        await run.task
        resource.prlimit(sandboxes.keeper.pid, resource.RLIMIT_NPROC, limits)
        return run.failure, await jail.answer(jail.submit({"argv": ["true"]}))

    failure, following = jail.do(scene())
    assert failure == Failure("supervisor", errno.EAGAIN, 0)
    assert following["status"] == "ok"


def test_without_its_keeper_an_engine_answers_sandbox_error(executing, state, processes):
    found = msgspec.structs.replace(settings.load({}), slots=1, state=str(state))

    async def scene():
        async with Engine(found) as engine:
            keeper = engine.sandboxes.keeper
            rules = engine.rules
            running = engine.submit(spec.parse(json.dumps(SLEEPER).encode(), rules))
            (sleeper,) = await executing(engine.sandboxes.supervisor.pid, "sleep")
            os.kill(keeper.pid, signal.SIGKILL)
            first = await running.task
            await keeper.lost.wait()
            following = engine.submit(spec.parse(json.dumps(SLEEPER).encode(), rules))
            await following.task
            processes.wait_for_end([sleeper])
            return first, following

    first, following = asyncio.run(scene())
    assert first.status == "sandbox_error"
    assert following.failure.stage == "keeper"


def test_jobs_that_wait_survive_the_death_of_the_supervisor(jail, executing):
    async def scene():
        running = [jail.submit(SLEEPER) for _ in range(4)]
        waiting = jail.submit({"argv": ["echo", "waited"]})
        await executing(jail.supervisor, "sleep", 4)
        assert jail.engine.scheduler.queued == 1
        os.kill(jail.supervisor, signal.SIGKILL)
        for run in running:
            assert (await run.task).status == "sandbox_error"
        return await jail.answer(waiting)

    assert jail.do(scene())["stdout"]["text"] == "waited\n"


def test_a_job_that_waits_can_be_cancelled(jail, executing):
    async def scene():
        running = [jail.submit(SLEEPER) for _ in range(4)]
        waiting = jail.submit(SLEEPER)
        await executing(jail.supervisor, "sleep", 4)
        waiting.cancel()
        result = await jail.answer(waiting)
        assert jail.engine.scheduler.queued == 0
        for run in running:
            run.cancel()
        await asyncio.wait([run.task for run in running])
        return result

    result = jail.do(scene())
    assert (result["status"], result["usage"], result["timing"]["setup_ms"]) == ("cancelled", None, 0)


@pytest.mark.parametrize("turns", range(12))
def test_a_job_that_is_being_set_up_can_be_cancelled(jail, turns):
    async def scene():
        run = jail.submit(SLEEPER)
        for _ in range(turns):
            await asyncio.sleep(0)
        run.cancel()
        return await jail.answer(run)

    assert jail.do(scene())["status"] == "cancelled"


def test_a_job_can_be_cancelled_while_its_sandbox_is_built(jail, until, processes):
    async def scene():
        before = len(processes.children(jail.supervisor))
        run = jail.submit(SLEEPER)
        await until(lambda: len(processes.children(jail.supervisor)) > before)
        run.cancel()
        return await jail.answer(run)

    assert jail.do(scene())["status"] == "cancelled"


def test_a_job_that_runs_can_be_cancelled(jail, executing):
    async def scene():
        run = jail.submit({"argv": ["sh", "-c", "echo begun; exec sleep 1000"]})
        await executing(jail.supervisor, "sleep")
        run.cancel()
        run.cancel()
        return await jail.answer(run)

    result = jail.do(scene())
    assert (result["status"], result["stdout"]["text"]) == ("cancelled", "begun\n")
    assert result["usage"]["cpu_ms"] > 0


def test_cancelling_a_job_that_has_ended_changes_nothing(jail):
    async def scene():
        run = jail.submit({"argv": ["true"]})
        await run.task
        run.cancel()
        return await jail.answer(run)

    assert jail.do(scene())["status"] == "ok"


def test_what_a_killed_service_ran_dies_and_the_next_one_sweeps(
    serve, processes, executing, jail, cgroups_named, state, ready
):
    async def scene():
        async with httpx.AsyncClient(base_url=service.url) as client:
            posts = [asyncio.create_task(client.post("/v1/run", json=SLEEPER)) for _ in range(2)]
            await executing(service.supervisor, "sleep", 2)
            service.settle()
            family = processes.descendants(service.pid)
            service.signal(signal.SIGKILL)
            answers = await asyncio.gather(*posts, return_exceptions=True)
            assert all(isinstance(answer, httpx.TransportError) for answer in answers)
        return family

    def instances():
        return list((state / "instances").iterdir())

    service = serve(JAIL_SLOTS="2", JAIL_STATE=str(state))
    (killed,) = instances()
    family = jail.do(scene())
    # The keeper, the supervisor, and an init and a job for each of two, or one to come.
    assert len(family) == 2 + 2 * (2 + ready)
    processes.wait_for_end(family)
    service.wait()
    assert killed.exists()
    assert cgroups_named(killed.name)

    serve(JAIL_STATE=str(state))
    assert killed not in instances()
    assert not cgroups_named(killed.name)
    # The sweep took nothing of those that live.
    assert jail.run({"argv": ["true"]})["status"] == "ok"
