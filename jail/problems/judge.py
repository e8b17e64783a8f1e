"""Judges submissions to one problem, in sandboxes of an engine: the one module here that runs anything."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from jail import spec
from jail.engine import Engine
from jail.errors import PackageError
from jail.languages.definitions import Definitions
from jail.languages.expansion import Expansion
from jail.problems import expectations, grading, job, sources, timing, validator
from jail.problems.files import Files
from jail.problems.grading import JUDGE_ERROR, FailFast, Grade, Outcome
from jail.problems.job import Contents
from jail.problems.package import Problem
from jail.problems.submissions import Submission

MEASURED_MS = 60_000
"""What a test of a submission may take from whose time the limit is to follow."""

COMPILE_ERROR = "CE"

_LETTERS = {
    "ok": "AC",
    "wrong_answer": "WA",
    "presentation_error": "PE",
    "cpu_limit": "TLE",
    "wall_limit": "TLE",
    "memory_limit": "MLE",
    "output_limit": "OLE",
    "syscall_denied": "SV",
    "compile_error": COMPILE_ERROR,
    "nonzero_exit": "RTE",
    "signaled": "RTE",
    "start_failed": "RTE",
}


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a submission in one test case. verdict: the letters of `status`. detail: for people."""

    name: str
    status: str
    verdict: str
    cpu_ms: float
    memory_peak_bytes: int
    part: float | None
    detail: str | None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a submission.

    score: of no meaning unless the problem is scoring. slowest_ms, memory_peak_bytes: the most of any test.
    failed: the case that the verdict is of. detail: why it was not even tested. expected: what may become of
    it, for people, and complaints: what is not so, a sentence each.
    """

    submission: str
    verdict: str
    score: float
    slowest_ms: float
    memory_peak_bytes: int
    failed: str | None
    detail: str | None
    groups: dict[str, Grade]
    tests: tuple[Tested, ...]
    expected: str = ""
    complaints: tuple[str, ...] = ()


class Judge:
    """Of one problem. prepare() it, and give it a time limit, before it judges."""

    def __init__(
        self, engine: Engine, files: Files, problem: Problem, definitions: Definitions, contents: Contents
    ) -> None:
        """contents: where the jobs find the package's data."""
        self._engine = engine
        self._files = files
        self._problem = problem
        self._definitions = definitions
        self._contents = contents
        self._checker: dict[str, Any] | None = None
        self.time_limit_ms = problem.metadata.time_limit_ms

    async def prepare(self) -> None:
        """Build the output validator, if the package has one of its own. Raises PackageError."""
        if self._problem.validator is None:
            return
        recipe = self._ours(
            lambda: validator.recipe(
                self._files,
                self._problem.validator,
                self._problem.metadata,
                self._definitions,
                self._engine.rules,
            )
        )
        files = recipe.files
        if recipe.build is not None:
            files = validator.unpacked(await self._built(recipe.build))
        run = msgspec.to_builtins(recipe.run)
        self._checker = {**run, "files": msgspec.to_builtins(files), "convention": "icpc"}

    async def _built(self, build: spec.Program) -> bytes:
        result = await self._run(msgspec.to_builtins(build))
        if result.status == "sandbox_error":
            raise PackageError(f"A sandbox could not be made: {result.detail}.", "Try again.")
        if result.status != "ok" or validator.PACKED not in result.outputs:
            said = " ".join((result.stderr.text or "").split())[:500]
            raise PackageError(
                f"The output validator cannot be built: {result.status}. {said}".rstrip(),
                "Mend it, or install what it is built with.",
            )
        return b64decode(result.outputs[validator.PACKED].base64)

    async def measure(self, submissions: list[Submission]) -> dict[str, Judged]:
        """Find the time limit by those that are to be in time; what they get. Raises PackageError."""
        bounding = [one for one in submissions if one.bounds_time]
        if not bounding:
            cure = "Add an accepted submission, or say limits.time_limit."
            raise PackageError("The package says no time limit, and no submission bounds it.", cure)
        self.time_limit_ms = min(MEASURED_MS, self._engine.rules.ceilings.cpu_ms)
        found = {one.name: await self.judge(one) for one in bounding}
        slowest = max(found.values(), key=lambda one: one.slowest_ms)
        if any(test.verdict == "TLE" for one in found.values() for test in one.tests):
            raise PackageError(
                f"{slowest.submission} takes more than {self.time_limit_ms} ms, and bounds the time limit.",
                "Say limits.time_limit, or make it faster.",
            )
        self.time_limit_ms = timing.time_limit_ms(self._problem.metadata.timing, slowest.slowest_ms)
        return {name: one for name, one in found.items() if one.slowest_ms <= self.time_limit_ms}

    async def judge(self, submission: Submission, told: Callable[[Tested], None] | None = None) -> Judged:
        """One that comes with the problem, or is like those. `told` is told of tests. Raises PackageError."""
        problem = self._problem
        limits = self._limits()
        program = self._ours(
            lambda: sources.submission(
                self._files,
                submission.program,
                problem.metadata,
                limits,
                self._definitions,
                self._engine.rules,
            )
        )
        fail_fast = grading.fail_fast(problem.data, problem.metadata.scoring)
        # Its rules speak of the verdict of every case.
        found = await self._judge(submission.name, program, "never" if submission.rules else fail_fast)
        return self._held_against(submission, found)

    async def judge_source(self, name: str, source: sources.Source) -> Judged:
        """One that somebody sent. Raises SpecError naming the field."""
        limits = self._limits()
        asked = msgspec.structs.replace(source, limits=limits.run, compile_limits=limits.compile)
        program = sources.expand(asked, self._definitions, self._engine.rules)
        fail_fast = grading.fail_fast(self._problem.data, self._problem.metadata.scoring)
        return await self._judge(name, program, fail_fast)

    def _limits(self) -> sources.Limits:
        if self.time_limit_ms is None:
            raise ValueError("no time limit yet")
        return job.limits(self._problem.metadata, self.time_limit_ms, self._engine.rules)

    async def _judge(self, name: str, program: Expansion, fail_fast: FailFast) -> Judged:
        limits = self._limits()
        body = job.body(self._problem, program, limits, self._checker, self._contents, fail_fast)
        result = await self._run(body)
        tests = tuple(map(_tested, result.tests))
        if not tests:
            return _not_tested(name, result)
        outcomes = {one.name: Outcome(one.verdict, one.part) for one in tests if one.status != "skipped"}
        grades = grading.grade(self._problem.data, outcomes)
        whole = grades.pop("")
        return Judged(
            submission=name,
            verdict=whole.verdict,
            score=whole.score,
            slowest_ms=max(one.cpu_ms for one in tests),
            memory_peak_bytes=max(one.memory_peak_bytes for one in tests),
            failed=whole.decided_by,
            detail=None,
            groups=grades,
            tests=tests,
        )

    def _held_against(self, submission: Submission, found: Judged) -> Judged:
        outcomes = {one.name: Outcome(one.verdict, one.part) for one in found.tests}
        grades = {**found.groups, "": Grade(verdict=found.verdict, score=found.score)}
        complaints = expectations.complaints(submission, self._problem.data, outcomes, grades)
        expected = expectations.told(submission)
        return msgspec.structs.replace(found, expected=expected, complaints=tuple(complaints))

    async def _run(self, body: dict[str, Any]) -> Any:
        """The result of a job. Its body is checked as anybody's is. Raises PackageError."""
        request = self._ours(lambda: spec.parse(msgspec.json.encode(body), self._engine.rules))
        return await self._engine.submit(await self._engine.pin(request)).task

    def _ours(self, make: Callable[[], Any]) -> Any:
        """What is made, where what cannot be asked for is the package's fault. Raises PackageError."""
        try:
            return make()
        except spec.SpecError as error:
            cure = "Mend the package, or have the operator raise what it needs."
            raise PackageError(f"The package cannot be judged here: {error}.", cure) from None


def inline(files: Files) -> Contents:
    """Data of a package, sent along with every job."""
    return lambda path: {"base64": b64encode(files.read(path)).decode()}


def _tested(test: Any) -> Tested:
    usage = test.usage
    return Tested(
        name=test.name,
        status=test.status,
        verdict=_LETTERS.get(test.status, JUDGE_ERROR),
        cpu_ms=usage.cpu_ms if usage else 0.0,
        memory_peak_bytes=usage.memory_peak_bytes if usage else 0,
        part=None,
        detail=test.detail,
    )


def _not_tested(name: str, result: Any) -> Judged:
    step = result.steps.get(result.decided_by)
    said = step.stderr.text or step.stdout.text if step else None
    return Judged(
        submission=name,
        verdict=_LETTERS.get(result.status, JUDGE_ERROR),
        score=0.0,
        slowest_ms=0.0,
        memory_peak_bytes=0,
        failed=None,
        detail=said,
        groups={},
        tests=(),
    )
