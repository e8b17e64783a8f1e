"""The specification of a job in steps. As in jail.spec: what is past it is valid."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs

from jail import spec
from jail.judging.checker import Convention
from jail.judging.scores import Aggregation, Group
from jail.judging.shapes import Compare
from jail.judging.verdict import FailFast
from jail.limits import LimitsRequest
from jail.outcome import Status
from jail.spec import (
    NAME,
    STORED_MAX,
    Content,
    FileContent,
    JobSpec,
    ProcessSpec,
    Program,
    Rules,
    SpecError,
    StoredFile,
)

STEPS_MAX = 16

TESTS_MAX = 4096
POINTS_MAX = 1_000_000
PLACE = ".judge"
"""The directory in /box that a checker finds the files of a test in. Its own are elsewhere."""

KEPT_BYTES = 4096
"""What comes back of each stream of a test."""

_NAMED = Annotated[str, Meta(extra_json_schema={"pattern": f"^{NAME}$"})]
_TITLE = Annotated[str, Meta(min_length=1, max_length=256)]
_Points = Annotated[float, Meta(ge=0, le=POINTS_MAX)]

Keep = Literal["never", "failed", "always"]
"""Of which tests what they wrote comes back."""

Passed = Literal["nonzero_exit", "signaled", "cpu_limit", "wall_limit", "memory_limit", "output_limit"]
"""What a step may have done wrong and the next be run all the same."""


class StepRequest(Program, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step. compiles: what its program does wrong is a compile_error of the job.

    continue_on: with which statuses of this one the next is run all the same.
    """

    name: _NAMED
    compiles: bool = False
    continue_on: tuple[Passed, ...] = ()


class TestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run of the last step, with what is its own: `args` after argv, `files` and `limits` over its.

    expected: what stdout has to be, as `compare` says, that of the job if it says nothing. points: of a test
    that is right. checker_args: after those that its convention gives the checker.
    """

    __test__ = False

    name: _TITLE | UnsetType = UNSET
    stdin: str | Content | UnsetType = UNSET
    args: list[str] = []
    files: dict[str, str | FileContent] = {}
    limits: LimitsRequest = LimitsRequest()
    expected: str | Content | UnsetType = UNSET
    compare: Compare | UnsetType = UNSET
    checker_args: list[str] = []
    group: str = ""
    points: _Points = 1


class CheckerRequest(Program, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A program that judges in place of a comparison, in a sandbox of its own: see docs/steps.md."""

    convention: Convention


class TestGroupRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tests that are scored together: the sum of their points, or as the worst of them."""

    __test__ = False

    name: _TITLE
    points: _Points | UnsetType = UNSET
    score: Aggregation = "sum"


class StepsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/run, as it comes, of a job in steps.

    fail_fast: whether a test that is not right ends its group, or the job. keep: of which tests what they
    wrote comes back, KEPT_BYTES of each stream.
    """

    steps: Annotated[list[StepRequest], Meta(min_length=1, max_length=STEPS_MAX)]
    tests: Annotated[list[TestRequest], Meta(max_length=TESTS_MAX)] = []
    compare: Compare = Compare()
    checker: CheckerRequest | UnsetType = UNSET
    groups: Annotated[list[TestGroupRequest], Meta(max_length=TESTS_MAX)] = []
    fail_fast: FailFast = "never"
    keep: Keep = "failed"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A valid step. continue_on: see StepRequest."""

    process: ProcessSpec
    compiles: bool
    continue_on: frozenset[Status]


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """A valid test. expected: bytes, or a stored file, or None: any output is right."""

    __test__ = False

    name: str
    process: ProcessSpec
    expected: bytes | StoredFile | None
    compare: Compare
    checker_args: tuple[str, ...] = ()
    group: str
    points: Decimal


class Checker(msgspec.Struct, frozen=True, kw_only=True):
    """A valid checker."""

    process: ProcessSpec
    convention: Convention


class StepsSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One valid job in steps. With tests the last step is run for each of them, and not by itself."""

    steps: tuple[Step, ...]
    tests: tuple[Test, ...]
    checker: Checker | None
    groups: tuple[Group, ...]
    fail_fast: FailFast
    keep: Keep

    @property
    def owner(self) -> str:
        """Of the stored files."""
        return self.steps[0].process.owner

    @property
    def stored(self) -> frozenset[str]:
        """The digests of all stored files that it uses."""
        processes = [one.process for one in (*self.steps, *self.tests)]
        if self.checker:
            processes.append(self.checker.process)
        found = {file.digest for one in processes for file in (*one.stored, one.stored_stdin) if file}
        return frozenset(
            found | {test.expected.digest for test in self.tests if isinstance(test.expected, StoredFile)}
        )

    @property
    def kept_bytes(self) -> int:
        """The most that what any step left takes, until the next has left something."""
        return max(map(box_bytes, self.steps[:-1]), default=0)

    @property
    def test_bytes(self) -> int:
        """The most memory that one test, and then its checker, takes; 0 if there are none."""
        checker = [self.checker.process] if self.checker and self.tests else []
        return max(
            (one.limits.memory_bytes for one in (*(test.process for test in self.tests), *checker)), default=0
        )

    @property
    def memory_bytes(self) -> int:
        """The most that all of it takes at once, one test at a time."""
        largest = max(step.process.limits.memory_bytes for step in self.steps)
        return self.kept_bytes + max(largest, self.test_bytes)


def box_bytes(step: Step) -> int:
    """The most that its /box takes, with what the kernel has for each page and for each name: 1.5 KiB."""
    limits = step.process.limits
    return min(limits.memory_bytes, 2 * limits.disk_bytes + 2048 * limits.files)


