"""Jobs of several processes: each in a sandbox of its own, all started together, ended as one."""

import asyncio
import errno
import gc
import os
import signal
import weakref

import pytest
from jail._protocol import ffi, lib

from jail import process as process_module
from jail.sandbox import Sandbox
from jail.supervisor import Supervisor

MIB = 1 << 20
SLEEPER = ["sleep", "1000"]
ENDED_WITH_JOB = ("cancelled", "ended with the job")


def sh(name, script, **more):
    return {"name": name, "argv": ["sh", "-c", script], **more}


def sleeper(name, **more):
    return {"name": name, "argv": SLEEPER, **more}


def of(result, field):
    """That field of every process."""
    return {name: told[field] for name, told in result["processes"].items()}


def ends(result):
    """In which order they ended."""
    return [end["process"] for end in result["ended"]]


@pytest.fixture
def group(jail):
    """Run a job of these processes, and see that it gave everything back."""

    def run(*processes):
        result = jail.run({"processes": processes})
        jail.settle()
        assert_nothing_is_held(jail)
        return result

    return run


def assert_nothing_is_held(jail):
    scheduler = jail.engine.scheduler
    assert (scheduler.running, scheduler.queued, scheduler.slots_free) == (0, 0, 4)
    assert scheduler.memory_free_bytes == scheduler.memory_bytes


@pytest.fixture
def sent(monkeypatch):
    """The types of all requests to the supervisor, as they are sent."""
    types, send = [], Supervisor._send

    def note(self, packet, descriptors=()):
        types.append(ffi.from_buffer("struct header *", packet).type)
        send(self, packet, descriptors)

    monkeypatch.setattr(Supervisor, "_send", note)
    return types


# --- each is a job as any other


def test_every_process_has_what_it_was_given_and_nothing_of_the_others(group):
    script = "cat; cat in; echo $NAME; ls; echo $NAME > out"
    result = group(
        sh("a", script, stdin="1", files={"in": "2"}, env={"NAME": "3"}, outputs=["out"]),
        sh("b", script, stdin="4", files={"in": "5", "more": ""}, env={"NAME": "6"}, outputs=["out", "x?"]),
    )
    assert result["status"] == "ok"
    assert result["decided_by"] is None
    assert result["processes"]["a"]["stdout"]["text"] == "123\nin\n"
    assert result["processes"]["b"]["stdout"]["text"] == "456\nin\nmore\n"
    assert [told["outputs"]["out"]["base64"] for told in result["processes"].values()] == ["Mwo=", "Ngo="]


def test_every_process_is_under_its_own_policy_and_told_of_its_own_denials(group):
    script = "import os\ntry: os.fork() or os._exit(0)\nexcept OSError: pass"
    body = {"argv": ["python3", "-ISc", script]}
    result = group(
        {"name": "strict", "policy": "strict", "explain": True, **body}, {"name": "default", **body}
    )
    assert of(result, "status") == {"strict": "ok", "default": "ok"}
    assert result["processes"]["strict"]["denials"]
    assert result["processes"]["default"]["denials"] is None
    assert [told["sandbox"]["policy"] for told in result["processes"].values()] == ["strict", "default"]


def test_the_answer_of_a_process_is_that_of_a_job_less_what_is_the_whole_jobs(jail, group):
    plain = jail.run({"argv": ["true"]})
    result = group({"name": "a", "argv": ["true"]})
    assert list(result) == ["id", "status", "decided_by", "processes", "ended", "timing"]
    of_the_job = ("id", "timing")
    assert list(result["processes"]["a"]) == [name for name in plain if name not in of_the_job]
    assert result["timing"].keys() == plain["timing"].keys()


# --- together


def test_all_run_at_once_each_in_a_sandbox_of_its_own(jail, processes, executing):
    async def scene():
        run = jail.submit({"processes": [sleeper(name) for name in "abc"]})
        pids = await executing(jail.supervisor, "sleep", 3)
        inits = {processes.sandbox(jail.supervisor, pid)[0] for pid in pids}
        run.cancel()
        return len(inits), await jail.answer(run)

    count, result = jail.do(scene())
    assert count == 3
    assert result["status"] == "cancelled"


