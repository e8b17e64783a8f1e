"""The shipped policies one within the other: strict, run, default."""

import itertools
from pathlib import Path

import pytest

from jail import policy as policies
from jail.policy import numbers
from jail.policy.simulate import Verdict

POLICIES = Path(__file__).parents[2] / "policies"
LOADED = {name: policies.load(name, POLICIES) for name in ("strict", "run", "default")}
PROGRAMS = {name: policies.compile_policy(policy) for name, policy in LOADED.items()}
ALLOWED = policies.Action(Verdict.ALLOW, 0)
WORD = 1 << 32


def ask(policy, number, args):
    return policies.simulate(PROGRAMS[policy], number, args)


def edges(pair, number, argument):
    """Every value that a rule of either policy names for one argument, and its neighbours."""
    conditions = [
        condition
        for name in pair
        for rule in LOADED[name].rules
        if numbers.number(rule.call) == number
        for condition in rule.conditions
        if condition.argument == argument
    ]
    values = {value for condition in conditions for value in condition.values}
    outside = {value | ~c.mask % WORD for c in conditions for value in c.values}
    masked = {value ^ (c.mask & -c.mask) for c in conditions for value in c.values}
    return sorted(values | {value + 1 for value in values} | outside | masked | {0, 1, 2, WORD - 1})


@pytest.mark.parametrize("pair", [("strict", "run"), ("run", "default")], ids=" in ".join)
@pytest.mark.parametrize("number", sorted(numbers.known()))
def test_whatever_the_narrower_policy_allows_the_wider_allows(pair, number):
    narrow, wide = pair
    for args in itertools.product(*(edges(pair, number, argument) for argument in range(4))):
        if ask(narrow, number, args) == ALLOWED:
            assert ask(wide, number, args) == ALLOWED, args
