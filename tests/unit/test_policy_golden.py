"""The listing of each shipped policy stands in golden/, so that a review sees what a change lets through."""

import difflib
from pathlib import Path

import pytest

from jail import policy as policies
from jail.policy import listing

POLICIES = Path(__file__).parents[2] / "policies"
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", policies.names(POLICIES))
def test_policy_allows_what_its_golden_listing_says(name):
    path = GOLDEN / f"{name}.txt"
    command = f"jail policy show {name} --directory policies > tests/unit/golden/{name}.txt"

    golden = path.read_text() if path.exists() else ""
    found = listing.plain(policies.load(name, POLICIES))

    changes = difflib.unified_diff(golden.splitlines(), found.splitlines(), "golden", name, n=0, lineterm="")
    assert found == golden, "\n".join(
        [*changes, f"If policy {name} shall be so, commit its new listing with the change: {command}"]
    )


def test_every_golden_listing_has_its_policy():
    assert sorted(path.stem for path in GOLDEN.iterdir()) == policies.names(POLICIES)
