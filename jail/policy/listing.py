"""Policies in words: what each call is answered, what decides about one, how two policies differ.

The unit is an Entry, one line: a call, and that it is allowed always, if some conditions hold,
or refused with an errno of its own. How values are spread over rules and parts makes no difference: rules
that differ in the values of one argument alone are one entry.
"""

import errno
import itertools
from collections.abc import Iterator, Sequence

import msgspec

from jail.policy import bpf, numbers
from jail.policy.numbers import PolicyError
from jail.policy.text import Condition, Counted, Policy, Rule

REST = (
    ("(any other call)", "EPERM"),
    ("(unknown number)", "ENOSYS"),
    ("(foreign entry)", "killed"),
)
"""What every policy answers to calls it does not name, numbers without a call, and other architectures."""

_ALL_BITS = 0xFFFFFFFF


class Entry(msgspec.Struct, frozen=True):
    """Allowed if all conditions hold, always if there are none; or refused, where errno is a name.

    With a maximum: allowed always, but so often if all conditions hold, and refused from then on.
    """

    call: str
    conditions: tuple[Condition, ...] = ()
    errno: str | None = None
    maximum: int | None = None


class Difference(msgspec.Struct, frozen=True):
    """What the second policy allows beyond the first, the reverse, and calls that are answered otherwise.

    changed holds calls that both refuse, or both allow with any arguments: the call, and how in each.
    """

    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]
    changed: tuple[tuple[str, str, str], ...]

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.added or self.removed or self.changed)


def entries(policy: Policy) -> list[Entry]:
    """Everything that a policy says of calls it names, by call."""
    found = [Entry(call) for call in policy.allow]
    for call in {rule.call for rule in policy.rules}:
        found += _merged([Entry(call, rule.conditions) for rule in policy.rules if rule.call == call])
    found += map(_counted, policy.counted)
    found += (Entry(call, errno=error_name(code)) for call, code in policy.answers.items())
    return sorted(found, key=lambda entry: (entry.call, words(entry)))


def _counted(rule: Counted) -> Entry:
    return Entry(rule.call, rule.conditions, error_name(rule.error), rule.maximum)


def _merged(found: list[Entry]) -> list[Entry]:
    done: list[Entry] = []
    while found:
        entry = found.pop(0)
        for other in found:
            if conditions := _union(entry.conditions, other.conditions):
                found.remove(other)
                found.append(Entry(entry.call, conditions))
                break
        else:
            done.append(entry)
    return done


def _union(one: tuple[Condition, ...], other: tuple[Condition, ...]) -> tuple[Condition, ...] | None:
    """The conditions of both, if they compare the same bits and differ in one argument's values at most."""
    if _compared(one) != _compared(other):
        return None
    pairs = list(zip(one, other, strict=True))
    if sum(set(a.values) != set(b.values) for a, b in pairs) > 1:
        return None
    return tuple(a if set(a.values) == set(b.values) else _both(a, b) for a, b in pairs)


def _both(one: Condition, other: Condition) -> Condition:
    values = dict(zip(one.values + other.values, one.names + other.names, strict=True))
    return Condition(one.argument, one.mask, tuple(values), tuple(values.values()))


def words(entry: Entry) -> str:
    """An entry without its call, in words."""
    met = "if " + " and ".join(map(_condition, entry.conditions)) if entry.conditions else "always"
    if entry.maximum is not None:
        return f"always, but at most {entry.maximum} times {met}, then {entry.errno}"
    return entry.errno or met


def plain(policy: Policy) -> str:
    """The listing of a policy: a line for each entry, the same on every machine."""
    rows = [(entry.call, words(entry)) for entry in entries(policy)]
    width = max(len(call) for call, _ in rows)
    lines = [f"{policy.name}: {policy.description}", ""]
    lines += (f"{call:{width}}  {text}" for call, text in [*rows, *REST])
    return "\n".join(lines) + "\n"


def _condition(condition: Condition) -> str:
    compared = f"arg{condition.argument}"
    if condition.mask != _ALL_BITS:
        compared += f" & {condition.mask:#x}"
    pairs = sorted(zip(condition.values, condition.names, strict=True))
    values = ", ".join(f"{name}={value:#x}" for value, name in pairs)
    return f"{compared} is {'one of ' if len(pairs) > 1 else ''}{values}"


def find_call(text: str) -> int:
    """The number of a call that is given by name or by number. Raises LookupError."""
    try:
        found = int(text, 0)
    except ValueError:
        found = numbers.number(text)
    if found is None:
        raise LookupError(f"this architecture has no call {text}")
    if not -(1 << 31) <= found < 1 << 31:
        raise LookupError(f"{text} is no call's number: it has more than 32 bits")
    return found


def find_value(policy: Policy, nr: int, argument: int, text: str) -> int:
    """The value of an argument: a number, a name that the policy has for it, or several with | between.

    Raises LookupError.
    """
    named = _named_values(policy, nr, argument)
    # Of equal names the nearest comes last, and stays.
    known = {name: value for *_, value, name in named}
    found = 0
    for word in text.split("|"):
        try:
            found |= known[word] if word in known else int(word, 0)
        except ValueError:
            own = [name for is_near, _, name in named if is_near == (True, True)]
            names = ", ".join(own) or "none of this argument"
            raise LookupError(f"{word!r} is no number; names that the policy knows: {names}") from None
    if not -(1 << 63) <= found < 1 << 64:
        raise LookupError(f"{text} has more than 64 bits")
    return found


