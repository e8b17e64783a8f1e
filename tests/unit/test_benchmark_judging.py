"""What scripts/bench makes of judging precision and of the start-up of runtimes."""

import pytest
from benchmark import precision, runtimes
from benchmark.floor import Floor
from benchmark.inside import Spent

FLOOR = Floor(bare_ms=0.5, cold_ms=1.5, start_ms=0.7, churn_ms=1.5)


def found(spread_ms, excess_ms, flips):
    series = precision.Series((100.0 - spread_ms, 100.0 + spread_ms), (99.0, 99.0), (99.0, 101.0))
    verdicts = precision.Verdicts(1000, 105, flips, 2)
    return precision.Precision(series, series, (excess_ms,), (excess_ms,), verdicts)


def test_precision_is_met_without_pinning_and_missed_with_it_by_what_each_found():
    rows = list(precision.rows(precision.Figures(free=found(1, 4, 0), pinned=found(6, 6, 1)), FLOOR))
    assert [row.is_met for row in rows] == [True] * 5 + [False] * 5
    assert ["pinned" in row.name for row in rows] == [False] * 5 + [True] * 5


def test_a_spread_is_told_with_that_of_the_host_and_what_was_added():
    (row, *_) = precision.rows(precision.Figures(free=found(1, 0, 0), pinned=found(1, 0, 0)), FLOOR)
    assert row.value == pytest.approx(1.0)
    assert row.note == "outside 1.00 %; above the program's own: 1.00 ± 1.00 ms"


def runs(**cpu_ms):
    named = {name.replace("_", ", "): ms for name, ms in cpu_ms.items()} | {runtimes.NO_OP: 0}
    return {name: (Spent(ms + 1.0, ms + 2.0),) * 3 for name, ms in named.items()}


def test_a_runtime_is_compared_with_itself_outside_beyond_what_nothing_takes():
    outside, inside = runs(Java=10, C=0.1), runs(Java=12, C=0.2)
    java, c = runtimes.rows(runtimes.Figures(outside, inside), FLOOR)
    assert (java.name, java.value, java.ratio, java.to) == ("Java", 12, pytest.approx(1.2), "outside")
    assert java.is_met is False
    assert (c.name, c.ratio, c.is_met) == ("C", None, None)


def test_an_option_is_compared_with_the_runtime_without_it():
    both = runs(Java=10, Java_x=8)
    _, option = runtimes.rows(runtimes.Figures(both, both), FLOOR)
    assert (option.name, option.ratio, option.to, option.is_met) == (
        "Java, x",
        pytest.approx(0.8),
        "Java",
        None,
    )


def test_a_command_is_sent_with_the_files_that_it_names(tmp_path):
    for name in ("Hello.class", "hello.py", "other"):
        (tmp_path / name).write_text(name)
    assert list(runtimes._files(["java", "-cp", ".", "Hello"], tmp_path)) == ["Hello.class"]
    assert list(runtimes._files(["python3", "hello.py"], tmp_path)) == ["hello.py"]


def test_every_option_follows_its_runtime():
    names = list(runtimes.HELLOS)
    assert all(names.index(name.partition(",")[0]) <= names.index(name) for name in names)
