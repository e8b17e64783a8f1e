"""The policy `run` in a real sandbox: what it leaves out of default is refused, and default has it."""

import pytest

# Each raises OSError where the policy refuses.
TRIALS = {
    "a server on loopback": "import socket; socket.create_server(('127.0.0.1', 0))",
    "a local datagram": "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "a record lock": "import fcntl; fcntl.lockf(open('a', 'w'), fcntl.LOCK_EX)",
    "a lease": "import fcntl; fcntl.fcntl(open('a', 'w'), fcntl.F_SETLEASE, fcntl.F_WRLCK)",
    "a FIFO": "import os; os.mkfifo('a')",
    "a memfd": "import os; os.memfd_create('a')",
    "another processor": "import os; os.sched_setaffinity(0, os.sched_getaffinity(0))",
    "a semaphore of System V": "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
    "if c.semget(0, 1, 0o600) < 0: raise OSError(ctypes.get_errno(), '')",
    "a change of files": "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
    "if c.inotify_init1(0) < 0: raise OSError(ctypes.get_errno(), '')",
}


@pytest.mark.parametrize("what", TRIALS)
def test_what_run_leaves_out_is_refused_there_and_not_under_default(attempt, what):
    found = {policy: attempt(TRIALS[what], policy) for policy in ("default", "run")}

    assert found == {"default": "done", "run": "EPERM"}


def test_a_file_can_be_locked_as_a_whole(jail):
    script = "import fcntl; fcntl.flock(open('a', 'w'), fcntl.LOCK_EX)"
    assert jail.python(script, policy="run")["status"] == "ok"


def test_attributes_look_absent_so_that_copying_goes_on(jail):
    script = "import shutil; open('a', 'w'); shutil.copy2('a', 'b'); print('done')"
    assert jail.python(script, policy="run")["stdout"]["text"] == "done\n"
