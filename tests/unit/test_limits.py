"""Limits: what is asked, what is given, what cannot be had."""

import math

import msgspec
import pytest

from jail.limits import CEILINGS, MINIMA, LimitError, Limits, LimitsRequest, check, resolve

FIELDS = Limits.__struct_fields__
DEFAULTS = Limits()


def only(field, value):
    return LimitsRequest(**{field: value})


def test_a_caller_can_ask_for_every_limit_and_no_other():
    assert LimitsRequest.__struct_fields__ == FIELDS


@pytest.mark.parametrize("field", FIELDS)
def test_every_limit_is_explained_by_its_name(field):
    assert field in Limits.__doc__


@pytest.mark.parametrize("field", FIELDS)
def test_the_default_is_between_the_minimum_and_the_ceiling(field):
    assert 0 < getattr(MINIMA, field) <= getattr(DEFAULTS, field) <= getattr(CEILINGS, field)


def test_what_is_not_asked_is_the_operators_default():
    defaults = msgspec.structs.replace(DEFAULTS, pids=7, cpus=0.5)
    assert resolve(LimitsRequest(), defaults, CEILINGS) == defaults


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("bound", [MINIMA, CEILINGS], ids=["minimum", "ceiling"])
def test_a_limit_at_its_bound_is_given_and_leaves_the_others_alone(field, bound):
    value = getattr(bound, field)
    found = resolve(only(field, value), DEFAULTS, CEILINGS)
    assert found == msgspec.structs.replace(DEFAULTS, **{field: value})


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [0, -1, -math.inf])
def test_a_limit_below_the_minimum_is_refused_by_its_name(field, value):
    with pytest.raises(LimitError, match="below the minimum") as caught:
        resolve(only(field, value), DEFAULTS, CEILINGS)
    assert (caught.value.field, caught.value.value) == (field, value)
    assert caught.value.minimum == getattr(MINIMA, field)
    assert caught.value.maximum == getattr(CEILINGS, field)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [10**30, math.inf, math.nan])
def test_a_limit_that_is_endless_or_no_number_is_refused_by_its_name(field, value):
    with pytest.raises(LimitError) as caught:
        resolve(only(field, value), DEFAULTS, CEILINGS)
    assert caught.value.field == field


@pytest.mark.parametrize("field", FIELDS)
def test_the_ceiling_is_the_operators(field):
    ceilings = msgspec.structs.replace(DEFAULTS)
    with pytest.raises(LimitError, match="above the maximum"):
        resolve(only(field, getattr(DEFAULTS, field) + 1), DEFAULTS, ceilings)


def test_the_first_limit_out_of_range_is_the_one_that_is_named():
    with pytest.raises(LimitError) as caught:
        check(msgspec.structs.replace(DEFAULTS, pids=0, wall_ms=0), CEILINGS)
    assert caught.value.field == "wall_ms"


def test_limits_in_range_come_back_as_they_are():
    assert check(DEFAULTS, CEILINGS) is DEFAULTS


def test_limits_cannot_be_changed():
    with pytest.raises(AttributeError):
        DEFAULTS.pids = 1
