"""The default output validator's flags, as the comparison that does the same."""

from collections.abc import Sequence
from math import isfinite

from jail.errors import PackageError
from jail.judging.shapes import Compare

_CURE = "Mend validator_flags in problem.yaml, or the arguments of the validator in data/."
_SWITCHES = ("case_sensitive", "space_change_sensitive")
_TOLERANCES = {
    "float_tolerance": ("absolute", "relative"),
    "float_absolute_tolerance": ("absolute",),
    "float_relative_tolerance": ("relative",),
}


def compare(flags: Sequence[str]) -> Compare:
    """How an output is compared: by tokens whatever their case unless flags say more. Raises PackageError."""
    rest = list(flags)
    switches: set[str] = set()
    tolerances: dict[str, float] = {}
    while rest:
        flag = rest.pop(0)
        if flag in _SWITCHES:
            switches.add(flag)
        elif flag in _TOLERANCES:
            number = _number(flag, rest.pop(0) if rest else "")
            tolerances |= dict.fromkeys(_TOLERANCES[flag], number)
        else:
            raise _wrong(f"{flag[:100]!r} is no flag of the default output validator")
    case = "case_sensitive" in switches
    if "space_change_sensitive" in switches:
        if tolerances:
            raise _wrong("space_change_sensitive beside a tolerance is not supported")
        return Compare(mode="exact", case=case)
    return Compare(mode="numbers" if tolerances else "tokens", case=case, **tolerances)


def _number(flag: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not (isfinite(found) and found >= 0):
        raise _wrong(f"{flag} is followed by {text[:100]!r}, and not by a number from 0 on")
    return found


def _wrong(reason: str) -> PackageError:
    return PackageError(f"The output validator cannot be used: {reason}.", _CURE)
