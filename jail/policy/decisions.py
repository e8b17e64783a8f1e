"""A filter as decisions: what a word of the call is, and what follows from that.

libseccomp asks the same again and again; of upper halves, of which no bit counts, whether those bits are 0.
`read` follows a program through every outcome of its comparisons, with what the earlier ones have told, so
that only decisions that make a difference are left. `assembly` makes instructions of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

import msgspec

from jail.policy import bpf

GO_ON = -1
"""Not an answer: the program that follows decides."""

# Of instructions followed, and of decisions one within the other, for one call. Rules that ask for more stay
# in libseccomp's form: hundreds of values of one argument, or of arguments in turn.
_FOLLOWED_MAX = 1 << 16
_DEPTH_MAX = 64


class Word(NamedTuple):
    """Those bits of 32, at this offset of struct seccomp_data, that are in the mask."""

    offset: int
    mask: int = bpf.WORD_MAX


NUMBER, ARCH = Word(bpf.NR_OFFSET), Word(bpf.ARCH_OFFSET)


class Decision(msgspec.Struct, frozen=True, cache_hash=True):
    """What follows from a word. runs: the first value of each, in order, and what follows up to the next."""

    word: Word
    runs: "tuple[tuple[int, Node], ...]"


Node = int | Decision
"""A SECCOMP_RET_* value with its data, GO_ON, or what decides between them."""


def decide(word: Word, runs: Iterable[tuple[int, Node]]) -> Node:
    """The decision between these runs of values, or what follows from every one of them.

    A decision about the same word may follow from a run if it is about the values of that run alone.
    """
    plain = [run for start, node in runs for run in _runs_of(word, start, node)]
    merged = tuple(next(alike) for _, alike in groupby(plain, key=lambda run: run[1]))
    return Decision(word, merged) if len(merged) > 1 else merged[0][1]


def _runs_of(word: Word, start: int, node: Node) -> tuple[tuple[int, Node], ...]:
    return node.runs if isinstance(node, Decision) and node.word == word else ((start, node),)


def says_go_on(node: Node) -> bool:
    """Whether it leaves anything to the program that follows."""
    return any(says_go_on(inner) for _, inner in node.runs) if isinstance(node, Decision) else node == GO_ON


_Span = tuple[int, int]
"""The first and the last of some values."""

_Known = Mapping[Word, _Span]


class _Comparison(NamedTuple):
    """Instruction `at`, with `loaded` in the accumulator, asks whether `word` is from first to last."""

    at: int
    loaded: Word
    word: Word
    first: int
    last: int


def read(program: bytes, known: _Known) -> Node:
    """What `program` decides where each word in `known` is from the first to the last of two values.

    GO_ON if that takes too long to find. Raises ValueError on an instruction that libseccomp does not
    generate.
    """
    reader = _Reader(program)
    try:
        return reader.node(reader.follow(0, Word(0, 0), known), known, _DEPTH_MAX)
    except _TooMuchError:
        return GO_ON


class _TooMuchError(Exception):
    pass


class _Reader:
    def __init__(self, program: bytes) -> None:
        self._code = tuple(bpf.INSTRUCTION.iter_unpack(program))
        self._left = _FOLLOWED_MAX

    def node(self, found: int | _Comparison, known: _Known, depth: int) -> Node:
        if isinstance(found, int):
            return found
        if not depth:
            raise _TooMuchError
        runs = []
        waiting = [(found, _span(found.word, known))]
        while waiting:
            here, span = waiting.pop()
            for piece in _pieces(span, here):
                now = {**known, here.word: piece}
                there = self.follow(here.at, here.loaded, now)
                if isinstance(there, _Comparison) and there.word == here.word:
                    waiting.append((there, piece))
                else:
                    runs.append((piece[0], self.node(there, now, depth - 1)))
        return decide(found.word, sorted(runs, key=lambda run: run[0]))

    def follow(self, at: int, loaded: Word, known: _Known) -> int | _Comparison:
        """The answer, or the first comparison that `known` leaves open."""
        while True:
            code, if_true, if_false, k = self._code[at]
            self._left -= 1
            if not self._left:
                raise _TooMuchError
            at += 1
            if code == bpf.RETURN:
                return k
            if code == bpf.LOAD:
                loaded = Word(k)
            elif code == bpf.AND:
                loaded = Word(loaded.offset, loaded.mask & k)
            elif code == bpf.JUMP:
                at += k
            else:
                word, first, last = _asked(code, loaded, k)
                low, high = _span(word, known)
                if high < first or last < low:
                    at += if_false
                elif first <= low and high <= last:
                    at += if_true
                else:
                    return _Comparison(at - 1, loaded, word, first, last)


def _span(word: Word, known: _Known) -> _Span:
    return known.get(word, (0, word.mask))


def _asked(code: int, loaded: Word, k: int) -> tuple[Word, int, int]:
    """Which word a jump compares, and with what range."""
    if code == bpf.JUMP_EQUAL:
        return loaded, k, k
    if code == bpf.JUMP_GREATER:
        return loaded, k + 1, bpf.WORD_MAX
    if code == bpf.JUMP_GREATER_EQUAL:
        return loaded, k, bpf.WORD_MAX
    if code == bpf.JUMP_ANY_BIT:
        return Word(loaded.offset, loaded.mask & k), 1, bpf.WORD_MAX
    raise ValueError(f"the unexpected code {code:#04x}")


def _pieces(span: _Span, here: _Comparison) -> Iterator[_Span]:
    """The parts of a span before, in and after the range that is compared with."""
    low, high = span
    cuts = [cut for cut in (here.first, here.last + 1) if low < cut <= high]
    return zip([low, *cuts], [*(cut - 1 for cut in cuts), high], strict=True)
