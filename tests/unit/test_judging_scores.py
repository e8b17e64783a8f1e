"""Points: exact, of tests, groups and jobs."""

from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jail.judging.scores import DIGITS, Group, Scored, score
from jail.judging.shapes import Judgement

ALWAYS_THE_SAME = settings(derandomize=True, database=None, deadline=None)


def tried(status="ok", points="1", group=None, part=None, scored=None):
    judgement = None
    if part is not None or scored is not None:
        judgement = Judgement(
            status="ok",
            points=None if part is None else Decimal(part),
            score=None if scored is None else Decimal(scored),
        )
    return Scored(status=status, points=Decimal(points), group=group, judgement=judgement)


WRONG = "wrong_answer"


def job(tests, *groups):
    found = score(tests, groups)
    return str(found.job.points), str(found.job.maximum)


def test_a_test_is_worth_its_points_or_nothing():
    assert job([tried(), tried(WRONG), tried("cpu_limit", "5"), tried(points="2.5")]) == ("3.5", "9.5")


def test_what_was_not_run_is_worth_nothing():
    assert job([tried(status=None), tried()]) == ("1", "2")


def test_a_checker_gives_a_part_or_points_and_never_more_than_there_are():
    assert job([tried(points="30", part="0.25")]) == ("7.5", "30")
    assert job([tried(points="30", scored="7")]) == ("7", "30")
    assert job([tried(points="30", scored="31")]) == ("30", "30")


def test_points_of_what_is_not_ok_are_none():
    assert job([tried(WRONG, "30", part="0.5")]) == ("0", "30")


@pytest.mark.parametrize(
    ("tests", "points"),
    [
        ([tried(group="g"), tried(group="g")], "30"),
        ([tried(group="g"), tried(WRONG, group="g")], "0"),
        ([tried(group="g", part="0.5"), tried(group="g")], "15"),
        ([tried(group="g", points="10", scored="2"), tried(group="g")], "6"),
        ([tried(group="g", points="0"), tried(group="g")], "30"),
        ([tried(WRONG, group="g", points="0"), tried(group="g")], "0"),
        ([tried(status=None, group="g"), tried(group="g")], "0"),
        ([], "0"),
    ],
)
def test_min_is_the_part_that_the_worst_test_got(tests, points):
    assert job(tests, Group(name="g", points=Decimal(30), score="min")) == (points, "30")


def test_sum_is_what_the_tests_scored():
    tests = [tried(group="g", points="10"), tried(WRONG, group="g", points="20"), tried(points="5")]
    assert job(tests, Group(name="g")) == ("15", "35")
    assert job(tests, Group(name="g", points=Decimal(7))) == ("12", "12")


def test_groups_are_told_one_by_one():
    found = score([tried(group="a"), tried(WRONG, group="b")], [Group(name="a"), Group(name="b")])
    assert {name: (str(one.points), str(one.maximum)) for name, one in found.groups.items()} == {
        "a": ("1", "1"),
        "b": ("0", "1"),
    }
    assert [str(one.points) for one in found.tests] == ["1", "0"]


def test_ten_tenths_are_one():
    assert job([tried(points="0.1")] * 10) == ("1", "1")


def test_only_what_is_told_is_rounded():
    thirds = [tried(points="1", part="0.3333333333333333333333")] * 3
    assert job(thirds) == ("1", "3")
    assert str(score(thirds).tests[0].points) == "0.333333333333"


def test_a_half_is_rounded_to_the_even_digit():
    told = [
        str(score([tried(points=points)]).job.points) for points in ("0.0000000000005", "0.0000000000015")
    ]
    assert told == ["0", "2E-12"]


def test_whole_points_look_whole():
    assert job([tried(points="1e2")] * 3) == ("300", "300")
    assert msgspec.json.Encoder(decimal_format="number").encode(score([tried(points="100")]).job) == (
        b'{"points":100,"maximum":100}'
    )


POINTS = st.decimals(0, 10**6, places=6)


@given(st.lists(st.tuples(st.booleans(), POINTS, st.sampled_from([None, "a", "b"])), max_size=12))
@ALWAYS_THE_SAME
def test_the_sum_is_exact(told):
    tests = [Scored(status="ok" if ok else WRONG, points=points, group=group) for ok, points, group in told]
    found = score(tests, [Group(name="a"), Group(name="b")])
    assert Fraction(found.job.points) == sum(Fraction(points) for ok, points, _ in told if ok)
    assert Fraction(found.job.maximum) == sum(Fraction(points) for _, points, _ in told)
    assert DIGITS >= 6
