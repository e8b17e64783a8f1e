"""Attacks 98 to 115: processes that will not end, ends that mislead, and parts of jail that die."""

import ast
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from jail._protocol import ffi, lib

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
SLEEPER = {"argv": ["sleep", "1000"]}
# Far more than is taken by what nothing holds up, on a machine with others on it.
SOON_MS, SECONDS, DEADLINE_SECONDS = 3000, 5, 60
LIMITS_OF = {"cpu_limit": "cpu_ms", "wall_limit": "wall_ms", "memory_limit": "memory_bytes"}


@pytest.fixture
def python(attack):
    """Run a Python script."""

    def run(script, **fields):
        return attack(argv=["python3", "-ISc", script], **fields)

    return run


def assert_ended_by(result, status, slowness=1):
    assert (result["status"], result["limit"]) == (status, LIMITS_OF[status]), result
    # How soon CPU time is used up depends on neighbours.
    clock = "cpu_ms" if status == "cpu_limit" else "wall_ms"
    assert result["usage"][clock] < SOON_MS * slowness


def scaled(limits, slowness):
    """Limits that leave a job the time for what it does before it comes to them, on a slow machine too."""
    return {name: round(limit * slowness) for name, limit in limits.items()}


@pytest.mark.parametrize("way", ["fork", "session", "twice", "daemon"])
def test_what_detaches_itself_dies_with_the_job(attack, built, target, processes, way):
    """Attack 98. It ignores every signal and holds stdout; no answer waits for it."""
    result = attack(argv=["./linger", way], files={"linger": built("linger.c")})
    assert (result["status"], result["stdout"]["text"]) == ("ok", "left\n")
    assert result["timing"]["run_ms"] < SOON_MS
    assert processes.jobs(target.service.supervisor) == []


@pytest.mark.parametrize("way", ["reaper", "reapers"])
def test_a_reaper_of_its_own_keeps_no_orphan(attack, built, target, processes, way):
    """Attack 99. Whether it dies itself or lives on."""
    result = attack(argv=["./linger", way], files={"linger": built("linger.c")})
    assert (result["status"], result["stdout"]["text"]) == ("ok", "left\n")
    assert processes.jobs(target.service.supervisor) == []


STUBBORN = """
import os, signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65))
print('deaf', flush=True)
"""


@pytest.mark.parametrize(
    ("end", "limits", "status"),
    [
        ("while True: signal.pause()", {"wall_ms": 300}, "wall_limit"),
        ("while True: pass", {"cpu_ms": 300, "wall_ms": 20_000}, "cpu_limit"),
    ],
    ids=["wall", "cpu"],
)
def test_a_job_that_ignores_every_signal_is_ended_by_its_limit(python, slowness, end, limits, status):
    """Attack 100. There is no grace time to use up: the first signal is SIGKILL."""
    result = python(STUBBORN + end, limits=scaled(limits, slowness))
    assert_ended_by(result, status, slowness)
    assert result["stdout"]["text"] == "deaf\n"


def test_a_job_that_ignores_every_signal_ends_when_its_client_goes(running):
    """Attack 100."""
    script = STUBBORN + "os.execvp('sleep', ['sleep', '1000'])"
    with running({"argv": ["python3", "-ISc", script]}, "sleep") as pids:
        assert len(pids) == 2


@pytest.mark.parametrize("name", ["STOP", "TSTP", "TTIN", "TTOU"])
@pytest.mark.parametrize("whom", ["$$", "0", "-1"])
def test_a_job_that_stops_is_ended_by_its_wall_limit(sh, name, whom):
    """Attack 101. Itself, its group, and everything that it may signal."""
    stopped = f"sleep 1000 & kill -{name} {whom}; kill -{name} $$; sleep 1000"
    assert_ended_by(sh(stopped, limits={"wall_ms": 150}), "wall_limit")


def test_a_stopped_child_holds_no_answer_back(sh):
    """Attack 101."""
    result = sh("sleep 1000 & kill -STOP $!; echo done")
    assert (result["status"], result["stdout"]["text"]) == ("ok", "done\n")
    assert result["timing"]["run_ms"] < SOON_MS


