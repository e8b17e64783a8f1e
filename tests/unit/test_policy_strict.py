"""The policy `strict`: a part of run, with one execution that init counts."""

import errno
from pathlib import Path

import pytest

from jail import policy as policies
from jail.policy import numbers
from jail.policy.simulate import Verdict

POLICIES = Path(__file__).parents[2] / "policies"
STRICT = policies.load("strict", POLICIES)
PROGRAM = policies.compile_policy(STRICT)


def verdict(number, *args):
    return policies.simulate(PROGRAM, number, args).verdict


def test_only_an_execution_is_handed_to_init_and_it_is_the_only_one():
    handed = [number for number in numbers.known() if verdict(number, 0) is Verdict.USER_NOTIF]
    assert handed == [numbers.number("execve")]
    assert policies.counted_calls(STRICT) == ((numbers.number("execve"), 1, errno.EPERM),)


@pytest.mark.parametrize(
    "call", ["fork", "vfork", "clone3", "execveat", "socket", "socketpair", "connect", "bind", "ptrace"]
)
def test_what_would_make_more_of_one_is_refused(call):
    assert verdict(numbers.number(call), 1, 1, 0) is Verdict.ERRNO
