"""The numbers of several workers, added up by whichever is asked."""

from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from jail.http import Metrics, Table
from jail.published import Published


def engine(running=0):
    scheduler = SimpleNamespace(running=running, queued=0, slots_free=1, memory_free_bytes=100)
    sandboxes = SimpleNamespace(stock=SimpleNamespace(ready=1, making=set()), dying=set())
    return SimpleNamespace(scheduler=scheduler, sandboxes=sandboxes, published=Published())


def result(run_ms=0.0, status="ok"):
    timing = SimpleNamespace(queued_ms=0.0, setup_ms=0.0, run_ms=run_ms, collect_ms=0.0)
    return SimpleNamespace(status=status, timing=timing)


def told(metrics):
    text = metrics.render().decode()
    samples = [sample for family in parse(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


@pytest.fixture
def pair():
    table = Table(2)
    return Metrics(engine(running=1), table, 0), Metrics(engine(running=2), table, 1)


def test_before_the_first_job_every_number_is_there(pair):
    numbers = told(pair[0])
    assert numbers["jail_jobs_total", "ok"] == numbers["jail_jobs_total", "sandbox_error"] == 0
    assert numbers["jail_phase_seconds_count", "run"] == 0


def test_jobs_are_counted_by_status_whichever_worker_ran_them(pair):
    for worker, status in ((0, "ok"), (1, "ok"), (1, "cancelled")):
        pair[worker].count(result(status=status))
    for numbers in map(told, pair):
        assert (numbers["jail_jobs_total", "ok"], numbers["jail_jobs_total", "cancelled"]) == (2, 1)


@pytest.mark.parametrize(
    ("run_ms", "least", "most_below"),
    [(0.0, "0.001", None), (1.0, "0.001", None), (1.001, "0.002", "0.001"), (61_000.0, "+Inf", "60.0")],
)
def test_a_bucket_holds_what_is_at_most_its_bound(pair, run_ms, least, most_below):
    pair[1].count(result(run_ms))
    numbers = told(pair[0])
    assert numbers["jail_phase_seconds_bucket", least, "run"] == 1
    assert numbers["jail_phase_seconds_bucket", "+Inf", "run"] == 1
    assert numbers["jail_phase_seconds_sum", "run"] == run_ms / 1000
    if most_below:
        assert numbers["jail_phase_seconds_bucket", most_below, "run"] == 0


def test_what_is_read_off_a_worker_is_added_to_what_the_others_wrote_last(pair):
    assert told(pair[0])["jail_running",] == 1
    assert told(pair[1])["jail_running",] == 3
    assert told(pair[0])["jail_running",] == 3


def test_the_service_began_when_its_first_process_did(pair):
    begun = [told(metrics)["process_start_time_seconds",] for metrics in (*pair, pair[0])]
    assert begun[0] == begun[1] == begun[2] > 0
