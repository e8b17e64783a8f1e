"""`jail doctor --languages`: the smoke program of every language, in real sandboxes of an image."""

import asyncio
import sys

import click
import msgspec
import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jail.engine import Engine
from jail.languages import definitions
from jail.languages.definitions import Definitions
from jail.languages.toolchains import Cost, Told, Toolchains, UnansweredError
from jail.settings import Settings, for_one_job
from jail.spec import SpecError

_HEADINGS = ("language", "version", "compile ms", "run ms", "peak MiB", "verdict")


def try_languages(found: Settings, image: str, as_json: bool) -> list[Told]:
    """Try all and print what came of it. Raises HostError, PolicyError, LanguageError."""
    known = definitions.load(found.languages)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(_try(for_one_job(found), known, image))
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    else:
        Console(highlight=False).print(_table(told))
    return told


async def _try(found: Settings, known: Definitions, image: str) -> list[Told]:
    async with Engine(found) as engine:
        toolchains = Toolchains(engine, known)
        try:
            return [await toolchains.tell(known.find(name), image) for name in known.languages]
        except SpecError as error:
            raise click.UsageError(str(error)) from None
        except UnansweredError as error:
            raise click.ClickException(f"No sandbox could be had: {error}.") from None


def _table(told: list[Told]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in _HEADINGS:
        numeric = heading.endswith(("ms", "MiB"))
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=heading != "verdict")
    for each in told:
        peaks = [cost.memory_peak_bytes for cost in (each.compile, each.run) if cost]
        peak = f"{max(peaks) / (1 << 20):.1f}" if peaks else ""
        table.add_row(each.name, each.version, _wall(each.compile), _wall(each.run), peak, _verdict(each))
    return table


def _wall(cost: Cost | None) -> str:
    return f"{cost.wall_ms:.0f}" if cost else ""


def _verdict(told: Told) -> Text:
    if told.available:
        return Text("ok", "green")
    return Text(told.reason or "", "red" if told.version else "dim")
