"""Policies made ready to start jobs with, and what a filter told of one."""

import os
from contextlib import ExitStack
from pathlib import Path

import msgspec

from jail import plan, policy
from jail.policy import Policy
from jail.result import Denial
from jail.supervisor import COUNTED_MAX, DENIALS_BYTES, Start, pack_answers, unpack_denials

_LEAVES = "sched_setaffinity"
"""The one call by which a job could come to run elsewhere: on what another job was given."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled policy. `plain`, `explained` and `answers` are descriptors of sealed bytes.

    explained: the form that tells of what it denies, `length` bytes as the plain one. answers: what
    pack_answers() made. counted: calls as Start takes them. speculates: as Policy.speculation.
    """

    plain: int
    explained: int
    answers: int
    length: int
    counted: tuple[tuple[int, int, int], ...]
    speculates: bool

    def start(self, stdio: tuple[int, ...], planned: int, denials: "Denials | None") -> Start:
        """The start of a job under this filter, which tells of what it denies if there is room for it."""
        if denials is not None:
            start = Start(stdio, self.explained, planned, self.counted, (self.answers, denials.descriptor))
        else:
            start = Start(stdio, self.plain, planned, self.counted)
        start.message.filter_bytes = self.length
        start.message.speculates = self.speculates
        return start


def compile_all(directory: str, undo: ExitStack, pinned: bool) -> dict[str, Filter]:
    """Every policy in `directory`, by default the shipped one, as its filter, closed by `undo`.

    `pinned`: their jobs stay on the processors that they were given. Raises PolicyError.
    """
    place = Path(directory) if directory else policy.shipped_directory()
    loaded = (policy.load(name, place) for name in policy.names(place))
    return {one.name: _compile(one.without(_LEAVES) if pinned else one, undo) for one in loaded}


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


class Denials:
    """Room for what an explained job is denied; a context manager. `descriptor` is for init, which writes it.

    Memory of its own, and not a message: init may be killed at any moment.
    """

    def __init__(self) -> None:
        """Make room. Raises OSError."""
        self.descriptor = os.memfd_create("denials", os.MFD_CLOEXEC)
        try:
            os.write(self.descriptor, bytes(DENIALS_BYTES))
        except OSError:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> "Denials":
        """Nothing more to do."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Give it back."""
        os.close(self.descriptor)

    def read(self) -> tuple[tuple[Denial, ...], int]:
        """What was denied, once nothing of the job lives; and how many more calls that are not listed."""
        listed, omitted = unpack_denials(os.pread(self.descriptor, DENIALS_BYTES, 0))
        return tuple(_denial(*one) for one in listed), omitted


def _denial(call: int, arguments: tuple[int, ...], count: int) -> Denial:
    args = tuple(map(hex, arguments[: policy.argument_count(call)]))
    return Denial(syscall=policy.call_name(call), args=args, count=count)