def test_init_cannot_be_stopped(sh):
    """Attack 101. Its children are reaped and its end is told as ever."""
    result = sh("kill -STOP 1; kill -TSTP 1; (exit 0) & wait; grep State /proc/1/status; exit 5")
    assert result["stderr"]["text"].count("Operation not permitted") == 2
    assert "T (stopped)" not in result["stdout"]["text"]
    assert result["exit_code"] == 5


@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("sh -c 'kill -9 -1'; echo survived", 9),
        ("sh -c 'kill -9 0'; echo survived", 9),
        ("kill -9 0; echo survived", 9),
        ("kill -9 $$; echo survived", 9),
        ("sh -c 'kill -15 -1'; echo survived", 15),
    ],
)
def test_killing_all_there_is_kills_nobody_else(sh, running, processes, script, number):
    """Attack 102."""
    with running(SLEEPER, "sleep") as pids:
        result = sh(script)
        assert {processes.status(pid)["State"][0] for pid in pids} <= {"S", "R"}
    assert (result["status"], result["signal"], result["stdout"]["text"]) == ("signaled", number, "")


def test_no_signal_reaches_init(probe):
    """Attack 102. The kernel refuses: another uid, and init."""
    calls = [("kill", 1, number) for number in (0, 9, 15, 19, 17)] + [("tgkill", 1, 1, 9), ("tkill", 1, 9)]
    assert {outcome.errno for outcome in probe(*calls)} == {1}


ALLOCATE = "x = bytearray({mib} << 20)"
BOMBS = {
    "itself": f"exec python3 -ISc '{ALLOCATE.format(mib=64)}'",
    "a child": f"python3 -ISc '{ALLOCATE.format(mib=64)}'; sleep 1000",
    # Nothing but init and a small shell is there to be killed.
    "a file": "while :; do head -c 1M /dev/zero; done > /dev/shm/x; sleep 1000",
    "many": "while :; do sleep 1000 & done",
}


@pytest.mark.parametrize("mib", [4, 16])
@pytest.mark.parametrize("bomb", BOMBS)
def test_whomever_the_kernel_kills_for_memory_it_is_the_jobs_limit(sh, bomb, mib):
    """Attack 103. Also if that is init, which is as large as what the job leaves beside it."""
    limits = {"memory_bytes": mib * MIB, "disk_bytes": 64 * MIB, "pids": 1024}
    limits |= {"cpu_ms": 100_000, "wall_ms": 200_000}
    result = sh(BOMBS[bomb], limits=limits)
    assert (result["status"], result["limit"]) == ("memory_limit", "memory_bytes"), result


def test_a_sandbox_whose_init_is_killed_from_outside_is_nobodys_fault(target, processes):
    """Attack 103. As by the host's own OOM killer: all of it dies, and the program is not blamed."""
    supervisor = target.service.supervisor

    with closing(send(target.service, SLEEPER)) as client:
        (job,) = eventually(lambda: processes.jobs(supervisor))
        family = processes.sandbox(supervisor, job)
        os.kill(family[0], signal.SIGKILL)
        processes.wait_for_end(family)
        result = json.load(client.getresponse())
    assert (result["status"], result["exit_code"], result["signal"]) == ("sandbox_error", None, None)


def test_the_job_cannot_make_init_the_likelier_victim(sh):
    """Attack 103."""
    result = sh(
        "for pid in 1 $$; do cat /proc/$pid/oom_score_adj; echo 1000 > /proc/$pid/oom_score_adj; done; true"
    )
    one, own = map(int, result["stdout"]["text"].split())
    assert one <= own
    assert result["stderr"]["text"].count("cannot create") == 2


def exited(code):
    """What init would tell the supervisor of a main process that ended with that code."""
    news = ffi.new("struct news *", {"exit_code": code})
    news.header.type = lib.TYPE_EXITED
    return bytes(ffi.buffer(news))