def test_no_process_is_started_before_all_are_ready_and_then_all_are_one_after_the_other(jail, sent):
    async def scene():
        run = jail.submit({"processes": [sh(name, "true") for name in "abcd"]})
        await run.task
        return run

    run = jail.do(scene())
    first = sent.index(lib.TYPE_START)
    # Two were ready before, the others were made.
    assert sent[:first].count(lib.TYPE_MAKE) >= 2
    assert sent[first : first + 4] == [lib.TYPE_START] * 4
    assert sent.count(lib.TYPE_START) == 4
    started = [process.moments["received"] for process in run.processes]
    assert run.marks["reserved"] < run.marks["sandbox"] < min(started)


def test_none_is_started_when_a_sandbox_for_one_cannot_be_made(jail, group, sent, monkeypatch):
    def refuse(_name):
        raise OSError(errno.ENOSPC, "no more")

    with monkeypatch.context() as patch:
        # Two are ready.
        patch.setattr(jail.engine.sandboxes.hierarchy, "make", refuse)
        result = jail.run({"processes": [sh(name, "true") for name in "abc"]})
        jail.settle()
    assert lib.TYPE_START not in sent
    statuses = of(result, "status")
    assert sorted(statuses.values()) == ["cancelled", "cancelled", "sandbox_error"]
    assert (result["status"], statuses[result["decided_by"]]) == ("sandbox_error", "sandbox_error")
    assert "ENOSPC" in result["processes"][result["decided_by"]]["detail"]
    assert set(of(result, "usage").values()) == {None}
    assert result["ended"] == []
    assert result["timing"]["run_ms"] == result["timing"]["collect_ms"] == 0


@pytest.mark.parametrize("which", [0, 1, 2])
def test_none_is_started_when_one_cannot_be_prepared(group, sent, monkeypatch, which):
    calls, limit = [], Sandbox.limit

    def refuse(self, limits):
        calls.append(self)
        if len(calls) == which + 1:
            raise OSError(errno.EBUSY, "busy")
        limit(self, limits)

    monkeypatch.setattr(Sandbox, "limit", refuse)
    result = group(*(sh(name, "true") for name in "abc"))
    assert lib.TYPE_START not in sent
    assert (result["status"], result["decided_by"]) == ("sandbox_error", "abc"[which])
    others = [told for name, told in result["processes"].items() if name != result["decided_by"]]
    assert [(told["status"], told["detail"]) for told in others] == [ENDED_WITH_JOB] * 2


def test_those_that_run_are_ended_when_another_cannot_be_started(group, monkeypatch):
    calls, start = [], Supervisor.start

    def refuse(self, slot, message):
        calls.append(slot)
        if len(calls) == 2:
            raise OSError(errno.EMFILE, "too many")
        start(self, slot, message)

    monkeypatch.setattr(Supervisor, "start", refuse)
    result = group(*(sleeper(name) for name in "abc"))
    assert (result["status"], result["decided_by"]) == ("sandbox_error", "b")
    assert of(result, "status") == {"a": "cancelled", "b": "sandbox_error", "c": "cancelled"}
    assert (len(calls), ends(result)) == (2, ["a"])


# --- ends


def test_one_that_fails_ends_no_other(group):
    result = group(sh("a", "exit 3"), sh("b", "sleep 1; echo on"), sh("c", "sleep 0.5; echo on"))
    assert of(result, "status") == {"a": "nonzero_exit", "b": "ok", "c": "ok"}
    assert (result["status"], result["decided_by"]) == ("nonzero_exit", "a")
    assert ends(result) == ["a", "c", "b"]
    at = [end["at_ms"] for end in result["ended"]]
    assert 0 < at[0] < at[1] < at[2] <= result["timing"]["run_ms"]
    assert at[2] >= 1000


def test_the_first_that_went_wrong_decides_however_they_are_listed(group):
    slow, quick = sleeper("slow", limits={"wall_ms": 800}), sh("quick", "kill -SEGV $$")
    for listed in ((slow, quick), (quick, slow)):
        result = group(*listed)
        assert (result["status"], result["decided_by"]) == ("signaled", "quick")
        assert ends(result) == ["quick", "slow"]
        assert list(result["processes"]) == [process["name"] for process in listed]


def test_what_is_in_the_background_is_ended_when_the_last_of_the_others_has(group):
    result = group(
        sleeper("server", background=True), sh("a", "echo done"), sh("b", "sleep 1"), sh("c", "true")
    )
    assert (result["status"], result["decided_by"]) == ("ok", None)
    server = result["processes"]["server"]
    assert (server["status"], server["detail"]) == ENDED_WITH_JOB
    assert (server["exit_code"], server["signal"]) == (None, None)
    assert ends(result)[-2:] == ["b", "server"]


