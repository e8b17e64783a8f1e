"""`jail doctor`: what this host can promise."""

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def doctor(as_json: bool) -> None:
    """Say what this host can promise, each gap with its cause and its cure."""
    raise SystemExit(1)
