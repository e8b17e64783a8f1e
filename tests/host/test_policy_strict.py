"""The policy `strict` in a real sandbox: one process, one program, no socket."""

import pytest

OTHER_PROGRAMS = ["os.execv('/usr/bin/true', ['true'])", "os.execv('/proc/self/exe', ['python3'])"]
OTHER_PROCESSES = ["os.fork()", "subprocess.run(['true'])", "os.posix_spawn('/usr/bin/true', ['true'], {})"]
SOCKETS = ["socket.socketpair()", "socket.socket(socket.AF_UNIX)", "socket.socket()", "socket.socket(16, 3)"]


@pytest.mark.parametrize("trial", OTHER_PROGRAMS)
def test_no_other_program_is_executed(attempt, trial):
    assert attempt(trial, "strict") == "EPERM"


def test_no_other_program_is_executed_however_often_it_is_tried(attempt, slowness):
    trial = (
        "refused = []\n"
        f"for _ in range({round(5000 / slowness)}):\n"
        "    try: os.execv('/usr/bin/true', ['true'])\n"
        "    except OSError as error: refused.append(error.errno)\n"
        "assert set(refused) == {errno.EPERM}"
    )
    assert attempt(trial, "strict") == "done"


def test_no_other_program_is_executed_without_a_file(attempt):
    trial = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "file = os.open('/usr/bin/true', os.O_RDONLY)\n"
        "empty, at_empty_path = (ctypes.c_char_p * 1)(), 0x1000\n"
        "c.syscall(322, file, b'', empty, empty, at_empty_path)\n"
        "raise OSError(ctypes.get_errno(), '')"
    )
    assert attempt(trial, "strict") == "EPERM"


@pytest.mark.parametrize("trial", OTHER_PROCESSES)
def test_no_other_process_is_made(attempt, trial):
    assert attempt(trial, "strict") == "EPERM"
    assert attempt(trial, "run").startswith("done")


@pytest.mark.parametrize("trial", SOCKETS)
def test_no_socket_is_made(attempt, trial):
    assert attempt(trial, "strict") == "EPERM"


def test_a_message_cannot_be_sent_on_what_is_no_socket(attempt):
    trial = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "c.sendmsg(1, b'\\0' * 56, 0)\n"
        "raise OSError(ctypes.get_errno(), '')"
    )
    assert attempt(trial, "strict") == "ENOTSOCK"


def test_threads_and_files_are_there(attempt):
    trial = (
        "thread = threading.Thread(target=lambda: open('a', 'w').write('x' * 9))\n"
        "thread.start(); thread.join()\n"
        "assert os.stat('a').st_size == 9"
    )
    assert attempt(trial, "strict") == "done"


def test_a_program_that_is_not_there_is_told_as_under_every_policy(jail):
    assert jail.run({"argv": ["nothing-like-it"], "policy": "strict"})["status"] == "start_failed"


def test_a_script_is_executed_with_its_interpreter(jail):
    files = {"main.py": {"text": "#!/usr/bin/env -S\nno", "executable": True}}
    direct = {"main.py": {"text": "#!/usr/bin/python3 -IS\nprint('well')\n", "executable": True}}
    # The kernel's own way from script to interpreter is one execution; env's to python3 is another.
    assert (
        jail.run({"argv": ["./main.py"], "files": direct, "policy": "strict"})["stdout"]["text"] == "well\n"
    )
    assert jail.run({"argv": ["./main.py"], "files": files, "policy": "strict"})["status"] != "ok"


def test_denials_are_explained(jail):
    script = "import os\ntry: os.execv('/usr/bin/true', ['true'])\nexcept OSError: pass"
    told = jail.python(script, policy="strict", explain=True)["denials"]
    assert [(denial["syscall"], denial["count"]) for denial in told] == [("execve", 1)]
