"""All that one run found: what --json writes, and what the table and the page are made of."""

from typing import Any

import msgspec

from benchmark import floor
from benchmark.floor import Floor
from benchmark.machine import Machine
from benchmark.row import Row
from benchmark.sections import SECTIONS


class Aim(msgspec.Struct, frozen=True):
    """One of the project's aims beside what was measured."""

    section: str
    name: str
    figure: float
    unit: str
    aim: str
    is_met: bool


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`figures` of each section by its name; `missing`, for those that could not be measured, why."""

    machine: Machine
    floors: tuple[Floor, ...]
    figures: dict[str, Any]
    missing: dict[str, str] = {}
    aims: tuple[Aim, ...] = ()


def rows(record: Record) -> dict[str, list[Row]]:
    """The table's rows by section, the floor's first."""
    usual = floor.middle(record.floors)
    found = {"floor": list(floor.rows(usual))}
    for name, section in SECTIONS.items():
        if name in record.figures:
            found[name] = list(section.rows(record.figures[name], usual))
    return found


def aims(record: Record) -> tuple[Aim, ...]:
    """Every row that has an aim."""
    return tuple(
        Aim(
            section,
            row.name,
            row.value if row.ratio is None else row.ratio,
            row.unit if row.ratio is None else f"x {row.to}",
            row.aim,
            bool(row.is_met),
        )
        for section, found in rows(record).items()
        for row in found
        if row.is_met is not None
    )


def encode(record: Record) -> bytes:
    """As indented JSON, with the aims."""
    whole = msgspec.structs.replace(record, aims=aims(record))
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def decode(text: bytes) -> Record:
    """What encode() made. Raises msgspec.ValidationError."""
    found = msgspec.json.decode(text, type=Record)
    figures = {
        name: msgspec.convert(value, SECTIONS[name].Figures)
        for name, value in found.figures.items()
        if name in SECTIONS
    }
    return msgspec.structs.replace(found, figures=figures)
