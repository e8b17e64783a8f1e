"""The policy `strict`: a part of run, with one execution that init counts."""

import errno
import itertools
from pathlib import Path

import pytest

from jail import policy as policies
from jail.policy import numbers
from jail.policy.simulate import Verdict

POLICIES = Path(__file__).parents[2] / "policies"
STRICT, RUN = (policies.load(name, POLICIES) for name in ("strict", "run"))
PROGRAMS = {policy.name: policies.compile_policy(policy) for policy in (STRICT, RUN)}
EDGES = sorted(
    {0, 1, 2, 0xFFFFFFFF}
    | {
        value ^ change
        for rule in (*STRICT.rules, *RUN.rules)
        for condition in rule.conditions
        for value in condition.values
        for change in (0, condition.mask & -condition.mask, ~condition.mask & 0xFFFFFFFF)
    }
)


def verdict(policy, number, *args):
    return policies.simulate(PROGRAMS[policy], number, args).verdict


@pytest.mark.parametrize("number", sorted(numbers.known()))
def test_whatever_strict_allows_run_allows(number):
    for values in itertools.product(EDGES, repeat=1):
        for place in range(3):
            args = (0,) * place + values
            if verdict("strict", number, *args) is Verdict.ALLOW:
                assert verdict("run", number, *args) is Verdict.ALLOW, args


def test_only_an_execution_is_handed_to_init_and_it_is_the_only_one():
    handed = [number for number in numbers.known() if verdict("strict", number, 0) is Verdict.USER_NOTIF]
    assert handed == [numbers.number("execve")]
    assert policies.counted_calls(STRICT) == ((numbers.number("execve"), 1, errno.EPERM),)


@pytest.mark.parametrize(
    "call", ["fork", "vfork", "clone3", "execveat", "socket", "socketpair", "connect", "bind", "ptrace"]
)
def test_what_would_make_more_of_one_is_refused(call):
    assert verdict("strict", numbers.number(call), 1, 1, 0) is Verdict.ERRNO
