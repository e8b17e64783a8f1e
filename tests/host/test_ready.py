"""Sandboxes that are ready: each is used once, as fresh as one made for its job, or not at all."""

import errno
import os
import signal
from pathlib import Path

import pytest
from jail._protocol import ffi, lib

from jail import supervisor
from jail.outcome import Failure
from jail.stock import HOST
from jail.supervisor import Supervisor

READY, SLOTS = 3, 4
SLEEPER = {"argv": ["sleep", "1000"]}
MIB = 1 << 20


@pytest.fixture(scope="module")
def pooled_engine(engine_with):
    with engine_with(slots=SLOTS, queue=8, ready_min=READY, ready_max=READY) as found:
        # Before anybody counts descriptors: what it tried itself out with is still dying.
        found.settle()
        yield found


@pytest.fixture
def pooled(pooled_engine, processes):
    """An engine that keeps some ready, whatever the others do. It is as before after each test."""
    pooled_engine.settle()
    yield pooled_engine
    # Those that died while they were ready make room when they are met.
    for _ in range(READY + 1):
        assert pooled_engine.run({"argv": ["echo", "canary"]})["stdout"]["text"] == "canary\n"
    pooled_engine.settle()
    assert pooled_engine.ready == READY
    assert len(processes.descendants(pooled_engine.supervisor)) == 2 * READY
    assert len({place.name for place in pooled_engine.cgroups}) == READY


@pytest.fixture
def waiting(pooled, processes):
    """The sandboxes that are ready, each as its init and its pid 2, in the order of their use."""
    found = {}
    for init in processes.children(pooled.supervisor):
        (place,) = {name for name in cgroups_of(init) if name.isdecimal()}
        found[int(place)] = [init, *processes.children(init)]
    return [found[sandbox.slot] for sandbox in ready_ones(pooled)]


