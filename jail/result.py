"""What a job's caller is told. The shapes are those of the HTTP answer."""

import base64
import codecs
from collections.abc import Mapping
from itertools import pairwise

import msgspec

from jail.capture import Captured
from jail.outcome import Status


class Stream(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a program wrote: `text` if what was kept is UTF-8, else `base64`. `bytes` counts it all."""

    text: str | None = None
    base64: str | None = None
    bytes: int
    truncated: bool


class OutputFile(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A file that was brought back: its content, or of a stored one its digest; size and permission bits."""

    base64: str | None = None
    file: str | None = None
    bytes: int
    mode: int


class OutputError(msgspec.Struct, frozen=True):
    """A file that could not be brought back, and why."""

    path: str
    reason: str


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the policy denied `count` times, with these arguments, each in hexadecimal."""

    syscall: str
    args: tuple[str, ...]
    count: int


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """How long the job stood still for want of processors, memory or disks. See jail.cgroup.Pressure."""

    cpu_some_ms: float
    memory_full_ms: float
    io_full_ms: float


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What passed on the network of a process: frames, and their bytes with 14 each of Ethernet's header.

    Those of all protocols: what finds out who has an address is among them. What was sent counts whether or
    not it was let through.
    """

    sent_bytes: int
    sent_packets: int
    received_bytes: int
    received_packets: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the job used. See jail.cgroup.Counters. None: this host does not count it.

    max_rss_bytes: of the largest process that was waited for; None when jail ended the job. network: None
    without one.
    """

    cpu_ms: float
    user_ms: float
    system_ms: float
    wall_ms: float
    memory_peak_bytes: int
    memory_source: str
    memory_setup_bytes: int
    max_rss_bytes: int | None
    pids_peak: int | None
    oom_kills: int
    pids_limit_hits: int
    throttled_ms: float
    io_read_bytes: int | None
    io_write_bytes: int | None
    pressure: Pressure | None
    network: Traffic | None = None


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went, outside in: waiting, making the sandbox, running, bringing home."""

    queued_ms: float
    setup_ms: float
    run_ms: float
    collect_ms: float


class SandboxInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the job ran in; `degraded` names the barriers that this host could not give.

    digest: of the image, as the store knows it; None of `host`.
    """

    image: str
    digest: str | None
    policy: str
    degraded: tuple[str, ...]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to POST /v1/run.

    denials: None unless the job asked for them. denials_omitted: how many more calls were denied and
    are not listed.
    """

    id: str
    status: Status
    exit_code: int | None
    signal: int | None
    limit: str | None
    detail: str | None
    stdout: Stream
    stderr: Stream
    outputs: Mapping[str, OutputFile]
    output_errors: tuple[OutputError, ...]
    denials: tuple[Denial, ...] | None
    denials_omitted: int
    usage: Usage | None
    timing: Timing
    sandbox: SandboxInfo


_OF_THE_JOB = ("id", "timing")

ProcessResult = msgspec.defstruct(
    "ProcessResult",
    [(field.name, field.type) for field in msgspec.structs.fields(Result) if field.name not in _OF_THE_JOB],
    module=__name__,
    frozen=True,
    kw_only=True,
)
"""What is told of one process of several: a Result without what is the whole job's."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """A process that was started has ended, so long after the first was."""

    process: str
    at_ms: float


class GroupResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to POST /v1/run of a job of several processes, by their names.

    status: as jail.outcome.decide_job says, of the process that it is `decided_by`; None where all is well.
    ended: those that were started, in the order of their ends.
    """

    id: str
    status: Status
    decided_by: str | None
    processes: Mapping[str, ProcessResult]
    ended: tuple[End, ...]
    timing: Timing


def stream(captured: Captured) -> Stream:
    """A stream as its caller sees it. Of text that was cut, half a character at the end goes too."""
    about = {"bytes": captured.written_bytes, "truncated": captured.truncated}
    try:
        text, _ = codecs.utf_8_decode(captured.content, "strict", not captured.truncated)
        return Stream(**about, text=text)
    except UnicodeDecodeError:
        return Stream(**about, base64=base64.b64encode(captured.content).decode())


def timing(submitted_ns: int, reserved_ns: int, sent_ns: int, heard_ns: int, answered_ns: int) -> Timing:
    """Of moments by one clock: taken in, at its turn, first started, last heard of, answered."""
    marks = submitted_ns, reserved_ns, sent_ns, heard_ns, answered_ns
    queued, setup, run, collect = (milliseconds(end - start) for start, end in pairwise(marks))
    return Timing(queued_ms=queued, setup_ms=setup, run_ms=run, collect_ms=collect)


def milliseconds(nanoseconds: int) -> float:
    """Nanoseconds as milliseconds, to the microsecond."""
    return round(nanoseconds / 1e6, 3)
