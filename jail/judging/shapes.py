"""What judging tells: the shapes that results show, and the statuses that a judge adds to a program's."""

from decimal import Decimal
from typing import Literal

import msgspec

from jail.outcome import Status

Judged = Literal[
    Status,
    "compile_error",
    "wrong_answer",
    "presentation_error",
    "checker_error",
]
"""The status of a test and of a judged job. A program's, and four that only a judge gives:

compile_error: what a step that compiles did wrong. wrong_answer, presentation_error: the program ended well
and its output is not right; in white space or the case of letters alone. checker_error: of the judge's own
program, never of the one that is judged.
"""

Answer = Literal["ok", "wrong_answer", "presentation_error", "checker_error", "sandbox_error", "cancelled"]
"""What can be said of an output."""

Mode = Literal["exact", "lines", "tokens", "numbers", "unordered_lines"]


class Compare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an output is compared; see jail.judging.comparison.

    absolute, relative: of `numbers`; a number is right if it is within either. case: whether A is not a.
    """

    mode: Mode = "lines"
    absolute: float = 0.0
    relative: float = 0.0
    case: bool = True


class Excerpt(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A few bytes of a line: `text` if they are UTF-8, else `base64`. `at`: the place in them, in bytes."""

    text: str | None = None
    base64: str | None = None
    at: int


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a text: bytes before it, line and column in bytes from 1, and a few bytes around it."""

    offset: int
    line: int
    column: int
    excerpt: Excerpt


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first difference of an output from what was expected.

    only: nothing else differs than white space; than the case of letters and perhaps white space; or None.
    token: of modes that go by tokens, its number from 1. output, expected: the place in either; None of
    unordered_lines, which knows none. detail: what can be said in words, or None.
    """

    only: Literal["white_space", "case"] | None
    token: int | None = None
    output: Place | None = None
    expected: Place | None = None
    detail: str | None = None

    @property
    def status(self) -> Answer:
        """What the output gets for it."""
        return "presentation_error" if self.only else "wrong_answer"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a checker made of an output.

    points: the part of the test's points, from 0 to 1. score: points as such. At most one of them; both are
    exact, and None if it gave none. message: for whoever sent the program. judge_message: for judges alone.
    detail: why it is no judgement, of checker_error.
    """

    status: Answer
    points: Decimal | None = None
    score: Decimal | None = None
    message: str = ""
    judge_message: str = ""
    detail: str | None = None
