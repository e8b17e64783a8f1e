"""problem.yaml: what kind of a problem it is, and what its submissions and validators may use."""

import re
from typing import Any

import msgspec

from jail.errors import PackageError
from jail.problems import documents
from jail.problems.files import DOMJUDGE, PROBLEM, TIME_LIMIT, Files
from jail.problems.files import read as read_file

_LEGACY = ("", "legacy", "legacy-icpc")
_VERSIONS = (*_LEGACY, "2023-07", "2023-07-draft", "2025-09", "2025-09-draft")

_MIB = 1 << 20
_CURE = f"Mend {PROBLEM}."
_NOT_YET = "Judge it elsewhere until programs can talk here."


class Multipliers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the time limit is from the slowest accepted and the fastest too slow submission."""

    ac_to_time_limit: float = 2.0
    time_limit_to_tle: float = 1.5


class _Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`limits`, of all versions: seconds, MiB, and KiB of code."""

    time_multiplier: float = 5.0
    time_safety_margin: float = 2.0
    time_multipliers: Multipliers = Multipliers()
    time_limit: float | None = None
    time_resolution: float = 1.0
    memory: int | None = None
    output: int | None = None
    code: int = 128
    compilation_time: float | None = None
    compilation_memory: int | None = None
    validation_time: float = 60.0
    validation_memory: int | None = None
    validation_output: int | None = None
    validation_passes: int | None = None


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """problem.yaml, of all versions. What judging does not need may be anything."""

    problem_format_version: str = ""
    type: str | list[str] = "pass-fail"
    name: Any = None
    uuid: Any = None
    version: Any = None
    author: Any = None
    credits: Any = None
    source: Any = None
    source_url: Any = None
    license: Any = None
    rights_owner: Any = None
    embargo_until: Any = None
    limits: _Limits = _Limits()
    validation: str = "default"
    validator_flags: str = ""
    grading: dict[str, str] = {}
    libraries: Any = None
    languages: str | list[str] = "all"
    keywords: Any = None
    allow_file_writing: Any = None
    constants: dict[str, str] = {}


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What judging needs of problem.yaml.

    legacy: the format is. scoring: accepted submissions have a score; minimizes: the lower, the better.
    custom_validator: legacy alone says so. validator_flags: for every validator, before those of a group.
    time_limit_ms: None when it follows from the submissions, as `timing` says. code_bytes: of the files of a
    submission together. Limits that are None are the operator's.
    """

    legacy: bool
    scoring: bool
    custom_validator: bool
    custom_score: bool
    validator_flags: tuple[str, ...]
    minimizes: bool
    time_limit_ms: int | None
    timing: "Timing"
    memory_bytes: int | None
    output_bytes: int | None
    code_bytes: int
    compilation_ms: int | None
    compilation_memory_bytes: int | None
    validation_ms: int
    validation_memory_bytes: int | None
    languages: tuple[str, ...]
    constants: dict[str, str]


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How a time limit follows from how long the submissions take: see jail.problems.timing."""

    multiplier: float
    resolution_ms: int
    rounds_up: bool


def read(files: Files) -> Metadata:
    """Read problem.yaml, and what some tools keep beside it: a time limit. Raises PackageError."""
    found = documents.read(PROBLEM, read_file(files, PROBLEM), _Document)
    if found.problem_format_version not in _VERSIONS:
        known = ", ".join(filter(None, _VERSIONS))
        raise _wrong(f"problem_format_version {found.problem_format_version!r} is not read; known: {known}")
    legacy = found.problem_format_version in _LEGACY
    kinds = {found.type} if isinstance(found.type, str) else set(found.type)
    validation = found.validation.split()
    _check_kinds(kinds, validation)
    _check_validation(legacy, validation)
    limits = found.limits
    _check_limits(limits)
    return Metadata(
        legacy=legacy,
        scoring="scoring" in kinds,
        custom_validator=validation[0] == "custom",
        custom_score="score" in validation,
        validator_flags=tuple(found.validator_flags.split()),
        minimizes=legacy and found.grading.get("objective") == "min",
        time_limit_ms=_milliseconds(limits.time_limit) or _time_limit_beside(files),
        timing=_timing(legacy, limits),
        memory_bytes=_scaled(limits.memory, _MIB),
        output_bytes=_scaled(limits.output, _MIB),
        code_bytes=limits.code << 10,
        compilation_ms=_milliseconds(limits.compilation_time),
        compilation_memory_bytes=_scaled(limits.compilation_memory, _MIB),
        validation_ms=_milliseconds(limits.validation_time) or 1,
        validation_memory_bytes=_scaled(limits.validation_memory, _MIB),
        languages=() if found.languages == "all" else tuple(_words(found.languages)),
        constants={} if legacy else found.constants,
    )


