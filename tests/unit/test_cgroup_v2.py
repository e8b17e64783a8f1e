"""cgroup v2, on a directory that looks like it; and what find() makes of a host."""

import errno
import importlib
import os
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from jail.cgroup import files, v1, v2
from jail.cgroup.interface import Counters, Limits, Pressure
from jail.cgroup.v2 import HierarchyV2
from jail.errors import HostError
from jail.host import cgroup_mounts, own_path_v2

# jail.cgroup.find, the function, hides jail.cgroup.find, the module.
find = importlib.import_module("jail.cgroup.find")

pytestmark = pytest.mark.usefixtures("leaks_nothing")

FILES = {
    "cgroup.procs": "",
    "cgroup.controllers": "cpuset cpu io memory pids\n",
    "cgroup.subtree_control": "",
    "cgroup.kill": "",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cpu.stat": "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_throttled 1\nthrottled_usec 7001\n",
    "cpu.max": "",
    "memory.max": "",
    "memory.current": "524288\n",
    "memory.swap.max": "",
    "memory.oom.group": "",
    "memory.peak": "7340032\n",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n",
    "pids.max": "",
    "pids.peak": "5\n",
    "pids.events": "max 4\n",
    "io.stat": "",
    "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=100\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=200\n",
    "io.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=300\n",
}
LATER = {
    "memory.peak": "9437184\n",
    "cpu.stat": "usage_usec 19\nuser_usec 9\nsystem_usec 10\nnr_throttled 3\nthrottled_usec 7002\n",
    "io.stat": "8:0 rbytes=4096 wbytes=1 rios=1 wios=1 dbytes=7 dios=1\n"
    "8:16 rbytes=512 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n",
    "cpu.pressure": FILES["cpu.pressure"].replace("100", "101"),
    "memory.pressure": FILES["memory.pressure"].replace("200", "202"),
    "io.pressure": FILES["io.pressure"].replace("300", "303"),
}
LIMITS = Limits(memory_bytes=1 << 26, pids=32, cpus=1.5)


@pytest.fixture
def kernel(fake_kernel):
    def lacking(*names, **changed):
        changed = {name.replace("__", "."): text for name, text in changed.items()}
        found = {name: text for name, text in (FILES | changed).items() if name not in names}
        return fake_kernel(lambda _directory: found)

    return lacking


@pytest.fixture
def claim(kernel, place):
    """Claim a directory on a kernel that lacks some files."""
    with ExitStack() as claimed:

        def on(*lacking, read_only=()):
            kernel(*lacking).read_only.update(read_only)
            found = HierarchyV2(place.parent, (*v2.REQUIRED, *v2.OPTIONAL))
            found.claim(place.name)
            claimed.callback(found.close)
            return found

        yield on


@pytest.fixture
def hierarchy(claim):
    """A hierarchy on a kernel that has everything; a test may install another one on top."""
    return claim()


@pytest.fixture
def place(tmp_path):
    """The claimed directory."""
    (tmp_path / "base").mkdir()
    return tmp_path / "base" / "89abcdef"


def sandboxes(place):
    return {path.name for path in place.iterdir() if path.is_dir()}


def test_the_directories_of_a_service_are_told(hierarchy, place):
    assert (hierarchy.bases, hierarchy.claimed) == ((place.parent,), (place,))


def test_a_sandbox_is_born_in_the_directory_and_ended_by_its_kill_file(hierarchy, place):
    group = hierarchy.make("a.1")
    born = [os.readlink(f"/proc/self/fd/{number}") for number in group.born]
    assert born == [str(place / "a.1"), str(place / "a.1/cgroup.kill")]
    assert (group.joins, group.oom_event) == ((), ())
    group.remove()


def test_the_cpu_counter_is_cpu_stat(hierarchy):
    group = hierarchy.make("a.1")
    (counter,) = group.cpu_counters
    assert os.read(counter, 4096).decode() == FILES["cpu.stat"]
    group.remove()


def test_the_oom_killer_takes_all_of_a_sandbox_or_nothing(hierarchy, place):
    group = hierarchy.make("a.1")
    assert (place / "a.1/memory.oom.group").read_text() == "1"
    group.remove()


def test_the_limits_are_written_each_to_its_file(hierarchy, place):
    group = hierarchy.make("a.1")
    group.limit(LIMITS)
    written = {
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "pids.max": "32",
        "cpu.max": "150000 100000",
    }
    assert {name: (place / "a.1" / name).read_text() for name in written} == written
    group.remove()


def test_only_limits_that_are_others_than_before_are_written(hierarchy, written):
    group = hierarchy.make("a.1")
    group.limit(LIMITS)
    written.clear()
    group.limit(LIMITS)
    assert written == []
    group.limit(msgspec.structs.replace(LIMITS, memory_bytes=1 << 27))
    group.limit(msgspec.structs.replace(LIMITS, memory_bytes=1 << 27, cpus=2))
    assert written == [("memory.max", 1 << 27), ("cpu.max", "200000 100000")]
    group.remove()


