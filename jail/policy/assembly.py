"""Decisions made instructions, few of them and few on the way to an answer.

At each load, once a job, the kernel checks, translates and writes every instruction: about 0.1 us each
(measured on Linux 6.18, x86_64). Then it runs the filter on the number of every call, 470 of them, to
learn for which it need not be run: 3 to 7 ns for each instruction on the way.

A decision is a load, a mask if not all bits count, and comparisons. What several lead to stands there once.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from jail.policy import bpf
from jail.policy.decisions import GO_ON, NUMBER, Decision, Node, Word
from jail.policy.numbers import LAST_KNOWN

# A conditional jump reaches 255 instructions ahead; one may come between (_near).
_REACH = 254
# Among so few values, one that stands alone is compared with by itself: one comparison in place of two.
_LIST_MAX = 16


class _Run(NamedTuple):
    """Values from start up to the next run's start, what follows from them, and how many are looked for."""

    start: int
    node: Node
    weight: int


def assemble(node: Node) -> bytes:
    """The program that decides so; where it says GO_ON, it runs past its end."""
    made = _Backwards()
    made.place(node)
    return b"".join(bpf.INSTRUCTION.pack(*instruction) for instruction in reversed(made.code))


class _Backwards:
    """A program from its end to its start, as jumps lead ahead. A place is an index in `code`."""

    def __init__(self) -> None:
        self.code: list[tuple[int, int, int, int]] = []
        self._places: dict[Node, int] = {GO_ON: -1}
        self._nearer: dict[int, int] = {}

    def place(self, node: Node) -> int:
        """Where it is decided so; from now on, if it was not yet."""
        if node not in self._places:
            self._places[node] = self._decide(node) if isinstance(node, Decision) else self._answer(node)
        return self._places[node]

    def _answer(self, answer: int) -> int:
        return self._add(bpf.RETURN, 0, 0, answer)

    def _decide(self, decision: Decision) -> int:
        word, runs = decision.word, decision.runs
        if [start for start, _ in runs] == [0, 1]:
            none, some = (self.place(node) for _, node in runs)
            self._compare(bpf.JUMP_ANY_BIT, word.mask, some, none)
        else:
            self._search(_weighed(word, runs))
            if word.mask != bpf.WORD_MAX:
                self._add(bpf.AND, 0, 0, word.mask)
        return self._add(bpf.LOAD, 0, 0, word.offset)

    def _search(self, runs: Sequence[_Run]) -> int:
        if len(runs) == 1:
            return self.place(runs[0].node)
        code, k, met, missed = _split(runs)
        return self._compare(code, k, self._search(met), self._search(missed))

    def _compare(self, code: int, k: int, met: int, missed: int) -> int:
        met, missed = self._near(met), self._near(missed)
        last = len(self.code) - 1
        return self._add(code, last - met, last - missed, k)

    def _near(self, place: int) -> int:
        """A place that the next instruction reaches: this one, or one that does the same."""
        near = self._nearer.get(place, place)
        distance = len(self.code) - 1 - near
        if distance > _REACH:
            is_answer = near >= 0 and self.code[near][0] == bpf.RETURN
            near = self._add(*self.code[near]) if is_answer else self._add(bpf.JUMP, 0, 0, distance)
            self._nearer[place] = near
        return near

    def _add(self, code: int, if_true: int, if_false: int, k: int) -> int:
        self.code.append((code, if_true, if_false, k))
        return len(self.code) - 1


def _weighed(word: Word, runs: Sequence[tuple[int, Node]]) -> list[_Run]:
    """With the weight of each: of numbers the kernel looks for every one, of arguments we do not know."""
    ends = [*(start for start, _ in runs[1:]), bpf.WORD_MAX + 1]
    calls = range(LAST_KNOWN + 1)
    return [
        _Run(start, node, len(calls[start:end]) if word == NUMBER else 1)
        for (start, node), end in zip(runs, ends, strict=True)
    ]


def _split(runs: Sequence[_Run]) -> tuple[int, int, Sequence[_Run], Sequence[_Run]]:
    """A comparison, and between which runs it leaves to decide where it is met, and where it is not."""
    if len(runs) == 3 or sum(run.weight for run in runs) <= _LIST_MAX:
        for at in range(1, len(runs) - 1):
            before, run, after = runs[at - 1 : at + 2]
            if after.start == run.start + 1 and before.node == after.node:
                around = before._replace(weight=before.weight + after.weight)
                return bpf.JUMP_EQUAL, run.start, [run], [*runs[: at - 1], around, *runs[at + 2 :]]
    below = list(accumulate(run.weight for run in runs))
    at = min(range(1, len(runs)), key=lambda at: abs(2 * below[at - 1] - below[-1]))
    return bpf.JUMP_GREATER_EQUAL, runs[at].start, runs[at:], runs[:at]
