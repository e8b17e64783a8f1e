"""The table of a run on a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table

from benchmark import floor, record
from benchmark.machine import Machine
from benchmark.record import Record
from benchmark.row import Row, multiple, number
from benchmark.sections import SECTIONS

TITLES = {"floor": "the floor: native/floor.c"} | {name: s.TITLE for name, s in SECTIONS.items()}

WIDTH = 150
"""Of the table where there is no terminal that has one."""

_VERDICTS = {True: "[green]met[/]", False: "[bold red]missed[/]", None: ""}


def show(found: Record) -> None:
    """Print the table, and what a reader should know about it."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(about(found.machine))
    console.print(table(found))
    moved = floor.moved(found.floors)
    if moved > floor.STEADY:
        console.print(f"The floor moved by {moved:.0%} meanwhile: this machine is not quiet.")


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
    laid.add_column("measured", justify="right")
    laid.add_column("", style="dim")
    laid.add_column("ratio", justify="right")
    laid.add_column("to", style="dim", no_wrap=True)
    laid.add_column("aim", no_wrap=True)
    laid.add_column("")
    laid.add_column("", style="dim")
    for name, rows in record.rows(found).items():
        _begin(laid, TITLES[name])
        for row in rows:
            laid.add_row(*cells(row))
    for name, why in found.missing.items():
        _begin(laid, TITLES[name])
        laid.add_row("  not measured", "", "", "", "", "", "", why)
    return laid


def _begin(laid: Table, title: str) -> None:
    laid.add_section()
    laid.add_row(f"[bold]{title}[/]")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, verdict in rich's markup."""
    to = f"x {row.to}" if row.to else ""
    verdict = _VERDICTS[row.is_met]
    value, unit = ("", "") if row.value is None else (number(row.value), row.unit)
    return f"  {row.name}", value, unit, multiple(row.ratio), to, row.aim, verdict, row.note
