"""Policies as text: `policies/NAME.toml`, made of the parts in `policies/parts/`.

A policy has a `name`, a `description`, and `include`, its parts. A part has a `description`.
Both may hold rules:

    allow = ["read", "write"]     # always
    [answer]
    ENOSYS = ["clone3"]           # never, and with this error number in place of EPERM
    [[when]]                      # if every argument listed has one of its values
    call = "socket"
    arg0 = { AF_UNIX = 1 }
    arg1 = { mask = 0xfff7f7ff, SOCK_STREAM = 1, SOCK_DGRAM = 2 }
    [[count]]                     # always, but such uses only `max` times; then with this error number
    call = "fcntl"
    arg1 = { F_SETLK = 6 }
    max = 65536
    answer = "ENOLCK"

A policy may also say `speculation = true`: then its jobs keep what control they have over the processor's
speculation (prctl(2), PR_SET_SPECULATION_CTRL); without it the mitigations are forced on.

The names of values are for the reader; the numbers count. `mask` selects the bits that are
compared, by default all 32. Only the low 32 bits of an argument are ever looked at, because
the kernel looks at no more of an int: comparing 64 lets a set high bit pass by (attack 43).
"""

import errno
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

import jail
from jail.policy.numbers import PolicyError, number

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

_Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
_Values = dict[str, _Word]


class Condition(msgspec.Struct, frozen=True):
    """One argument (0 to 5), the bits of it that count, the values they may have, and those values' names."""

    argument: int
    mask: int
    values: tuple[int, ...]
    names: tuple[str, ...]


class Rule(msgspec.Struct, frozen=True):
    """A call that is allowed if every condition holds; source is file and key, for messages."""

    call: str
    conditions: tuple[Condition, ...]
    source: str


