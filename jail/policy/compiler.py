"""From a policy to the bytes that seccomp(2) loads.

Two programs end to end: our `prologue` decides what a call's number alone decides, which
the kernel then answers without running the filter at all (`cacheable`); libseccomp's
compares arguments, and kills what comes through another architecture's entry.
"""

import errno
import itertools
import os
from typing import Any

from jail.policy import bpf, numbers
from jail.policy.binding import libseccomp
from jail.policy.numbers import PolicyError
from jail.policy.prologue import GO_ON, prologue
from jail.policy.text import Policy, Rule

# CTL_OPTIMIZE: 1 is a list by priority, 2 a binary tree (seccomp_attr_set(3)).
_BINARY_TREE = 2


REQUIRED = frozenset({"execve", "exit_group", "write"})
"""What init's child does once it has loaded the filter: execute the program, or tell that it cannot."""


def compile_policy(policy: Policy, required: frozenset[str] = REQUIRED) -> bytes:
    """Make the filter for this machine: an array of struct sock_filter, in native byte order.

    An instruction is 8 bytes. `required`: what whoever loads it cannot do without; by default it is a
    job. Raises PolicyError if the policy does not allow that, libseccomp refuses a rule, or the program
    is longer than the kernel takes.
    """
    missing = sorted(required - policy.allow)
    if missing:
        raise PolicyError(f"{policy.name}: allow has to name {', '.join(missing)}, or no job can start")
    try:
        first = prologue(_answers(policy), bpf.RET_ERRNO | errno.ENOSYS)
    except ValueError as error:
        raise PolicyError(f"{policy.name}: {error}") from None
    program = first + _export(_filter(policy))
    instructions = len(program) // bpf.INSTRUCTION.size
    if instructions > bpf.INSTRUCTIONS_MAX:
        raise PolicyError(
            f"{policy.name}: {instructions} instructions; the kernel takes {bpf.INSTRUCTIONS_MAX}"
        )
    return program


def surface(policy: Policy) -> tuple[int, int]:
    """Count the calls that `policy` allows in any form, and all that this architecture has."""
    allowed = {numbers.number(call) for call in policy.allow | {rule.call for rule in policy.rules}}
    return len(allowed - {None}), len(numbers.known())


def _answers(policy: Policy) -> dict[int, int]:
    """Map each known number to its answer; a number that is missing is newer than our tables."""
    decided = dict.fromkeys(policy.allow, bpf.RET_ALLOW)
    decided |= {call: bpf.RET_ERRNO | code for call, code in policy.answers.items()}
    decided |= {rule.call: GO_ON for rule in policy.rules}
    answers = dict.fromkeys(numbers.known(), bpf.RET_ERRNO | errno.EPERM)
    answers |= {numbers.number(call): answer for call, answer in decided.items()}
    # Old calls that this architecture never had, such as open on aarch64.
    answers.pop(None, None)
    return answers


def _filter(policy: Policy) -> Any:
    seccomp = libseccomp()
    made = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    made.set_attr(seccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    for rule in policy.rules:
        nr = numbers.number(rule.call)
        if nr is not None:
            _add(made, nr, rule)
    return made


def _add(made: Any, nr: int, rule: Rule) -> None:
    """Allow every combination of the rule's values.

    Always MASKED_EQ with at most 32 bits of mask: see the head of `text`.
    """
    seccomp = libseccomp()
    choices = [
        [
            seccomp.Arg(condition.argument, seccomp.MASKED_EQ, condition.mask, value)
            for value in condition.values
        ]
        for condition in rule.conditions
    ]
    for comparisons in itertools.product(*choices):
        try:
            made.add_rule_exactly(seccomp.ALLOW, nr, *comparisons)
        except (OSError, RuntimeError) as error:
            # OSError is pyseccomp's way, RuntimeError that of libseccomp's own binding.
            raise PolicyError(f"{rule.source}: libseccomp refuses the rule: {error}") from error


def _export(made: Any) -> bytes:
    with open(os.memfd_create("policy", os.MFD_CLOEXEC), "w+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()
