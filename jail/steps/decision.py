"""What is told of a job in steps that has ended: one pure function."""

from collections.abc import Mapping, Sequence

from jail.judging import scores, vocabulary
from jail.judging import verdict as judging
from jail.judging.shapes import Judged, Judgement
from jail.outcome import Verdict
from jail.result import ProcessResult, Timing
from jail.steps.result import GroupScore, StepsResult, TestResult
from jail.steps.spec import Step, StepsSpec, Test
from jail.steps.testing import Tested

Ran = tuple[Verdict, ProcessResult]


def as_test(test: Test, tested: Tested | None) -> judging.Test:
    """A test as its verdict on the job sees it."""
    return judging.Test(name=test.name, status=tested.status if tested else None, group=test.group or None)


def as_step(step: Step, verdict: Verdict) -> judging.Step:
    """The same of a step."""
    return judging.Step(
        name=step.process.name,
        verdict=verdict,
        compiles=step.compiles,
        continue_on=tuple(step.continue_on),
    )


def decide(
    spec: StepsSpec,
    job: str,
    steps: Mapping[str, Ran],
    tests: Sequence[Tested | None],
    stopped: Verdict | None,
    timing: Timing,
) -> StepsResult:
    """The result of `job`, its id. stopped: why the job could not come to its end, if it could not."""
    ran = [as_step(step, steps[step.process.name][0]) for step in spec.steps if step.process.name in steps]
    seen = [as_test(test, tested) for test, tested in zip(spec.tests, tests, strict=True)]
    verdict = judging.judge_job(ran, seen, spec.fail_fast)
    counts = judging.counting(seen, spec.fail_fast)
    counted = [tested if does else None for tested, does in zip(tests, counts, strict=True)]
    scored = _score(spec, counted)
    if stopped and verdict.status == "ok":
        verdict = judging.JobVerdict(stopped.status)
    return StepsResult(
        id=job,
        status=verdict.status,
        decided_by=verdict.step or verdict.test,
        detail=stopped.detail if stopped else None,
        steps={name: told for name, (_, told) in steps.items()},
        tests=tuple(
            _test(spec, test, tested, float(points.points))
            for test, tested, points in zip(spec.tests, counted, scored.tests, strict=True)
        ),
        groups={
            group.name: GroupScore(
                status=_of_group(group.name, seen), points=float(scored.groups[group.name].points)
            )
            for group in spec.groups
        },
        score=float(scored.job.points) if spec.tests else None,
        words=vocabulary.words(verdict.status, _signal(verdict, steps, counted)),
        timing=timing,
    )


def _signal(
    verdict: judging.JobVerdict, steps: Mapping[str, Ran], tests: Sequence[Tested | None]
) -> int | None:
    """By which what decided was ended."""
    if verdict.step:
        return steps[verdict.step][0].signal
    decisive = (tested.program for tested in tests if tested and tested.test.name == verdict.test)
    return next((program.signal for program in decisive if program), None)


def _score(spec: StepsSpec, tests: Sequence[Tested | None]) -> scores.Scores:
    return scores.score(
        [
            scores.Scored(
                status=tested.status if tested else None,
                points=test.points,
                group=test.group or None,
                judgement=tested.judgement if tested else None,
            )
            for test, tested in zip(spec.tests, tests, strict=True)
        ],
        spec.groups,
    )


def _of_group(name: str, tests: Sequence[judging.Test]) -> Judged | None:
    statuses = [test.status for test in tests if test.group == name]
    wrong = [status for status in statuses if status not in ("ok", None)]
    if wrong:
        return wrong[0]
    return None if None in statuses else "ok"


def _test(spec: StepsSpec, test: Test, tested: Tested | None, points: float) -> TestResult:
    if tested is None:
        return TestResult(name=test.name, group=test.group, status=None, points=points)
    program, judgement = tested.program, tested.judgement
    if program is None:
        return TestResult(
            name=test.name, group=test.group, status=tested.status, points=points, detail=tested.detail
        )
    is_kept = spec.keep == "always" or (spec.keep == "failed" and tested.status != "ok")
    return TestResult(
        name=test.name,
        group=test.group,
        status=tested.status,
        points=points,
        exit_code=program.exit_code,
        signal=program.signal,
        limit=program.limit,
        detail=_detail(tested.detail or program.detail, judgement),
        difference=tested.difference,
        message=judgement.message if judgement else None,
        judge_message=judgement.judge_message if judgement else None,
        stdout=program.stdout if is_kept else None,
        stderr=program.stderr if is_kept else None,
        usage=program.usage,
    )


def _detail(own: str | None, judgement: Judgement | None) -> str | None:
    return own or (judgement.detail if judgement else None)