def test_what_a_sandbox_holds_before_its_job_is_told(hierarchy):
    group = hierarchy.make("a.1")
    assert group.begin() == 524_288
    group.remove()


def test_what_was_handed_over_is_closed_and_removing_does_not_close_it_again(hierarchy):
    group = hierarchy.make("a.1")
    descriptors = group.born + group.cpu_counters
    group.hand_over()
    assert (group.born, group.cpu_counters) == ((), ())
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    # Their numbers are somebody else's by then.
    others = [os.open("/dev/null", os.O_RDONLY) for _ in descriptors]
    group.remove()
    for other in others:
        os.close(other)


def test_a_kernel_without_swap_has_none_to_forbid(claim, place):
    group = claim("memory.swap.max").make("a.1")
    group.limit(LIMITS)
    assert not (place / "a.1/memory.swap.max").exists()
    group.remove()


def test_the_smallest_bandwidth_is_what_the_kernel_takes(hierarchy, place):
    group = hierarchy.make("a.1")
    group.limit(Limits(memory_bytes=1 << 26, pids=2, cpus=0.001))
    assert (place / "a.1/cpu.max").read_text() == "1000 100000"
    group.remove()


@pytest.fixture
def counted(place):
    """What a sandbox tells in which a job has begun, once the files say what they say later."""

    def run(hierarchy, later=LATER):
        group = hierarchy.make("a.1")
        group.begin()
        for name in later.keys() & {path.name for path in (place / "a.1").iterdir()}:
            # Rewritten in place, as the kernel does: open descriptors see it.
            (place / "a.1" / name).chmod(0o644)
            (place / "a.1" / name).write_text(later[name])
        counters = group.count()
        group.remove()
        return counters

    return run


def test_the_counters_are_the_kernels_without_what_set_up_had_of_them(hierarchy, counted):
    assert counted(hierarchy) == Counters(
        memory_peak_bytes=9437184,
        memory_source="memory.peak",
        memory_setup_bytes=524288,
        oom_kills=2,
        limit_oom=True,
        pids_peak=5,
        pids_limit_hits=4,
        throttled_ns=1000,
        io_read_bytes=4608,
        io_write_bytes=3,
        pressure=Pressure(cpu_some_ns=1000, memory_full_ns=2000, io_full_ns=3000),
    )


def test_a_peak_that_can_be_reset_is_reset_when_the_job_begins(hierarchy, place):
    group = hierarchy.make("a.1")
    assert (place / "a.1/memory.peak").read_text() == FILES["memory.peak"]
    group.begin()
    assert (place / "a.1/memory.peak").read_text() == "0" + FILES["memory.peak"][1:]
    group.remove()


def test_a_peak_that_cannot_be_reset_is_read_as_it_is(claim, counted):
    counters = counted(claim(read_only=("memory.peak",)), later={})
    assert (counters.memory_peak_bytes, counters.memory_setup_bytes) == (7_340_032, 524_288)


def test_a_kernel_without_a_peak_of_pids_says_so(claim, counted):
    assert counted(claim("pids.peak")).pids_peak is None


def test_a_kernel_without_pressure_stall_information_says_so(claim, counted):
    assert counted(claim("cpu.pressure", "memory.pressure", "io.pressure")).pressure is None


def test_a_host_that_does_not_count_io_says_so(claim, counted, place):
    counters = counted(claim("io.stat"))
    assert HierarchyV2(place, v2.REQUIRED).missing == ("io",)
    assert (counters.io_read_bytes, counters.io_write_bytes) == (None, None)


def test_a_sandbox_without_io_has_read_and_written_nothing(hierarchy, counted):
    counters = counted(hierarchy, later={})
    assert (counters.io_read_bytes, counters.io_write_bytes) == (0, 0)


def test_a_limit_that_was_never_reached_is_not_blamed(hierarchy, counted):
    counters = counted(hierarchy, {"memory.events": "low 0\nhigh 0\nmax 9\noom 0\noom_kill 1\n"})
    assert (counters.oom_kills, counters.limit_oom) == (1, False)


def test_removing_leaves_nothing(hierarchy, place):
    hierarchy.make("a.1").remove()
    assert sandboxes(place) == set()


def test_a_cgroup_in_which_something_lives_is_not_removed(kernel, hierarchy, place):
    made = kernel()
    group = hierarchy.make("a.1")
    made.busy.add(place / "a.1")
    with pytest.raises(OSError, match="busy"):
        group.remove()
    made.busy.clear()
    hierarchy.destroy("a.1")


