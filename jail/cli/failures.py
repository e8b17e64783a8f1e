"""How a command ends that could not do its work: one sentence of cause, one of cure."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from jail.errors import HostError
from jail.policy import PolicyError
from jail.settings import SettingsError


@contextmanager
def explained(status: int = 1) -> Iterator[None]:
    """Turn what an operator can mend into a message and an exit status.

    Anything else is our bug and shows its trace.
    """
    try:
        yield
    except HostError as error:
        click.echo(f"jail: {error.cause}\n      {error.cure}", err=True)
        raise SystemExit(status) from None
    except (SettingsError, PolicyError) as error:
        click.echo(f"jail: {error}", err=True)
        raise SystemExit(status) from None
