"""From a policy to the bytes that seccomp(2) loads.

libseccomp's program compares the arguments of the calls that have rules, and kills what comes through
another architecture's entry. What it decides is read from it (`decisions`) and joined with what we decide,
since its one default answer cannot be EPERM for calls we refuse and ENOSYS for calls we have never heard of:
all that a call's number alone decides, which the kernel then answers without running the filter
(`cacheable`), and the uses that are counted (`counting`). `assembly` makes one program of it, half as long
as libseccomp's.
"""

import errno
import itertools
import os
from collections.abc import Iterable, Mapping
from typing import Any

from jail.policy import arguments, bpf, numbers
from jail.policy.assembly import assemble
from jail.policy.binding import libseccomp
from jail.policy.counting import counting
from jail.policy.decisions import ARCH, NUMBER, Node, decide, read, says_go_on
from jail.policy.numbers import PolicyError
from jail.policy.simulate import Verdict, simulate
from jail.policy.text import Policy, Rule

# CTL_OPTIMIZE: 1 is a list by priority, 2 a binary tree (seccomp_attr_set(3)).
_BINARY_TREE = 2


_MSG_NOSIGNAL = 0x4000
REQUIRED = {
    "execve": (),
    "exit_group": (),
    "write": (),
    "sendmsg": (0, 0, _MSG_NOSIGNAL),
}
"""What init's child does under the filter, with what arguments: execute the program, tell that it cannot, or
hand over the filter's listener."""


def compile_policy(policy: Policy, required: Mapping[str, tuple[int, ...]] = REQUIRED) -> bytes:
    """Make the filter for this machine: an array of struct sock_filter, in native byte order.

    An instruction is 8 bytes. `required`: what whoever loads it cannot do without; by default it is a
    job. Raises PolicyError if the policy does not allow that, libseccomp refuses a rule, or the program
    is longer than the kernel takes.
    """
    exported = _export(_filter(policy.rules))
    # What is too long to read stays libseccomp's: whatever GO_ON is said of runs into it.
    decided = _decided(policy, exported)
    program = assemble(decided) + (exported if says_go_on(decided) else b"")
    instructions = len(program) // bpf.INSTRUCTION.size
    if instructions > bpf.INSTRUCTIONS_MAX:
        raise PolicyError(
            f"{policy.name}: {instructions} instructions; the kernel takes {bpf.INSTRUCTIONS_MAX}"
        )
    _check_required(policy.name, program, required)
    return program


def _check_required(name: str, program: bytes, required: Mapping[str, tuple[int, ...]]) -> None:
    verdicts = {
        call: simulate(program, numbers.number(call), args).verdict for call, args in required.items()
    }
    missing = [call for call, verdict in verdicts.items() if verdict not in _passed(call)]
    if missing:
        raise PolicyError(f"{name}: {', '.join(missing)} must be allowed, or no job can start")


def _passed(call: str) -> tuple[Verdict, ...]:
    # Nobody listens before the listener has been handed over.
    return (Verdict.ALLOW,) if call == "sendmsg" else (Verdict.ALLOW, Verdict.USER_NOTIF)


def explained(program: bytes) -> bytes:
    """The same filter, but calls that it answers with an errno go to init, which tells of them."""
    instructions = bpf.INSTRUCTION.iter_unpack(program)
    return b"".join(
        bpf.INSTRUCTION.pack(code, true, false, bpf.RET_USER_NOTIF if _is_errno(code, k) else k)
        for code, true, false, k in instructions
    )


def _is_errno(code: int, k: int) -> bool:
    return code == bpf.RETURN and k & ~bpf.RET_DATA_MASK == bpf.RET_ERRNO


def counted_calls(policy: Policy) -> tuple[tuple[int, int, int], ...]:
    """Number, maximum and errno from then on, of each call here that `policy` counts."""
    found = ((numbers.number(rule.call), rule.maximum, rule.error) for rule in policy.counted)
    return tuple(entry for entry in found if entry[0] is not None)


def denials(policy: Policy) -> list[tuple[int, int]]:
    """By a call's number: the errno when `policy` denies it, and how many arguments it has."""
    codes = {numbers.number(call): code for call, code in policy.answers.items()}
    known = numbers.known()
    return [
        (codes.get(nr, errno.EPERM), arguments.count(nr)) if nr in known else (errno.ENOSYS, 0)
        for nr in range(max(known) + 1)
    ]


def surface(policy: Policy) -> tuple[int, int]:
    """Count the calls that `policy` allows in any form, and all that this architecture has."""
    allowed = {numbers.number(call) for call in policy.allowed}
    return len(allowed - {None}), len(numbers.known())


def _decided(policy: Policy, exported: bytes) -> Node:
    """All that the filter decides; `exported` about other architectures and x32's numbers.

    Of arguments each call has a program of its own: libseccomp 2.5.4 lets calls share what compares the same,
    and then does not always load what is compared.
    """
    native = bpf.native_arch()
    is_native = {ARCH: (native, native)}
    answers = _answers(policy)
    for call in {rule.call for rule in policy.rules if numbers.number(rule.call) is not None}:
        nr = numbers.number(call)
        own = _export(_filter([rule for rule in policy.rules if rule.call == call]))
        answers[nr] = read(own, is_native | {NUMBER: (nr, nr)})
    # One number past the last, so that what is newer has a run that reaches up to the x32 bit.
    runs = [(nr, answers.get(nr, bpf.RET_ERRNO | errno.ENOSYS)) for nr in range(max(answers) + 2)]
    runs.append((bpf.X32_BIT, read(exported, is_native | {NUMBER: (bpf.X32_BIT, bpf.WORD_MAX)})))
    below = read(exported, {ARCH: (0, native - 1)})
    above = read(exported, {ARCH: (native + 1, bpf.WORD_MAX)})
    return decide(ARCH, [(0, below), (native, decide(NUMBER, runs)), (native + 1, above)])


def _answers(policy: Policy) -> dict[int | None, Node]:
    """What follows from each known number without rules; one that is missing is newer than our tables."""
    decided: dict[str, Node] = dict.fromkeys(policy.allow, bpf.RET_ALLOW)
    decided |= {call: bpf.RET_ERRNO | code for call, code in policy.answers.items()}
    decided |= {rule.call: counting(rule) for rule in policy.counted}
    answers: dict[int | None, Node] = dict.fromkeys(numbers.known(), bpf.RET_ERRNO | errno.EPERM)
    answers |= {numbers.number(call): answer for call, answer in decided.items()}
    # Old calls that this architecture never had, such as open on aarch64.
    answers.pop(None, None)
    return answers


def _filter(rules: Iterable[Rule]) -> Any:
    seccomp = libseccomp()
    made = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    try:
        made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    except (OSError, RuntimeError) as error:
        # libseccomp asks the kernel, with seccomp(2), whether it has that action.
        raise PolicyError(
            "the kernel has no seccomp filters, or a container's profile refuses the call seccomp"
        ) from error
    made.set_attr(seccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    for rule in rules:
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
