"""Plots of a run, as SVG: latency against load, throughput against processors and ready sandboxes.

matplotlib is imported when a plot is asked for, and not before: it is large, and the table needs none.
"""

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmark import clients, cores, pool
from benchmark.record import Record
from benchmark.session import CLIENTS

_INCHES = (6.0, 3.4)
_STYLE = {
    # Text stays text: small files, and the reader's own fonts.
    "svg.fonttype": "none",
    # The same figures make the same file.
    "svg.hashsalt": "jail",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.edgecolor": "#9ca3af",
    "axes.axisbelow": True,
}
_BLUE, _ORANGE, _GREY = "#2563eb", "#ea580c", "#9ca3af"


def draw(record: Record) -> dict[str, bytes]:
    """Files by name, of those sections that were measured. Raises ImportError without matplotlib."""
    found = {}
    for section, (name, paint) in _PLOTS.items():
        if section in record.figures:
            found[name] = _svg(lambda axes, p=paint, s=section: p(axes, record.figures[s]))
    return found


def _svg(paint: Callable[[Any], None]) -> bytes:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context(_STYLE), io.BytesIO() as file:
        figure, axes = pyplot.subplots(figsize=_INCHES, layout="constrained")
        paint(axes)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
        lines = file.getvalue().decode().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines).encode()


def _latency(axes: Any, found: clients.Figures) -> None:
    counts = [each.clients for each in found.loads]
    axes.plot(counts, [each.times.p99_ms for each in found.loads], "o-", color=_ORANGE, label="p99")
    axes.plot(counts, [each.times.p50_ms for each in found.loads], "o-", color=_BLUE, label="p50")
    axes.set_xscale("log", base=2)
    _name(axes, "Latency of a no-op job against load", "clients at once", "ms")
    _mark(axes, counts)
    axes.legend(frameon=False)


def _throughput(axes: Any, found: cores.Figures) -> None:
    counts = [each.processors for each in found.services]
    rates = [statistics.median(each.jobs_per_s) for each in found.services]
    axes.plot(counts, [rates[0] * count for count in counts], "--", color=_GREY, label="in proportion")
    axes.plot(counts, rates, "o-", color=_BLUE, label=f"{CLIENTS} clients")
    _name(axes, "Throughput against processors", "processors of the service", "jobs/s")
    _mark(axes, counts)
    axes.legend(frameon=False)


def _ready(axes: Any, found: pool.Figures) -> None:
    # Evenly spaced: none has no place on a scale of powers.
    places = range(len(found.services))
    rates = [statistics.median(each.many.jobs_per_s for each in kept.rounds) for kept in found.services]
    waits = [statistics.median(each.one.p50_ms for each in kept.rounds) for kept in found.services]
    axes.plot(places, rates, "o-", color=_BLUE)
    _name(axes, "What ready sandboxes are worth", "sandboxes kept ready", f"jobs/s, {CLIENTS} clients")
    axes.yaxis.label.set_color(_BLUE)
    axes.set_xticks(list(places), [str(kept.size) for kept in found.services])
    beside = axes.twinx()
    beside.plot(places, waits, "s-", color=_ORANGE)
    beside.set_ylabel("p50 of one client, ms", color=_ORANGE)
    beside.set_ylim(bottom=0)
    beside.grid(False)


def _name(axes: Any, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_ylim(bottom=0)


def _mark(axes: Any, counts: Sequence[int]) -> None:
    axes.minorticks_off()
    axes.set_xticks(counts, [str(count) for count in counts])


_PLOTS: Mapping[str, tuple[str, Callable[[Any, Any], None]]] = {
    "clients": ("latency-load.svg", _latency),
    "cores": ("throughput-processors.svg", _throughput),
    "pool": ("throughput-ready.svg", _ready),
}
"""By the section that they show: the file's name, and what paints it."""
