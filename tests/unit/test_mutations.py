"""The list of barriers to switch off is whole and up to date: scripts/mutate.py uses it."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
MUTATIONS = tomllib.loads((CHECKOUT / "tests" / "mutations.toml").read_text())["mutation"]


@cache
def functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_set_up_tables_is_switched_off():
    rows = re.findall(r"\{ STAGE_\w+, \w+ \}", (CHECKOUT / "native" / "setup.c").read_text())
    edits = "".join(edit["old"] for edit in MUTATIONS if edit["file"] == "native/setup.c")
    assert len(rows) > 25
    assert [row for row in rows if edits.count(row) != rows.count(row)] == []


@pytest.mark.parametrize("edit", MUTATIONS, ids=lambda edit: edit["name"])
def test_what_an_edit_replaces_is_there_once(edit):
    assert (CHECKOUT / edit["file"]).read_text().count(edit["old"]) == 1


@pytest.mark.parametrize("edit", MUTATIONS, ids=lambda edit: edit["name"])
def test_the_tests_that_an_edit_names_are_there(edit):
    named = [test.split("::") for test in edit["tests"]]
    assert [name for path, name in named if name.split("[")[0] not in functions(CHECKOUT / path)] == []


def test_no_two_edits_have_one_name():
    names = [edit["name"] for edit in MUTATIONS]
    assert len(set(names)) == len(names)