def cgroups_of(pid):
    """The last part of each of its cgroups' paths: a sandbox's are named after its slot."""
    return {line.rpartition("/")[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}


def ready_ones(engine):
    return list(engine.engine.sandboxes.stock._shelves[HOST].pool._ready)


def every_status(engine, count):
    """How jobs end that follow one another."""
    return [engine.run({"argv": ["true"]})["status"] for _ in range(count)]


# --- used once


def test_nothing_has_run_in_a_sandbox_before_its_job(pooled):
    """Init is process 1 and the job 2: whatever a used one had run would have had the next numbers."""
    told = [pooled.sh("true & echo $$ $!")["stdout"]["text"] for _ in range(3 * READY)]
    assert set(told) == {"2 3\n"}


def test_no_two_jobs_have_an_init_in_common(pooled, processes, executing):
    async def scene():
        inits = []
        for _ in range(3 * READY):
            run = pooled.submit(SLEEPER)
            (job,) = await executing(pooled.supervisor, "sleep")
            inits.append(processes.sandbox(pooled.supervisor, job)[0])
            run.cancel()
            await run.task
            processes.wait_for_end([job])
        return inits

    inits = pooled.do(scene())
    assert len(set(inits)) == 3 * READY


def test_a_job_runs_in_the_sandbox_that_has_been_ready_longest(pooled, waiting, processes, executing):
    async def scene():
        run = pooled.submit(SLEEPER)
        (job,) = await executing(pooled.supervisor, "sleep")
        run.cancel()
        await run.task
        return job

    # It is the process that was there before.
    assert pooled.do(scene()) == waiting[0][1]


def test_nothing_that_a_job_leaves_is_there_for_the_next(pooled):
    leave = (
        "import os, socket\n"
        "places = ['/box', '/tmp', '/dev/shm']\n"
        "found = [os.listdir(place) for place in places]\n"
        "print(found)\n"
        "for place in places: open(place + '/marker', 'w').close()\n"
        "import ctypes; libc = ctypes.CDLL(None)\n"
        "print(libc.shmget(4242, 4096, 0) >= 0)\n"
        "libc.shmget(4242, 4096, 0o1666)\n"
    )
    told = {pooled.python(leave)["stdout"]["text"] for _ in range(2 * READY + 1)}
    assert told == {"[[], [], []]\nFalse\n"}


def test_four_ids_of_the_host_are_those_of_no_other_sandbox_at_once(pooled, waiting, processes):
    ids = [processes.status(pid)["Uid"].split()[0] for pair in waiting for pid in pair]
    assert len(set(ids)) == 2 * READY
    assert not set(ids) & {"0", "1000", str(os.getuid())}


def test_who_waits_for_a_job_has_what_a_job_has_and_no_more(pooled, waiting, processes):
    """Before anything of a job is there: pid 2 has given up all authority, and init cannot gain any."""
    none = "0" * 16
    for init, second in waiting:
        one, two = processes.status(init), processes.status(second)
        assert {two[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {none}
        assert {one[f"Cap{name}"] for name in ("Inh", "Bnd", "Amb")} == {none}
        assert one["NoNewPrivs"] == two["NoNewPrivs"] == "1"


# --- demand


def test_how_many_are_ready_follows_how_many_are_used(engine_with, until):
    with engine_with(slots=2, ready_min=0, ready_max=4) as engine:
        seen = set()
        for _ in range(40):
            assert every_status(engine, 1) == ["ok"]
            seen.add(engine.ready)
        assert 1 <= max(seen) <= 4
        # Nobody comes any more.
        engine.do(until(lambda: engine.ready == 0))
        engine.settle()


# --- parts that die


def test_the_ready_sandboxes_of_a_killed_supervisor_are_given_to_nobody(pooled, waiting, processes):
    async def kill():
        lost = pooled.engine.sandboxes.supervisor.lost
        os.kill(pooled.supervisor, signal.SIGKILL)
        await lost.wait()

    pooled.do(kill())
    assert every_status(pooled, 2 * READY) == ["ok"] * 2 * READY
    processes.wait_for_end([pid for pair in waiting for pid in pair])


def test_a_job_that_meets_a_supervisor_that_was_just_killed_is_told_to_come_again(pooled):
    os.kill(pooled.supervisor, signal.SIGKILL)
    statuses = every_status(pooled, READY + 1)
    assert statuses[0] in ("ok", "sandbox_error")
    assert statuses[1:] == ["ok"] * READY


def test_a_ready_sandbox_whose_init_was_killed_is_given_to_nobody(pooled, waiting, until):
    first = ready_ones(pooled)[0]
    os.kill(waiting[0][0], signal.SIGKILL)
    pooled.do(until(lambda: not first.alive))
    assert every_status(pooled, 2 * READY) == ["ok"] * 2 * READY


@pytest.mark.parametrize("which", [0, 1], ids=["init", "pid 2"])
def test_a_job_that_gets_a_sandbox_that_was_just_killed_is_told_to_come_again(pooled, waiting, which):
    os.kill(waiting[0][which], signal.SIGKILL)
    statuses = every_status(pooled, READY + 1)
    assert statuses[0] in ("ok", "sandbox_error")
    assert statuses[1:] == ["ok"] * READY


@pytest.mark.parametrize("which", [0, 1], ids=["init", "pid 2"])
def test_a_job_that_gets_a_sandbox_that_was_stopped_does_not_hang(pooled, waiting, which, monkeypatch):
    monkeypatch.setattr(supervisor, "SETUP_SECONDS", 1)
    os.kill(waiting[0][which], signal.SIGSTOP)

    async def scene():
        run = pooled.submit({"argv": ["true"]})
        await run.task
        return run.failure

    assert pooled.do(scene()) == Failure("time", errno.ETIMEDOUT, 0)


def test_a_ready_sandbox_that_is_not_wanted_any_more_leaves_nothing(pooled, waiting, processes):
    async def scene():
        sandbox = await pooled.engine.sandboxes.stock.take(HOST)
        await sandbox.close()
        return processes.descendants(pooled.supervisor)

    assert not set(pooled.do(scene())) & set(waiting[0])


def test_the_memory_of_a_job_is_free_again_once_its_sandbox_is_gone(pooled):
    scheduler = pooled.engine.scheduler

    async def scene():
        run = pooled.submit({"argv": ["true"]})
        await run.task
        return scheduler.running, scheduler.memory_free_bytes, len(pooled.engine.sandboxes.dying)

    default_bytes = pooled.engine.settings.defaults.memory_bytes
    assert pooled.do(scene()) == (0, scheduler.memory_bytes - default_bytes, 1)
    pooled.settle()
    assert scheduler.memory_free_bytes == scheduler.memory_bytes


# --- limits of the job's own


HELD = ("memory.usage_in_bytes", "memory.current")
LIMIT_FILES = {
    "memory_bytes": ("memory.limit_in_bytes", "memory.max"),
    "pids": ("pids.max",),
    "cpus": ("cpu.cfs_quota_us", "cpu.max"),
}


def limits_of(engine, pid, names):
    """What stands first in the file of its cgroup that has one of these names: that differs by version."""
    places = [place for place in engine.cgroups if str(pid) in (place / "cgroup.procs").read_text().split()]
    (found,) = [place / name for place in places for name in names if (place / name).exists()]
    return found.read_text().split()[0]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("memory_bytes", 8 * MIB, str(8 * MIB)),
        ("memory_bytes", 1024 * MIB, str(1024 * MIB)),
        ("pids", 5, "5"),
        ("pids", 500, "500"),
        ("cpus", 0.5, "50000"),
        ("cpus", 3, "300000"),
    ],
)
def test_limits_other_than_the_defaults_are_in_force(pooled, executing, name, value, text):
    async def scene():
        run = pooled.submit({**SLEEPER, "limits": {name: value}})
        (job,) = await executing(pooled.supervisor, "sleep")
        told = limits_of(pooled, job, LIMIT_FILES[name])
        run.cancel()
        await run.task
        return told

    assert pooled.do(scene()) == text


@pytest.mark.parametrize(
    ("name", "text"), [("memory_bytes", str(512 * MIB)), ("pids", "64"), ("cpus", "100000")]
)
def test_the_defaults_are_in_force_before_there_is_a_job(pooled, waiting, name, text):
    assert {limits_of(pooled, init, LIMIT_FILES[name]) for init, _ in waiting} == {text}


def test_a_job_may_have_more_memory_than_the_default(pooled):
    held = pooled.python("print(len(bytearray(700 << 20)) >> 20)", limits={"memory_bytes": 1024 * MIB})
    assert (held["status"], held["stdout"]["text"]) == ("ok", "700\n")
    refused = pooled.python("bytearray(700 << 20)")
    assert refused["status"] == "memory_limit"


def test_a_job_may_have_more_processes_than_the_default_and_fewer(pooled):
    script = "for n in $(seq 100); do sleep 0.5 & done; wait; echo all"
    enough = {"pids": 200, "cpus": 4, "cpu_ms": 60_000, "wall_ms": 60_000}
    assert pooled.sh(script, limits=enough)["stdout"]["text"] == "all\n"
    assert pooled.sh(script)["usage"]["pids_limit_hits"] > 0
    few = pooled.sh("true & wait; echo some", limits={"pids": 3})
    assert (few["stdout"]["text"], few["usage"]["pids_limit_hits"]) == ("some\n", 0)


def test_a_limit_that_cannot_be_set_is_our_failure_and_harms_no_other(pooled, monkeypatch):
    def refuse(_self, _limits):
        raise OSError(errno.EBUSY, "busy")

    with monkeypatch.context() as patch:
        patch.setattr(type(ready_ones(pooled)[0]), "limit", refuse)
        assert every_status(pooled, 2) == ["sandbox_error"] * 2
    assert every_status(pooled, READY) == ["ok"] * READY


# --- the answer comes when nothing of the job lives


FORK = "import os, signal, sys, time\n"

LEFT_BEHIND = {
    "a child that sleeps": "if not os.fork(): time.sleep(1000)",
    "many": "for n in range(40):\n  if not os.fork(): time.sleep(1000)",
    "a session of its own": "if not os.fork(): os.setsid(); time.sleep(1000)",
    "an orphan": "if not os.fork():\n  if not os.fork(): time.sleep(1000)\n  os._exit(0)",
    "one that forks for ever": (
        "if not os.fork():\n  while True:\n    try: os.fork()\n    except OSError: pass"
    ),
    "one that is stopped": "child = os.fork() or time.sleep(1000)\nos.kill(child, signal.SIGSTOP)",
    "one that is traced": (
        "import ctypes\n"
        "if not os.fork():\n"
        "  child = os.fork() or time.sleep(1000)\n"
        "  ctypes.CDLL(None).ptrace(16, child, 0, 0)\n"  # PTRACE_ATTACH
        "  time.sleep(1000)"
    ),
    "one that wants to be traced": (
        "import ctypes\nif not os.fork(): ctypes.CDLL(None).ptrace(0, 0, 0, 0); time.sleep(1000)"
    ),
    "one that hears no signal": (
        "if not os.fork():\n  signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65))\n  while True: pass"
    ),
    "one that reaps others": (
        "import ctypes\nif not os.fork():\n"
        "  ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"  # PR_SET_CHILD_SUBREAPER
        "  if not os.fork():\n    if not os.fork(): time.sleep(1000)\n    os._exit(0)\n"
        "  time.sleep(1000)"
    ),
    "a zombie": "if not os.fork(): os._exit(0)",
    "a thread": "import threading; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
}


@pytest.mark.parametrize("how", ["exits", "is killed"])
@pytest.mark.parametrize("what", LEFT_BEHIND)
def test_nothing_of_a_job_lives_when_it_is_answered(pooled, processes, what, how):
    end = "os._exit(0)" if how == "exits" else "os.kill(os.getpid(), signal.SIGKILL)"
    script = f"{FORK}{LEFT_BEHIND[what]}\n{end}"

    async def scene():
        run = pooled.submit({"argv": ["python3", "-ISc", script]})
        result = await pooled.answer(run)
        return result, processes.jobs(pooled.supervisor)

    result, left = pooled.do(scene())
    assert (result["status"], result["signal"]) == (("ok", None) if how == "exits" else ("signaled", 9))
    assert left == []


# --- what a service may not ask


def request(kind, slot):
    """A request without anything but its head."""
    message = ffi.new("struct ask *")
    message.header.type, message.header.slot = kind, slot
    return bytes(ffi.buffer(message))


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (lib.TYPE_RELEASE, "ready"),
        (lib.TYPE_RELEASE, "running"),
        (lib.TYPE_RELEASE, "free"),
        (lib.TYPE_OPEN, "ready"),
        (lib.TYPE_OPEN, "running"),
        (lib.TYPE_OPEN, "free"),
        (lib.TYPE_KILL, "free"),
        (lib.TYPE_MAKE, "ready"),
        (lib.TYPE_MAKE, "running"),
        (lib.TYPE_START, "free"),
        (lib.TYPE_READY, "ready"),
        (lib.TYPE_GONE, "ready"),
        (lib.TYPE_EMPTY, "running"),
    ],
)
def test_what_does_not_fit_the_state_of_a_slot_ends_the_supervisor(pooled, executing, kind, state):
    async def scene():
        sandboxes = pooled.engine.sandboxes
        run = pooled.submit(SLEEPER)
        await executing(pooled.supervisor, "sleep")
        slots = {
            "ready": ready_ones(pooled)[0].slot,
            "running": run.processes[0].sandbox.slot,
            "free": sandboxes._places[0][0],
        }
        sandboxes.supervisor._socket.send(request(kind, slots[state]))
        await run.task
        return run.failure

    assert pooled.do(scene()) == Failure("supervisor", errno.EPROTO, 0)


