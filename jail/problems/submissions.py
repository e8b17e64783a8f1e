"""submissions/: the programs that come with a problem, and what may become of them.

In the legacy format a folder allows verdicts of the whole, unless a source has a comment as DOMjudge reads
it, `@EXPECTED_RESULTS@: WRONG-ANSWER, TIMELIMIT`. Since 2023-07 rules speak of the verdicts of test cases,
those of the folders and of submissions.yaml together.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from itertools import product
from typing import Any, Literal

import msgspec

from jail.errors import PackageError
from jail.problems import documents
from jail.problems.files import Files
from jail.problems.files import read as read_file
from jail.problems.metadata import Metadata
from jail.problems.programs import Program, programs

FOLDER = "submissions"
RULES = f"{FOLDER}/submissions.yaml"

_CURE = f"Mend {FOLDER}/."
ALL = ("AC", "WA", "TLE", "RTE")
"""The verdicts that folders and rules speak of."""

Verdict = Literal["AC", "WA", "TLE", "RTE"]
"""What a rule may speak of."""

_FOLDERS = {
    "accepted": ("AC",),
    "partially_accepted": ("AC",),
    "wrong_answer": ("WA",),
    "time_limit_exceeded": ("TLE",),
    "run_time_error": ("RTE",),
    "compile_error": ("CE",),
    "compiler_error": ("CE",),
    "rejected": ("WA", "TLE", "RTE", "CE"),
    "brute_force": ("TLE", "RTE"),
}
"""What the folders of the legacy format allow, and those that DOMjudge has beside."""

_MODERN = {
    "accepted": {"permitted": ["AC"]},
    "rejected": {"required": ["RTE", "TLE", "WA"]},
    "wrong_answer": {"permitted": ["AC", "WA"], "required": ["WA"]},
    "time_limit_exceeded": {"permitted": ["AC", "TLE"], "required": ["TLE"]},
    "run_time_error": {"permitted": ["AC", "RTE"], "required": ["RTE"]},
    "brute_force": {"permitted": ["AC", "RTE", "TLE"], "required": ["RTE", "TLE"]},
}
"""The rules of the folders since 2023-07, by what submissions.yaml calls them."""

_COMMENT = re.compile(rb"@EXPECTED_RESULTS@:[ \t]*([A-Za-z_, \t-]{1,200})")
_COMMENT_WORDS = {
    "CORRECT": "AC",
    "ACCEPTED": "AC",
    "WRONG-ANSWER": "WA",
    "TIMELIMIT": "TLE",
    "TIME-LIMIT-EXCEEDED": "TLE",
    "RUN-ERROR": "RTE",
    "RUN-TIME-ERROR": "RTE",
    "NO-OUTPUT": "WA",
    "OUTPUT-LIMIT": "RTE",
    "MEMORY-LIMIT": "RTE",
    "COMPILER-ERROR": "CE",
}
_SOURCE_BYTES_MAX = 1 << 20
_BRACES = re.compile(r"\{([^{}]*)\}")
_PATTERN_LENGTH_MAX = 512
_PATTERNS_MAX = 16
_RULES_MAX = 100

SUBMISSIONS_MAX = 500
BYTES_MAX = 32 << 20
"""Of all submissions together."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Of the cases that one of the patterns matches, all have a verdict of `permitted`, one of `required`.

    cases: patterns of names of cases and groups; none, of all. score: of the group, or of the whole.
    """

    cases: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ALL
    required: tuple[str, ...] = ALL
    score: tuple[float, float] | None = None
    bounds_time: bool = False


class _Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What submissions.yaml says of submissions, or of some cases of theirs."""

    permitted: tuple[Verdict, ...] | None = None
    required: tuple[Verdict, ...] | None = None
    score: float | tuple[float, float] | None = None
    message: str = ""
    use_for_time_limit: Literal["true", "false", "lower", "upper"] | None = None


