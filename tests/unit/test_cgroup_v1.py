"""cgroup v1, on a directory that looks like it: what is written where, what is read, what is left."""

import math
import os
import subprocess

import msgspec
import pytest

from jail.cgroup import v1
from jail.cgroup.interface import Counters, Limits
from jail.cgroup.v1 import HierarchyV1

pytestmark = pytest.mark.usefixtures("leaks_nothing")

FILES = {
    "memory": {
        "memory.limit_in_bytes": "",
        "memory.memsw.limit_in_bytes": "",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "cgroup.event_control": "",
        "memory.kmem.tcp.limit_in_bytes": "",
        "memory.max_usage_in_bytes": "67108864\n",
        "memory.usage_in_bytes": "524288\n",
    },
    "pids": {"pids.max": "", "pids.events": "max 4\n", "pids.peak": "5\n"},
    "cpu": {
        "cpu.cfs_quota_us": "",
        "cpu.stat": "nr_periods 9\nnr_throttled 8\nthrottled_time 7000001\n",
    },
    "cpuacct": {"cpuacct.usage": "0\n", "cpuacct.usage_user": "0\n", "cpuacct.usage_sys": "0\n"},
    "blkio": {
        "blkio.throttle.io_service_bytes": "8:0 Read 4096\n8:0 Write 1\n8:0 Sync 9\n8:0 Total 4097\n"
        "8:16 Read 512\n8:16 Write 2\n8:16 Total 514\nTotal 4611\n"
    },
}
APART = {name: name for name in FILES}
TOGETHER = APART | {"cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct"}
OURS = "89abcdef"
PLACE = f"jail-1000/{OURS}"
LIMITS = Limits(memory_bytes=1 << 26, pids=32, cpus=1.5)

# Documented nowhere: MEMCG_CHARGE_BATCH in mm/memcontrol.c.
BATCH_BYTES = 64 * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def host(tmp_path, fake_kernel):
    """Lay out a host: where each controller is mounted, and which files it does not have."""

    opened = []

    def lay_out(mounts=APART, lacking=()):
        def files(directory):
            found = {"cgroup.procs": "", "tasks": ""}
            for controller, mount in mounts.items():
                if directory.relative_to(tmp_path).parts[0] == mount:
                    found |= FILES[controller]
            return {name: text for name, text in found.items() if name not in lacking}

        bases = {}
        for controller, mount in mounts.items():
            bases[controller] = tmp_path / mount / "jail-1000"
            bases[controller].mkdir(parents=True, exist_ok=True)
        kernel = fake_kernel(files)
        opened.append(HierarchyV1(bases))
        opened[0].claim(OURS)
        return opened[0], kernel

    yield lay_out
    for hierarchy in opened:
        hierarchy.close()


@pytest.fixture
def sandboxes(tmp_path):
    """Where a sandbox of that name has a directory."""
    return lambda name="*": {path.parts[-4] for path in tmp_path.glob(f"*/{PLACE}/{name}/")}


@pytest.mark.parametrize(("mounts", "count"), [(APART, 5), (TOGETHER, 4)])
def test_a_cgroup_is_one_directory_of_that_name_in_every_mount(host, sandboxes, mounts, count):
    hierarchy, _ = host(mounts)
    group = hierarchy.make("a.1")
    assert sandboxes("a.1") == set(mounts.values())
    assert len(group.joins) == count
    group.remove()


def test_init_is_given_a_tasks_file_of_each_to_write_itself_into(host, tmp_path):
    hierarchy, _ = host()
    group = hierarchy.make("a.1")
    for descriptor in group.joins:
        os.write(descriptor, b"0")
    tasks = tmp_path.glob(f"*/{PLACE}/a.1/tasks")
    assert [path.read_text() for path in tasks] == ["0"] * len(FILES)
    group.remove()


def test_nobody_is_born_in_a_v1_cgroup(host):
    group = host()[0].make("a.1")
    assert group.born == ()
    group.remove()


def test_the_cpu_counters_are_the_total_the_users_and_the_systems(host):
    group = host()[0].make("a.1")
    paths = [os.readlink(f"/proc/self/fd/{number}") for number in group.cpu_counters]
    assert [os.path.basename(path) for path in paths] == [*FILES["cpuacct"]]
    group.remove()