KINDS = {**spec.KINDS, "steps": msgspec.json.Decoder(StepsRequest)}


def parse(body: bytes, rules: Rules) -> JobSpec | StepsSpec:
    """The job that a JSON body asks for, of any kind; raises SpecError naming the field."""
    return validate_any(spec.decode(body, KINDS), rules)


def validate_any(
    request: spec.Request | spec.GroupRequest | StepsRequest, rules: Rules
) -> JobSpec | StepsSpec:
    """The job that a request of any kind asks for; raises SpecError naming the field."""
    return validate(request, rules) if isinstance(request, StepsRequest) else spec.validate(request, rules)


def validate(request: StepsRequest, rules: Rules) -> StepsSpec:
    """The job that a request asks for; raises SpecError naming the field."""
    steps: list[Step] = []
    for index, asked in enumerate(request.steps):
        with spec.within(f"steps[{index}]"):
            spec.check_name(asked.name, [step.process for step in steps])
            process = _with_carried(spec.program(asked, rules, asked.name), steps)
            steps.append(
                Step(process=process, compiles=asked.compiles, continue_on=frozenset(asked.continue_on))
            )
    groups = _groups(request)
    tests: list[Test] = []
    for index, asked in enumerate(request.tests):
        with spec.within(f"tests[{index}]"):
            tests.append(_test(asked, str(index + 1), request, rules, steps[:-1]))
    _check_names([test.name for test in tests], "tests", {step.process.name for step in steps})
    job = StepsSpec(
        steps=tuple(steps),
        tests=tuple(tests),
        checker=_checker(request, rules),
        groups=groups,
        fail_fast=request.fail_fast,
        keep=request.keep,
    )
    if job.memory_bytes > rules.memory_bytes:
        detail = (
            f"take {job.memory_bytes} bytes with what they leave in /box; the maximum is {rules.memory_bytes}"
        )
        raise SpecError("steps", detail)
    return job


def _test(asked: TestRequest, name: str, request: StepsRequest, rules: Rules, before: Sequence[Step]) -> Test:
    last = request.steps[-1]
    if asked.args and last.argv is UNSET:
        raise SpecError("args", "take an argv in the last step")
    program = structs.replace(
        last,
        argv=last.argv if last.argv is UNSET else [*last.argv, *asked.args],
        stdin=last.stdin if asked.stdin is UNSET else asked.stdin,
        files=last.files | asked.files,
        limits=_over(last.limits, asked.limits),
    )
    if asked.checker_args and request.checker is UNSET:
        raise SpecError("checker_args", "are for a checker, and there is none")
    if asked.group and asked.group not in [group.name for group in request.groups]:
        raise SpecError("group", f"{asked.group!r} is none of `groups`")
    return Test(
        name=name if asked.name is UNSET else asked.name,
        process=_with_carried(spec.program(program, rules, "test"), before),
        expected=_expected(asked.expected, rules),
        compare=request.compare if asked.compare is UNSET else asked.compare,
        checker_args=tuple(asked.checker_args),
        group=asked.group,
        points=_decimal(asked.points),
    )


def _with_carried(process: ProcessSpec, before: Sequence[Step]) -> ProcessSpec:
    """The same with the stored files of the step before it, but where it has others."""
    if not before or not before[-1].process.stored:
        return process
    own = {file.path for file in (*process.files, *process.stored)}
    carried = [
        file for file in before[-1].process.stored if not any(_collide(file.path, path) for path in own)
    ]
    count = len(process.stored) + len(carried)
    if count > STORED_MAX:
        raise SpecError("files", f"{count} stored files, with those before; the maximum is {STORED_MAX}")
    found = structs.replace(process, stored=(*process.stored, *carried))
    spec.check_not_lent(found)
    return found


def _collide(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _expected(asked: str | Content | UnsetType, rules: Rules) -> bytes | StoredFile | None:
    if asked is UNSET:
        return None
    if spec.is_stored(asked):
        return spec.stored_file("expected", asked, rules)
    return spec.content_bytes("expected", asked)


def _over(base: LimitsRequest, own: LimitsRequest) -> LimitsRequest:
    set_here = {name: value for name, value in structs.asdict(own).items() if value is not None}
    return structs.replace(base, **set_here)


def _checker(request: StepsRequest, rules: Rules) -> Checker | None:
    if request.checker is UNSET:
        return None
    with spec.within("checker"):
        for path in request.checker.files:
            if path == PLACE or path.startswith(f"{PLACE}/"):
                raise SpecError(f"files.{path}", f"lies in {PLACE}, where the files of a test are")
        process = spec.program(request.checker, rules, "checker")
        _check_arguments(request, rules)
        return Checker(process=process, convention=request.checker.convention)


def _check_arguments(request: StepsRequest, rules: Rules) -> None:
    """Raise SpecError for those that no program could be given."""
    own = [] if request.checker.argv is UNSET else request.checker.argv
    for arguments in {tuple(test.checker_args) for test in request.tests}:
        spec.program(structs.replace(request.checker, argv=[*own, *arguments], files={}), rules, "checker")


def _groups(request: StepsRequest) -> tuple[Group, ...]:
    _check_names([group.name for group in request.groups], "groups", set())
    return tuple(
        Group(name=one.name, points=None if one.points is UNSET else _decimal(one.points), score=one.score)
        for one in request.groups
    )


def _decimal(number: float) -> Decimal:
    """The number as it was written in the request."""
    return Decimal(repr(number))


def _check_names(names: Sequence[str], field: str, known: set[str]) -> None:
    for index, name in enumerate(names):
        if name in known:
            raise SpecError(f"{field}[{index}].name", f"{name!r} is taken")
        known.add(name)
