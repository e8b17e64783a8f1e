"""From the verdicts of the test cases to that of a submission, and its score: pure.

Verdicts are the letters of CLICS. Legacy packages are graded as the format's default grader does, a group at
a time; those since 2023-07 by aggregation, maximum and required groups. What comes after a rejection that
ends the judging of its group has no part in it, judged or not: so the same submission always gets the same.
"""

from collections.abc import Mapping
from statistics import fmean

import msgspec

from jail.judging.verdict import FailFast
from jail.problems.testdata import SAMPLE, SECRET, Case, Group, GroupRules, LegacyRules

ACCEPTED, JUDGE_ERROR = "AC", "JE"

_SEVERITY = ("JE", "CS", "RTE", "IF", "MLE", "TLE", "WTL", "OLE", "WA", "PE")
_SCORES = {"sum": sum, "avg": fmean, "min": min, "max": max}


class Outcome(msgspec.Struct, frozen=True):
    """What became of one test case. score: that its validator gave it; None: what the rules say."""

    verdict: str
    score: float | None = None


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """What a group, or all of it, gets. decided_by: the case that the verdict is of; None of one accepted."""

    verdict: str
    score: float
    decided_by: str | None = None


_LOST = Outcome(JUDGE_ERROR)
_NOTHING = Grade(verdict=ACCEPTED, score=0.0)


def grade(root: Group, outcomes: Mapping[str, Outcome]) -> dict[str, Grade]:
    """The grades of all groups by their names, that of everything as "".

    outcomes: by the names of cases. One that is missing and has a part in it is an error of the judge.
    """
    grades: dict[str, Grade] = {}
    if isinstance(root.rules, LegacyRules):
        _legacy(root, outcomes, grades)
    else:
        _modern(root, outcomes, grades)
    return grades


def fail_fast(root: Group, scoring: bool) -> FailFast:
    """How much need not be judged once a case was rejected, without a change of any grade."""
    groups = _groups(root)
    if isinstance(root.rules, LegacyRules):
        groups = [one for one in groups if not (root.rules.ignore_sample and one.name == SAMPLE)]
        if all(one.rules.breaks and not _forgives(one.rules) for one in groups):
            return "job"
        return "group" if all(one.rules.breaks for one in groups if _has_cases(one)) else "never"
    if not scoring:
        return "job"
    return "never" if any(one.rules.aggregation == "sum" for one in groups if _has_cases(one)) else "group"


def worth(root: Group) -> dict[str, float | None]:
    """The most that a validator can score each case, by their names; None is without bound."""
    found: dict[str, float | None] = {}
    for group in _groups(root):
        cases = [member for member in group.members if isinstance(member, Case)]
        rules = group.rules
        bound = (
            None if isinstance(rules, LegacyRules) or rules.max_score is None else _most(rules, len(cases))
        )
        found |= dict.fromkeys((case.name for case in cases), bound)
    return found


def _groups(group: Group) -> list[Group]:
    within = [one for member in group.members if isinstance(member, Group) for one in _groups(member)]
    return [group, *within]


def _has_cases(group: Group) -> bool:
    return any(isinstance(member, Case) for member in group.members)


def _forgives(rules: LegacyRules) -> bool:
    return rules.accept_if_any_accepted or rules.verdict == "always_accept"


def _legacy(group: Group, outcomes: Mapping[str, Outcome], grades: dict[str, Grade]) -> Grade:
    rules = group.rules
    members = [one for one in group.members if not (rules.ignore_sample and one.name == SAMPLE)]
    found: list[Grade] = []
    for member in members:
        if isinstance(member, Case):
            found.append(_legacy_case(member, rules, outcomes.get(member.name, _LOST)))
        else:
            found.append(_legacy(member, outcomes, grades))
        if rules.breaks and found[-1].verdict != ACCEPTED:
            break
    grades[group.name] = whole = _legacy_whole(rules, found)
    return whole


def _legacy_case(case: Case, rules: LegacyRules, outcome: Outcome) -> Grade:
    if outcome.verdict != ACCEPTED:
        return Grade(verdict=outcome.verdict, score=rules.reject_score, decided_by=case.name)
    return Grade(verdict=ACCEPTED, score=rules.accept_score if outcome.score is None else outcome.score)


def _legacy_whole(rules: LegacyRules, found: list[Grade]) -> Grade:
    if not found:
        return _NOTHING
    rejected = [one for one in found if one.verdict != ACCEPTED]
    accepted = rules.accept_if_any_accepted and len(rejected) < len(found)
    score = float(_SCORES[rules.score]([one.score for one in found]))
    if not rejected or accepted or rules.verdict == "always_accept":
        return Grade(verdict=ACCEPTED, score=score)
    decisive = rejected[0] if rules.verdict == "first_error" else min(rejected, key=_severity)
    return Grade(verdict=decisive.verdict, score=score, decided_by=decisive.decided_by)


def _severity(one: Grade) -> int:
    return _SEVERITY.index(one.verdict)


def _modern(root: Group, outcomes: Mapping[str, Outcome], grades: dict[str, Grade]) -> None:
    for top in root.members:
        groups = [member for member in top.members if isinstance(member, Group)]
        for group in groups:
            grades[group.name] = _modern_group(group, outcomes, grades)
        found = [grades[group.name] for group in groups]
        grades[top.name] = _modern_whole(top, found) if groups else _modern_group(top, outcomes, grades)
    decisive = [grades[one.name] for one in root.members if grades[one.name].verdict != ACCEPTED]
    rejected = decisive[0] if decisive else _NOTHING
    grades[""] = msgspec.structs.replace(rejected, score=grades[SECRET].score)


def _modern_group(group: Group, outcomes: Mapping[str, Outcome], grades: Mapping[str, Grade]) -> Grade:
    """A group of cases."""
    rules = group.rules
    required = [grades[name] for name in rules.require_pass if name in grades]
    if missed := [one for one in required if one.verdict != ACCEPTED]:
        # It is not even judged then, and not accepted.
        return Grade(verdict=missed[0].verdict, score=0.0, decided_by=missed[0].decided_by)
    cases = list(group.cases)
    found = [_modern_case(case, rules, outcomes.get(case.name), len(cases)) for case in cases]
    return _modern_whole(group, found)


def _modern_case(case: Case, rules: GroupRules, outcome: Outcome | None, count: int) -> Grade:
    if outcome is None:
        # Left out after another of its group: that one decides.
        return Grade(verdict=JUDGE_ERROR, score=0.0, decided_by=case.name)
    if outcome.verdict != ACCEPTED:
        return Grade(verdict=outcome.verdict, score=0.0, decided_by=case.name)
    return Grade(verdict=ACCEPTED, score=_most(rules, count) if outcome.score is None else outcome.score)


def _most(rules: GroupRules, count: int) -> float:
    """What one of so many cases of a group is worth."""
    return (rules.max_score or 0.0) / (max(1, count) if rules.aggregation == "sum" else 1)


def _modern_whole(group: Group, found: list[Grade]) -> Grade:
    rules = group.rules
    rejected = next((one for one in found if one.verdict != ACCEPTED), _NOTHING)
    if rules.aggregation == "pass-fail":
        score = 0.0 if rejected is not _NOTHING else rules.max_score or 0.0
    else:
        score = float(_SCORES[rules.aggregation]([one.score for one in found] or [0.0]))
    return msgspec.structs.replace(rejected, score=score)