def test_the_kernel_is_asked_to_tell_of_oom_by_the_event(host, tmp_path):
    group = host()[0].make("a.1")
    control = tmp_path / f"memory/{PLACE}/a.1/cgroup.event_control"
    event, watched = map(int, control.read_text().split())
    assert (event,) == group.oom_event
    assert not os.get_blocking(event)
    # The kernel has taken what it needs of it.
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(watched)
    group.remove()


def test_the_limits_are_written_each_to_its_file(host, tmp_path):
    group = host()[0].make("a.1")
    group.limit(LIMITS)
    written = {
        f"memory/{PLACE}/a.1/memory.limit_in_bytes": "67108864",
        f"memory/{PLACE}/a.1/memory.memsw.limit_in_bytes": "67108864",
        f"memory/{PLACE}/a.1/memory.kmem.tcp.limit_in_bytes": "67108864",
        f"pids/{PLACE}/a.1/pids.max": "32",
        f"cpu/{PLACE}/a.1/cpu.cfs_quota_us": "150000",
    }
    assert {path: (tmp_path / path).read_text() for path in written} == written
    group.remove()


def test_only_limits_that_are_others_than_before_are_written(host, written):
    group = host()[0].make("a.1")
    group.limit(LIMITS)
    written.clear()
    group.limit(LIMITS)
    assert written == []
    group.limit(msgspec.structs.replace(LIMITS, pids=8))
    group.limit(msgspec.structs.replace(LIMITS, pids=8, cpus=2))
    assert written == [("pids.max", 8), ("cpu.cfs_quota_us", 200_000)]
    group.remove()


@pytest.mark.parametrize("factor", [1, 2, 0.5])
def test_memory_and_swap_together_are_never_limited_to_less_than_memory(host, written, factor):
    """The kernel refuses it, at every moment: memory.rst, 2.4."""
    group = host()[0].make("a.1")
    group.limit(LIMITS)
    group.limit(msgspec.structs.replace(LIMITS, memory_bytes=int(LIMITS.memory_bytes * factor)))
    bounds = {"memory.limit_in_bytes": math.inf, "memory.memsw.limit_in_bytes": math.inf}
    for name, value in written:
        if name in bounds:
            bounds[name] = value
        assert bounds["memory.limit_in_bytes"] <= bounds["memory.memsw.limit_in_bytes"]
    assert set(bounds.values()) == {LIMITS.memory_bytes * factor}
    group.remove()


def test_what_a_sandbox_holds_before_its_job_is_told(host):
    group = host()[0].make("a.1")
    assert group.begin() == 524_288
    group.remove()


def test_what_was_handed_over_is_closed_and_removing_does_not_close_it_again(host):
    group = host()[0].make("a.1")
    descriptors = group.joins + group.cpu_counters + group.oom_event
    group.hand_over()
    assert (group.joins, group.cpu_counters, group.oom_event) == ((), (), ())
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    # Their numbers are somebody else's by then.
    others = [os.open("/dev/null", os.O_RDONLY) for _ in descriptors]
    group.remove()
    for other in others:
        os.close(other)


def begin(group, tmp_path, peak_bytes):
    """Have the job begin, and its peak be that."""
    group.begin()
    peak = tmp_path / f"memory/{PLACE}/a.1/memory.max_usage_in_bytes"
    assert peak.read_text().startswith("0")
    peak.write_text(f"{peak_bytes}\n")


def test_whether_it_was_full_is_told_by_the_limit_that_was_set_last(host, tmp_path):
    group = host()[0].make("a.1")
    begin(group, tmp_path, LIMITS.memory_bytes)
    group.limit(LIMITS)
    assert group.count().limit_oom
    group.limit(msgspec.structs.replace(LIMITS, memory_bytes=2 * LIMITS.memory_bytes))
    assert not group.count().limit_oom
    group.remove()


