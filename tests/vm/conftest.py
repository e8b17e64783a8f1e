"""Tests of the package as it is installed on a stock system: as root, in a machine of scripts/test-vm alone."""

from pathlib import Path

# They install software, and start and stop units.
IS_MACHINE = "jail.vm" in Path("/proc/cmdline").read_text().split()
collect_ignore_glob = [] if IS_MACHINE else ["*"]