def _named_values(policy: Policy, nr: int, argument: int) -> list[tuple[tuple[bool, bool], int, str]]:
    """Every value with its name, and whether it is one of this call and of this argument; those last."""
    return sorted(
        ((numbers.number(rule.call) == nr, condition.argument == argument), value, name)
        for rule in (*policy.rules, *policy.counted)
        for condition in rule.conditions
        for value, name in zip(condition.values, condition.names, strict=True)
    )


def decision(policy: Policy, nr: int, args: Sequence[int]) -> str:
    """Say which part of the text decides about a native call with these arguments."""
    rules = [rule for rule in policy.rules if numbers.number(rule.call) == nr]
    if rules:
        holding = (rule.source for rule in rules if _holds(rule, args))
        return next(holding, None) or f"none holds of {', '.join(rule.source for rule in rules)}"
    for rule in policy.counted:
        if numbers.number(rule.call) == nr:
            return f"{rule.source}{', counted' if _holds(rule, args) else ''}"
    if any(numbers.number(call) == nr for call in policy.allow):
        return "allow"
    for call, code in policy.answers.items():
        if numbers.number(call) == nr:
            return f"answer.{error_name(code)}"
    if nr & bpf.X32_BIT and nr > 0 and bpf.native_arch() == bpf.AUDIT_ARCHES["x86_64"]:
        return "the x32 entry is another architecture's"
    return "the policy does not name it" if numbers.name(nr) else "no known call has this number"


def error_name(code: int) -> str:
    """The name of an errno, or its number where there is none."""
    return errno.errorcode.get(code, str(code))


def _holds(rule: Rule, args: Sequence[int]) -> bool:
    padded = [*args, *[0] * (len(bpf.ARGUMENT_OFFSETS) - len(args))]
    return all(padded[c.argument] & c.mask in c.values for c in rule.conditions)


def difference(first: Policy, second: Policy) -> Difference:
    """Compare what two policies allow, value by value."""
    one, other = _atoms(first), _atoms(second)
    manners = [(call, _manner(first, call), _manner(second, call)) for call in sorted(_named(first, second))]
    return Difference(
        added=tuple(_told(second, entry) for entry in _beyond(one, other)),
        removed=tuple(_told(first, entry) for entry in _beyond(other, one)),
        changed=tuple(
            (call, before, after)
            for call, before, after in manners
            if before and after and before != after and (call in one) == (call in other)
        ),
    )


def _told(policy: Policy, entry: Entry) -> Entry:
    """The entry of what is allowed with any arguments tells as well if it is counted."""
    counted = (rule for rule in policy.counted if rule.call == entry.call)
    return next(map(_counted, counted), entry)


def _named(first: Policy, second: Policy) -> set[str]:
    return {entry.call for policy in (first, second) for entry in entries(policy)}


def _manner(policy: Policy, call: str) -> str | None:
    """How a call is refused, or allowed with any arguments; None if it depends on them."""
    if call not in policy.allowed and call not in policy.answers:
        return "EPERM"
    found = [words(entry) for entry in entries(policy) if entry.call == call]
    return None if any(rule.call == call for rule in policy.rules) else found[0]


_Atom = tuple[Condition, ...]
"""One combination of single values that a call is allowed with; none for a call allowed always."""


def _atoms(policy: Policy) -> dict[str, list[_Atom]]:
    found: dict[str, list[_Atom]] = {call: [()] for call in policy.allow}
    found |= {rule.call: [()] for rule in policy.counted}
    for rule in policy.rules:
        found.setdefault(rule.call, []).extend(itertools.product(*map(_single, rule.conditions)))
    return found


def _single(condition: Condition) -> list[Condition]:
    pairs = zip(condition.values, condition.names, strict=True)
    return [Condition(condition.argument, condition.mask, (value,), (name,)) for value, name in pairs]


def _beyond(narrow: dict[str, list[_Atom]], wide: dict[str, list[_Atom]]) -> Iterator[Entry]:
    """What `wide` allows and `narrow` does not."""
    for call in sorted(wide):
        fresh = [atom for atom in wide[call] if not any(_covers(old, atom) for old in narrow.get(call, ()))]
        # One line for those that differ in the last value alone.
        for head, alike in itertools.groupby(fresh, key=lambda atom: (atom[:-1], _compared(atom[-1:]))):
            yield Entry(call, (*head[0], *_joined([atom[-1] for atom in alike if atom])))


def _compared(conditions: _Atom) -> list[tuple[int, int]]:
    return [(condition.argument, condition.mask) for condition in conditions]


def _joined(alike: Sequence[Condition]) -> _Atom:
    if not alike:
        return ()
    values = tuple(condition.values[0] for condition in alike)
    names = tuple(condition.names[0] for condition in alike)
    return (Condition(alike[0].argument, alike[0].mask, values, names),)


def _covers(wide: _Atom, narrow: _Atom) -> bool:
    """Whether every condition of `wide` follows from one of `narrow`."""
    return all(any(_follows(condition, given) for given in narrow) for condition in wide)


def _follows(condition: Condition, given: Condition) -> bool:
    return (
        condition.argument == given.argument
        and condition.mask & ~given.mask == 0
        and given.values[0] & condition.mask == condition.values[0]
    )


def known_policy(name: str, known: Sequence[str]) -> str:
    """The name, if it is one of the known ones. Raises PolicyError that names them."""
    if name not in known:
        raise PolicyError(f"no policy is named {name!r}; known: {', '.join(known)}")
    return name