def test_no_exit_status_can_be_forged(python):
    """Attack 104. Written to every descriptor there can be, and to those of init by path."""
    script = f"""
import os
forged = {exited(0)!r}
wrote = []
for fd in range(4096):
    try: os.write(fd, forged); wrote.append(fd)
    except OSError: pass
paths = [f'/proc/{{pid}}/fd/{{fd}}' for pid in (1, 'self') for fd in range(3, 64)]
for path in [*paths, '/proc/1/mem', '/proc/1/fd/0', '/proc/1/fd/1', '/proc/1/fd/2']:
    try: os.write(os.open(path, os.O_WRONLY), forged); wrote.append(path)
    except OSError: pass
for what in ('/proc/1/fd', '/proc/1/cwd', '/proc/1/root', '/proc/1/exe'):
    try: wrote.append(os.listdir(what) if what.endswith('fd') else os.readlink(what))
    except PermissionError: pass
assert wrote == [1, 2], wrote
os._exit(7)
"""
    result = python(script)
    assert (result["status"], result["exit_code"]) == ("nonzero_exit", 7), result
    assert result["stdout"]["bytes"] == result["stderr"]["bytes"] == len(exited(0))


def test_a_printed_result_is_only_output(python):
    """Attack 104."""
    forged = json.dumps({"status": "ok", "exit_code": 0, "signal": None, "limit": None})
    result = python(f"import os\nos.write(1, {forged.encode()!r})\nos._exit(9)")
    assert (result["status"], result["exit_code"], result["stdout"]["text"]) == ("nonzero_exit", 9, forged)


@pytest.mark.parametrize(
    "code", [1, 124, 125, 126, 127, 128, 255, *(128 + n for n in (2, 6, 9, 11, 15, 24, 31))]
)
def test_an_exit_code_is_no_signal_and_no_limit(sh, code):
    """Attack 105."""
    result = sh(f"exit {code}")
    told = tuple(result[name] for name in ("status", "exit_code", "signal", "limit"))
    assert told == ("nonzero_exit", code, None, None)


# Each looks like what jail or the kernel does at some limit.
@pytest.mark.parametrize("name", ["KILL", "XCPU", "XFSZ", "TERM", "ALRM", "SEGV", "BUS", "ABRT", "PIPE"])
def test_a_signal_of_its_own_is_no_exit_code_and_no_limit(sh, name):
    """Attack 105."""
    number = signal.Signals[f"SIG{name}"]
    result = sh(f"kill -{name} $$")
    told = tuple(result[key] for key in ("status", "exit_code", "signal", "limit"))
    assert told == ("signaled", None, number, None)


BURN = "import time\nend = time.process_time() + {s}\nwhile time.process_time() < end: pass\n"
PRECEDENCE = {
    "a child runs out of memory, the job exits 0": (
        f"python3 -ISc '{ALLOCATE.format(mib=64)}'; exit 0",
        {"memory_bytes": 32 * MIB},
        "memory_limit",
    ),
    "memory first, then time": (
        f"python3 -ISc '{ALLOCATE.format(mib=64)}'; while :; do :; done",
        {"memory_bytes": 32 * MIB, "cpu_ms": 4000, "wall_ms": 20_000},
        "memory_limit",
    ),
    "time first, and memory would have been next": (
        f"python3 -ISc '{BURN.format(s=9)}{ALLOCATE.format(mib=64)}'",
        {"memory_bytes": 32 * MIB, "cpu_ms": 150, "wall_ms": 20_000},
        "cpu_limit",
    ),
    "beyond its CPU time by itself": (
        f"exec python3 -ISc '{BURN.format(s=0.06)}'",
        {"cpu_ms": 50, "wall_ms": 20_000},
        "cpu_limit",
    ),
    "beyond its wall time by itself": ("exec sleep 0.105", {"wall_ms": 100}, "wall_limit"),
}


@pytest.mark.parametrize("what", PRECEDENCE)
def test_of_several_causes_the_documented_one_is_told_every_time(sh, what):
    """Attack 106. The order stands at the top of jail/outcome.py."""
    script, limits, status = PRECEDENCE[what]
    results = [sh(script, limits=limits) for _ in range(3)]
    assert [(result["status"], result["limit"]) for result in results] == [(status, LIMITS_OF[status])] * 3


