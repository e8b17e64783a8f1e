"""`jail doctor`: what this host can promise."""

import os
import sys

import click
import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jail import delegation, settings
from jail.cli.failures import explained
from jail.cli.languages import try_languages
from jail.doctor import Check, describe_host, examine, has_session_manager, is_ready, try_sandbox
from jail.errors import HostError

_STYLES = {"ok": "green", "missing": "bold red", "degraded": "yellow", "note": "cyan"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--user", help="As root: look as this user, in a cgroup subtree that is delegated to it.")
@click.option("--config", type=click.Path(), help="A TOML file; $JAIL_CONFIG by default.")
@click.option("--languages", is_flag=True, help="Try out the languages of an image instead.")
@click.option("--image", default="host", show_default=True, help="With --languages.")
def doctor(as_json: bool, user: str | None, config: str | None, languages: bool, image: str) -> None:
    """Say what this host can promise, each gap with its cause and its cure.

    The exit status is 1 if anything that jail requires is missing, or a language is there and does not work,
    else 0.
    """
    if languages:
        with explained():
            delegation.become_ready(user)
            told = try_languages(settings.load(config=config), image, as_json)
        raise SystemExit(any(each.version and not each.available for each in told))
    with explained():
        checks = _look(user, config)
    if as_json:
        report = {"ok": is_ready(checks), "checks": checks}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    else:
        _print(Console(highlight=False), checks)
    raise SystemExit(0 if is_ready(checks) else 1)


def _look(user: str | None, config: str | None) -> list[Check]:
    try:
        # Without a session manager to ask for a scope, systemd-run would end us before a word was said.
        if user is not None or os.getuid() == 0 or has_session_manager() is not False:
            delegation.become_ready(user)
    except HostError as error:
        return [_refused(error)]
    found = settings.load(config=config)
    return examine(describe_host(found, try_sandbox(found)))


def _refused(error: HostError) -> Check:
    """As the wrong user there is nothing to see: what root can do says nothing of the service."""
    return Check(
        name="user",
        status="missing",
        required="the ordinary user of the service",
        found="refused",
        cause=error.cause,
        cure=error.cure.replace("jail serve", "jail doctor"),
    )


def _print(console: Console, checks: list[Check]) -> None:
    console.print(_table(checks))
    for alike in _gaps(checks):
        console.print(_gap(alike))
    console.print(_verdict(checks))


def _gaps(checks: list[Check]) -> list[list[Check]]:
    """Checks that have something to say; those that say the same, as the trial often does, together."""
    alike: dict[tuple[str | None, ...], list[Check]] = {}
    for check in checks:
        if check.cause:
            alike.setdefault((check.status, check.cause, check.cure), []).append(check)
    return list(alike.values())


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("check", "status", "found"):
        table.add_column(heading, no_wrap=heading != "found")
    for check in checks:
        table.add_row(check.name, Text(check.status, _STYLES[check.status]), Text(check.found))
    return table


def _gap(alike: list[Check]) -> Padding:
    first = alike[0]
    lines = Table.grid(padding=(0, 2, 0, 0))
    names = ", ".join(check.name for check in alike)
    lines.add_row(Text(first.status, _STYLES[first.status]), Text(names, "bold"))
    lines.add_row(Text("cause", "dim"), Text(first.cause or ""))
    lines.add_row(Text("cure", "dim"), Text(first.cure or ""))
    return Padding(lines, (1, 0, 0, 0))


def _verdict(checks: list[Check]) -> Padding:
    missing = [check.name for check in checks if check.status == "missing"]
    degraded = [check.name for check in checks if check.status == "degraded"]
    if missing:
        text = Text(f"jail cannot run here. Missing: {', '.join(missing)}.", _STYLES["missing"])
    elif degraded:
        text = Text(f"jail can run here, weaker than promised: {', '.join(degraded)}.", "yellow")
    else:
        text = Text("jail can run here.", "bold green")
    return Padding(text, (1, 0, 0, 0))