@pytest.mark.parametrize("lacking", ["cgroup.kill", "cpu.stat", "memory.oom.group", "memory.peak"])
def test_a_cgroup_that_cannot_be_made_leaves_nothing(kernel, hierarchy, place, lacking):
    kernel(lacking)
    with pytest.raises(FileNotFoundError):
        hierarchy.make("a.1")
    assert sandboxes(place) == set()


def test_destroying_kills_then_removes(kernel, hierarchy, place):
    made = kernel()
    hierarchy.make("a.1").remove()
    (place / "a.1").mkdir()
    hierarchy.destroy("a.1")
    assert made.removed[place / "a.1"]["cgroup.kill"] == "1"
    assert sandboxes(place) == set()


def test_destroying_what_is_gone_says_so(hierarchy):
    with pytest.raises(FileNotFoundError):
        hierarchy.destroy("a.1")


def leave_behind(place, instance):
    (place.parent / instance).mkdir()
    (place.parent / instance / "7").mkdir()


def another(place, instance):
    hierarchy = HierarchyV2(place.parent, v2.REQUIRED)
    hierarchy.claim(instance)
    return hierarchy


def test_the_controllers_are_enabled_for_the_sandboxes_of_a_service(hierarchy, place):
    assert (place / "cgroup.subtree_control").read_text() == "+memory +pids +cpu +io"


def test_what_a_dead_service_left_is_swept(kernel, hierarchy, place):
    made = kernel()
    leave_behind(place, "01234567")
    other = another(place, "fedcba98")
    assert sandboxes(place.parent) == {place.name, "fedcba98"}
    assert made.removed[place.parent / "01234567" / "7"]["cgroup.kill"] == "1"
    other.close()


def test_what_a_living_service_has_stays(kernel, hierarchy, place):
    group = hierarchy.make("7")
    another(place, "fedcba98").close()
    assert sandboxes(place.parent) == {place.name}
    assert sandboxes(place) == {"7"}
    group.remove()


def test_nobody_else_can_open_a_directory_of_ours_and_lock_it(hierarchy, place):
    assert place.parent.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def writes(monkeypatch):
    """What is written to whom, in order."""
    done = []
    monkeypatch.setattr(files, "write", lambda path, value: done.append((path, str(value))))
    return done


def test_settling_moves_us_into_a_leaf_before_controllers_are_enabled(kernel, tmp_path, writes):
    kernel(cgroup__procs="12\n34\n")
    own = tmp_path / "own"
    own.mkdir()
    hierarchy = v2.settle(own)
    enable = "+memory +pids +cpu +io"
    assert writes == [
        (own / "service/cgroup.procs", "12"),
        (own / "service/cgroup.procs", "34"),
        (own / "cgroup.subtree_control", enable),
        (own / "sandboxes/cgroup.subtree_control", enable),
    ]
    assert (hierarchy.version, hierarchy.missing) == ("v2", ())


def test_settling_again_finds_everything_in_its_place(kernel, tmp_path, writes):
    kernel(cgroup__controllers="cpu memory pids\n")
    own = tmp_path / "own"
    own.mkdir()
    v2.settle(own)
    assert v2.settle(own).missing == ("io",)


