"""What the sections of scripts/bench make of what they measured."""

import resource
from types import SimpleNamespace

import msgspec
import pytest
from benchmark import (
    calls,
    churn,
    cores,
    density,
    explain,
    images,
    inside,
    memory,
    networks,
    peers,
    pool,
    steps,
)
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.load import Load
from benchmark.memory import Memory

FLOOR = Floor(bare_ms=0.5, cold_ms=1.5, start_ms=0.7, churn_ms=1.5)

MEMINFO = """\
MemTotal:       24684092 kB
MemAvailable:   24000000 kB
KernelStack:        2000 kB
PageTables:         3000 kB
SUnreclaim:        55000 kB
Percpu:             2112 kB
HugePages_Total:       0
"""

STRACE = """\
syscall                calls
---------------- ---------
recvmsg                302
sendmsg                 50
restart_syscall          4
---------------- ---------
total                  356
"""

CGROUPS = """\
#subsys_name\thierarchy\tnum_cgroups\tenabled
cpu\t1\t2\t1
memory\t{hierarchy}\t70\t1
"""


def named(rows):
    return {row.name: row for row in rows}


def rounds(one_ms, jobs_per_s):
    """Two rounds, the second of a minute twice as slow."""
    return tuple(
        pool.Round(
            Times(one_ms * n, 9, 10), Times(one_ms * n * 2, 9, 5), Load(8, jobs_per_s / n, Times(9, 9, 20))
        )
        for n in (1, 2)
    )


def test_memory_is_read_by_the_names_of_its_lines():
    assert memory.parse(MEMINFO) == Memory(24_000_000, 55_000, 2112, 3000, 2000)


def test_what_is_lost_is_told_for_each_and_available_memory_the_other_way_round():
    before, after = Memory(1000, 10, 20, 30, 40), Memory(600, 30, 20, 70, 48)
    assert before.lost(after, 4) == Memory(100, 5, 0, 10, 2)


def test_the_table_of_strace_is_read_without_its_frame():
    assert calls.parse(STRACE) == {"recvmsg": 302, "sendmsg": 50, "restart_syscall": 4}


def test_what_starting_takes_falls_out_of_the_difference():
    assert calls.difference({"read": 350, "open": 40, "write": 200}, {"read": 50, "open": 40}, 100) == {
        "read": 3.0,
        "write": 2.0,
    }


def test_the_program_s_own_calls_are_not_the_sandbox_s():
    found = calls.Figures(
        service={"recv": 3.0},
        supervisor={"sendmsg": 4.0},
        made={"read": 5.0, "mmap": 9.0},
        program={"mmap": 9.0},
    )
    assert [row.value for row in calls.rows(found, FLOOR)] == [3, 4, 5, 9]


@pytest.mark.parametrize(("hierarchy", "count"), [("4", 70), ("0", None)])
def test_dying_cgroups_are_counted_where_the_kernel_counts_them(hierarchy, count):
    # In the v2 tree, hierarchy 0, all controllers have the number of all cgroups.
    assert churn.cgroups(CGROUPS.format(hierarchy=hierarchy)) == count


def test_first_and_last_are_a_tenth_each():
    assert churn.ends([10, 20, *[0] * 16, 30, 50]) == (15, 40)
    assert churn.ends([7]) == (7, 7)


def bucket(jobs_per_s, teardown_ms):
    return churn.Bucket(10, jobs_per_s, Times(5, 20, 10), Memory(1, 1, 1, 1, 1), 70, teardown_ms)


def churned(*buckets):
    return churn.Figures(Memory(4096, 0, 0, 0, 0), buckets, Memory(1024, 1024, 0, 0, 0))


def test_the_last_bucket_is_closed_when_time_is_up_and_no_sliver_after_it(monkeypatch, tmp_path):
    clock = iter([100.0, 105.0, 110.1, 115.0, 120.05, 120.06])
    monkeypatch.setattr(churn.time, "perf_counter", lambda: next(clock))
    probes = tmp_path / "probes"
    probes.write_text("1.5\n2.5\n")
    crowd = SimpleNamespace(seconds=[])
    buckets = churn._Buckets(crowd, probes, 20, 10, lambda: None)

    def goes_on():
        crowd.seconds.append(0.5)
        return buckets.goes_on(0)

    assert [goes_on() for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.times.jobs for bucket in buckets.found] == [2, 2]
    assert [bucket.teardown_ms for bucket in buckets.found] == [2.0, None]


def test_what_waits_is_how_long_it_waits_times_how_many_come():
    rows = named(churn.rows(churned(bucket(500, 20), bucket(400, 800)), FLOOR))
    waiting = rows["dead namespaces that wait: most"]
    assert waiting.value == pytest.approx(320)
    assert waiting.is_met is False
    assert rows["MemAvailable gone for good"].value == 3


def test_throughput_that_falls_is_an_aim_missed():
    rows = named(churn.rows(churned(bucket(500, None), bucket(400, None)), FLOOR))
    assert rows["throughput: last tenth"].ratio == pytest.approx(0.8)
    assert rows["throughput: last tenth"].is_met is False
    assert not any("namespace" in name for name in rows)


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_processors_are_doubled_until_all_are_in_use(most, counts):
    assert cores.powers(most) == counts


def test_two_processors_are_compared_with_one_round_by_round():
    found = cores.Figures((cores.Pinned(1, (100, 50, 80), 0.1), cores.Pinned(2, (180, 90, 100), 0.2)))
    _, two = cores.rows(found, FLOOR)
    assert (two.value, two.ratio, two.is_met) == (100, pytest.approx(1.8), True)


