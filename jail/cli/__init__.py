"""The command line: `jail serve`, `run`, `judge`, `doctor`, `image`, `file` and `policy`."""

import click

from jail import __version__
from jail.cli.doctor import doctor
from jail.cli.file import file
from jail.cli.image import image
from jail.cli.judge import judge
from jail.cli.policy import policy
from jail.cli.run import run
from jail.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jail")
def main() -> None:
    """Run code that nobody trusts, each job in a sandbox of its own."""


main.add_command(serve)
main.add_command(run)
main.add_command(judge)
main.add_command(doctor)
main.add_command(image)
main.add_command(file)
main.add_command(policy)
