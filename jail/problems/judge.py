"""Judges submissions to one problem, in sandboxes of an engine: the one module here that runs anything."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import msgspec

from jail import spec
from jail.engine import Engine
from jail.errors import PackageError
from jail.files import Files as Store
from jail.judging.verdict import FailFast
from jail.judging.vocabulary import NAMES, WORDS
from jail.languages.definitions import Definitions
from jail.languages.expansion import Expansion, Source
from jail.problems import expectations, grading, job, submissions, timing, validator
from jail.problems.files import Files
from jail.problems.files import read as read_file
from jail.problems.grading import Grade, Outcome
from jail.problems.job import Contents
from jail.problems.package import Problem
from jail.problems.sources import Limits, Sources
from jail.problems.submissions import Submission
from jail.steps import spec as steps
from jail.steps.result import StepsResult, TestResult
from jail.steps.spec import POINTS_MAX

MEASURED_MS = 60_000
"""What a test of a submission may take from whose time the limit is to follow."""

INLINE_BYTES = 4 << 10
"""Of a file of the data that goes along with each job; longer ones go once."""


T = TypeVar("T")


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a submission in one test case. verdict: the letters of `status`. detail: for people."""

    name: str
    status: str
    verdict: str
    cpu_ms: float
    memory_peak_bytes: int
    score: float | None
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


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What takes a sandbox to know of a problem. checker: of its jobs, None when the default one judges."""

    checker: dict[str, Any] | None
    time_limit_ms: int


class Judge:
    """Of one problem."""

    def __init__(
        self,
        engine: Engine,
        files: Files,
        problem: Problem,
        definitions: Definitions,
        contents: Contents,
        owner: str,
        record: Callable[[Any], None] = lambda result: None,
    ) -> None:
        """contents: where jobs find the package's data; called in a thread.

        owner: of what they find in the store. record: is told of each result.
        """
        self._engine = engine
        self._files = files
        self._problem = problem
        self._definitions = definitions
        self._contents = contents
        self._owner = owner
        self._record = record

    async def prepare(self) -> tuple[Prepared, dict[str, Judged]]:
        """Build the validator and find the time limit; with what became of submissions on the way.

        Raises PackageError.
        """
        checker = await self._checker()
        if self._problem.metadata.time_limit_ms is not None:
            return Prepared(checker=checker, time_limit_ms=self._problem.metadata.time_limit_ms), {}
        return await self._measure(checker)

    async def _checker(self) -> dict[str, Any] | None:
        if self._problem.validator is None:
            return None
        recipe = await self._off_loop(validator.recipe, self._sources, self._problem.validator)
        files = recipe.files
        if recipe.build is not None:
            files = validator.unpacked(await self._built(recipe.build))
        run = msgspec.to_builtins(recipe.run)
        return {**run, "files": msgspec.to_builtins(files), "convention": "icpc"}

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

    async def _measure(self, checker: dict[str, Any] | None) -> tuple[Prepared, dict[str, Judged]]:
        bounding = [one for one in self.submissions() if one.bounds_time]
        if not bounding:
            cure = "Add an accepted submission, or say limits.time_limit."
            raise PackageError("The package says no time limit, and no submission bounds it.", cure)
        most_ms = min(MEASURED_MS, self._rules.ceilings.cpu_ms)
        unbound = Prepared(checker=checker, time_limit_ms=most_ms)
        found = {one.name: await self.judge(one, unbound) for one in bounding}
        tests = [test for one in found.values() for test in one.tests]
        if lost := [test for test in tests if test.status in ("sandbox_error", "cancelled")]:
            raise PackageError(f"The time limit could not be found: {lost[0].detail}.", "Try again.")
        slowest = max(found.values(), key=lambda one: one.slowest_ms)
        if any(expectations.simple(test.verdict) == "TLE" for test in tests):
            raise PackageError(
                f"{slowest.submission} takes more than {most_ms} ms, and bounds the time limit.",
                "Say limits.time_limit, or make it faster.",
            )
        limit_ms = timing.time_limit_ms(self._problem.metadata.timing, slowest.slowest_ms)
        in_time = {name: one for name, one in found.items() if one.slowest_ms <= limit_ms}
        return Prepared(checker=checker, time_limit_ms=limit_ms), in_time

    def submissions(self) -> tuple[Submission, ...]:
        """Those that come with the problem. Raises PackageError."""
        return submissions.read(self._files, self._problem.metadata)

    async def judge(self, submission: Submission, prepared: Prepared) -> Judged:
        """One that comes with the problem, or is like those. Raises PackageError."""
        limits = self._limits(prepared)
        program = await self._off_loop(self._sources.submission, submission.program, limits)
        # Their rules speak of the verdict of every case.
        fail_fast = "never" if submission.rules else self._fail_fast()
        found = await self._judge(submission.name, program, prepared, fail_fast)
        return self._held_against(submission, found)

    async def judge_source(self, name: str, source: Source, prepared: Prepared) -> Judged:
        """One that somebody sent. Raises SpecError naming the field, PackageError."""
        limits = self._limits(prepared)
        asked = msgspec.structs.replace(source, limits=limits.run, compile_limits=limits.compile)
        program = await self._engine.means.files.do(self._sources.given, asked)
        return await self._judge(name, program, prepared, self._fail_fast())

    @property
    def _rules(self) -> spec.Rules:
        return msgspec.structs.replace(self._engine.rules, owner=self._owner)

    @property
    def _sources(self) -> Sources:
        return Sources(
            files=self._files,
            metadata=self._problem.metadata,
            definitions=self._definitions,
            rules=self._rules,
        )

    def _limits(self, prepared: Prepared) -> Limits:
        return job.limits(self._problem.metadata, prepared.time_limit_ms, self._rules)

    def _fail_fast(self) -> FailFast:
        return grading.fail_fast(self._problem.data, self._problem.metadata.scoring)

    async def _judge(self, name: str, program: Expansion, prepared: Prepared, fail_fast: FailFast) -> Judged:
        limits = self._limits(prepared)
        body = await self._off_loop(
            job.body, *(self._problem, program, limits, prepared.checker, self._contents, fail_fast)
        )
        result = await self._run(body)
        # Without a status, it was not run since another test failed.
        tests = tuple(map(self._tested, (test for test in result.tests if test.status)))
        if not tests:
            return _not_tested(name, result)
        outcomes = {one.name: Outcome(one.verdict, one.score) for one in tests}
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

    def _tested(self, test: TestResult) -> Tested:
        usage = test.usage
        return Tested(
            name=test.name,
            status=test.status,
            verdict=letters(test.status),
            score=self._score(test),
            cpu_ms=usage.cpu_ms if usage else 0.0,
            memory_peak_bytes=usage.memory_peak_bytes if usage else 0,
            detail=test.message or test.detail,
        )

    def _score(self, test: TestResult) -> float | None:
        """What a validator gave, if it did."""
        scores = self._problem.metadata.custom_score or not self._problem.metadata.legacy
        if self._problem.validator is None or not scores or test.points == POINTS_MAX:
            return None
        return test.points

    def _held_against(self, submission: Submission, found: Judged) -> Judged:
        outcomes = {one.name: Outcome(one.verdict, one.score) for one in found.tests}
        grades = {**found.groups, "": Grade(verdict=found.verdict, score=found.score)}
        complaints = expectations.complaints(submission, self._problem.data, outcomes, grades)
        expected = expectations.told(submission)
        return msgspec.structs.replace(found, expected=expected, complaints=tuple(complaints))

    async def _run(self, body: dict[str, Any]) -> Any:
        """The result of a job, whose body is checked as anybody's is. Raises PackageError."""
        content = await self._off_loop(msgspec.json.encode, body)
        with _packages_fault():
            asked = steps.parse(content, self._rules)
        run = self._engine.submit(await self._engine.pin(asked))
        try:
            result = await asyncio.shield(run.task)
            self._record(result)
            return result
        finally:
            if not run.task.done():
                run.cancel()

    async def _off_loop(self, call: Callable[..., T], *arguments: Any) -> T:
        """What a call returns that reads or decompresses files. Raises PackageError."""
        with _packages_fault():
            return await self._engine.means.files.do(call, *arguments)


