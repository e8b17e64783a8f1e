"""What is told of a job in steps."""

from collections.abc import Mapping

import msgspec

from jail.judging.shapes import Difference, Judged
from jail.judging.vocabulary import Word
from jail.result import ProcessResult, Stream, Timing, Usage


class TestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a test. status: None of one that does not count, since another failed.

    difference: of stdout from what was expected. message: of the checker, for whoever sent the program;
    judge_message: for judges alone. stdout, stderr: their beginning, where it is kept.
    """

    __test__ = False

    name: str
    group: str
    status: Judged | None
    points: float
    exit_code: int | None = None
    signal: int | None = None
    limit: str | None = None
    detail: str | None = None
    difference: Difference | None = None
    message: str | None = None
    judge_message: str | None = None
    stdout: Stream | None = None
    stderr: Stream | None = None
    usage: Usage | None = None


class GroupScore(msgspec.Struct, frozen=True, kw_only=True):
    """What a group of tests came to. status: of the first of them that is not right, or ok."""

    status: Judged | None
    points: float


class StepsResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to POST /v1/run of a job in steps.

    decided_by: the step or test that the status is of, None where all is well. steps: those that were run, by
    their names. score: the points of groups, and of tests in none; None without tests. words: what other
    judges call the status, see jail.judging.vocabulary.
    """

    id: str
    status: Judged
    decided_by: str | None
    detail: str | None
    steps: Mapping[str, ProcessResult]
    tests: tuple[TestResult, ...]
    groups: Mapping[str, GroupScore]
    score: float | None
    words: Mapping[str, Word]
    timing: Timing
