"""How jobs end, and that nothing of them goes on."""

import signal

import pytest

IGNORED = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
DEADLY = sorted(set(range(1, 65)) - IGNORED - STOPPING - {signal.SIGSYS})


def test_every_exit_code_is_told(jail):
    async def scene():
        codes = []
        for first in range(0, 256, 8):
            runs = [jail.submit({"argv": ["sh", "-c", f"exit {first + i}"]}) for i in range(8)]
            codes += [await jail.answer(run) for run in runs]
        return codes

    results = jail.do(scene())
    assert [result["exit_code"] for result in results] == list(range(256))
    assert {result["status"] for result in results[1:]} == {"nonzero_exit"}
    assert results[0]["status"] == "ok"
    assert {result["signal"] for result in results} == {None}


def test_every_deadly_signal_is_told(jail, program):
    async def scene():
        results = []
        for number in DEADLY:
            body = {"argv": ["./raise", str(number)], "files": {"raise": raising}}
            results.append(await jail.answer(jail.submit(body)))
        return results

    raising = program("raise")
    results = jail.do(scene())
    assert [result["signal"] for result in results] == DEADLY
    assert {result["status"] for result in results} == {"signaled"}
    assert {result["exit_code"] for result in results} == {None}


def test_the_filters_signal_is_told_as_such(jail, program):
    result = jail.run({"argv": ["./raise", "31"], "files": {"raise": program("raise")}})
    assert (result["status"], result["signal"]) == ("syscall_denied", 31)


@pytest.mark.parametrize("number", sorted(IGNORED))
def test_other_signals_do_nothing(jail, program, number):
    result = jail.run({"argv": ["./raise", str(int(number))], "files": {"raise": program("raise")}})
    assert (result["status"], result["exit_code"]) == ("ok", 0)


@pytest.mark.parametrize("number", sorted(STOPPING))
def test_a_job_that_stops_itself_is_ended_by_the_wall_limit(jail, number):
    result = jail.sh(f"kill -{int(number)} $$; sleep 1000", limits={"wall_ms": 200})
    assert result["status"] == "wall_limit"


def test_an_abort_is_an_abort(jail):
    assert jail.python("import os; os.abort()")["signal"] == signal.SIGABRT


BAD_ELF = {"text": "\x7fELF, and then nothing that one could load", "executable": True}


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["no-such-program"], "ENOENT"),
        (["./missing"], "ENOENT"),
        (["/usr/no/such"], "ENOENT"),
        (["./plain"], "EACCES"),
        (["plain"], "ENOENT"),
        (["./interpreter"], "ENOENT"),
        (["."], "EACCES"),
        (["/usr"], "EACCES"),
        (["./elf"], "ENOEXEC"),
        (["./empty"], "ENOEXEC"),
        (["./no-shebang"], "ENOEXEC"),
        (["./plain/below"], "ENOTDIR"),
    ],
)
def test_a_program_that_cannot_be_started_is_told(jail, argv, error):
    result = jail.run(
        {
            "argv": argv,
            "files": {
                "plain": "x",
                "interpreter": {"text": "#!/no/such\n", "executable": True},
                "elf": BAD_ELF,
                "empty": {"text": "", "executable": True},
                "no-shebang": {"text": "echo x\n", "executable": True},
            },
        }
    )
    assert result["status"] == "start_failed"
    assert result["detail"].startswith(error)
    assert (result["exit_code"], result["signal"], result["limit"]) == (None, None, None)


def test_a_program_that_may_not_be_executed_is_told_from_a_missing_one(jail):
    result = jail.run({"argv": ["plain"], "files": {"dir/plain": "x"}, "env": {"PATH": "/usr/bin:/box/dir:"}})
    assert result["status"] == "start_failed"
    assert result["detail"].startswith("EACCES")


@pytest.mark.parametrize(
    "script",
    [
        "sleep 1000 & echo done",
        "setsid sleep 1000 & echo done",
        "setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1000; done' & echo done",
        "(setsid sleep 1000 <&0 >&1 2>&1 &) ; echo done",
    ],
)
def test_a_background_process_neither_delays_the_answer_nor_survives(jail, processes, slowness, script):
    result = jail.sh(script)
    assert (result["status"], result["stdout"]["text"]) == ("ok", "done\n")
    assert result["timing"]["run_ms"] < 1000 * slowness
    assert processes.jobs(jail.supervisor) == []


def test_a_daemon_neither_delays_the_answer_nor_survives(jail, program, processes, slowness):
    result = jail.run({"argv": ["./daemon"], "files": {"daemon": program("daemon")}})
    assert result["status"] == "ok"
    assert result["stdout"]["text"] in ("", "daemon\n")
    assert result["timing"]["run_ms"] < 1000 * slowness
    assert processes.jobs(jail.supervisor) == []


def test_a_job_whose_main_thread_is_a_zombie_ends_with_its_last_thread(jail, program):
    result = jail.run({"argv": ["./leaderless", "7"], "files": {"leaderless": program("leaderless")}})
    assert (result["status"], result["exit_code"]) == ("nonzero_exit", 7)


def test_a_job_whose_main_thread_is_a_zombie_is_ended_by_its_limit(jail, program):
    result = jail.run(
        {
            "argv": ["./leaderless", "-1"],
            "files": {"leaderless": program("leaderless")},
            "limits": {"wall_ms": 200},
        }
    )
    assert result["status"] == "wall_limit"


def test_killing_everything_kills_only_the_job(jail):
    result = jail.sh("sh -c 'kill -9 -1'; echo survived")
    assert (result["status"], result["signal"]) == ("signaled", 9)
    assert result["stdout"]["text"] == ""


def test_init_cannot_be_killed(jail):
    result = jail.sh("kill -9 1; kill -STOP 1; kill -TERM 1; echo lives")
    assert (result["status"], result["stdout"]["text"]) == ("ok", "lives\n")


def test_output_written_before_a_kill_is_kept(jail):
    result = jail.sh("echo before; kill -9 $$")
    assert (result["signal"], result["stdout"]["text"]) == (9, "before\n")
