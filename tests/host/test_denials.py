"""Calls that the filter hands to init: denials that are explained, calls that are counted."""

import errno

import pytest

PRELUDE = """
import ctypes, errno, os, threading
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    ctypes.set_errno(0)
    result = libc.syscall(*map(ctypes.c_long, arguments))
    return result if result >= 0 else -ctypes.get_errno()
"""
SOCKET, UNSHARE, IO_URING_SETUP, BPF = 41, 272, 425, 321
VSOCK = 40
ENOUGH = {"cpu_ms": 200_000, "wall_ms": 600_000}


@pytest.fixture
def calls(jail):
    """Run a script that has `call` at hand, and return the result; it has to end well."""

    def run(script, **body):
        result = jail.python(PRELUDE + script, **body)
        assert result["status"] == "ok", result
        return result

    return run


def test_denials_are_told_of_by_name_arguments_and_count(calls):
    script = f"for _ in range(3): call({SOCKET}, {VSOCK}, 1, 0)\ncall({UNSHARE}, 0x10000000)"
    told = calls(script, explain=True)["denials"]
    assert told == [
        {"syscall": "socket", "args": ["0x28", "0x1", "0x0"], "count": 3},
        {"syscall": "unshare", "args": ["0x10000000"], "count": 1},
    ]


def test_a_job_that_is_denied_nothing_has_an_empty_list(calls):
    assert calls("print(1)", explain=True)["denials"] == []


def test_without_being_asked_nothing_is_told(calls):
    result = calls(f"call({UNSHARE}, 0x10000000)")
    assert (result["denials"], result["denials_omitted"]) == (None, 0)


def test_a_call_is_answered_the_same_whether_it_is_explained_or_not(calls):
    script = (
        f"print(*(call(number, -1, 0, 0) for number in ({SOCKET}, {UNSHARE}, {IO_URING_SETUP}, {BPF}, 9999)))"
    )
    told = [calls(script, explain=explain)["stdout"]["text"] for explain in (False, True)]
    expected = (-errno.EPERM, -errno.EPERM, -errno.ENOSYS, -errno.EPERM, -errno.ENOSYS)
    assert told == [" ".join(map(str, expected)) + "\n"] * 2


def test_denials_of_every_process_and_thread_are_told_of(calls):
    script = (
        f"thread = threading.Thread(target=call, args=({UNSHARE}, 0x10000000))\n"
        "thread.start(); thread.join()\n"
        f"if not os.fork(): call({UNSHARE}, 0x10000000); os._exit(0)\n"
        "os.wait()"
    )
    told = calls(script, explain=True)["denials"]
    # glibc tries clone3() before it makes the thread.
    assert [(denial["syscall"], denial["count"]) for denial in told] == [("clone3", 1), ("unshare", 2)]


def test_a_flood_of_denied_calls_is_counted_in_full(calls, slowness):
    count = round(10_000 / slowness)
    script = f"print({{call({UNSHARE}, 0x10000000) for _ in range({count})}} == {{-errno.EPERM}})"
    result = calls(script, explain=True, limits=ENOUGH)
    assert result["stdout"]["text"] == "True\n"
    assert result["denials"] == [{"syscall": "unshare", "args": ["0x10000000"], "count": count}]


def test_what_a_flood_of_denied_calls_costs_is_its_jobs_own(calls, slowness):
    def cpu_ms(count, explain):
        script = f"for _ in range({count}): call({UNSHARE}, 0x10000000)"
        return calls(script, explain=explain, limits=ENOUGH)["usage"]["cpu_ms"]

    # As few as can be told from the noise.
    count = max(5_000, round(20_000 / slowness))
    start, plain, explained = cpu_ms(0, True), cpu_ms(count, False), cpu_ms(count, True)
    # Init answers them, in the job's cgroup.
    assert explained - start > 1.5 * (plain - start)


def test_denials_of_a_job_that_was_ended_are_told_of(jail, slowness):
    script = PRELUDE + f"call({UNSHARE}, 0x10000000)\nwhile True: pass"
    result = jail.python(script, explain=True, limits={"cpu_ms": round(200 * slowness)})
    assert result["status"] == "cpu_limit"
    assert [denial["syscall"] for denial in result["denials"]] == ["unshare"]


def test_a_number_that_is_no_call_is_denied_as_ever(calls):
    told = [calls("print(call(-1))", explain=explain) for explain in (False, True)]
    assert [result["stdout"]["text"] for result in told] == [f"{-errno.EPERM}\n"] * 2
    assert [denial["count"] for denial in told[1]["denials"]] == [1]


def test_more_different_denials_than_there_is_room_for_are_counted(calls):
    result = calls(f"for flags in range(1000): call({UNSHARE}, flags)", explain=True)
    assert len(result["denials"]) == 64
    assert result["denials_omitted"] == 1000 - 64


def test_a_denial_that_is_waited_for_does_not_outlive_its_job(calls, jail, processes):
    script = (
        f"def flood():\n    while True: call({UNSHARE}, 0x10000000)\n"
        "for _ in range(8): threading.Thread(target=flood, daemon=True).start()\n"
        "os._exit(0)"
    )
    for _ in range(20):
        calls(script, explain=True)
        assert processes.jobs(jail.supervisor) == []


def test_other_commands_of_fcntl_are_not_counted(calls):
    script = "import fcntl\nfor _ in range(100_000): fcntl.fcntl(0, fcntl.F_GETFD)\nprint('well')"
    assert calls(script, limits=ENOUGH)["stdout"]["text"] == "well\n"


def test_a_database_on_disk_works(calls):
    script = (
        "import sqlite3\n"
        "base = sqlite3.connect('base')\n"
        "base.execute('create table numbers (n)')\n"
        "for n in range(100):\n    with base: base.execute('insert into numbers values (?)', (n,))\n"
        "print(*base.execute('select sum(n) from numbers').fetchone())"
    )
    assert calls(script, limits=ENOUGH)["stdout"]["text"] == "4950\n"
