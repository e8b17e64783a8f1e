"""What the profile of containers allows beyond the policies is needed, call by call."""

import errno
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from jail.policy.binding import libseccomp

SCRIPT = Path(__file__).parents[2] / "scripts" / "container.py"
NEEDED = runpy.run_path(str(SCRIPT))["NEEDED"]


@pytest.mark.parametrize("call", NEEDED)
def test_without_it_there_is_no_sandbox(call, environment):
    def load():
        made = libseccomp().SyscallFilter(libseccomp().ALLOW)
        made.add_rule(libseccomp().ERRNO(errno.ENOSYS), call)
        made.load()

    done = subprocess.run(
        [sys.executable, "-P", "-m", "jail", "run", "--", "true"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=load,
        env=environment,
    )
    assert done.returncode != 0
    assert "jail:" in done.stderr
    assert "Traceback" not in done.stderr
