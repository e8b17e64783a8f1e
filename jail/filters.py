"""Policies made ready to start jobs with, and what a filter's listener told of one."""

import os
from contextlib import ExitStack
from pathlib import Path

import msgspec

from jail import plan, policy
from jail.policy import Policy
from jail.result import Denial
from jail.supervisor import COUNTED_MAX, Report, Start, pack_answers


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled policy. `plain`, `explained` and `answers` are descriptors of sealed bytes.

    explained: the form that tells of what it denies, `length` bytes as the plain one. answers: what
    pack_answers() made. counted: calls as Start.count() takes them. speculates: as Policy.speculation.
    """

    plain: int
    explained: int
    answers: int
    length: int
    counted: tuple[tuple[int, int, int], ...]
    speculates: bool

    def start(self, stdio: tuple[int, ...], planned: int, explain: bool) -> Start:
        """The start of a job under this filter."""
        if explain:
            start = Start(stdio, self.explained, planned, self.answers)
        else:
            start = Start(stdio, self.plain, planned, None)
        start.count(self.counted)
        start.message.filter_bytes = self.length
        start.message.speculates = self.speculates
        return start


def compile_all(directory: str, undo: ExitStack) -> dict[str, Filter]:
    """Every policy in `directory`, by default the shipped one, as its filter, closed by `undo`.

    Raises PolicyError.
    """
    place = Path(directory) if directory else policy.shipped_directory()
    return {name: _compile(policy.load(name, place), undo) for name in policy.names(place)}


def _compile(loaded: Policy, undo: ExitStack) -> Filter:
    counted = policy.counted_calls(loaded)
    if len(counted) > COUNTED_MAX:
        raise policy.PolicyError(f"{loaded.name}: {len(counted)} calls are counted; at most {COUNTED_MAX}")
    program = policy.compile_policy(loaded)
    contents = (program, policy.explained(program), pack_answers(policy.denials(loaded)))
    descriptors = []
    for content in contents:
        descriptors.append(plan.sealed(loaded.name, content))
        undo.callback(os.close, descriptors[-1])
    return Filter(
        plain=descriptors[0],
        explained=descriptors[1],
        answers=descriptors[2],
        length=len(program),
        counted=counted,
        speculates=loaded.speculation,
    )


def denials(report: Report) -> tuple[Denial, ...]:
    """The calls that an explained job was denied."""
    return tuple(
        Denial(
            syscall=policy.call_name(call),
            args=tuple(map(hex, arguments[: policy.argument_count(call)])),
            count=count,
        )
        for call, arguments, count in report.denials
    )