def test_a_host_that_does_not_count_swap_is_not_asked_to(host, tmp_path):
    group = host(lacking=("memory.memsw.limit_in_bytes",))[0].make("a.1")
    group.limit(LIMITS)
    assert not list(tmp_path.glob("**/*memsw*"))
    group.remove()


def test_the_smallest_bandwidth_is_what_the_kernel_takes(host, tmp_path):
    group = host()[0].make("a.1")
    group.limit(Limits(memory_bytes=1 << 26, pids=2, cpus=0.001))
    assert (tmp_path / f"cpu/{PLACE}/a.1/cpu.cfs_quota_us").read_text() == "1000"
    group.remove()


COUNTED = Counters(
    memory_peak_bytes=67108864,
    memory_source="memory.max_usage_in_bytes",
    memory_setup_bytes=524288,
    oom_kills=2,
    limit_oom=True,
    pids_peak=5,
    pids_limit_hits=4,
    throttled_ns=7000000,
    io_read_bytes=4600,
    io_write_bytes=3,
    pressure=None,
)


def test_the_directories_of_a_service_are_told_each_once(host, tmp_path):
    hierarchy, _ = host(TOGETHER)
    bases = {tmp_path / name / "jail-1000" for name in ("memory", "pids", "cpu,cpuacct", "blkio")}
    assert (set(hierarchy.bases), len(hierarchy.bases)) == (bases, 4)
    assert (set(hierarchy.claimed), len(hierarchy.claimed)) == ({base / OURS for base in bases}, 4)


@pytest.mark.parametrize("mounts", [APART, TOGETHER])
def test_the_counters_are_the_kernels(host, tmp_path, mounts):
    group = host(mounts)[0].make("a.1")
    group.limit(LIMITS)
    stat = tmp_path / mounts["cpu"] / PLACE / "a.1/cpu.stat"
    io = tmp_path / "blkio" / PLACE / "a.1/blkio.throttle.io_service_bytes"
    at_last = stat.read_text(), io.read_text()
    stat.write_text("nr_periods 2\nnr_throttled 1\nthrottled_time 1\n")
    io.write_text("8:0 Read 8\n8:0 Total 8\nTotal 8\n")
    begin(group, tmp_path, 67108864)
    stat.write_text(at_last[0])
    io.write_text(at_last[1])
    assert group.count() == COUNTED
    group.remove()


def test_a_kernel_without_a_peak_of_pids_says_so(host):
    group = host(lacking=("pids.peak",))[0].make("a.1")
    group.limit(LIMITS)
    group.begin()
    assert group.count().pids_peak is None
    group.remove()


def test_a_host_that_does_not_count_io_says_so(host):
    hierarchy, _ = host({name: name for name in v1.REQUIRED})
    group = hierarchy.make("a.1")
    group.limit(LIMITS)
    group.begin()
    counters = group.count()
    assert hierarchy.missing == ("blkio",)
    assert (counters.io_read_bytes, counters.io_write_bytes) == (None, None)
    group.remove()


def test_io_that_the_kernel_tells_of_no_disk_is_unknown(host, tmp_path):
    group = host()[0].make("a.1")
    group.limit(LIMITS)
    (tmp_path / "blkio" / PLACE / "a.1" / "blkio.throttle.io_service_bytes").write_text("Total 0\n")
    group.begin()
    counters = group.count()
    assert (counters.io_read_bytes, counters.io_write_bytes) == (None, None)
    group.remove()


@pytest.mark.parametrize(
    ("missing_bytes", "is_full"), [(0, True), (BATCH_BYTES, True), (BATCH_BYTES + 1, False), (1 << 25, False)]
)
def test_a_limit_was_reached_if_one_more_batch_of_pages_would_not_fit(host, tmp_path, missing_bytes, is_full):
    group = host()[0].make("a.1")
    group.limit(LIMITS)
    begin(group, tmp_path, LIMITS.memory_bytes - missing_bytes)
    assert group.count().limit_oom is is_full
    group.remove()


def test_removing_leaves_nothing(host, sandboxes):
    hierarchy, _ = host(TOGETHER)
    hierarchy.make("a.1").remove()
    assert sandboxes() == set()