def test_a_sandbox_has_one_job(pooled, monkeypatch):
    start = Supervisor.start

    def start_twice(self, slot, message):
        start(self, slot, message)
        start(self, slot, message)

    async def scene():
        run = pooled.submit(SLEEPER)
        await run.task
        return run.failure

    with monkeypatch.context() as patch:
        patch.setattr(Supervisor, "start", start_twice)
        assert pooled.do(scene()) == Failure("supervisor", errno.EPROTO, 0)


# --- making


def test_what_one_costs_to_keep_is_what_its_cgroup_holds(pooled, waiting):
    for sandbox, (init, _) in zip(ready_ones(pooled), waiting, strict=True):
        held_bytes = int(limits_of(pooled, init, HELD))
        # The kernel charges in batches, for each processor, and may have given some back.
        assert abs(sandbox.memory_bytes - held_bytes) < MIB
        assert 0 < sandbox.memory_bytes < 4 * MIB


def test_a_sandbox_that_cannot_be_made_is_told_of_and_its_place_used_again(pooled, monkeypatch):
    sandboxes = pooled.engine.sandboxes
    places = len(sandboxes._places)

    def refuse(_name):
        raise OSError(errno.ENOSPC, "no more")

    with monkeypatch.context() as patch:
        patch.setattr(sandboxes.hierarchy, "make", refuse)
        statuses = every_status(pooled, READY + 2)
        pooled.settle()
    assert statuses == ["ok"] * READY + ["sandbox_error"] * 2
    assert len(sandboxes._places) == places + READY
