"""docs/performance.md: what people wrote, in performance.md beside this file, with a run's figures in it."""

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import BinaryIO

from benchmark import plots, record, report
from benchmark.options import EXPLAIN
from benchmark.record import Record
from benchmark.row import Row, multiple, number

NAME = "performance.md"

_TEMPLATE = Path(__file__).parent / NAME
_VERDICTS = {True: "met", False: "**missed**", None: ""}


def files(found: Record) -> dict[str, bytes]:
    """The page and its plots, by name. Raises ImportError without matplotlib."""
    drawn = plots.draw(found)
    return {NAME: page(found, drawn).encode(), **drawn}


def page(found: Record, drawn: Iterable[str]) -> str:
    """The page itself, with those plots."""
    rows = record.rows(found)
    explained = {name: rows.pop(name) for name in EXPLAIN if name in rows}
    return Template(_TEMPLATE.read_text()).substitute(
        machine=report.about(found.machine),
        steadiness=report.steadiness(found),
        table=table(rows, found.missing),
        explained=table(explained, {}),
        plots="\n\n".join(f"![{Path(name).stem.replace('-', ' ')}]({name})" for name in drawn),
    )


def table(sections: Mapping[str, Sequence[Row]], missing: Mapping[str, str]) -> str:
    """One table in Markdown; without anything in it, a sentence."""
    if not sections and not missing:
        return "Not measured in this run."
    lines = ["| | measured | ratio | aim | |", "|---|---:|---:|---|---|"]
    for name, rows in sections.items():
        lines.append(f"| **{report.TITLES[name]}** | | | | |")
        lines += [_line(row) for row in rows]
    for name, why in missing.items():
        lines.append(f"| **{report.TITLES[name]}** | | | | not measured: {_plain(why)} |")
    return "\n".join(lines)


def _line(row: Row) -> str:
    value = "" if row.value is None else f"{number(row.value)} {row.unit}"
    ratio = f"{multiple(row.ratio)} x {row.to}" if row.ratio is not None else ""
    aim = f"{row.aim}: {_VERDICTS[row.is_met]}" if row.aim else ""
    cells = (row.name, value, ratio, aim, row.note)
    return "| " + " | ".join(_plain(cell.strip()) for cell in cells) + " |"


def _plain(text: str) -> str:
    """A cell has no bars and no lines."""
    return text.replace("|", "\\|").replace("\n", " ")


def pack(contents: Mapping[str, bytes], file: BinaryIO) -> None:
    """As a tar archive: whoever unpacks it need not be who measured."""
    with tarfile.open(fileobj=file, mode="w|") as archive:
        for name, content in contents.items():
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), 0o644
            archive.addfile(about, io.BytesIO(content))
