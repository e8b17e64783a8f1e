"""The attack suite is whole: every row of the catalogue that has its time has a test."""

import ast
import importlib.util
from pathlib import Path

ATTACKS = Path(__file__).parents[1] / "attacks"
ROWS = set(range(1, 146))

_spec = importlib.util.spec_from_file_location("attacks_conftest", ATTACKS / "conftest.py")
conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(conftest)


def docstrings():
    # The siege is all of them at once.
    for path in sorted(set(ATTACKS.glob("test_*.py")) - {ATTACKS / "test_siege.py"}):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.name}::{node.name}", ast.get_docstring(node) or ""


def test_every_attack_has_a_test():
    tested = set().union(*(conftest.rows(text) for _, text in docstrings()))
    assert sorted(ROWS - tested) == []


def test_every_test_names_its_attack():
    assert [name for name, text in docstrings() if not conftest.rows(text)] == []


def test_rows_are_read_from_a_docstring():
    assert conftest.rows("Attack 7. By the filter.") == {7}
    assert conftest.rows("Attacks 3, 5 and 8.") == {3, 5, 8}
    assert conftest.rows("Attacks 15 to 17.") == {15, 16, 17}
    assert conftest.rows("What 3 do.") == set()
