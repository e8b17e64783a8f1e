"""The seeds of native/fuzz.c are those of the layout that it reads."""

import runpy
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_the_seeds_are_what_the_script_writes():
    written = runpy.run_path(str(CHECKOUT / "scripts" / "corpus.py"))["seeds"]()
    kept = {path.name: path.read_bytes() for path in (CHECKOUT / "native" / "corpus").iterdir()}
    assert kept == written
