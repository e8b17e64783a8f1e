"""Points: of tests, of groups, of the job. Exact decimal numbers; only what is told is rounded.

A test is worth its points if it is ok, or the part of them that its checker gave, or what its checker
scored; else nothing. So is what was not run. Nothing is worth more than its points.

A group scores `min`, its points if all its tests are whole and else the part that its worst test got (of
a group without tests nothing), or `sum`, what its tests scored. Of a group with `min` the points of its tests
say nothing but what a checker's score is a part of. The job scores the sum of its groups and of the tests
in none.
"""

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Literal

import msgspec

from jail.judging.shapes import Judged, Judgement

DIGITS = 12
"""How many digits after the point are told; a half is rounded to the even digit."""

_EXACT = Context(prec=400)

Aggregation = Literal["min", "sum"]


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """A test and what became of it: None is not run. points: what it is worth at most."""

    status: Judged | None
    points: Decimal = Decimal(1)
    group: str | None = None
    judgement: Judgement | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group of tests. points: what it is worth at most; None: with `sum`, as much as its tests."""

    name: str
    points: Decimal | None = None
    score: Aggregation = "sum"


class Score(msgspec.Struct, frozen=True):
    """What was scored, and of how much."""

    points: Decimal
    maximum: Decimal


class Scores(msgspec.Struct, frozen=True):
    """Of each test in their order, of each group by its name, and of the job."""

    tests: tuple[Score, ...]
    groups: dict[str, Score]
    job: Score


def score(tests: Sequence[Scored], groups: Sequence[Group] = ()) -> Scores:
    """The scores of a job. Every group that a test names is among `groups`."""
    found = {
        group.name: _of_group(group, [test for test in tests if test.group == group.name]) for group in groups
    }
    alone = [(_of_test(test), Fraction(test.points)) for test in tests if test.group is None]
    return Scores(
        tests=tuple(_told(_of_test(test), Fraction(test.points)) for test in tests),
        groups={name: _told(*both) for name, both in found.items()},
        job=_told(*_sum([*found.values(), *alone])),
    )


def _of_test(test: Scored) -> Fraction:
    points = Fraction(test.points)
    judgement = test.judgement
    if test.status != "ok":
        return Fraction(0)
    if judgement is not None and judgement.score is not None:
        return min(Fraction(judgement.score), points)
    if judgement is not None and judgement.points is not None:
        return points * Fraction(judgement.points)
    return points


def _of_group(group: Group, tests: Sequence[Scored]) -> tuple[Fraction, Fraction]:
    got, most = _sum((_of_test(test), Fraction(test.points)) for test in tests)
    maximum = most if group.points is None else Fraction(group.points)
    if group.score == "sum":
        return min(got, maximum), maximum
    return maximum * min((_part(test) for test in tests), default=Fraction(0)), maximum


def _part(test: Scored) -> Fraction:
    """How much of it was got; of a test that is worth nothing, whether it is ok."""
    return _of_test(test) / Fraction(test.points) if test.points else Fraction(test.status == "ok")


def _sum(scores: Iterable[tuple[Fraction, Fraction]]) -> tuple[Fraction, Fraction]:
    both = list(scores)
    return sum((got for got, _ in both), Fraction(0)), sum((most for _, most in both), Fraction(0))


def _told(got: Fraction, maximum: Fraction) -> Score:
    return Score(_rounded(got), _rounded(maximum))


def _rounded(value: Fraction) -> Decimal:
    scaled = value * 10**DIGITS
    # Python rounds a half of a fraction to the even number.
    told = Decimal(round(scaled)).scaleb(-DIGITS, _EXACT).normalize(_EXACT)
    return told if told.as_tuple().exponent <= 0 else told.quantize(Decimal(1), context=_EXACT)
