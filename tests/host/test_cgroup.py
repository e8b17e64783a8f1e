"""What the kernel's own files say of sandboxes' cgroups, on the version that this host has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jail.cgroup import Limits

MIB = 1 << 20
LIMITS = Limits(memory_bytes=512 * MIB, pids=8, cpus=1)


@pytest.fixture
def hierarchy(jail):
    """Where the engine makes its cgroups."""
    return jail.engine.sandboxes.hierarchy


@pytest.fixture
def v2(hierarchy):
    """The same, if it is of cgroup v2."""
    if hierarchy.version != "v2":
        pytest.skip("the host has cgroup v1")
    return hierarchy


def processes_in(directory):
    return (directory / "cgroup.procs").read_text().split()


# --- delegation


def test_no_cgroup_that_has_others_has_processes(jail, v2, executing):
    """cgroup-v2.rst, "No Internal Process Constraint"."""

    async def scene():
        run = jail.submit({"argv": ["sleep", "1000"]})
        await executing(jail.supervisor, "sleep")
        (base,) = v2.bases
        places = [Path(place) for place, below, _ in os.walk(base.parent) if below]
        found = {place: processes_in(place) for place in places}
        run.cancel()
        await run.task
        return base, found

    base, found = jail.do(scene())
    assert {base.parent, base, *v2.claimed} <= set(found)
    assert set(map(tuple, found.values())) == {()}


def test_the_service_is_in_a_leaf_beside_its_sandboxes(v2):
    (base,) = v2.bases
    leaf = base.parent / "service"
    assert str(os.getpid()) in processes_in(leaf)
    assert [path for path in leaf.iterdir() if path.is_dir()] == []


def test_a_sandbox_is_in_one_cgroup_from_its_first_process_on(jail, v2, processes, executing):
    """Init is born in it and has nothing to move itself with: no descriptor of a cgroup is handed to it."""

    async def scene():
        run = jail.submit({"argv": ["sleep", "1000"]})
        (job,) = await executing(jail.supervisor, "sleep")
        family = processes.sandbox(jail.supervisor, job)
        places = [place for place in jail.cgroups if str(job) in processes_in(place)]
        found = family, places, [set(map(int, processes_in(place))) for place in places]
        run.cancel()
        await run.task
        return found

    family, places, inside = jail.do(scene())
    assert len(places) == 1
    assert inside == [set(family)]


# --- limits


@pytest.mark.parametrize(("name", "text"), [("memory.swap.max", "0"), ("memory.oom.group", "1")])
def test_what_every_sandbox_is_given_is_in_force(jail, v2, name, text):
    places = [place / name for place in jail.cgroups]
    assert places
    if not places[0].exists():
        pytest.skip(f"the host's kernel has no {name}")
    assert {place.read_text().strip() for place in places} == {text}


# --- counters


def charge(directory, mib):
    """Have a process of that cgroup hold so much memory for a moment."""
    script = f"open('{directory}/cgroup.procs', 'w').write('0'); bytearray({mib} << 20)"
    subprocess.run([sys.executable, "-ISc", script], check=True)


@pytest.fixture
def group(hierarchy):
    """A cgroup, and its directory, of the memory controller."""
    directory = hierarchy.claimed[0] / "peak"
    group = hierarchy.make(directory.name)
    yield group, directory
    group.remove()


def test_what_was_charged_before_the_job_is_in_no_peak_where_the_kernel_can_begin_anew(hierarchy, group):
    """On v1, and on v2 since Linux 6.12."""
    group, directory = group
    resets = hierarchy.version == "v1" or os.access(directory / "memory.peak", os.W_OK)
    charge(directory, 64)
    group.limit(LIMITS)
    setup_bytes = group.begin()
    counters = group.count()
    assert counters.memory_setup_bytes == setup_bytes < 16 * MIB
    if resets:
        assert setup_bytes <= counters.memory_peak_bytes < 16 * MIB
    else:
        assert counters.memory_peak_bytes > 64 * MIB


def test_the_peak_is_of_the_job_too(group):
    group, directory = group
    group.limit(LIMITS)
    group.begin()
    charge(directory, 64)
    assert group.count().memory_peak_bytes > 64 * MIB


def test_what_set_up_was_charged_is_a_small_part_of_the_peak(jail):
    usage = jail.python("bytearray(40 << 20)")["usage"]
    assert 0 < usage["memory_setup_bytes"] < 4 * MIB
    assert usage["memory_peak_bytes"] > 40 * MIB


def test_processes_at_once_are_told_exactly_where_the_kernel_counts_them(jail, hierarchy):
    """In init and the shell, three that wait. Kernels without the counter tell nothing: it is not guessed."""
    result = jail.sh("sleep 0.3 & sleep 0.3 & sleep 0.3 & wait")
    counts = any((place / "pids.peak").exists() for place in hierarchy.claimed)
    assert result["usage"]["pids_peak"] == (5 if counts else None)


SPIN = "import time\nend = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass"


def test_a_job_that_is_held_back_knows_for_how_long(jail, v2):
    """By its bandwidth limit: of half a second it has a fifth, and has to wait for the rest."""
    pressure = jail.python(SPIN, limits={"cpus": 0.2})["usage"]["pressure"]
    if not (v2.claimed[0] / "cpu.pressure").exists():
        assert pressure is None
        pytest.skip("the host's kernel has no pressure stall information")
    assert pressure["cpu_some_ms"] > 200
    assert pressure["memory_full_ms"] == pressure["io_full_ms"] == 0


def test_pressure_is_unknown_where_the_kernel_counts_none(jail, hierarchy):
    pressure = jail.run({"argv": ["true"]})["usage"]["pressure"]
    counts = any((place / "cpu.pressure").exists() for place in hierarchy.claimed)
    assert (pressure is not None) == counts