DEBIAN_V2 = """\
24 31 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
31 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
"""
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:30 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
34 31 0:31 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory
35 31 0:32 / /sys/fs/cgroup/pids rw shared:13 - cgroup cgroup rw,pids
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw shared:14 - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 / /sys/fs/cgroup/blkio rw shared:15 - cgroup cgroup rw,blkio
"""
V1 = """\
34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 31 0:32 / /sys/fs/cgroup/pids rw - cgroup none rw,pids
36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
37 31 0:34 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct
"""
ROOT = Path("/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (DEBIAN_V2, {"cgroup2": ROOT}),
        (
            HYBRID,
            {
                "cgroup2": ROOT / "unified",
                "name=systemd": ROOT / "systemd",
                "memory": ROOT / "memory",
                "pids": ROOT / "pids",
                "cpu": ROOT / "cpu,cpuacct",
                "cpuacct": ROOT / "cpu,cpuacct",
                "blkio": ROOT / "blkio",
            },
        ),
        (V1, {name: ROOT / name for name in ("memory", "pids", "cpu", "cpuacct")}),
        (V1 + V1.replace("/sys/fs", "/second"), {n: ROOT / n for n in ("memory", "pids", "cpu", "cpuacct")}),
        (DEBIAN_V2.replace("shared:9", "shared:9 master:1 propagate_from:2"), {"cgroup2": ROOT}),
    ],
    ids=["nothing", "Debian, v2", "hybrid", "v1", "v1, twice", "more optional fields"],
)
def test_the_mounts_of(text, expected):
    found = cgroup_mounts(text)
    assert {name: found[name] for name in expected} == expected
    assert {"cgroup2", "memory"} & set(found) == {"cgroup2", "memory"} & set(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/user.slice/app.scope\n", "user.slice/app.scope"),
        ("0::/\n", ""),
        ("12:memory:/jail\n1:name=systemd:/x\n0::/y\n", "y"),
        ("0::/odd:name\n", "odd:name"),
        ("12:memory:/jail\n", None),
        ("", None),
    ],
)
def test_our_place_in_the_v2_tree(text, expected):
    assert own_path_v2(text) == expected


@pytest.fixture
def look(monkeypatch):
    """find(), on a host with these mounts, for a process in that cgroup."""

    def at(mounted, own="own"):
        monkeypatch.setattr(find, "cgroup_mounts", lambda _text: mounted)
        monkeypatch.setattr(find, "own_path_v2", lambda _text: own)
        return find.find()

    return at


def v1_mounts(tmp_path, *controllers):
    place = f"jail-{os.getuid()}"
    for controller in controllers:
        (tmp_path / controller / place).mkdir(parents=True)
    return {name: tmp_path / name for name in ("memory", "pids", "cpu", "cpuacct", "blkio")}


def test_a_host_with_the_controllers_on_v1_is_v1_even_if_it_has_v2_as_well(look, tmp_path):
    mounted = v1_mounts(tmp_path, "memory", "pids", "cpu", "cpuacct", "blkio")
    (tmp_path / "blkio" / v1.IO_COUNTER).write_text("8:0 Read 4096\nTotal 4096\n")
    found = look(mounted | {"cgroup2": tmp_path})
    assert (found.version, found.missing) == ("v1", ())


def test_a_controller_that_has_counted_nothing_for_the_whole_host_is_left_alone(look, tmp_path):
    mounted = v1_mounts(tmp_path, "memory", "pids", "cpu", "cpuacct", "blkio")
    (tmp_path / "blkio" / v1.IO_COUNTER).write_text("Total 0\n")
    found = look(mounted)
    assert (found.version, found.missing) == ("v1", ("blkio",))
    assert tmp_path / "blkio" / f"jail-{os.getuid()}" not in found.bases


def test_a_controller_of_v1_that_is_not_needed_need_not_be_delegated(look, tmp_path):
    found = look(v1_mounts(tmp_path, "memory", "pids", "cpu", "cpuacct"))
    assert (found.version, found.missing) == ("v1", ("blkio",))


def test_a_controller_of_v1_that_is_not_delegated_is_told_by_its_path(look, tmp_path):
    mounted = v1_mounts(tmp_path, "memory", "cpu", "cpuacct", "blkio")
    with pytest.raises(HostError) as caught:
        look(mounted)
    assert str(tmp_path / "pids" / f"jail-{os.getuid()}") in caught.value.cause
    assert "memory" not in caught.value.cause
    assert caught.value.cure


@pytest.mark.parametrize("own", ["own", "own/service"])
def test_a_delegated_v2_cgroup_is_settled_also_by_one_who_sits_in_its_leaf(look, kernel, tmp_path, own):
    kernel()
    (tmp_path / "own/service").mkdir(parents=True)
    found = look({"cgroup2": tmp_path}, own)
    assert found.version == "v2"
    assert (tmp_path / "own/sandboxes").is_dir()


def test_a_v2_cgroup_that_is_not_delegated_is_told_by_its_path(look, kernel, tmp_path):
    kernel("cgroup.subtree_control")
    (tmp_path / "own").mkdir()
    with pytest.raises(HostError) as caught:
        look({"cgroup2": tmp_path})
    assert str(tmp_path / "own") in caught.value.cause
    assert "Delegate=yes" in caught.value.cure


def test_a_v2_cgroup_without_its_controllers_is_told_which(look, kernel, tmp_path):
    kernel(cgroup__controllers="memory pids\n")
    (tmp_path / "own").mkdir()
    with pytest.raises(HostError) as caught:
        look({"cgroup2": tmp_path})
    assert "controllers cpu are" in caught.value.cause


def test_a_v2_cgroup_that_cannot_be_divided_is_told_why(look, kernel, tmp_path, monkeypatch):
    def refuse(_path, _value):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    kernel()
    (tmp_path / "own").mkdir()
    monkeypatch.setattr(files, "write", refuse)
    with pytest.raises(HostError) as caught:
        look({"cgroup2": tmp_path})
    assert str(tmp_path / "own") in caught.value.cause
    assert "busy" in caught.value.cause
    assert "Delegate=yes" in caught.value.cure


def test_a_host_without_cgroups_is_told_so(look):
    with pytest.raises(HostError) as caught:
        look({"memory": ROOT})
    assert caught.value.cause
    assert caught.value.cure
