"""The table of a run on a terminal."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark import floor, record
from benchmark.machine import Machine
from benchmark.record import Record
from benchmark.row import Row, multiple, number
from benchmark.sections import SECTIONS

TITLES = {"floor": "the floor: native/floor.c"} | {name: s.TITLE for name, s in SECTIONS.items()}

WIDTH = 160
"""Of the table where there is no terminal that has one."""

_NOTE_WIDTH = 24
_VERDICTS = {True: "[green]met[/]", False: "[bold red]missed[/]", None: ""}


def show(found: Record) -> None:
    """Print the table, and what a reader should know about it."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(about(found.machine))
    console.print(table(found))
    console.print(steadiness(found))


def steadiness(found: Record) -> str:
    """A sentence about how quiet the machine was."""
    moved = floor.moved(found.floors)
    if moved <= floor.STEADY:
        return f"The floor moved by {moved:.0%} meanwhile."
    return f"The floor moved by {moved:.0%} meanwhile: this machine was not quiet, and verdicts mean little."


def about(machine: Machine) -> str:
    """A line about a machine."""
    return (
        f"{machine.processors} x {machine.processor}, {machine.memory_bytes / 2**30:.0f} GiB, "
        f"Linux {machine.kernel}, cgroup {machine.cgroup}, Python {machine.python}"
    )


def table(found: Record) -> Table:
    """Lay all figures out, each with its ratio and aim."""
    laid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    laid.add_column("", no_wrap=True)
    laid.add_column("measured", justify="right", no_wrap=True)
    laid.add_column("ratio", no_wrap=True)
    laid.add_column("aim", no_wrap=True)
    laid.add_column("", style="dim", min_width=_NOTE_WIDTH)
    for name, rows in record.rows(found).items():
        _begin(laid, TITLES[name])
        for row in rows:
            laid.add_row(*cells(row))
    for name, why in found.missing.items():
        _begin(laid, TITLES[name])
        laid.add_row("  not measured", "", "", "", escape(why))
    return laid


def _begin(laid: Table, title: str) -> None:
    laid.add_section()
    laid.add_row(f"[bold]{title}[/]")


def cells(row: Row) -> tuple[str, ...]:
    """A row in rich's markup. Numbers stand one beneath the other."""
    value = "" if row.value is None else f"{number(row.value)} [dim]{row.unit:6}[/]"
    ratio = "" if row.ratio is None else f"{multiple(row.ratio):>6} [dim]x {row.to}[/]"
    aim = f"{row.aim:14}{_VERDICTS[row.is_met]}" if row.aim else ""
    return f"  {escape(row.name)}", value, ratio, aim, escape(row.note)
