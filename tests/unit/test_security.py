"""SECURITY.md names files and tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (?P<barrier>.+) \| `(?P<file>[^`]+)` \| `(?P<test>[^`]+)` \|$", re.MULTILINE)
ROWS = [match.groupdict() for match in ROW.finditer((ROOT / "SECURITY.md").read_text())]


def test_there_are_rows():
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["barrier"])
def test_a_barrier_names_a_file_and_a_test_that_exist(row):
    module, _, function = row["test"].partition("::")

    assert (ROOT / row["file"]).is_file()
    assert not function or f"def {function}(" in (ROOT / module).read_text()
    assert (ROOT / module).is_file()