def test_too_much_output_is_told_whatever_the_exit(sh):
    """Attack 106."""
    ends = ["exit 0", "exit 3", "kill -9 $$", "kill -SEGV $$"]
    results = [sh(f"echo 0123456789; {end}", limits={"stdout_bytes": 5}) for end in ends]
    told = {(result["status"], result["limit"]) for result in results}
    assert told == {("output_limit", "stdout_bytes")}


def test_the_job_is_not_pid_1_so_that_signals_act_on_it(sh):
    """Attack 107."""
    result = sh("echo $$ $PPID; kill -XCPU $$; echo survived")
    assert (result["stdout"]["text"], result["signal"]) == ("2 1\n", signal.SIGXCPU)


def test_a_resource_limit_of_its_own_is_no_limit_of_jail(python):
    """Attack 107. The kernel sends SIGXCPU at the soft limit, a second at the least."""
    script = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass"
    result = python(script, limits={"cpu_ms": 5000, "wall_ms": 20_000})
    assert (result["status"], result["signal"], result["limit"]) == ("signaled", signal.SIGXCPU, None)


@pytest.mark.parametrize("depth", [1, 20])
def test_processes_held_in_vfork_are_ended_by_the_wall_limit(attack, built, slowness, depth):
    """Attack 108. The parents sleep uninterruptibly and the last child has blocked every signal."""
    limits = scaled({"wall_ms": 150}, slowness)
    result = attack(argv=["./freeze", str(depth)], files={"freeze": built("freeze.c")}, limits=limits)
    assert_ended_by(result, "wall_limit", slowness)
    assert result["stdout"]["text"] == "frozen\n"


@pytest.mark.parametrize(
    ("how", "limits", "status"),
    [
        ("sleep", {"wall_ms": 150}, "wall_limit"),
        ("spin", {"cpu_ms": 150, "wall_ms": 20_000}, "cpu_limit"),
    ],
)
def test_threads_of_a_zombie_are_ended_by_the_limit(attack, built, how, limits, status):
    """Attack 109."""
    result = attack(argv=["./leader", how], files={"leader": built("leader.c")}, limits=limits)
    assert_ended_by(result, status)


