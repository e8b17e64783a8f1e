"""Tests of jail as it is installed on a stock system: as root, and only in a machine of scripts/test-vm."""

import os
import subprocess
from pathlib import Path

import pytest

# They install software, and start and stop units.
IS_MACHINE = "jail.vm" in Path("/proc/cmdline").read_text().split()
collect_ignore_glob = [] if IS_MACHINE else ["*"]

CHECKOUT = Path(__file__).parents[2]
# Where the machine has what pip cannot get: it has no network.
PIP = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels", "PIP_ONLY_BINARY": ":all:"}


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel that was built in the checkout which these tests are of."""
    (path,) = Path("/job/wheels").glob("jail-*.whl")
    return path


@pytest.fixture(scope="session")
def install(wheel: Path):
    """Call it to install jail as deploy/systemd says, with pip alone; again is an upgrade."""

    def run() -> str:
        script = CHECKOUT / "deploy/systemd/install"
        done = subprocess.run([script, wheel], env={**os.environ, **PIP}, stdout=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="session")
def installed(install) -> str:
    """Jail is there, and its service is not started yet; what the installation told."""
    return install()
