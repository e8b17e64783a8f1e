"""`jail run`: one job from the command line, without HTTP, by the same engine."""

import asyncio
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from jail import delegation, settings, spec
from jail.cli.failures import explained
from jail.engine import Engine
from jail.limits import LimitsRequest
from jail.result import Result, Stream
from jail.settings import Settings

# As env(1) and shells have it: the program could not be found or executed.
_NOT_STARTED = 127
_OURS = 125


def _limit_options(command: Any) -> Any:
    """One option for every limit, by its own name."""
    for field in reversed(LimitsRequest.__struct_fields__):
        kind = float if field == "cpus" else int
        option = click.option(f"--{field.replace('_', '-')}", f"limit_{field}", type=kind, metavar="N")
        command = option(command)
    return command


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--json", "as_json", is_flag=True, help="Print the result as POST /v1/run answers it.")
@click.option("--file", "files", multiple=True, metavar="NAME=PATH", help="Put a file into /box.")
@click.option("--output", "outputs", multiple=True, metavar="NAME", help="Bring a file back (with --json).")
@click.option("--save", "saved", multiple=True, metavar="NAME=PATH", help="Bring a file back as PATH.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Set a variable.")
@click.option("--stdin", "stdin", type=click.File("rb"), help="A file for stdin; - is our own.")
@click.option("--policy", default="default", show_default=True)
@click.option("--explain", is_flag=True, help="Tell which system calls the policy denied.")
@click.option("--image", default="host", show_default=True)
@click.option("--volume", "volumes", multiple=True, metavar="PLACE=NAME", help="See a volume there.")
@_limit_options
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def run(
    as_json: bool,
    files: tuple[str, ...],
    outputs: tuple[str, ...],
    saved: tuple[str, ...],
    env: tuple[str, ...],
    stdin: Any,
    policy: str,
    explain: bool,
    image: str,
    volumes: tuple[str, ...],
    argv: tuple[str, ...],
    **limits: float | None,
) -> None:
    """Run ARGV, or what the image says if there is none, in a fresh sandbox and end as it did.

    The exit status is the program's own, 128 + N after signal N or the end by a limit, 127 when it
    could not be started, 125 when jail failed.
    """
    with explained():
        delegation.become_ready(None)
        targets = [_pair(item, "--save") for item in saved]
        request = spec.Request(
            argv=list(argv) or msgspec.UNSET,
            policy=policy,
            image=image,
            volumes=dict(_pair(item, "--volume") for item in volumes),
            env=dict(_pair(item, "--env") for item in env),
            files={name: _content(Path(path)) for name, path in (_pair(f, "--file") for f in files)},
            stdin=_encoded(stdin.read()) if stdin else "",
            outputs=[*outputs, *(name for name, _ in targets)],
            explain=explain,
            limits=LimitsRequest(**{name.removeprefix("limit_"): n for name, n in limits.items()}),
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(_run(settings.for_one_job(settings.load()), request))
    _print(result, as_json)
    for name, path in targets:
        if name in result.outputs:
            _save(Path(path), b64decode(result.outputs[name].base64))
    raise SystemExit(_status(result))


def _pair(item: str, option: str) -> tuple[str, str]:
    name, found, value = item.partition("=")
    if not found:
        raise click.BadParameter(f"{item!r} has no '='", param_hint=option)
    return name, value


def _encoded(content: bytes) -> spec.Content:
    return spec.Content(base64=_base64(content))


def _base64(content: bytes) -> str:
    return b64encode(content).decode()


def _content(path: Path) -> spec.FileContent:
    try:
        executable = bool(path.stat().st_mode & 0o111)
        return spec.FileContent(base64=_base64(path.read_bytes()), executable=executable)
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}", param_hint="--file") from None


def _save(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from None


async def _run(found: Settings, request: spec.Request) -> Result:
    async with Engine(found) as engine:
        try:
            job = await engine.pin(spec.validate(request, engine.rules))
        except spec.SpecError as error:
            raise click.UsageError(str(error)) from None
        return await engine.submit(job).task


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
        return
    _write(sys.stdout.buffer, result.stdout)
    _write(sys.stderr.buffer, result.stderr)
    Console(stderr=True).print(_summary(result))


def _write(stream: Any, written: Stream) -> None:
    content = written.text.encode() if written.text is not None else b64decode(written.base64)
    stream.write(content)
    stream.flush()


def _summary(result: Result) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    end = f"exit {result.exit_code}" if result.exit_code is not None else ""
    end = f"signal {result.signal}" if result.signal is not None else end
    colour = "green" if result.status == "ok" else "red"
    table.add_row(f"[{colour}]{result.status}[/]", " ".join(filter(None, (end, result.limit, result.detail))))
    if result.usage:
        peak = result.usage.memory_peak_bytes / (1 << 20)
        table.add_row(
            "used",
            f"{result.usage.cpu_ms:.1f} ms CPU, {result.usage.wall_ms:.1f} ms, {peak:.1f} MiB",
        )
    for missed in result.output_errors:
        table.add_row("output", f"{missed.path}: {missed.reason}")
    for denial in result.denials or ():
        table.add_row("denied", f"{denial.syscall}({', '.join(denial.args)}) {denial.count} times")
    if result.denials_omitted:
        table.add_row("", f"and {result.denials_omitted} more that are not listed")
    return table


def _status(result: Result) -> int:
    if result.exit_code is not None:
        return result.exit_code
    if result.status == "start_failed":
        return _NOT_STARTED
    if result.status == "sandbox_error":
        return _OURS
    return 128 + (result.signal or 9)