def test_after_a_thousand_executions_every_barrier_stands(attack, built):
    """Attack 110. 1,000 here, for time's sake."""
    script = "echo $$ $PPID; exec grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/self/status"
    result = attack(
        argv=["./storm", "1000", "/bin/sh", "-c", script],
        files={"storm": built("storm.c")},
        limits={"wall_ms": 60_000, "cpu_ms": 60_000, "cpus": 2},
    )
    own = ["Uid:", *["1000"] * 4, "CapEff:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert result["stdout"]["text"].split() == ["2", "1", *own]


def test_executions_without_end_are_ended_by_the_cpu_limit(attack, built):
    """Attack 110. Each has a new memory map and the same cgroup."""
    limits = {"cpu_ms": 150, "wall_ms": 20_000}
    result = attack(argv=["./storm", "-1", "x"], files={"storm": built("storm.c")}, limits=limits)
    assert_ended_by(result, "cpu_limit")


BAD_PROGRAMS = {
    "empty": {"text": "", "executable": True},
    "text": {"text": "no program\n", "executable": True},
    "cut": {"text": "\x7fELF", "executable": True},
    "orphan": {"text": "#!/no/such/interpreter\n", "executable": True},
    "itself": {"text": "#!/box/itself\n", "executable": True},
    "plain": {"text": "#!/bin/sh\n"},
}
WORDS = {"empty": "ENOEXEC", "text": "ENOEXEC", "cut": "ENOEXEC", "orphan": "ENOENT", "itself": "ELOOP"}


@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_what_cannot_be_executed_is_told_and_can_be_survived(attack, name):
    """Attack 110. As the job itself, and from within one."""
    word = WORDS.get(name, "EACCES")
    direct = attack(argv=[f"./{name}"], files=BAD_PROGRAMS)
    script = (
        "import errno, os\n"
        f"try: os.execv('./{name}', ['x'])\n"
        "except OSError as error: print(errno.errorcode[error.errno])"
    )
    within = attack(argv=["python3", "-ISc", script], files=BAD_PROGRAMS)
    assert (direct["status"], direct["detail"].partition(":")[0]) == ("start_failed", word)
    assert (within["status"], within["stdout"]["text"]) == ("ok", f"{word}\n")


def test_there_is_no_cgroup_to_move_to(sh):
    """Attack 111. Nor one to freeze: attack 108."""
    files = ("cgroup.procs", "cgroup.threads", "tasks", "cgroup.kill", "cgroup.freeze", "freezer.state")
    names = " -o ".join(f"-name {name}" for name in files)
    find = f"find / -path /usr -prune -o -type f \\( {names} \\) -print 2>/dev/null"
    result = sh(f"{find}; echo 0 > /proc/self/cgroup; true")
    assert result["stdout"]["text"] == ""
    assert "/proc/self/cgroup" in result["stderr"]["text"]


def test_no_process_of_a_job_leaves_its_cgroup(running, processes, cgroups_of, target):
    """Attack 111. In sessions of their own and orphaned, all are in the one cgroup of the sandbox."""
    script = "(setsid sleep 999 &); setsid sleep 999 & (sleep 999 &); exec sleep 1000"

    def sleepers(init):
        found = [pid for pid in processes.descendants(init) if processes.name(pid) == "sleep"]
        return found if len(found) == 4 else []

    with running({"argv": ["sh", "-c", script]}, "sleep") as pids:
        family = [pids[0], *eventually(lambda: sleepers(pids[0]))]
        own = {Path(f"/proc/{pid}/cgroup").read_text() for pid in family}
        # A shell that started one may not be gone yet.
        eventually(lambda: set(family) == held(cgroups_of(target.service.pid, pids[0])))
    assert len(own) == 1


def held(places):
    return {pid for place in places for pid in map(int, (place / "cgroup.procs").read_text().split())}


def eventually(condition):
    """What the condition is once it is true."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "the awaited event did not come"
        time.sleep(0.001)
    return found


def canary(service):
    result = httpx.post(f"{service.url}/v1/run", json={"argv": ["echo", "canary"]}, timeout=60).json()
    assert result["stdout"]["text"] == "canary\n", result


def send(service, body):
    """Post a job and do not wait for its answer: the connection, to be closed."""
    client = HTTPConnection(service.url.removeprefix("http://"), timeout=60)
    client.request("POST", "/v1/run", json.dumps(body), {"Content-Type": "application/json"})
    return client


@pytest.fixture
def kill_family(processes, slowness):
    """Kill a process: all that came from it ends within so many seconds. Returns how many those were.

    It is stopped first, so that what is there then is all that it will ever have made.
    """

    def kill(pid, seconds):
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: processes.status(pid)["State"][0] == "T")
        family = processes.descendants(pid)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        processes.wait_for_end([pid, *family])
        assert time.monotonic() - began < seconds * slowness
        return len(family)

    return kill


@pytest.fixture
def assert_swept(cgroups_of, processes, ready):
    """Of a service that lost its supervisor: all of that is gone, and there are others like the first."""

    def check(service):
        canary(service)
        service.settle()
        assert len(processes.descendants(service.supervisor)) == 2 * ready
        now = cgroups_of(service.pid)
        assert len({place.name for place in now}) == ready
        assert all(held([place]) for place in now)

    return check


@pytest.fixture
def twenty(running):
    """Twenty jobs at once of a service, for as long as the context lasts."""

    @contextmanager
    def start(service):
        with ExitStack() as jobs:
            for _ in range(20):
                jobs.enter_context(running(SLEEPER, "sleep", service))
            yield

    return start


TWENTY = {"JAIL_SLOTS": "20", "JAIL_DEFAULTS_MEMORY_BYTES": str(32 * MIB)}


def test_jobs_of_a_killed_service_die_and_the_next_one_sweeps(
    serve, state, twenty, kill_family, cgroups_named, ready
):
    """Attack 112. The service itself is killed; the next one finds its instance and its cgroups."""
    service = serve(JAIL_STATE=str(state), **TWENTY)
    (instance,) = (state / "instances").iterdir()
    with twenty(service):
        service.settle()
        assert kill_family(service.pid, SECONDS) == 2 + 2 * (20 + ready)
    assert cgroups_named(instance.name) != []
    canary(serve(JAIL_STATE=str(state)))
    assert not instance.exists()
    assert cgroups_named(instance.name) == []


def test_jobs_of_a_killed_supervisor_die_and_the_service_goes_on(
    serve, twenty, kill_family, assert_swept, ready
):
    """Attack 112. The supervisor alone is killed; its service has another and sweeps by itself."""
    service = serve(**TWENTY)
    with twenty(service):
        service.settle()
        assert kill_family(service.supervisor, SECONDS) == 2 * (20 + ready)
    assert_swept(service)


@pytest.mark.parametrize("count", [1, 2], ids=["init", "init and the job's process"])
def test_nothing_outlives_a_supervisor_that_is_killed_during_set_up(
    serve, processes, kill_family, assert_swept, ready, count
):
    """Attack 113. As soon as there is a process of another sandbox, and as soon as there are two."""

    def others(supervisor, before):
        return len(set(processes.descendants(supervisor)) - before) >= count

    service = serve(JAIL_SLOTS="2")
    for _ in range(8):
        canary(service)
        service.settle()
        supervisor, before = service.supervisor, set(processes.descendants(service.supervisor))
        with closing(send(service, SLEEPER)) as client:
            eventually(partial(others, supervisor, before))
            assert kill_family(supervisor, SECONDS) >= 2 * ready + count
            assert json.load(client.getresponse())["status"] == "sandbox_error"
    assert_swept(service)


def arguments(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


@contextmanager
def killed_at_last(process):
    """Whatever goes wrong within, the process ends."""
    try:
        yield
    finally:
        process.kill()


@pytest.mark.parametrize(("child", "count"), [("namespace", 1), ("keep", 1), ("keep", 2)])
def test_nothing_outlives_a_service_that_is_killed_while_it_starts(
    environment, state, serve, processes, kill_family, child, count
):
    """Attack 113. As soon as there is the namespace's holder, the keeper, or a supervisor, its fork."""
    command = [sys.executable, "-P", "-m", "jail", "serve"]
    settings = {**environment, "JAIL_ADDRESS": "127.0.0.1:0", "JAIL_STATE": str(state)}

    def begun(pid):
        return sum(child in arguments(below) for below in processes.descendants(pid)) >= count

    for _ in range(3):
        with (
            subprocess.Popen(command, env=settings, cwd="/", stderr=subprocess.DEVNULL) as service,
            killed_at_last(service),
        ):
            eventually(lambda pid=service.pid: begun(pid))
            kill_family(service.pid, SECONDS)
    canary(serve(JAIL_STATE=str(state)))
    assert len(list((state / "instances").iterdir())) == 1


def throttled(place):
    """How often the bandwidth limit has held a cgroup back."""
    counter = place / "cpu.stat"
    fields = dict(line.split() for line in counter.read_text().splitlines()) if counter.exists() else {}
    return int(fields.get("nr_throttled", 0))


def test_init_dies_with_the_supervisor_before_it_looks_at_its_socket(
    serve, kill_family, cgroups_of, assert_swept, ready
):
    """Attack 113. PDEATHSIG by itself.

    The service is stopped, so that it sweeps nothing. Init has a hundredth of a processor and 20,000
    inodes to make, which takes it many times longer than it has here; until then it reads no socket.
    """
    service = serve(JAIL_SLOTS="1")
    body = {
        **SLEEPER,
        "files": {f"{number}/a/b/c/d": "x" * 4096 for number in range(4000)},
        "limits": {"cpus": 0.01, "files": 65_536},
    }
    with closing(send(service, body)):
        service.settle()
        eventually(lambda: sum(map(throttled, cgroups_of(service.pid))) >= 2)
        service.signal(signal.SIGSTOP)
        try:
            assert kill_family(service.supervisor, 2) == 2 * (1 + ready)
        finally:
            service.signal(signal.SIGCONT)
    assert_swept(service)


COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
BY_PID = re.compile(
    r"(?<![>.])\b(?:SYS_)?(?:kill|killpg|tkill|tgkill|sigqueue|pthread_kill|pidfd_open)\b *[(,]"
)


def test_no_c_source_signals_by_pid():
    """Attack 114. Pidfds alone, and those from clone3() itself."""
    sources = {path.name: COMMENT.sub(" ", path.read_text()) for path in ROOT.glob("native/*.[ch]")}
    assert "SYS_pidfd_send_signal" in sources["slot.c"]
    assert {name for name, source in sources.items() if BY_PID.search(source)} == set()


def by_pid(node):
    """Whether it names a function that takes a pid, or a method that knows one."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and bool({"kill", "killpg"} & {alias.name for alias in node.names})
    if not isinstance(node, ast.Attribute):
        return False
    if node.attr in ("killpg", "send_signal", "terminate"):
        return True
    owner = ast.unparse(node.value)
    return node.attr == "kill" and (owner == "os" or "process" in owner or "popen" in owner.lower())


def test_no_python_source_signals_by_pid():
    """Attack 114."""
    sources = {path: ast.walk(ast.parse(path.read_text())) for path in ROOT.glob("jail/**/*.py")}
    assert len(sources) > 40
    assert {path.name for path, nodes in sources.items() if any(map(by_pid, nodes))} == set()


def test_churn_around_a_limit_hits_nobody_else(attack, running, processes, built, slowness):
    """Attack 114. Ends and limits at the same moment, while pids go round where pid_max is 32768."""
    count = round(1000 / slowness)
    body = {"argv": ["./churn", f"{count}"], "files": {"churn": built("churn.c")}, "limits": {"pids": 8}}
    usual_ms = attack(body)["usage"]["wall_ms"]
    limits = {"pids": 8, "wall_ms": max(1, round(usual_ms))}
    # Not to be ended by its own wall limit meanwhile.
    with running({**SLEEPER, "limits": {"wall_ms": 600_000}}, "sleep") as pids:
        ends = {attack(body, limits=limits)["status"] for _ in range(32)}
        assert {processes.status(pid)["State"][0] for pid in pids} <= {"S", "R"}
    assert ends <= {"ok", "wall_limit"}


CONCURRENT, STARTS_SECONDS = 200, 5


def test_many_starts_at_once_never_hang(serve, processes, ready, slowness):
    """Attack 115. For five seconds here, not for ten minutes; each of 200 callers starts job after job."""
    service = serve(JAIL_SLOTS=str(CONCURRENT), JAIL_DEFAULTS_MEMORY_BYTES=str(16 * MIB))
    end = time.monotonic() + STARTS_SECONDS

    async def call(client):
        told = set()
        while not told or time.monotonic() < end:
            answer = await client.post("/v1/run", json={"argv": ["true"]})
            told.add(answer.json()["status"])
        return told

    async def scene():
        limits = httpx.Limits(max_connections=CONCURRENT)
        async with httpx.AsyncClient(base_url=service.url, timeout=30 * slowness, limits=limits) as client:
            return set().union(*await asyncio.gather(*(call(client) for _ in range(CONCURRENT))))

    assert asyncio.run(scene()) == {"ok"}
    service.settle()
    assert len(processes.descendants(service.supervisor)) == 2 * ready


def test_what_clones_has_one_thread(running, target, processes):
    """Attack 115. The service, which has several, never clones a sandbox."""
    supervisor = target.service.supervisor
    with running(SLEEPER, "sleep") as (init, job):
        parents = [int(processes.status(pid)["PPid"]) for pid in (init, job)]
        threads = [processes.status(pid)["Threads"] for pid in (supervisor, init)]
    assert (parents, threads) == ([supervisor, init], ["1", "1"])
