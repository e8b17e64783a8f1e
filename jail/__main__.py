"""`python -m jail` is `jail`."""

from jail.cli import main

main(prog_name="jail")