def test_a_cgroup_in_which_something_lives_is_not_removed(host, tmp_path):
    hierarchy, kernel = host()
    group = hierarchy.make("a.1")
    kernel.busy.add(tmp_path / f"pids/{PLACE}/a.1")
    with pytest.raises(OSError, match="busy"):
        group.remove()
    kernel.busy.clear()
    hierarchy.destroy("a.1")


@pytest.mark.parametrize(
    "lacking",
    ["tasks", "cpuacct.usage", "cpuacct.usage_sys", "memory.oom_control", "cgroup.event_control"],
)
@pytest.mark.parametrize("mounts", [APART, TOGETHER])
def test_a_cgroup_that_cannot_be_made_leaves_nothing(host, sandboxes, mounts, lacking):
    hierarchy, _ = host(mounts, lacking=(lacking,))
    with pytest.raises(FileNotFoundError):
        hierarchy.make("a.1")
    assert sandboxes() == set()


def test_a_cgroup_half_of_which_can_be_joined_leaves_nothing(host, sandboxes):
    hierarchy, kernel = host()
    files = kernel.files
    kernel.files = lambda place: {} if place.parts[-4] == "cpuacct" else files(place)
    with pytest.raises(FileNotFoundError):
        hierarchy.make("a.1")
    assert sandboxes() == set()


def test_a_name_that_is_taken_is_refused_and_the_other_stays(host, sandboxes):
    hierarchy, _ = host()
    group = hierarchy.make("a.1")
    with pytest.raises(FileExistsError):
        hierarchy.make("a.1")
    assert sandboxes("a.1") == set(APART)
    group.remove()


def test_destroying_ends_what_lives_in_it(host, tmp_path, sandboxes):
    hierarchy, _ = host()
    hierarchy.make("a.1").remove()
    (tmp_path / f"pids/{PLACE}/a.1").mkdir()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        (tmp_path / f"pids/{PLACE}/a.1/cgroup.procs").write_text(f"{process.pid}\n")
        hierarchy.destroy("a.1")
        assert process.wait() == -9
    assert sandboxes() == set()


def test_destroying_does_not_mind_what_is_gone_already(host, tmp_path, sandboxes):
    hierarchy, _ = host()
    with subprocess.Popen(["true"]) as gone:
        pass
    (tmp_path / f"memory/{PLACE}/a.1").mkdir()
    (tmp_path / f"memory/{PLACE}/a.1/cgroup.procs").write_text(f"{gone.pid}\n")
    hierarchy.destroy("a.1")
    assert sandboxes() == set()


def leave_behind(tmp_path, instance, *mounts):
    for mount in mounts:
        (tmp_path / mount / "jail-1000" / instance).mkdir()
        (tmp_path / mount / "jail-1000" / instance / "7").mkdir()


def instances(tmp_path):
    return {path.name for path in tmp_path.glob("*/jail-1000/*/")}


def another(tmp_path, instance):
    hierarchy = HierarchyV1({name: tmp_path / name / "jail-1000" for name in APART})
    hierarchy.claim(instance)
    return hierarchy


@pytest.mark.parametrize("mounts", [tuple(APART), ("memory",)], ids=["whole", "half made"])
def test_what_a_dead_service_left_is_swept(host, tmp_path, mounts):
    host()
    leave_behind(tmp_path, "01234567", *mounts)
    other = another(tmp_path, "fedcba98")
    assert instances(tmp_path) == {OURS, "fedcba98"}
    other.close()


def test_what_a_living_service_has_stays(host, tmp_path, sandboxes):
    hierarchy, _ = host()
    group = hierarchy.make("7")
    another(tmp_path, "fedcba98").close()
    assert sandboxes("7") == set(APART)
    group.remove()


def test_closing_leaves_nothing_and_lets_go_of_the_locked_directory_last(host, tmp_path):
    _, kernel = host()
    another(tmp_path, "fedcba98").close()
    assert instances(tmp_path) == {OURS}
    # Without it no later service would find the others.
    assert [path.parts[-3] for path in kernel.removed][-1] == "memory"


def test_nobody_else_can_open_a_directory_of_ours_and_lock_it(host, tmp_path):
    host()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*/jail-1000")} == {0o700}
