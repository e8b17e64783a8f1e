"""`jail policy`: what the policies of this host allow, what two differ in, and new ones from profiles."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jail import policy as policies
from jail import settings
from jail.cli.failures import explained
from jail.policy import Policy, Verdict, bpf, importer, listing, numbers
from jail.policy.listing import Entry

# Status 1 is an answer of `test` and `diff`; what could not be looked at is a wrong command line's.
_UNUSABLE = 2

_JSON = click.option("--json", "as_json", is_flag=True, help="For scripts.")
_DIRECTORY = click.option(
    "--directory", type=click.Path(file_okay=False), help="Of policies; by default that of the settings."
)


@click.group()
def policy() -> None:
    """Show, try, compare and import system call policies."""


@policy.command("ls")
@_JSON
@_DIRECTORY
def list_policies(as_json: bool, directory: str | None) -> None:
    """List the policies, and how much of the kernel each leaves open.

    Calls are those allowed in any form, of all that the kernel has on this architecture.
    """
    with explained(_UNUSABLE):
        place = _place(directory)
        found = [_surface(policies.load(name, place)) for name in policies.names(place)]
    if as_json:
        _print_json(found)
        return
    table = _table("policy", "calls", "of", "checked", "instructions", "description")
    for row in found:
        table.add_row(*map(str, row.values()))
    Console(highlight=False).print(table)


def _surface(found: Policy) -> dict[str, Any]:
    allowed, known = policies.surface(found)
    return {
        "name": found.name,
        "calls": allowed,
        "calls_known": known,
        "calls_checked": len({numbers.number(rule.call) for rule in found.rules} - {None}),
        "instructions": len(policies.compile_policy(found)) // bpf.INSTRUCTION.size,
        "description": found.description,
    }


@policy.command()
@click.argument("name")
@_JSON
@_DIRECTORY
def show(name: str, as_json: bool, directory: str | None) -> None:
    """Show every call that policy NAME allows, and on which conditions."""
    with explained(_UNUSABLE):
        found = _load(name, directory)
    console = Console(highlight=False)
    if as_json:
        _print_json({"name": name, "description": found.description, "entries": listing.entries(found)})
    elif console.is_terminal:
        console.print(Text(f"{name}: {found.description}\n"))
        console.print(_listing(listing.entries(found)))
    else:
        click.echo(listing.plain(found), nl=False)


def _listing(entries: Sequence[Entry]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for entry in entries:
        table.add_row(Text(entry.call), Text(listing.words(entry), _style(entry)))
    for call, answer in listing.REST:
        table.add_row(Text(call), Text(answer, "red"))
    return table


def _style(entry: Entry) -> str:
    if entry.errno and entry.maximum is None:
        return "red"
    return "yellow" if entry.conditions else "green"


@policy.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("call")
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[ARG]...")
@_JSON
@_DIRECTORY
def test(name: str, call: str, args: tuple[str, ...], as_json: bool, directory: str | None) -> None:
    """Ask policy NAME what it answers to CALL.

    CALL is a name or a number. Each ARG is a number or a value's name as the policy has it
    (AF_UNIX), or several with | between; those left out are 0. The exit status is 0 if the call is
    allowed, 1 if it is refused.
    """
    with explained(_UNUSABLE):
        found = _load(name, directory)
        program = policies.compile_policy(found)
    nr, values = _call(found, call, args)
    verdict, code = policies.simulate(program, nr, values)
    answer = {
        "verdict": verdict.name.lower(),
        "errno": listing.error_name(code) if verdict is Verdict.ERRNO else None,
        "call": numbers.name(nr),
        "number": nr,
        "args": values,
        "decided_by": listing.decision(found, nr, values),
    }
    if as_json:
        _print_json(answer)
    else:
        _print_answer(answer)
    raise SystemExit(0 if verdict in (Verdict.ALLOW, Verdict.USER_NOTIF) else 1)


def _call(found: Policy, call: str, args: Sequence[str]) -> tuple[int, list[int]]:
    if len(args) > len(bpf.ARGUMENT_OFFSETS):
        raise click.UsageError(f"a call has at most {len(bpf.ARGUMENT_OFFSETS)} arguments")
    try:
        nr = listing.find_call(call)
        return nr, [listing.find_value(found, nr, at, text) for at, text in enumerate(args)]
    except LookupError as error:
        raise click.UsageError(str(error)) from None


_SPOKEN = {
    "allow": ("allowed", "green"),
    "user_notif": ("allowed so many times", "yellow"),
    "errno": ("refused with", "red"),
    "kill_process": ("killed", "red"),
}


def _print_answer(answer: dict[str, Any]) -> None:
    spoken, style = _SPOKEN.get(answer["verdict"], (answer["verdict"], "yellow"))
    line = Text.assemble((" ".join(filter(None, (spoken, answer["errno"]))), style))
    line.append(f", decided by: {answer['decided_by']}")
    Console(highlight=False, soft_wrap=True).print(line)


@policy.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@_JSON
@_DIRECTORY
def diff(first: str, second: str, as_json: bool, directory: str | None) -> None:
    """Say what policy B allows and A does not (+), and the reverse (-).

    Calls that both refuse, but with another errno, are marked with ~. The exit status is 0 if the
    policies allow and answer the same, 1 if not.
    """
    with explained(_UNUSABLE):
        found = listing.difference(_load(first, directory), _load(second, directory))
    if as_json:
        _print_json(found)
    else:
        _print_difference(found)
    raise SystemExit(1 if found else 0)


def _print_difference(found: listing.Difference) -> None:
    rows = [("+", entry.call, listing.words(entry), "green") for entry in found.added]
    rows += [("-", entry.call, listing.words(entry), "red") for entry in found.removed]
    rows += [("~", call, f"{before}, now {after}", "yellow") for call, before, after in found.changed]
    width = max((len(row[1]) for row in rows), default=0)
    console = Console(highlight=False, soft_wrap=True)
    for sign, call, text, style in rows:
        console.print(Text(f"{sign} {call:{width}}  {text}", style))


@policy.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--name", help="Of the policy; by default that of the output, else of FILE.")
@click.option("--output", type=click.Path(dir_okay=False), help="A new file NAME.toml; stdout by default.")
def import_profile(file: Any, name: str | None, output: str | None) -> None:
    """Make a policy of a seccomp profile in Docker's or the OCI's JSON format.

    What cannot be expressed is dropped, so that the policy allows no more than the profile. Each
    difference is told on stderr.
    """
    name = name or Path(output or file.name).stem
    if output and Path(output).name != f"{name}.toml":
        raise click.UsageError(f"policy {name} has to be in a file {name}.toml")
    with explained():
        imported = importer.convert(importer.read(file.read(importer.CONTENT_BYTES_MAX + 1)), name)
    for note in imported.notes:
        click.echo(note, err=True)
    allowed, known = policies.surface(imported.policy)
    click.echo(f"{name}: {allowed} of {known} calls are allowed.", err=True)
    if output:
        _write_new(Path(output), imported.text)
    else:
        click.echo(imported.text, nl=False)


def _write_new(path: Path, text: str) -> None:
    """Create a file; one that is there may be a policy in use."""
    try:
        with path.open("x") as file:
            file.write(text)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None


def _place(directory: str | None) -> Path:
    chosen = directory or settings.load().policies
    return Path(chosen) if chosen else policies.shipped_directory()


def _load(name: str, directory: str | None) -> Policy:
    place = _place(directory)
    return policies.load(listing.known_policy(name, policies.names(place)), place)


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        is_text = heading in ("policy", "description")
        table.add_column(heading, no_wrap=heading == "policy", justify="left" if is_text else "right")
    return table


def _print_json(report: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
