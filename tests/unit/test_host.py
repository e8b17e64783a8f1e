"""What is there for this process: of a host, or of a container on it."""

import os
from pathlib import Path

import pytest

from jail import host

MOUNTINFO = "30 29 0:26 / {} rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """This process is in a/b of a tree; files are written by their path in it."""
    monkeypatch.setattr(host, "_PROCESS", tmp_path)
    monkeypatch.setattr(host, "processors", lambda: tuple(range(8)))
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tmp_path / "mountinfo").write_text(MOUNTINFO.format(tree))
    (tmp_path / "cgroup").write_text("0::/a/b\n")
    # Above the mount point is not a cgroup.
    (tmp_path / "memory.max").write_text("1")

    def write(**files):
        for name, text in files.items():
            (tree / name.replace("__", "/").replace("_max", ".max")).write_text(text)

    return write


def test_without_a_limit_it_is_the_hosts(cgroups):
    cgroups(a__memory_max="max\n", a__cpu_max="max 100000\n")
    assert host.memory_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert host.cpus() == 8


def test_the_least_of_all_limits_above_counts(cgroups):
    cgroups(memory_max="50000\n", a__memory_max="30000\n", a__b__memory_max="40000\n")
    assert host.memory_bytes() == 30000


@pytest.mark.parametrize(("quota", "count"), [("200000", 2), ("150000", 2), ("50000", 1), ("9900000", 8)])
def test_a_part_of_a_processor_is_rounded_up(cgroups, quota, count):
    cgroups(cpu_max=f"{quota} 100000\n", a__cpu_max="max 100000\n")
    assert host.cpus() == count


def test_on_v1_it_is_the_hosts(cgroups, tmp_path):
    cgroups(memory_max="50000\n")
    (tmp_path / "mountinfo").write_text("30 29 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    assert host.memory_bytes() > 50000


def test_a_cgroup_out_of_sight_limits_nothing(cgroups, tmp_path):
    cgroups(memory_max="50000\n")
    (tmp_path / "cgroup").write_text("4:memory:/a\n")
    assert host.memory_bytes() > 50000


def test_the_least_number_of_processes_above_counts(cgroups):
    assert host.processes() is None
    cgroups(pids_max="5000\n", a__pids_max="100\n", a__b__pids_max="max\n")
    assert host.processes() == 100


def test_swap_is_what_proc_says():
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) for line in lines if line.startswith("SwapTotal:"))
    assert host.swap_bytes() == total * 1024
