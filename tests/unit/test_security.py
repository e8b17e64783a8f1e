"""SECURITY.md names files and tests that exist."""

import platform
import re
from pathlib import Path

import pytest

from jail import policy

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
ROW = re.compile(r"^\| (?P<barrier>.+) \| `(?P<file>[^`]+)` \| `(?P<test>[^`]+)` \|$", re.MULTILINE)
ROWS = [match.groupdict() for match in ROW.finditer(TEXT)]


def test_there_are_rows():
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["barrier"])
def test_a_barrier_names_a_file_and_a_test_that_exist(row):
    module, _, function = row["test"].partition("::")

    assert (ROOT / row["file"]).is_file()
    assert not function or f"def {function}(" in (ROOT / module).read_text()
    assert (ROOT / module).is_file()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
def test_the_surface_of_each_policy_is_as_it_says():
    told = re.search(r"^\| system calls, in any form \| (\d+) \| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE)
    loaded = [policy.load(name, ROOT / "policies") for name in ("default", "run", "strict")]
    assert [int(number) for number in told.groups()] == [policy.surface(one)[0] for one in loaded]