@contextmanager
def _packages_fault() -> Iterator[None]:
    """What cannot be asked for is so because the package asks for it. Raises PackageError."""
    try:
        yield
    except spec.SpecError as error:
        cure = "Mend the package, or have the operator raise what it needs."
        raise PackageError(f"The package cannot be judged here: {error}.", cure) from None


def contents(files: Files, store: Store, owner: str, digests: dict[str, str]) -> Contents:
    """Data of a package for jobs: in the body what is short, else as a stored file of that owner's.

    digests: those of long files, as far as they are known; others are added. Raises StoredFileError, when
    called.
    """

    def content(path: str) -> dict[str, str]:
        if files.sizes[path] <= INLINE_BYTES:
            return {"base64": b64encode(read_file(files, path)).decode()}
        # It may have been evicted since.
        if path not in digests or store.find(digests[path], owner) is None:
            digests[path] = _stored(store, owner, files, path)
        return {"file": digests[path]}

    return content


def _stored(store: Store, owner: str, files: Files, path: str) -> str:
    with closing(store.begin(owner, files.sizes[path])) as incoming:
        for piece in files.pieces(path):
            incoming.write(piece)
        return incoming.keep().digest


def letters(status: str) -> str:
    """The verdict of CLICS for a status."""
    return WORDS[status][NAMES.index("clics")]


def _not_tested(name: str, result: StepsResult) -> Judged:
    step = result.steps.get(result.decided_by)
    said = step.stderr.text or step.stdout.text if step else None
    return Judged(
        submission=name,
        verdict=letters(result.status),
        score=0.0,
        slowest_ms=0.0,
        memory_peak_bytes=0,
        failed=None,
        detail=said,
        groups={},
        tests=(),
    )
