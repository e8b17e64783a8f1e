"""The body of POST /v1/run that names a language in place of steps, and the job in steps that it is."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from jail.judging.shapes import Compare
from jail.judging.verdict import FailFast
from jail.languages.definitions import Definitions
from jail.languages.expansion import Expansion, Source, allow, expand
from jail.spec import Program, Rules, SpecError
from jail.steps import spec
from jail.steps.spec import (
    TESTS_MAX,
    CheckerRequest,
    Keep,
    StepRequest,
    StepsRequest,
    StepsSpec,
    TestGroupRequest,
    TestRequest,
)

COMPILE, RUN = "compile", "run"
"""The names of its steps; of a language that is not compiled, the latter alone."""


class LanguageRequest(Source, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source, and what it is tested with: `tests` and what follows as in StepsRequest.

    limits, of the tests too: the program's own. See Source.
    """

    tests: Annotated[list[TestRequest], Meta(max_length=TESTS_MAX)] = field(default_factory=list)
    compare: Compare = Compare()
    checker: CheckerRequest | UnsetType = UNSET
    groups: Annotated[list[TestGroupRequest], Meta(max_length=TESTS_MAX)] = field(default_factory=list)
    fail_fast: FailFast = "never"
    keep: Keep = "failed"


KINDS = {**spec.KINDS, "language": msgspec.json.Decoder(LanguageRequest)}
"""Kinds of bodies, with those of languages."""


def steps(request: LanguageRequest, definitions: Definitions, rules: Rules) -> StepsRequest:
    """The same as steps. Raises SpecError naming the field."""
    expansion = expand(request, definitions, rules)
    language = definitions.find(request.language).language
    tests = [
        msgspec.structs.replace(test, limits=allow(test.limits, language, rules.ceilings))
        for test in request.tests
    ]
    return StepsRequest(
        steps=_steps(expansion),
        tests=tests,
        compare=request.compare,
        checker=request.checker,
        groups=request.groups,
        fail_fast=request.fail_fast,
        keep=request.keep,
    )


def _steps(expansion: Expansion) -> list[StepRequest]:
    if expansion.compile is None:
        return [_step(RUN, expansion.run, files=expansion.files)]
    compiled = _step(COMPILE, expansion.compile, files=expansion.files, compiles=True)
    return [compiled, _step(RUN, expansion.run)]


def _step(name: str, program: Program, **more: object) -> StepRequest:
    return StepRequest(name=name, **msgspec.structs.asdict(program) | more)


def validate(request: LanguageRequest, definitions: Definitions, rules: Rules) -> StepsSpec:
    """The job that it asks for. Raises SpecError naming the field as the caller wrote it."""
    made = steps(request, definitions, rules)
    try:
        return spec.validate(made, rules)
    except SpecError as error:
        place, dot, own = error.field.partition(".")
        if not dot or not place.startswith("steps["):
            raise
        is_compilation = place == "steps[0]" and len(made.steps) > 1
        if is_compilation and own.startswith("limits."):
            own = f"compile_{own}"
        raise SpecError(own, error.detail) from None
