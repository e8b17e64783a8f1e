"""`jail file`: the files of this host's store, and which of them everybody has."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
import msgspec
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from jail import settings
from jail.cli.failures import explained
from jail.errors import FileNotStoredError, HostError
from jail.files import Bounds, Files

_OWNER = ""
"""Whose the operator's are: until callers are told apart, all of them are one."""

_PIECE_BYTES = 1 << 20

_CONFIG = click.option("--config", type=click.Path(), help="A TOML file; $JAIL_CONFIG by default.")
_DIGESTS = click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)


@click.group("file")
def file() -> None:
    """Put, show, remove and publish files, which jobs name by their DIGEST: sha256:..."""


@file.command("put")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=click.File("rb"))
@click.option("--publish", is_flag=True, help="For every caller, whose quotas it does not count in.")
@_CONFIG
def put(sources: tuple[BinaryIO, ...], publish: bool, config: str | None) -> None:
    """Keep each FILE, or stdin if it is -, and print its digest."""
    with explained(), _open(config) as files:
        for source in sources:
            with files.receive(_OWNER) as incoming:
                while piece := source.read(_PIECE_BYTES):
                    incoming.write(piece)
                kept = incoming.keep()
            if publish:
                files.publish(kept.digest, _OWNER)
            click.echo(f"{kept.digest} {source.name}")


@file.command("get")
@click.argument("digest")
@click.argument("target", metavar="FILE", type=click.File("wb"))
@_CONFIG
def get(digest: str, target: BinaryIO, config: str | None) -> None:
    """Write a file to FILE, or to stdout if it is -."""
    with explained(), _open(config) as files, open(files.open(digest, _OWNER), "rb") as source:
        shutil.copyfileobj(source, target, _PIECE_BYTES)


@file.command("ls")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@_CONFIG
def list_files(as_json: bool, config: str | None) -> None:
    """List the files: when each was last used, or that it is published."""
    with explained(), _open(config) as files:
        found = files.stored(_OWNER)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("digest", "size", "used"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "size" else "left")
    for each in found:
        used = "published" if each.published else time.strftime("%F %R", time.localtime(each.used_s))
        table.add_row(each.digest, decimal(each.bytes), used)
    Console(highlight=False, markup=False).print(table)


@file.command("rm")
@_DIGESTS
@_CONFIG
def remove(digests: tuple[str, ...], config: str | None) -> None:
    """Remove files, published ones, too. Of what is not published none goes while a job has it."""
    with explained(), _open(config) as files:
        for digest in digests:
            try:
                files.remove(digest, _OWNER)
            except FileNotStoredError:
                files.withdraw(digest)


@file.command("publish")
@_DIGESTS
@_CONFIG
def publish(digests: tuple[str, ...], config: str | None) -> None:
    """Let every caller use files; they count in no quota, and stay until they are removed."""
    with explained(), _open(config) as files:
        for digest in digests:
            files.publish(digest, _OWNER)


@contextmanager
def _open(config: str | None) -> Iterator[Files]:
    found = settings.load(config=config)
    if os.getuid() == 0:
        raise HostError(
            "Stored files belong to the user of the service.",
            "Run this as that user: runuser -u NAME -- jail file ...",
        )
    bounds = Bounds(found.files_bytes, found.file_bytes, found.files_age_s)
    try:
        files = Files(Path(found.files), bounds)
    except OSError as error:
        raise HostError(
            f"The store of files cannot be opened: {error.strerror}: {error.filename}.",
            "Run this as the user of the service, or name another directory in the setting `files`.",
        ) from None
    with files:
        yield files
