"""How a command ends that could not do its work: one sentence of cause, one of cure."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from jail.doctor import Trial, describe_host, examine
from jail.errors import ExplainedError, SandboxError
from jail.languages.definitions import LanguageError
from jail.outcome import Failure
from jail.policy import PolicyError
from jail.settings import DEGRADABLE, Settings, SettingsError


@contextmanager
def explained(status: int = 1) -> Iterator[None]:
    """Turn what an operator can mend into a message and an exit status.

    Anything else is our bug and shows its trace.
    """
    try:
        yield
    except ExplainedError as error:
        complain(error)
        if isinstance(error.__cause__, SandboxError):
            _say_what_is_missing(error.__cause__)
        raise SystemExit(status) from None
    except (SettingsError, PolicyError, LanguageError) as error:
        click.echo(f"jail: {error}", err=True)
        raise SystemExit(status) from None


def complain(error: ExplainedError) -> None:
    """Tell an operator what was found and what to do, on stderr."""
    click.echo(f"jail: {error.cause}\n      {error.cure}", err=True)


def _say_what_is_missing(error: SandboxError) -> None:
    """What doctor makes of a sandbox that this host did not give: in a container nobody comes to ask it."""
    trial = Trial(failure=Failure(error.stage, error.error, error.index))
    # What the host cannot give was accepted, or there would have been no sandbox to try.
    accepted = Settings(allow_degraded=DEGRADABLE)
    for check in examine(describe_host(accepted, trial)):
        if check.status == "missing":
            click.echo(f"      {check.name}: {check.cause}\n      {check.cure}", err=True)
