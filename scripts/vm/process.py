"""Other programs, which never outlive us: however we end, the kernel ends them."""

import subprocess
from collections.abc import Sequence
from typing import Any


def run(command: Sequence[Any], **options: Any) -> subprocess.CompletedProcess:
    """As subprocess.run(), which kills the child when we are interrupted."""
    return subprocess.run(["setpriv", "--pdeathsig=KILL", "--", *command], check=False, **options)
