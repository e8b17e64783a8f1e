"""The pure parts of scripts/bench: percentiles, the floor's figures, rows with their aims, the record."""

import inspect
import io
import re
import tarfile
from pathlib import Path

import benchmark
import msgspec
import pytest
from benchmark import clients, cores, figures, floor, options, page, plots, pool, record, report
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.latency import Figures, Round
from benchmark.load import Load
from benchmark.machine import Machine
from benchmark.record import Record
from benchmark.row import Row, number
from benchmark.sections import SECTIONS
from rich.text import Text

MACHINE = Machine("6.18.1", "a processor", 2, 24 << 30, "v2", "3.11.2")
FLOOR = Floor(bare_ms=0.5, cold_ms=1.5, start_ms=0.7, churn_ms=1.5)


@pytest.mark.parametrize(
    ("share", "value"), [(0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1, 100)]
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(share, value):
    assert figures.percentile(list(range(100, 0, -1)), share) == value


def test_of_no_values_there_is_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        figures.percentile([], 0.5)


def test_seconds_become_milliseconds():
    assert figures.times([0.001, 0.002, 0.009]) == Times(2.0, 9.0, 3)


def test_rounds_are_told_by_their_medians():
    assert figures.middle([Times(1, 9, 10), Times(2, 7, 10), Times(9, 8, 10)]) == Times(2, 8, 30)


def test_a_floor_that_moved_says_by_how_much():
    slower = msgspec.structs.replace(FLOOR, start_ms=1.05)
    assert floor.moved([FLOOR, slower]) == pytest.approx(0.5)
    assert floor.least(slower, FLOOR) == FLOOR
    assert floor.middle([FLOOR, slower, slower]) == slower


@pytest.mark.parametrize(
    ("row", "is_met"),
    [
        (Row(name="a", value=9, ratio=3.5, to="bare", at_most=3.5), True),
        (Row(name="a", value=1, ratio=3.51, to="bare", at_most=3.5), False),
        (Row(name="a", value=400, unit="KiB", at_most=400), True),
        (Row(name="a", value=9, ratio=0.74, to="1000/churn", at_least=0.75), False),
        (Row(name="a", value=0.76, at_least=0.75), True),
        (Row(name="a", value=9, ratio=9, to="bare"), None),
    ],
)
def test_an_aim_is_one_of_the_ratio_where_there_is_one(row, is_met):
    assert row.is_met is is_met


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "0.12"), (9.994, "9.99"), (12.34, "12.3"), (1234.5, "1,234"), (-12.34, "-12.3")],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_section_has_all_that_one_needs(section):
    assert section.TITLE
    assert isinstance(section.IS_PLAIN, bool)
    assert issubclass(section.Figures, msgspec.Struct)
    assert list(inspect.signature(section.measure).parameters) == ["session"]
    assert len(inspect.signature(section.rows).parameters) == 2


def latency(one_ms, sparse_ms, jobs_per_s, p99_ms):
    """One round with FLOOR."""
    many = Load(8, jobs_per_s, Times(10, p99_ms, 300))
    return Figures((Round(FLOOR, Times(one_ms, 2, 100), Times(sparse_ms, 3, 10), many),))


def test_the_aims_of_latency_are_ratios_within_a_round():
    found = Record(
        machine=MACHINE, floors=(FLOOR,), figures={"latency": latency(1.75, 2.6, 500, 40)}, missing={}
    )
    assert [(aim.figure, aim.is_met) for aim in record.aims(found)] == [
        (pytest.approx(3.5), True),
        (pytest.approx(2.6 / 1.75), True),
        (pytest.approx(0.75), True),
        (pytest.approx(4), True),
    ]


def test_a_record_comes_back_as_it_was_written():
    found = Record(
        machine=MACHINE,
        floors=(FLOOR, FLOOR),
        figures={"latency": latency(3, 9, 100, 90)},
        missing={"other": "no such program"},
    )
    again = record.decode(record.encode(found))
    assert record.rows(again) == record.rows(found)
    assert (again.machine, again.missing) == (MACHINE, found.missing)
    assert [aim.is_met for aim in again.aims] == [False] * 4


