"""What a checker program said, by the convention that it follows.

A checker is the judge's own program: what it does wrong is checker_error, and never blamed on the program
whose output it was given.

testlib, as testlib.h of Mike Mirzayanov has it (github.com/MikeMirzayanov/testlib): argv ends with the
paths of the input, the output and the answer. Exit codes: 0 ok, 1 wrong answer, 2 presentation error, 3
fail, 4 dirt (the output goes on after its end; newer versions make 2 of it), 7 points, 8 unexpected end
of the output. 16 and more, "partially", is not followed: what that is worth differs from judge to judge.
The message is on stderr: the words of the verdict ("ok", "wrong answer", "points 0.5", ...) and what the
checker says. Points are from 0 to 1 here; with none at all the answer is wrong, with some it is ok.

icpc, the output validator of the ICPC problem package format (icpc.io/problem-package-format, 2025-09; legacy
agrees): argv ends with the paths of the input, the answer and the feedback directory with a slash at its
end; the output is on stdin. Exit code 42 accepts and 43 rejects; any other is the judge's error. In the
directory: judgemessage.txt and teammessage.txt, and of what is accepted score_multiplier.txt, a number from 0
to 1, or score.txt, a number of points that is not negative; not both.
"""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Literal

import msgspec

from jail.judging.shapes import Answer, Judgement
from jail.outcome import Verdict

Convention = Literal["testlib", "icpc"]

FEEDBACK = ("judgemessage.txt", "teammessage.txt", "score.txt", "score_multiplier.txt", "nextpass.in")
"""What to bring back of the feedback directory, as far as it is there."""

MESSAGE_BYTES = 4096
"""How much of a message is told."""

_NUMBER_BYTES = 64

_TESTLIB: Mapping[int, Answer] = {
    0: "ok",
    1: "wrong_answer",
    2: "presentation_error",
    4: "presentation_error",
    8: "presentation_error",
}
_FAIL, _POINTS = 3, 7
_WORD = re.compile(r"(wrong output format|wrong answer|unexpected eof|points|FAIL|ok)(?:\s+|$)")

_ACCEPTED, _REJECTED = 42, 43

# What the host or the caller did to a checker says nothing of it.
_NOT_ITS_OWN = ("sandbox_error", "cancelled")


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a checker that has ended.

    verdict: on its own run. stderr: what it wrote there, as far as it was kept. feedback: of the files named
    in FEEDBACK those that were there, as far as they were brought back. unread: those that were there and
    could not be brought back: too large, or no files.
    """

    verdict: Verdict
    stderr: bytes = b""
    feedback: Mapping[str, bytes] = {}
    unread: tuple[str, ...] = ()


def judge(convention: Convention, checked: Checked) -> Judgement:
    """What the checker made of the output."""
    status = checked.verdict.status
    if status in _NOT_ITS_OWN:
        return Judgement(status=status, detail=checked.verdict.detail)
    if status not in ("ok", "nonzero_exit"):
        return _error(_ended(checked.verdict))
    return _testlib(checked) if convention == "testlib" else _icpc(checked)


def _testlib(checked: Checked) -> Judgement:
    code, message = checked.verdict.exit_code, _message(checked.stderr)
    word = _WORD.match(message)
    message = message[word.end() :] if word else message
    if code == _FAIL:
        return _error("the checker says that the test or the checker is at fault", message)
    if code == _POINTS:
        number, _, rest = message.partition(" ")
        points = _number(number.encode()) if word and word[1] == "points" else None
        if points is None or points > 1:
            return _error(f"exit code {_POINTS}, and no points from 0 to 1 on stderr", message)
        return Judgement(status="ok" if points else "wrong_answer", points=points, message=rest)
    if code not in _TESTLIB:
        return _error(f"exit code {code} is none of the testlib convention", message)
    return Judgement(status=_TESTLIB[code], message=message)


def _icpc(checked: Checked) -> Judgement:
    code, feedback = checked.verdict.exit_code, checked.feedback
    message = _message(feedback.get("teammessage.txt", b""))
    note = _message(feedback.get("judgemessage.txt", b""))
    if code not in (_ACCEPTED, _REJECTED):
        return _error(f"exit code {code}; an output validator exits with 42 or 43", message, note)
    if checked.unread:
        return _error(f"{checked.unread[0]} could not be read: too large, or no file", message, note)
    if "nextpass.in" in feedback:
        return _error("nextpass.in: problems of several passes are not supported", message, note)
    scores = [name for name in ("score.txt", "score_multiplier.txt") if name in feedback]
    if not scores:
        status = "ok" if code == _ACCEPTED else "wrong_answer"
        return Judgement(status=status, message=message, judge_message=note)
    if code == _REJECTED or len(scores) > 1:
        what = " and ".join(scores)
        return _error(
            f"{what} of an output that is {'accepted' if code == _ACCEPTED else 'rejected'}", message, note
        )
    value = _number(feedback[scores[0]])
    is_part = scores[0] == "score_multiplier.txt"
    if value is None or (is_part and value > 1):
        return _error(
            f"{scores[0]} holds no number {'from 0 to 1' if is_part else 'from 0 on'}", message, note
        )
    worth = {"points": value} if is_part else {"score": value}
    return Judgement(status="ok", message=message, judge_message=note, **worth)


def _ended(verdict: Verdict) -> str:
    how = verdict.limit or (f"signal {verdict.signal}" if verdict.signal else verdict.detail)
    return f"the checker ended with {verdict.status}" + (f" ({how})" if how else "")


def _error(detail: str, message: str = "", note: str = "") -> Judgement:
    return Judgement(status="checker_error", message=message, judge_message=note, detail=detail)


def _message(text: bytes) -> str:
    return text[:MESSAGE_BYTES].decode(errors="replace").strip()


def _number(text: bytes) -> Decimal | None:
    """A plain decimal number that is finite and not negative."""
    word = text.strip()
    if len(word) > _NUMBER_BYTES or not set(word) <= set(b"0123456789.eE+-"):
        return None
    try:
        number = Decimal(word.decode())
    except InvalidOperation:
        return None
    is_plain = number.is_finite() and not number.is_signed() and abs(number.adjusted()) <= _NUMBER_BYTES
    return number if is_plain else None