class _About(_Checks, frozen=True, forbid_unknown_fields=True):
    """What it says of submissions as a whole."""

    language: str = ""
    entrypoint: str = ""
    authors: Any = None
    model_solution: Any = None


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A program with what may become of it. name: as accepted/fast.cpp.

    verdicts: of the whole; None when `rules` speak of the cases. partial: its score may not be the best.
    bounds_time: the time limit follows from how long it takes.
    """

    name: str
    program: Program
    verdicts: tuple[str, ...] | None
    rules: tuple[Rule, ...] = ()
    partial: bool = False
    bounds_time: bool = False


def read(files: Files, metadata: Metadata) -> tuple[Submission, ...]:
    """All that are included, in the order of their names. Raises PackageError."""
    paths = [path for path in files.sizes if path.startswith(f"{FOLDER}/")]
    size = sum(files.sizes[path] for path in paths)
    if size > BYTES_MAX:
        raise _wrong(f"they have {size} bytes together; the maximum is {BYTES_MAX}")
    folders = sorted({path.split("/")[1] for path in paths})
    patterns = {} if metadata.legacy else _patterns(files)
    found = tuple(
        _legacy(files, folder, program) if metadata.legacy else _modern(patterns, folder, program)
        for folder in folders
        for program in programs(files, f"{FOLDER}/{folder}")
    )
    if len(found) > SUBMISSIONS_MAX:
        raise _wrong(f"there are {len(found)}; the maximum is {SUBMISSIONS_MAX}")
    return found


def given(name: str, files: Mapping[str, str]) -> Submission:
    """One that does not come with the problem: anything may become of it."""
    return Submission(name=name, program=Program(name=name, files=dict(files)), verdicts=None)


def _legacy(files: Files, folder: str, program: Program) -> Submission:
    expected = _comment(files, program) or _FOLDERS.get(folder)
    return Submission(
        name=f"{folder}/{program.name}",
        program=program,
        verdicts=expected,
        partial=folder == "partially_accepted",
        bounds_time=folder == "accepted",
    )


def _comment(files: Files, program: Program) -> tuple[str, ...]:
    """The verdicts that a comment of one of its sources names, or none."""
    for path in program.files.values():
        if files.sizes[path] <= _SOURCE_BYTES_MAX and (match := _COMMENT.search(read_file(files, path))):
            words = re.split(r"[,\s]+", match[1].decode().strip().upper().replace("_", "-"))
            unknown = [word for word in words if word not in _COMMENT_WORDS]
            if unknown:
                raise _wrong(f"{path}: @EXPECTED_RESULTS@ names {unknown[0]!r}, which is no result")
            return tuple(dict.fromkeys(_COMMENT_WORDS[word] for word in words))
    return ()


def _patterns(files: Files) -> dict[str, dict[str, Any]]:
    """What is said of submissions, by patterns of names: the folders' own rules and submissions.yaml."""
    patterns: dict[str, dict[str, Any]] = {name: dict(checks) for name, checks in _MODERN.items()}
    if RULES in files.sizes:
        for pattern, said in documents.read(
            RULES, read_file(files, RULES), dict[str, dict[str, Any]]
        ).items():
            # The name of a folder has its rules replaced, any other pattern has some added.
            patterns[pattern] = patterns.get(pattern, {}) | said
    if len(patterns) > _RULES_MAX:
        raise _wrong(f"{RULES} has {len(patterns)} patterns; the maximum is {_RULES_MAX}")
    return patterns


def _modern(patterns: Mapping[str, dict[str, Any]], folder: str, program: Program) -> Submission:
    name = f"{folder}/{program.name}"
    rules: list[Rule] = []
    for pattern, said in patterns.items():
        if not any(matches(one, name) for one in _expanded(pattern)):
            continue
        whole = {key: value for key, value in said.items() if key in _About.__struct_fields__}
        about = _convert(pattern, whole, _About)
        program = msgspec.structs.replace(
            program, language=about.language or program.language, entry=about.entrypoint or program.entry
        )
        rules.append(_rule((), about))
        for cases in said.keys() - whole.keys():
            rules.append(_rule(_expanded(cases), _convert(f"{pattern}: {cases}", said[cases], _Checks)))
    if len(rules) > _RULES_MAX:
        raise _wrong(f"{RULES} has {len(rules)} rules for {name}; the maximum is {_RULES_MAX}")
    bounds_time = any(rule.bounds_time for rule in rules)
    return Submission(name=name, program=program, verdicts=None, rules=tuple(rules), bounds_time=bounds_time)


def _convert(where: str, said: object, kind: type) -> Any:
    try:
        return msgspec.convert(said, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong(f"{RULES}: {where[:200]}: {error}") from None


def _rule(cases: tuple[str, ...], said: _Checks) -> Rule:
    permitted, use = said.permitted or ALL, said.use_for_time_limit
    score = said.score
    return Rule(
        cases=cases,
        permitted=permitted,
        required=said.required or ALL,
        score=(score, score) if isinstance(score, float) else score,
        bounds_time=use == "lower" or ("TLE" not in permitted and use != "false"),
    )


def _expanded(pattern: str) -> tuple[str, ...]:
    """The patterns without braces that one with {this,or that} stands for."""
    parts = _BRACES.split(pattern)
    # Every other part stood in braces.
    choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _PATTERNS_MAX or len(pattern) > _PATTERN_LENGTH_MAX:
        bounds = f"{_PATTERN_LENGTH_MAX} characters, or stands for more than {_PATTERNS_MAX} patterns"
        raise _wrong(f"{RULES}: {pattern[:100]!r} is longer than {bounds}")
    return tuple("".join(choice) for choice in product(*choices))


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern is of this name or of what stands above it; a * is of anything within one part."""
    wanted, parts = pattern.split("/"), name.split("/")
    # What else fnmatch knows is in no name.
    return len(wanted) <= len(parts) and all(map(fnmatchcase, parts, wanted))


def _wrong(reason: str) -> PackageError:
    return PackageError(f"The included submissions cannot be judged: {reason}.", _CURE)
