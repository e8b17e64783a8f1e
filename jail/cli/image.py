"""`jail image`: the images of this host's store, where they come from and where they go."""

import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from jail import settings
from jail.cli.failures import complain, explained
from jail.errors import HostError, ImageError
from jail.images import archive, snapshot
from jail.images.compression import compressed
from jail.images.credentials import Credentials
from jail.images.credentials import read as read_credentials
from jail.images.names import refuse_name
from jail.images.oci import Descriptor
from jail.images.reference import Reference, parse
from jail.images.store import PATIENCE_S, Brought, Store
from jail.images.summary import Summary, summarize, summarize_all, summarize_brought
from jail.images.unpacker import Unpacker
from jail.namespace import OuterNamespace

_JSON = click.option("--json", "as_json", is_flag=True, help="For scripts.")
_CONFIG = click.option("--config", type=click.Path(), help="A TOML file; $JAIL_CONFIG by default.")

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_LEFT_OUT_SHOWN = 20
_DIGITS_SHOWN = 12
_LABEL_WIDTH = 13


@click.group()
def image() -> None:
    """Bring in, show, remove and give away images, which jobs have as their root.

    An IMAGE is a name, or a digest (sha256:...), of which the first 12 digits will do.
    """


@image.command("import")
@click.argument("file", type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option("--name", help="Of the image; by default as the archive has it.")
@_JSON
@_CONFIG
def import_images(file: Path, name: str | None, as_json: bool, config: str | None) -> None:
    """Bring in the images of FILE, or of stdin if it is -.

    It can be an OCI archive or layout, what `docker save` or `podman save` writes, or a tar archive of a root
    tree. All but a layout may be compressed by gzip or zstd.
    """
    with explained(), _writing(config) as (store, unpacker), _shown() as shown:
        if name is not None:
            refuse_name(name)
        if file.is_dir():
            found = archive.import_layout(store, unpacker, file, name, shown)
        else:
            with _source(file) as source:
                found = archive.import_file(store, unpacker, source, name, shown)
    _tell(found, as_json)


@image.command("commit")
@click.argument("image", metavar="IMAGE")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--name", required=True, help="Of the new image.")
@_JSON
@_CONFIG
def commit_layer(image: str, file: Path, name: str, as_json: bool, config: str | None) -> None:
    """Make an image of IMAGE with FILE, or stdin if it is -, as a layer on top.

    That is a tar archive, compressed by gzip, zstd or not at all, such as a job leaves in its outputs. Its
    names are those beneath the root; whiteouts (.wh.NAME) take away what the image has.
    """
    with explained(), _writing(config) as (store, unpacker), _shown() as shown, _source(file) as source:
        refuse_name(name)
        found = store.find(image)
        with os.fdopen(store.hold(found.digest), "rb"):
            _tell(archive.import_file(store, unpacker, source, name, shown, found), as_json)


@image.command("pull")
@click.argument("reference", metavar="REGISTRY/REPOSITORY[:TAG][@DIGEST]")
@click.option("--name", help="Of the image; by default the reference without its digest.")
@click.option("--platform", default="", metavar="OS/ARCHITECTURE[/VARIANT]", help="By default this host's.")
@click.option("--login", metavar="USER", help="The password is asked for, or is the first line of stdin.")
@click.option("--credentials", type=_FILE, help="A file with logins, in the form of Docker's config.json.")
@click.option("--insecure", is_flag=True, help="The registry speaks plain HTTP, and is trusted with that.")
@click.option(
    "--proxy", default="", metavar="URL", help="To go through; those of the environment are not used."
)
@_JSON
@_CONFIG
def pull_image(
    reference: str,
    name: str | None,
    platform: str,
    login: str | None,
    credentials: Path | None,
    insecure: bool,
    proxy: str,
    as_json: bool,
    config: str | None,
) -> None:
    """Bring in an image of a registry: what a tag means now, or what a digest always means.

    A pull that is cut off goes on where it was when it is given again.
    """
    # Only here: of all that this command line imports it takes the longest.
    from jail.images import pull
    from jail.images.registry import Repository

    with explained():
        wanted = parse(reference)
        known = _credentials(wanted, login, credentials)
        made_for = pull.parse_platform(platform)
        with (
            Repository(wanted, known, insecure, proxy) as repository,
            _writing(config) as (store, unpacker),
            _shown() as shown,
        ):
            found = pull.pull(store, unpacker, repository, name or "", made_for, shown)
    _tell([found], as_json)


@image.command("build-host")
@click.argument("name")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@_JSON
@_CONFIG
def build_host(name: str, paths: tuple[Path, ...], as_json: bool, config: str | None) -> None:
    """Make the image NAME of files and directories of this host as they are now: PATHs, or all of /usr.

    Without a PATH it has what the image `host` has, and changes of this host do not change it any more. What
    not every user may read is left out. The same files make the same image.
    """
    with explained(), _writing(config) as (store, unpacker), _shown() as shown:
        refuse_name(name)
        found = snapshot.Snapshot(paths, lambda done: shown("read", whole, done))
        whole = Descriptor("", "host", found.bytes)
        made = archive.import_file(store, unpacker, compressed(found), name, shown)
    for each in found.left_out[:_LEFT_OUT_SHOWN]:
        click.echo(_plain(f"Left out: {each.path}: {each.reason}."), err=True)
    if more := len(found.left_out[_LEFT_OUT_SHOWN:]):
        click.echo(f"Left out: {more} more.", err=True)
    _tell(made, as_json)


def _credentials(wanted: Reference, login: str | None, file: Path | None) -> Credentials:
    if login is not None:
        if not sys.stdin.isatty():
            return Credentials(login, sys.stdin.readline().removesuffix("\n"))
        return Credentials(login, click.prompt("Password", hide_input=True, err=True))
    return read_credentials(file, wanted.registry, wanted.repository) if file else Credentials()


@image.command("ls")
@_JSON
@_CONFIG
def list_images(as_json: bool, config: str | None) -> None:
    """List the images. Those that share layers count them each."""
    with explained(), _reading(config) as store:
        found = summarize_all(store)
    for damaged in found.damaged:
        complain(ImageError(damaged.cause, damaged.cure))
    if as_json:
        _print_json(found)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("image", "digest", "layers", "files", "size", "created"):
        is_number = heading in ("layers", "files", "size")
        table.add_column(heading, no_wrap=heading != "image", justify="right" if is_number else "left")
    for each in found.images:
        count, entries, size = str(len(each.layers)), str(each.entries), decimal(each.bytes)
        created = _plain((each.created or "")[:10])
        table.add_row("\n".join(each.names), _short(each.digest), count, entries, size, created)
    Console(highlight=False, markup=False).print(table)


@image.command()
@click.argument("image")
@_JSON
@_CONFIG
def inspect(image: str, as_json: bool, config: str | None) -> None:
    """Tell what IMAGE is made of, how jobs run in it, and which of its settings they do not follow."""
    with explained(), _reading(config) as store:
        found = summarize(store.find(image))
    if as_json:
        _print_json(found)
    else:
        _print_summary(found)


def _print_summary(found: Summary) -> None:
    told = {
        "names": ", ".join(found.names),
        "digest": found.digest,
        "platform": found.platform,
        "created": found.created or "",
        "size": f"{decimal(found.bytes)} in {found.entries} files; {decimal(found.archive_bytes)} as it came",
        "entrypoint": _list(found.config.entrypoint),
        "command": _list(found.config.cmd),
        "environment": "\n".join(found.config.env),
        "directory": found.config.working_dir,
        "user": found.config.user,
        "ignored": ", ".join(found.ignored),
        "left out": _counts(found.omitted),
        "layers": "\n".join(f"{each.digest}  {decimal(each.bytes)}" for each in found.layers),
    }
    console = Console(highlight=False, soft_wrap=True)
    for what, text in told.items():
        for number, line in enumerate(_plain(text).splitlines()):
            console.print(Text.assemble((f"{'' if number else what:{_LABEL_WIDTH}}", "dim"), line))


@image.command("rm")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@_CONFIG
def remove(images: tuple[str, ...], config: str | None) -> None:
    """Take away names; with the last one, or by its digest, an image, unless something uses it."""
    with explained(), _writing(config) as (store, unpacker):
        freed = sum(store.remove(each, unpacker, PATIENCE_S) for each in images)
    click.echo(f"{decimal(freed)} are free again.")


@image.command()
@click.option("--nameless", is_flag=True, help="Images, too, that no name leads to and nothing uses.")
@_CONFIG
def prune(nameless: bool, config: str | None) -> None:
    """Remove what no image needs: of imports and pulls that did not come to their end."""
    with explained(), _writing(config) as (store, unpacker):
        freed = store.prune(unpacker, nameless)
    click.echo(f"{decimal(freed)} are free again.")


@image.command("export")
@click.argument("image")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@_CONFIG
def export_image(image: str, file: Path, config: str | None) -> None:
    """Write IMAGE as an OCI archive to FILE, or to stdout if it is -."""
    with explained(), _reading(config) as store, _target(file) as target, _shown() as shown:
        written = archive.export_file(store, image, target, shown)
        if written.digest != store.find(image).digest:
            click.echo(f"Its manifest was one of Docker's; there it is {written.digest}.", err=True)


@contextmanager
def _reading(config: str | None) -> Iterator[Store]:
    found = settings.load(config=config)
    if os.getuid() == 0:
        raise HostError(
            "Images belong to the user of the service.",
            "Run this as that user: runuser -u NAME -- jail image ...",
        )
    try:
        store = Store(Path(found.images), found.images_bytes, found.image_bytes, found.image_entries)
    except OSError as error:
        raise HostError(
            f"The store of images cannot be opened: {error.strerror}: {error.filename}.",
            "Run this as the user of the service, or name another directory in the setting `images`.",
        ) from None
    with store:
        yield store


@contextmanager
def _writing(config: str | None) -> Iterator[tuple[Store, Unpacker]]:
    """The store, swept, and what unpacks and removes its layers."""
    with ExitStack() as open_now:
        store = open_now.enter_context(_reading(config))
        namespace = open_now.enter_context(closing(OuterNamespace()))
        unpacker = open_now.enter_context(closing(Unpacker(namespace.descriptor, store.layers)))
        store.sweep(unpacker)
        yield store, unpacker


@contextmanager
def _source(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        source = file.open("rb")
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror}.", "Name another file.") from None
    with source:
        yield source


@contextmanager
def _target(file: Path) -> Iterator[BinaryIO]:
    """What is written to a file is there as a whole or not at all."""
    if str(file) == "-":
        yield sys.stdout.buffer
        return
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as target:
            yield target
        part.rename(file)
    except OSError as error:
        raise ImageError(f"{file} cannot be written: {error.strerror}.", "Name another file.") from None
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _shown() -> Iterator[Any]:
    """Progress on stderr, a bar for each blob and what is done to it, if a person is there to see it."""
    console = Console(stderr=True, highlight=False, markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    bars: dict[tuple[str, str], TaskID] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def show(what: str, blob: Descriptor, done: int) -> None:
            key = (what, blob.digest)
            if key not in bars:
                bars[key] = progress.add_task(f"{what} {_short(blob.digest)}", total=blob.size)
            progress.update(bars[key], completed=done)

        yield show


def _tell(found: Sequence[Brought], as_json: bool) -> None:
    """What was brought in: on stdout by digest, for scripts; what to know of it on stderr."""
    told = [summarize_brought(each) for each in found]
    if as_json:
        _print_json(told)
        return
    for each in told:
        click.echo(f"{each.digest} {' '.join(each.names)}".rstrip())
        for name, digest in each.replaced.items():
            click.echo(f"{name} was {digest} until now.", err=True)
        if each.omitted:
            click.echo(f"Left out: {_counts(each.omitted)}.", err=True)
        if each.ignored:
            ignored = _plain(", ".join(each.ignored))
            click.echo(f"Settings of it that jobs do not follow: {ignored}.", err=True)


def _plain(text: str) -> str:
    """Without what a terminal would obey: images say what they like."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text)


def _short(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:_DIGITS_SHOWN]}"


def _list(words: Sequence[str]) -> str:
    return msgspec.json.encode(words).decode() if words else ""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _print_json(report: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