class Counted(Rule, frozen=True):
    """A call that is allowed, but uses for which every condition holds only `maximum` times; then `error`."""

    maximum: int
    error: int


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A checked policy: every name is a known call, and no call is named in two ways.

    allow is allowed always, rules allow if one of the rules for a call holds, answers maps
    refused calls to the errno they get in place of EPERM, counted are allowed so many times.
    speculation: the mitigations that a thread controls are left to the job.
    """

    name: str
    description: str
    allow: frozenset[str]
    rules: tuple[Rule, ...] = ()
    answers: dict[str, int] = {}
    counted: tuple[Counted, ...] = ()
    speculation: bool = False

    @property
    def allowed(self) -> frozenset[str]:
        """The calls that are allowed in any form."""
        return self.allow | {rule.call for rule in (*self.rules, *self.counted)}

    def without(self, call: str) -> "Policy":
        """The same, but `call` is not allowed in any form."""
        return msgspec.structs.replace(
            self,
            allow=self.allow - {call},
            rules=tuple(rule for rule in self.rules if rule.call != call),
            counted=tuple(rule for rule in self.counted if rule.call != call),
        )


class _When(msgspec.Struct, forbid_unknown_fields=True):
    call: str
    arg0: _Values = {}
    arg1: _Values = {}
    arg2: _Values = {}
    arg3: _Values = {}
    arg4: _Values = {}
    arg5: _Values = {}


class _Count(_When, forbid_unknown_fields=True, kw_only=True):
    max: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    answer: str


class _Part(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    description: str
    allow: list[str] = []
    answer: dict[str, list[str]] = {}
    when: list[_When] = []
    count: list[_Count] = []


class _Whole(_Part, forbid_unknown_fields=True, kw_only=True):
    name: str
    include: list[str] = []
    speculation: bool = False


_Text = TypeVar("_Text", bound=_Part)


def shipped_directory() -> Path:
    """Tell where the policies that came with jail are installed."""
    return Path(jail.__file__).parent / "policies"


def names(directory: Path | None = None) -> list[str]:
    """List the policies in `directory`, by default the shipped ones, in alphabetical order.

    Raises PolicyError if there are none.
    """
    directory = directory or shipped_directory()
    found = sorted(path.stem for path in directory.glob("*.toml"))
    if not found:
        raise PolicyError(f"{directory} holds no policy (NAME.toml)")
    return found


def load(name: str, directory: Path | None = None) -> Policy:
    """Read the policy `name` from `directory`, by default the shipped one.

    Raises PolicyError if there is none of that name, or if it or a part of it is wrong.
    """
    directory = directory or shipped_directory()
    whole = _read(directory, name, _Whole)
    if whole.name != name:
        raise PolicyError(f"{name}.toml: name: is {whole.name!r}, and must be the file's")
    texts = {f"{name}.toml": whole}
    for part in whole.include:
        texts[f"parts/{part}.toml"] = _read(directory / "parts", part, _Part)
    return _combine(whole, texts)


def _read(directory: Path, name: str, kind: type[_Text]) -> _Text:
    # A name may come from a request; it must not become a path of the caller's choosing.
    if not _NAME.fullmatch(name):
        raise PolicyError(f"{name!r} is no policy name: lower-case letters, digits and hyphens")
    path = directory / f"{name}.toml"
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), kind)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PolicyError(f"{path}: {error}") from error


def _combine(whole: _Whole, texts: dict[str, _Part]) -> Policy:
    decided: dict[str, str] = {}
    answers: dict[str, int] = {}
    rules: list[Rule] = []
    counted: list[Counted] = []
    for file, text in texts.items():
        for index, call in enumerate(text.allow):
            _decide(decided, call, f"{file}: allow[{index}]")
        for code, call in _answers(file, text):
            _decide(decided, call, f"{file}: answer.{code}")
            answers[call] = getattr(errno, code)
        rules += _rules(file, text)
        counted += _counted(file, text)
    allow = frozenset(decided) - frozenset(answers)
    for rule in counted:
        _decide(decided, rule.call, rule.source)
    for rule in rules:
        _check_undecided(decided, rule.call, rule.source)
    return Policy(
        name=whole.name,
        description=whole.description,
        allow=allow,
        rules=tuple(rules),
        answers=answers,
        counted=tuple(counted),
        speculation=whole.speculation,
    )


def _decide(decided: dict[str, str], call: str, source: str) -> None:
    """Note that `source` decides about `call`."""
    _check_undecided(decided, call, source)
    decided[call] = source


def _check_undecided(decided: dict[str, str], call: str, source: str) -> None:
    """Raise PolicyError if there is no such call, or if it is decided: a rule would be lost."""
    if call in decided:
        raise PolicyError(f"{source}: {call} is already decided at {decided[call]}")
    try:
        number(call)
    except LookupError as error:
        raise PolicyError(f"{source}: {error}") from None


def _answers(file: str, text: _Part) -> Iterator[tuple[str, str]]:
    for code, calls in text.answer.items():
        _check_error(f"{file}: answer", code)
        yield from ((code, call) for call in calls)


def _check_error(source: str, code: str) -> None:
    if code not in errno.errorcode.values():
        raise PolicyError(f"{source}.{code}: no error number has this name")


def _rules(file: str, text: _Part) -> list[Rule]:
    rules = []
    for index, when in enumerate(text.when):
        source = f"{file}: when[{index}] ({when.call})"
        conditions = _conditions(source, when)
        if not conditions:
            raise PolicyError(f"{source}: no argument is compared; list the call under allow")
        rules.append(Rule(when.call, conditions, source))
    return rules


def _counted(file: str, text: _Part) -> list[Counted]:
    found = []
    for index, count in enumerate(text.count):
        source = f"{file}: count[{index}] ({count.call})"
        _check_error(f"{source}: answer", count.answer)
        error = getattr(errno, count.answer)
        found.append(Counted(count.call, _conditions(source, count), source, count.max, error))
    return found


def _conditions(source: str, when: _When) -> tuple[Condition, ...]:
    tables = [when.arg0, when.arg1, when.arg2, when.arg3, when.arg4, when.arg5]
    return tuple(_condition(source, at, table) for at, table in enumerate(tables) if table)


def _condition(source: str, argument: int, table: dict[str, int]) -> Condition:
    mask = table.get("mask", 0xFFFFFFFF)
    values = {name: value for name, value in table.items() if name != "mask"}
    if not values or not mask:
        raise PolicyError(f"{source}: arg{argument}: compares nothing")
    for name, value in values.items():
        if value & ~mask:
            raise PolicyError(
                f"{source}: arg{argument}.{name}: {value:#x} has bits outside the mask {mask:#x}"
            )
    return Condition(argument, mask, tuple(values.values()), tuple(values))
