"""From a submission to the body of the job that judges it."""

from collections.abc import Callable
from typing import Any

import msgspec

from jail.judging.verdict import FailFast
from jail.languages.expansion import Expansion
from jail.limits import LimitsRequest
from jail.problems import grading
from jail.problems.comparison import compare
from jail.problems.metadata import Metadata
from jail.problems.package import Problem
from jail.problems.sources import Limits
from jail.problems.testdata import Case, Group
from jail.spec import Rules
from jail.steps.spec import POINTS_MAX

Contents = Callable[[str], dict[str, str]]
"""A file of the package, by its path, as `stdin` and others of a body have it."""

COMPILE, RUN = "compile", "run"

# Of real time, which a busy host takes from whoever computes: a limit for those that wait.
_WALL_TIMES = 3
_WALL_MS = 5000


def limits(metadata: Metadata, time_limit_ms: int, rules: Rules) -> Limits:
    """Of a submission. The time limit is of CPU time; what the package leaves open is the operator's."""
    run = LimitsRequest(
        cpu_ms=time_limit_ms,
        wall_ms=min(_WALL_TIMES * time_limit_ms + _WALL_MS, rules.ceilings.wall_ms),
        memory_bytes=metadata.memory_bytes,
        stdout_bytes=metadata.output_bytes,
    )
    compile_ms = metadata.compilation_ms
    return Limits(
        run=run,
        compile=LimitsRequest(
            cpu_ms=compile_ms,
            wall_ms=compile_ms and min(2 * compile_ms, rules.ceilings.wall_ms),
            memory_bytes=metadata.compilation_memory_bytes,
        ),
    )


def body(
    problem: Problem,
    program: Expansion,
    asked: Limits,
    checker: dict[str, Any] | None,
    contents: Contents,
    fail_fast: FailFast,
) -> dict[str, Any]:
    """The body of POST /v1/run, with a test for each case."""
    # The same time for all languages: a package's limit is made for the slowest of them.
    exact = msgspec.structs.replace(program.run.limits, cpu_ms=asked.run.cpu_ms, wall_ms=asked.run.wall_ms)
    run = msgspec.structs.replace(program.run, limits=exact)
    steps = [{"name": RUN, **msgspec.to_builtins(run)}]
    if program.compile is not None:
        steps.insert(0, {"name": COMPILE, "compiles": True, **msgspec.to_builtins(program.compile)})
    worth = grading.worth(problem.data)
    steps[0]["files"] = msgspec.to_builtins(program.files)
    found: dict[str, Any] = {
        "steps": steps,
        "tests": [
            _test(problem, case, group, points(worth[case.name]), contents)
            for group, case in placed(problem.data)
        ],
        "groups": [{"name": name} for name in dict.fromkeys(group for group, _ in placed(problem.data))],
        "fail_fast": fail_fast,
        "keep": "never",
    }
    return found | ({"checker": checker} if checker else {})


def points(worth: float | None) -> float:
    """What a test that its validator scores is worth in the body."""
    return POINTS_MAX if worth is None else worth


def placed(group: Group) -> list[tuple[str, Case]]:
    """All cases in order, each with the name of its group."""
    found: list[tuple[str, Case]] = []
    for member in group.members:
        found += [(group.name, member)] if isinstance(member, Case) else placed(member)
    return found


def _test(problem: Problem, case: Case, group: str, points: float, contents: Contents) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": case.name,
        "group": group,
        "stdin": contents(case.input),
        "expected": contents(case.answer),
        "args": list(case.args),
        "files": {name: contents(path) for name, path in case.files.items()},
    }
    flags = [*problem.metadata.validator_flags, *case.validator_args]
    if problem.validator is None:
        return found | {"compare": msgspec.to_builtins(compare(flags))}
    return found | {"checker_args": flags, "points": points}