def _check_kinds(kinds: set[str], validation: list[str]) -> None:
    for kind in ("interactive", "multi-pass"):
        if kind in kinds or kind in validation:
            raise PackageError(f"This problem is {kind}, which is not supported yet.", _NOT_YET)
    if "submit-answer" in kinds:
        raise PackageError("Submissions to this problem are answers, and programs are judged.", _NOT_YET)
    if unknown := kinds - {"pass-fail", "scoring"}:
        raise _wrong(f"{min(unknown)!r} is no type of a problem")


def _check_validation(legacy: bool, words: list[str]) -> None:
    if words != ["default"] and not (words[:1] == ["custom"] and set(words[1:]) <= {"score"}):
        raise _wrong(f"validation is {' '.join(words)!r}; it may be default, custom, or custom score")
    if not legacy and words != ["default"]:
        raise _wrong("validation is of the legacy format; here it is output_validator/ that says so")


def _check_limits(limits: _Limits) -> None:
    numbers = msgspec.structs.asdict(limits) | msgspec.structs.asdict(limits.time_multipliers)
    for name, value in numbers.items():
        if isinstance(value, (int, float)) and not 0 < value <= _LARGEST:
            raise _wrong(f"limits.{name} is {value}; it may be above 0, to {_LARGEST}")
    for name, value in msgspec.structs.asdict(limits.time_multipliers).items():
        if value < 1:
            raise _wrong(f"limits.time_multipliers.{name} is {value}, below 1")


# A week of seconds, more MiB than any ceiling.
_LARGEST = 1_000_000


def _timing(legacy: bool, limits: _Limits) -> Timing:
    if legacy:
        return Timing(multiplier=limits.time_multiplier, resolution_ms=1000, rounds_up=False)
    return Timing(
        multiplier=limits.time_multipliers.ac_to_time_limit,
        resolution_ms=_milliseconds(limits.time_resolution) or 1,
        rounds_up=True,
    )


def _time_limit_beside(files: Files) -> int | None:
    """What the reference tools keep in .timelimit, and DOMjudge in its own file: seconds."""
    for name, pattern in ((TIME_LIMIT, _SECONDS), (DOMJUDGE, _DOMJUDGE_SECONDS)):
        if name not in files.sizes:
            continue
        text = read_file(files, name)[:_TEXT_BYTES_MAX].decode("utf-8", "replace")
        if match := pattern.search(text):
            return _milliseconds(min(float(match["seconds"]), _LARGEST))
        if name == TIME_LIMIT:
            raise PackageError(
                f"{TIME_LIMIT} holds no number of seconds.", f"Mend {TIME_LIMIT}, or remove it."
            )
    return None


_TEXT_BYTES_MAX = 4096
_NUMBER = r"(?P<seconds>[0-9]{1,9}(?:\.[0-9]{1,9})?)"
_SECONDS = re.compile(rf"\A\s*{_NUMBER}\s*\Z")
_DOMJUDGE_SECONDS = re.compile(rf"""^[ \t]*timelimit[ \t]*=[ \t]*["']?{_NUMBER}["']?[ \t]*$""", re.MULTILINE)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * 1000))


def _scaled(number: int | None, unit: int) -> int | None:
    return None if number is None else number * unit


def _words(listed: str | list[str]) -> list[str]:
    return listed.split() if isinstance(listed, str) else listed


def _wrong(reason: str) -> PackageError:
    return PackageError(f"{PROBLEM} cannot be used: {reason}.", _CURE)
