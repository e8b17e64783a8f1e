"""Every filter that is shipped, the service's own among them: its answer to every call is what its text says.

Calls are asked with every value that the text or the program compares with, and with its neighbours: between
these neither can change its answer.
"""

import errno
import itertools
from pathlib import Path

import pytest

from jail import policy as policies
from jail.policy import bpf, numbers
from jail.policy.simulate import Action, Verdict, simulate

POLICIES = Path(__file__).parents[2] / "policies"
LOADED = {name: policies.load(name, POLICIES) for name in policies.names(POLICIES)}
LOADED |= {name: policies.load(name, POLICIES / "service") for name in policies.names(POLICIES / "service")}
PROGRAMS = {name: policies.compile_policy(policy, required={}) for name, policy in LOADED.items()}
NATIVE = bpf.native_arch()
WORD = 1 << 32
RULED = [
    (name, nr)
    for name, policy in LOADED.items()
    for nr in sorted({numbers.number(rule.call) for rule in (*policy.rules, *policy.counted)} - {None})
]
ALLOWED, ASKED = Action(Verdict.ALLOW, 0), Action(Verdict.USER_NOTIF, 0)


def expected(policy, nr, args):
    """What the text says of a native call."""
    for rule in (rule for rule in policy.counted if numbers.number(rule.call) == nr):
        return ASKED if holds(rule, args) else ALLOWED
    rules = [rule for rule in policy.rules if numbers.number(rule.call) == nr]
    if any(holds(rule, args) for rule in rules) or nr in map(numbers.number, policy.allow):
        return ALLOWED
    codes = {numbers.number(call): code for call, code in policy.answers.items()}
    return Action(Verdict.ERRNO, codes.get(nr, errno.EPERM if nr in numbers.known() else errno.ENOSYS))


def holds(rule, args):
    """The kernel reads an int: the low 32 bits."""
    return all(args[c.argument] % WORD & c.mask in c.values for c in rule.conditions)


def comparisons(code, nr):
    """Each (offset, mask, value) of an argument that the program may compare with for this number."""
    instructions = list(bpf.INSTRUCTION.iter_unpack(code))
    waiting, seen, found = [(0, None, 0)], set(), set()
    while waiting:
        state = at, offset, mask = waiting.pop()
        op, if_true, if_false, k = instructions[at]
        if op == bpf.RETURN or state in seen:
            continue
        seen.add(state)
        if op == bpf.LOAD:
            waiting.append((at + 1, k, WORD - 1))
        elif op == bpf.AND:
            waiting.append((at + 1, offset, mask & k))
        elif op == bpf.JUMP:
            waiting.append((at + 1 + k, offset, mask))
        elif offset in (bpf.NR_OFFSET, bpf.ARCH_OFFSET):
            value = nr if offset == bpf.NR_OFFSET else NATIVE
            is_met = {
                bpf.JUMP_EQUAL: value & mask == k,
                bpf.JUMP_GREATER: value & mask > k,
                bpf.JUMP_GREATER_EQUAL: value & mask >= k,
                bpf.JUMP_ANY_BIT: value & mask & k != 0,
            }[op]
            waiting.append((at + 1 + (if_true if is_met else if_false), offset, mask))
        else:
            found.add((offset, mask, k))
            waiting += [(at + 1 + if_true, offset, mask), (at + 1 + if_false, offset, mask)]
    return found


def edges(name, nr, argument):
    """Values on both sides of every comparison with one argument, and the same with other bits beside."""
    rules = (*LOADED[name].rules, *LOADED[name].counted)
    pairs = {
        (condition.mask, value)
        for rule in rules
        if numbers.number(rule.call) == nr
        for condition in rule.conditions
        if condition.argument == argument
        for value in condition.values
    }
    offset = bpf.ARGUMENT_OFFSETS[argument]
    pairs |= {(mask, k) for at, mask, k in comparisons(PROGRAMS[name], nr) if at == offset}
    near = {value + change for _, value in pairs for change in (-1, 0, 1)}
    other = {value | ~mask % WORD for mask, value in pairs} | {value ^ mask & -mask for mask, value in pairs}
    return sorted({value % WORD for value in near | other} | {0})


@pytest.mark.parametrize("name", LOADED)
def test_every_number_without_rules_is_answered_whatever_the_arguments_are(name):
    ruled = {nr for policy, nr in RULED if policy == name}
    for nr in {*range(1024), 0x3FFFFFFF} - ruled:
        for args in ([0] * 6, [WORD**2 - 1] * 6):
            assert simulate(PROGRAMS[name], nr, args) == expected(LOADED[name], nr, args), (nr, args)
        assert comparisons(PROGRAMS[name], nr) == set(), nr


@pytest.mark.parametrize(("name", "nr"), RULED)
def test_every_call_with_rules_is_answered_at_every_edge(name, nr):
    for args in itertools.product(*(edges(name, nr, argument) for argument in range(6))):
        answer = expected(LOADED[name], nr, args)
        for high in (0, WORD, WORD**2 - WORD):
            disguised = [high | value for value in args]
            assert simulate(PROGRAMS[name], nr, disguised) == answer, disguised


@pytest.mark.parametrize(("name", "nr"), RULED)
def test_no_upper_half_of_an_argument_is_looked_at(name, nr):
    assert {offset for offset, _, _ in comparisons(PROGRAMS[name], nr)} <= set(bpf.ARGUMENT_OFFSETS)


FOREIGN = [0, 1, bpf.AUDIT_ARCH_I386, *bpf.AUDIT_ARCHES.values(), NATIVE - 1, NATIVE + 1, WORD - 1]


@pytest.mark.parametrize("name", LOADED)
@pytest.mark.parametrize("arch", sorted(set(FOREIGN) - {NATIVE}), ids=hex)
def test_every_call_by_another_architecture_is_killed(name, arch):
    asked = {*range(1024), bpf.X32_BIT - 1, bpf.X32_BIT, WORD // 2, WORD - 2, WORD - 1}
    answers = {simulate(PROGRAMS[name], nr, [0] * 6, arch) for nr in asked}

    assert answers == {Action(Verdict.KILL_PROCESS, 0)}


@pytest.mark.skipif(bpf.AUDIT_ARCHES["x86_64"] != NATIVE, reason="only x86_64 has an x32 entry")
@pytest.mark.parametrize("name", LOADED)
def test_every_number_of_the_x32_entry_is_killed_and_a_skipped_one_refused(name):
    x32 = {bpf.X32_BIT | nr for nr in range(1024)} | {WORD // 2 - 1, WORD // 2, WORD - 2}

    assert {simulate(PROGRAMS[name], nr, [0] * 6) for nr in x32} == {Action(Verdict.KILL_PROCESS, 0)}
    # What ptrace(2) makes of a call that is to be skipped.
    assert simulate(PROGRAMS[name], -1, [0] * 6) == Action(Verdict.ERRNO, errno.EPERM)
