"""Whether an included submission got what its folder, its comment or submissions.yaml allows it."""

from collections.abc import Iterator, Mapping

from jail.problems.grading import Grade, Outcome
from jail.problems.submissions import ALL, Rule, Submission, matches
from jail.problems.testdata import Group, LegacyRules

_SIMPLE = {"PE": "WA", "WTL": "TLE", "MLE": "RTE", "OLE": "RTE", "IF": "RTE"}
"""Of the verdicts that folders speak of, the one that each other comes to: as CLICS has its simpler sets."""


def simple(verdict: str) -> str:
    """The verdict as folders speak of it."""
    return _SIMPLE.get(verdict, verdict)


def told(submission: Submission) -> str:
    """What may become of it, for people: the verdicts, or nothing for what may become anything."""
    if submission.verdicts:
        return " or ".join(submission.verdicts)
    of_all = [rule for rule in submission.rules if not rule.cases]
    if not of_all:
        return ""
    return " or ".join(
        verdict
        for verdict in ALL
        if all(verdict in rule.permitted and verdict in rule.required for rule in of_all)
    )


def complaints(
    submission: Submission, root: Group, outcomes: Mapping[str, Outcome], grades: Mapping[str, Grade]
) -> list[str]:
    """What is not as it should be, a sentence each. grades: with that of everything as ""."""
    whole = grades[""]
    if submission.verdicts and simple(whole.verdict) not in submission.verdicts:
        return [f"It is {whole.verdict}, and has to be {told(submission)}."]
    if submission.partial and _is_best(root, whole):
        return [f"It has the best score, {whole.score:g}, and has to have less."]
    return [one for rule in submission.rules for one in _of_rule(rule, outcomes, grades)]


def _is_best(root: Group, whole: Grade) -> bool:
    return isinstance(root.rules, LegacyRules) and whole.score >= root.rules.range[1]


def _of_rule(rule: Rule, outcomes: Mapping[str, Outcome], grades: Mapping[str, Grade]) -> Iterator[str]:
    where = f" of {', '.join(rule.cases)}" if rule.cases else ""
    judged = {name: simple(one.verdict) for name, one in outcomes.items() if _concerns(rule, name)}
    for name, verdict in judged.items():
        if verdict not in rule.permitted:
            yield f"{name} is {verdict}, and all{where} have to be {' or '.join(rule.permitted)}."
            break
    if not any(verdict in rule.required for verdict in judged.values()):
        yield f"None{where} is {' or '.join(rule.required)}, and one has to be."
    if rule.score is not None:
        low, high = rule.score
        names = [name for name in grades if name and _concerns(rule, name)] if rule.cases else [""]
        for name in names:
            if not low <= grades[name].score <= high:
                of = f" of {name}" if name else ""
                yield f"The score{of} is {grades[name].score:g}, and has to be {_range(low, high)}."


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"from {low:g} to {high:g}"


def _concerns(rule: Rule, name: str) -> bool:
    return not rule.cases or any(matches(pattern, name) for pattern in rule.cases)