def test_ready_sandboxes_are_compared_with_none_round_by_round():
    none, kept = pool.Kept(0, rounds(4.0, 200)), pool.Kept(16, rounds(2.0, 500))
    assert pool.compare(lambda r: r.one.p50_ms, kept, none) == (3.0, 0.5)
    assert pool.compare(lambda r: r.many.jobs_per_s, kept, none) == (375, 2.5)


def test_marks_are_put_in_the_order_in_which_they_are_usually_made():
    # The second job's exec was told after its end; "late" is not there each time.
    jobs = [
        {"": 0, "sent": 5_000, "exited": 9_000, "started": 7_000},
        {"": 100, "sent": 5_100, "exited": 8_100, "started": 8_600, "late": 9_000},
        {"": 200, "sent": 5_200, "exited": 9_200, "started": 7_200},
    ]
    assert explain.medians(jobs) == {"sent": 5.0, "started": 2.0, "exited": 2.0}


def test_http_is_what_the_engine_leaves():
    found = explain.Figures(
        spans=(explain.Span("sent", 300, 400),),
        engine=Times(1.5, 2, 9),
        engine_sparse=Times(2.0, 3, 9),
        http=Times(2.0, 3, 9),
        http_sparse=Times(2.75, 3, 9),
        outside=Times(0.5, 1, 9),
    )
    sent, _, over, whole, outside = explain.rows(found, FLOOR)
    assert (sent.value, sent.ratio) == (300, pytest.approx(0.15))
    assert (over.value, over.note) == (500, "with pauses 750")
    assert (whole.value, outside.ratio) == (2000, 0.25)


def test_a_program_says_nanoseconds_of_itself():
    assert inside.spent("1500000 2000000\n") == inside.Spent(1.5, 2.0)


def test_inside_is_missed_by_more_than_its_share_and_the_least_filter_is_told():
    def taking(cpu_ms):
        return {kind: (inside.Spent(cpu_ms, 9),) * 2 for kind in inside.WORKS}

    found = inside.Figures(outside=taking(1.0), inside=taking(1.04), filtered=taking(1.03))
    rows = list(inside.rows(found, FLOOR))
    assert [row.is_met for row in rows] == [False, True, True, None, None]
    assert all("the least filter 1.030" in row.note for row in rows)


@pytest.mark.parametrize(
    ("said", "why"), [("a\nno such thing\n\n", "no such thing"), (" \n", "exit code 7"), ("", "exit code 7")]
)
def test_a_peer_that_cannot_run_is_listed_with_its_own_last_words(said, why):
    assert peers.reason(said, 7) == why


def test_a_peer_that_cannot_run_has_no_figures():
    found = peers.Figures({peers.JAIL: rounds(2.0, 400)}, {"crun": "no cgroups"})
    row = named(peers.rows(found, FLOOR))["crun does not run here"]
    assert (row.value, row.ratio, row.note, row.is_met) == (None, None, "no cgroups", None)


def test_peers_get_all_namespaces():
    kinds = {each["type"] for each in peers.bundle(1000, 1000)["linux"]["namespaces"]}
    assert kinds == {"pid", "network", "ipc", "uts", "mount", "cgroup", "user"}


@pytest.mark.parametrize(("limit", "slots"), [(65_536, 1000), (20_000, 500), (resource.RLIM_INFINITY, 1000)])
def test_so_many_services_share_the_sleeping_jobs_as_open_files_ask_for(limit, slots, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, limit))
    assert density.slots_each(1000) == slots


def test_a_network_is_compared_with_none_and_anything_left_is_a_miss():
    rounds = tuple(
        networks.Round(Times(none, 9.0, 100), Times(isolated, 9.0, 100))
        for none, isolated in ((2.0, 4.0), (2.0, 5.0), (2.0, 8.0))
    )
    left = {"links": 0, "routes": 0}
    found = networks.Figures(rounds, 500, (100.0,) * 9 + (95.0,), left)
    latency, throughput, nothing = networks.rows(found, None)
    assert (latency.value, latency.ratio, latency.is_met) == (5.0, 2.5, True)
    assert (throughput.ratio, throughput.is_met) == (0.95, True)
    assert (nothing.value, nothing.is_met) == (0, True)
    *_, something = networks.rows(msgspec.structs.replace(found, left={"links": 1}), None)
    assert (something.is_met, something.note) == (False, "links 1")


def test_a_test_is_compared_with_a_single_run_and_a_stored_input_with_none():
    rounds = tuple(
        steps.Round(Times(2, 9.0, 100), ms, Times(2.2, 9.0, 100), Times(2, 9.0, 100))
        for ms in (1.0, 2.0, 6.0)
    )
    test, stored, memory_of = steps.rows(steps.Figures(rounds, 500, 32 << 20), None)
    assert (test.value, test.ratio, test.is_met) == (2.0, 1.0, True)
    assert stored.ratio == 1.1
    assert (memory_of.value, memory_of.ratio, memory_of.is_met) == (32, 0.5, False)


def test_an_image_of_many_layers_is_compared_with_one_of_one_and_its_import_with_umocis():
    rounds = tuple(
        images.Round(*(Times(ms, 9.0, 100) for ms in each)) for each in ((2, 4, 5), (2, 4, 6), (2, 4, 4))
    )
    found = images.Figures(rounds, rounds, images.Import(1000, 10**9, (2.0, 1.0, 3.0), (4.0, 4.0, 2.0)))
    one, many, *_, came = images.rows(found, None)
    assert (one.ratio, many.ratio, many.is_met) == (2, 1.25, True)
    assert (came.value, came.ratio, came.is_met, came.note) == (2.0, 0.5, True, "1000 MB in 1,000 files")
    *_, came = images.rows(msgspec.structs.replace(found, brought_in=None), None)
    assert (came.value, came.is_met) == (None, None)