def test_what_a_process_in_the_background_wrote_is_told(group):
    script = "echo begun; echo kept > out; sleep 1000"
    server = sh("server", script, background=True, outputs=["out"])
    result = group(server, sh("client", "sleep 1"))
    told = result["processes"]["server"]
    assert (told["stdout"]["text"], told["outputs"]["out"]["bytes"]) == ("begun\n", 5)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 1", "nonzero_exit"), ("kill -9 $$", "signaled"), ("true", "ok")]
)
def test_a_process_in_the_background_that_ends_by_itself_counts(group, script, status):
    result = group(sh("server", script, background=True), sh("client", "sleep 1"))
    assert result["status"] == of(result, "status")["server"] == status
    assert result["decided_by"] == (None if status == "ok" else "server")
    assert ends(result) == ["server", "client"]


def test_a_process_in_the_background_can_be_ended_before_it_has_begun(group):
    for _ in range(10):
        result = group(sleeper("server", background=True), {"name": "client", "argv": ["no-such-program"]})
        assert (result["status"], result["decided_by"]) == ("start_failed", "client")
        server = result["processes"]["server"]
        assert (server["status"], server["detail"]) == ENDED_WITH_JOB


LIMITS = {
    "cpu_limit": ("cpu_ms", sh("x", "while :; do :; done", limits={"cpu_ms": 100})),
    "wall_limit": ("wall_ms", sleeper("x", limits={"wall_ms": 100})),
    "output_limit": ("stdout_bytes", {"name": "x", "argv": ["yes"], "limits": {"stdout_bytes": 9}}),
    "memory_limit": (
        "memory_bytes",
        sh("x", "head -c 64M /dev/zero > /tmp/x; sleep 1000", limits={"memory_bytes": 8 * MIB}),
    ),
}


@pytest.mark.parametrize("status", LIMITS)
@pytest.mark.parametrize("background", [False, True])
def test_a_limit_is_that_of_the_process_that_met_it_and_ends_no_other(jail, until, status, background):
    limit, hostile = LIMITS[status]
    body = {"processes": [sleeper("before"), {**hostile, "background": background}, sleeper("after")]}

    async def scene():
        run = jail.submit(body)
        before, x, after = run.processes
        await until(lambda: x.verdict)
        assert (before.verdict, after.verdict) == (None, None)
        run.cancel()
        return await jail.answer(run)

    result = jail.do(scene())
    assert (result["status"], result["decided_by"]) == (status, "x")
    assert of(result, "status") == {"before": "cancelled", "x": status, "after": "cancelled"}
    assert of(result, "limit") == {"before": None, "x": limit, "after": None}


def test_a_sandbox_that_is_lost_ends_all(jail, processes, executing):
    async def scene():
        run = jail.submit({"processes": [sleeper("a"), sh("b", "exec sleep 1000")]})
        pids = await executing(jail.supervisor, "sleep", 2)
        os.kill(processes.sandbox(jail.supervisor, pids[0])[0], signal.SIGKILL)
        return await jail.answer(run)

    result = jail.do(scene())
    assert result["status"] == "sandbox_error"
    lost = result["decided_by"]
    (other,) = {"a", "b"} - {lost}
    assert result["processes"][lost]["status"] == "sandbox_error"
    assert (result["processes"][other]["status"], result["processes"][other]["detail"]) == ENDED_WITH_JOB


def test_a_supervisor_that_is_lost_ends_all(jail, executing):
    async def scene():
        run = jail.submit({"processes": [sleeper(name) for name in "abc"]})
        await executing(jail.supervisor, "sleep", 3)
        os.kill(jail.supervisor, signal.SIGKILL)
        return await jail.answer(run), run.failure

    result, failure = jail.do(scene())
    assert (result["status"], failure.stage) == ("sandbox_error", "supervisor")
    assert set(of(result, "status").values()) <= {"sandbox_error", "cancelled"}
    jail.settle()
    assert_nothing_is_held(jail)


