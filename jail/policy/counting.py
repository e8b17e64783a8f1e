"""The second part of a filter: the uses of a call that are counted, and those that are not.

Init counts, and answers: native/listener.c. libseccomp has no rule for "allowed, but if an
argument has this value init is asked", so these few instructions are ours.

Layout: a foreign architecture skips it all; for each counted call, whatever has another number skips its
block, whatever meets every condition goes to init, and the rest is allowed.
"""

from collections.abc import Sequence

from jail.policy import bpf, numbers
from jail.policy.numbers import PolicyError
from jail.policy.text import Condition, Counted

# The jump over all of it, from its second instruction.
_INSTRUCTIONS_MAX = 257

_Instruction = tuple[int, int, int, int]


def counting(counted: Sequence[Counted]) -> bytes:
    """The program for these calls; none for none. Raises PolicyError if there are too many values."""
    code = [instruction for rule in counted for instruction in _block(rule)]
    if not code:
        return b""
    if len(code) > _INSTRUCTIONS_MAX - 2:
        raise PolicyError(f"{counted[0].source}: too many values are compared to count by")
    head = [
        (bpf.LOAD, 0, 0, bpf.ARCH_OFFSET),
        (bpf.JUMP_EQUAL, 0, len(code), bpf.native_arch()),
    ]
    return b"".join(bpf.INSTRUCTION.pack(*instruction) for instruction in (*head, *code))


def _block(rule: Counted) -> list[_Instruction]:
    number = numbers.number(rule.call)
    # A call that this architecture never had.
    if number is None:
        return []
    ask, allow = (bpf.RETURN, 0, 0, bpf.RET_USER_NOTIF), (bpf.RETURN, 0, 0, bpf.RET_ALLOW)
    body: list[_Instruction] = [ask, allow]
    for condition in reversed(rule.conditions):
        body = _compare(condition, len(body)) + body
    return [(bpf.LOAD, 0, 0, bpf.NR_OFFSET), (bpf.JUMP_EQUAL, 0, len(body), number), *body]


def _compare(condition: Condition, following: int) -> list[_Instruction]:
    """Go on if the argument has one of the values, else to the last of the `following` instructions."""
    compared: list[_Instruction] = []
    # From the last value to the first, each one instruction further from what follows.
    for value in reversed(condition.values):
        missed = 0 if compared else following - 1
        compared.insert(0, (bpf.JUMP_EQUAL, len(compared), missed, value))
    return [
        (bpf.LOAD, 0, 0, bpf.ARGUMENT_OFFSETS[condition.argument]),
        (bpf.AND, 0, 0, condition.mask),
        *compared,
    ]
