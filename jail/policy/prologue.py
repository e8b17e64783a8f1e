"""The first part of every filter: what a call's number alone decides.

libseccomp compares with one number at a time, and its one default answer cannot be EPERM
for calls we chose to refuse and ENOSYS for calls we have never heard of. Here neighbouring
numbers with one answer are one run, and a binary search finds the run: a third of the code
for the same decisions. That counts because the kernel translates the whole program at every
load, once a job, at about 0.4 us an instruction (measured on Linux 6.18, x86_64).

Layout: load the architecture and the number, one comparison for each border between runs,
one return for each answer. Whoever is sent to the end meets the program that follows.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from jail.policy import bpf

# An answer that no return instruction gives: what follows the prologue decides.
GO_ON = -1

# A conditional jump reaches 255 instructions ahead, and the one on the architecture, second
# in the program, jumps to the end.
_INSTRUCTIONS_MAX = 257
_HEADER = 3

_Instruction = tuple[int, int, int, int]


class _Run(NamedTuple):
    """Numbers from start up to the next run's start, all with one answer."""

    start: int
    answer: int


def prologue(answers: Mapping[int, int], otherwise: int) -> bytes:
    """Make a program that returns answers[nr] for a native call, and goes on for a foreign one.

    answers holds SECCOMP_RET_* values, or GO_ON; otherwise is for the numbers not in it. Numbers
    with the x32 bit always go on. Raises ValueError if the answers change too often along the
    numbers.
    """
    runs = _runs(answers, otherwise)
    returns = sorted({run.answer for run in runs} - {GO_ON})
    first_return = _HEADER + len(runs) - 1
    end = first_return + len(returns)
    if end > _INSTRUCTIONS_MAX:
        raise ValueError(f"{len(runs)} runs of numbers with one answer are more than jumps can span")
    leaves = {answer: first_return + index for index, answer in enumerate(returns)}
    code = [
        (bpf.LOAD, 0, 0, bpf.ARCH_OFFSET),
        (bpf.JUMP_EQUAL, 0, end - 2, bpf.native_arch()),
        (bpf.LOAD, 0, 0, bpf.NR_OFFSET),
        *_search(runs, _HEADER, leaves | {GO_ON: end}),
        *((bpf.RETURN, 0, 0, answer) for answer in returns),
    ]
    return b"".join(bpf.INSTRUCTION.pack(*instruction) for instruction in code)


def _runs(answers: Mapping[int, int], otherwise: int) -> list[_Run]:
    # One number past the last, so that `otherwise` has a run that reaches up to the x32 bit.
    each = [_Run(nr, answers.get(nr, otherwise)) for nr in range(max(answers) + 2)]
    each.append(_Run(bpf.X32_BIT, GO_ON))
    return [next(run) for _, run in groupby(each, key=lambda run: run.answer)]


def _search(runs: Sequence[_Run], at: int, leaves: Mapping[int, int]) -> list[_Instruction]:
    """Give the comparisons, from position `at` on, that jump to leaves[answer] of the right run."""
    if len(runs) == 1:
        return []
    middle = len(runs) // 2
    below, above = runs[:middle], runs[middle:]
    # n runs take n - 1 comparisons; a single run takes none, and its leaf is jumped to at once.
    below_at = at + 1 if len(below) > 1 else leaves[below[0].answer]
    above_at = at + len(below) if len(above) > 1 else leaves[above[0].answer]
    here = (bpf.JUMP_GREATER_EQUAL, above_at - at - 1, below_at - at - 1, above[0].start)
    return [here, *_search(below, at + 1, leaves), *_search(above, at + len(below), leaves)]