def test_a_row_on_a_terminal_has_its_verdict_and_no_markup_but_ours():
    row = Row(name="p50 [x]", value=1.75, ratio=3.6, to="bare", at_most=3.5, note="[red]")
    texts = [Text.from_markup(cell).plain for cell in report.cells(row)]
    assert [text.split() for text in texts] == [
        ["p50", "[x]"],
        ["1.75", "ms"],
        ["3.60", "x", "bare"],
        ["at", "most", "3.5", "missed"],
        ["[red]"],
    ]


def test_a_page_has_every_row_and_no_bar_that_is_not_a_cell_s():
    rows = {"floor": [Row(name="a|b", value=1.5, ratio=3.0, to="bare", at_most=3.5, note="c\nd")]}
    header, rule, title, row, missing = page.table(rows, {"latency": "no service"}).splitlines()
    assert header.count("|") == rule.count("|") == title.count("|") == missing.count("|") == 6
    assert row == r"| a\|b | 1.50 ms | 3.00 x bare | at most 3.5: met | c d |"
    assert "no service" in missing


def test_the_page_is_the_template_with_a_run_in_it():
    found = Record(machine=MACHINE, floors=(FLOOR,), figures={"latency": latency(1.75, 2.6, 500, 50)})
    text = page.page(found, ["latency-load.svg"])
    assert "a processor, 24 GiB, Linux 6.18.1, cgroup v2" in text
    assert "| one client: p50 | 1.75 ms | 3.50 x bare | at most 3.5: met |" in text
    assert "![latency load](latency-load.svg)" in text
    assert "Not measured in this run." in text
    assert "$" not in text


def test_what_is_packed_can_be_unpacked():
    file = io.BytesIO()
    page.pack({"a.svg": b"<svg/>", "b.md": b"# b"}, file)
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        found = {about.name: archive.extractfile(about).read() for about in archive}
    assert found == {"a.svg": b"<svg/>", "b.md": b"# b"}


def test_plots_are_small_and_the_same_each_time():
    pytest.importorskip("matplotlib")
    loads = tuple(Load(n, 400.0, Times(n, 2 * n, 100)) for n in (1, 2, 4))
    pinned = (cores.Pinned(1, (200.0,), 0.1), cores.Pinned(2, (380.0,), 0.2))
    once = pool.Round(Times(1, 2, 3), Times(1, 2, 3), loads[0])
    figures = {
        "clients": clients.Figures(loads),
        "cores": cores.Figures(pinned),
        "pool": pool.Figures((pool.Kept(0, (once,)), pool.Kept(4, (once,)))),
    }
    found = Record(machine=MACHINE, floors=(FLOOR,), figures=figures)
    drawn = plots.draw(found)
    assert list(drawn) == ["latency-load.svg", "throughput-processors.svg", "throughput-ready.svg"]
    assert all(b"<text" in svg and len(svg) < 30_000 for svg in drawn.values())
    assert plots.draw(found) == drawn


def test_sections_are_named_one_by_one_and_explain_names_its_own():
    assert options.parse(["floor", "--only", "latency", "cores"]).only == ["latency", "cores"]
    assert set(options.parse(["floor", "--explain"]).only) <= set(SECTIONS)
    with pytest.raises(SystemExit):
        options.parse(["floor", "--only", "nothing"])


def test_a_run_on_a_busy_machine_says_what_its_verdicts_are_worth():
    slower = msgspec.structs.replace(FLOOR, churn_ms=2)
    quiet, busy = (Record(machine=MACHINE, floors=(FLOOR, other), figures={}) for other in (FLOOR, slower))
    assert report.steadiness(quiet) == "The floor moved by 0% meanwhile."
    assert "33%" in report.steadiness(busy)
    assert "mean little" in report.steadiness(busy)


def test_the_page_in_docs_has_all_that_people_wrote_in_the_template():
    root = Path(benchmark.__file__).parents[2]
    text = (root / "docs" / page.NAME).read_text()
    written = re.split(r"\$[a-z]+", (root / "scripts" / "benchmark" / page.NAME).read_text())
    assert len(written) > 4
    place = 0
    for part in written:
        place = text.index(part, place) + len(part)
    assert "docs/performance.md" in (root / "README.md").read_text()