@pytest.mark.parametrize("place", ["_usage", "_fill"], ids=["ends", "is made ready"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_defect_is_told_and_leaves_nothing_when_one(jail, monkeypatch, place, number):
    works, calls = getattr(process_module, place), []

    def break_down(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise ZeroDivisionError
        return works(*arguments)

    async def scene():
        run = jail.submit({"processes": [sh("a", "true"), sleeper("b", background=True)]})
        with pytest.raises(ZeroDivisionError):
            await run.task

    monkeypatch.setattr(process_module, place, break_down)
    jail.do(scene())
    jail.settle()
    assert_nothing_is_held(jail)


# --- cancelling


@pytest.mark.parametrize("turns", range(14))
def test_a_job_that_is_being_set_up_can_be_cancelled(jail, turns):
    async def scene():
        run = jail.submit({"processes": [sleeper(name) for name in "abc"]})
        for _ in range(turns):
            await asyncio.sleep(0)
        run.cancel()
        return await jail.answer(run)

    result = jail.do(scene())
    assert result["status"] == "cancelled"
    assert set(of(result, "status").values()) == {"cancelled"}
    jail.settle()
    assert_nothing_is_held(jail)


def test_a_job_that_waits_can_be_cancelled(jail, executing, sent):
    async def scene():
        running = jail.submit({"processes": [sleeper(name) for name in "abc"]})
        await executing(jail.supervisor, "sleep", 3)
        waiting = jail.submit({"processes": [sleeper(name) for name in "ab"]})
        await asyncio.sleep(0)
        assert jail.engine.scheduler.queued == 1
        assert jail.engine.scheduler.slots_free == 1
        waiting.cancel()
        result = await jail.answer(waiting)
        running.cancel()
        await running.task
        return result

    result = jail.do(scene())
    assert of(result, "status") == {"a": "cancelled", "b": "cancelled"}
    assert of(result, "usage") == {"a": None, "b": None}
    assert sent.count(lib.TYPE_START) == 3


def test_what_has_ended_before_a_job_is_cancelled_stays_as_it_ended(jail, executing, until):
    async def scene():
        run = jail.submit({"processes": [sh("a", "echo well"), sleeper("b"), sleeper("c", background=True)]})
        await executing(jail.supervisor, "sleep", 2)
        await until(lambda: run.processes[0].verdict)
        run.cancel()
        run.cancel()
        return await jail.answer(run)

    result = jail.do(scene())
    assert of(result, "status") == {"a": "ok", "b": "cancelled", "c": "cancelled"}
    assert of(result, "detail") == {"a": None, "b": None, "c": None}
    assert result["status"] == "cancelled"
    assert ends(result)[0] == "a"


# --- slots and memory


def test_what_a_process_held_is_free_once_it_has_ended_while_others_run(jail, until):
    scheduler = jail.engine.scheduler
    default_bytes = jail.engine.settings.defaults.memory_bytes

    def free():
        return scheduler.slots_free, scheduler.memory_bytes - scheduler.memory_free_bytes

    async def scene():
        run = jail.submit({"processes": [sh("a", "true"), sleeper("b"), sleeper("c")]})
        await until(lambda: run.marks.get("reserved"))
        held = free()
        await until(lambda: free() == (2, 2 * default_bytes))
        assert scheduler.running == 1
        run.cancel()
        await run.task
        return held

    assert jail.do(scene()) == (1, 3 * default_bytes)
    jail.settle()
    assert_nothing_is_held(jail)


def test_jobs_that_together_want_more_than_there_is_take_turns(jail):
    async def scene():
        bodies = [{"processes": [sh(name, "true") for name in "abcd"[:count]]} for count in (3, 4, 2, 3, 4)]
        runs = [jail.submit(body) for body in bodies] + [jail.submit({"argv": ["true"]})]
        return [(await run.task).status for run in runs]

    assert jail.do(scene()) == ["ok"] * 6
    jail.settle()
    assert_nothing_is_held(jail)


@pytest.mark.parametrize("body", [{"argv": ["echo"]}, {"processes": [sh("a", "echo"), sh("b", "echo")]}])
def test_nothing_of_a_job_is_kept_until_the_garbage_is_collected(jail, body):
    async def scene():
        run = jail.submit(body)
        await run.task
        return [weakref.ref(process) for process in run.processes]

    gc.collect()
    gc.disable()
    try:
        left = jail.do(scene())
        jail.settle()
        assert [found() for found in left] == [None] * len(left)
    finally:
        gc.enable()


def test_it_is_the_cgroup_of_the_right_process_that_is_counted(group):
    fill = "head -c {} /dev/zero > /tmp/x"
    result = group(sh("small", fill.format("1M")), sh("large", fill.format("40M")))
    peaks = {name: usage["memory_peak_bytes"] for name, usage in of(result, "usage").items()}
    assert peaks["small"] < 20 * MIB < 40 * MIB <= peaks["large"]
