"""Seccomp profiles of containers (Docker's JSON, the OCI runtime specification's) as policies of ours.

    imported = convert(read(content), "mine")
    imported.text         # for mine.toml
    imported.notes        # what is not as in the profile

What cannot be expressed is left out, so that a policy never allows more than its profile did: an
allowance that cannot be expressed is dropped, and a call is refused altogether if the profile refuses
it for some arguments. Sources: config-linux.md of opencontainers/runtime-spec, "Seccomp"; Docker adds
`includes`, `excludes`, `archMap`, and `name` in place of `names`; Podman `errno` and `defaultErrno`, the
errno's name, which wins over the number.
"""

import errno
import platform
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from jail.policy import bpf, numbers
from jail.policy.compiler import REQUIRED, compile_policy
from jail.policy.numbers import PolicyError
from jail.policy.text import Policy, load

CONTENT_BYTES_MAX = 4 << 20
"""A profile that names every call with every condition has a tenth of this."""

# An allowance with this many conditions would fill the filter alone.
_RULES_MAX = bpf.INSTRUCTIONS_MAX
_CALL = re.compile("[a-z0-9_]{1,64}")
_ALL_BITS = 0xFFFFFFFF
_ERRNOS = {name: code for name, code in vars(errno).items() if name.startswith("E")}
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}

_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"
_Action = Literal[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
]
_Operator = Literal[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
]

_INTS = {
    "arch_prctl": (0,),
    "clone": (0,),
    "fcntl": (0, 1),
    "getsockopt": (0, 1, 2),
    "ioctl": (0, 1),
    "ioprio_set": (0, 1, 2),
    "keyctl": (0,),
    "kill": (0, 1),
    "madvise": (2,),
    "memfd_create": (1,),
    "mknod": (1, 2),
    "mknodat": (0, 2, 3),
    "personality": (0,),
    "prctl": (0,),
    "sched_setscheduler": (0, 1),
    "sendmmsg": (0, 2, 3),
    "sendmsg": (0, 2),
    "sendto": (0, 3),
    "setpriority": (0, 1, 2),
    "setsockopt": (0, 1, 2, 4),
    "shmget": (0, 2),
    "socket": (0, 1, 2),
    "socketpair": (0, 1, 2),
    "tgkill": (0, 1, 2),
}
"""Arguments of which the kernel reads the low 32 bits alone, by include/linux/syscalls.h."""


class _Argument(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    index: Annotated[int, msgspec.Meta(ge=0, lt=len(bpf.ARGUMENT_OFFSETS))]
    value: int
    op: _Operator
    value_two: int = 0


class _Where(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = None


class _Entry(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    action: _Action
    names: list[str] | None = None
    name: str | None = None
    errno_ret: int | None = None
    errno_name: str | None = msgspec.field(default=None, name="errno")
    args: list[_Argument] | None = None
    comment: str | None = None
    includes: _Where | None = None
    excludes: _Where | None = None


class _Architecture(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class Profile(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A profile as it is written, in either spelling."""

    default_action: _Action
    default_errno_ret: int | None = None
    default_errno: str | None = None
    arch_map: list[_Architecture] | None = None
    architectures: list[str] | None = None
    flags: list[str] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: list[_Entry] | None = None


class Imported(msgspec.Struct, frozen=True):
    """The text of a policy, the policy, and each difference from the profile in a sentence, by its place."""

    text: str
    policy: Policy
    notes: tuple[str, ...]


class _Comparison(msgspec.Struct, frozen=True):
    argument: int
    mask: int
    value: int


class _InexpressibleError(Exception):
    """The reason for which an allowance is dropped."""


class _Gathered:
    """What the entries of a profile decide, while they are read."""

    def __init__(self) -> None:
        self.allowed: dict[str, str] = {}
        self.rules: dict[str, list[tuple[str, tuple[_Comparison, ...]]]] = {}
        self.refused: dict[str, tuple[str, int]] = {}
        self.notes: list[str] = []

    def note(self, place: str, calls: Iterable[str], reason: str) -> None:
        if named := ", ".join(calls):
            self.notes.append(f"{place}: {named}: {reason}")


def read(content: bytes) -> Profile:
    """Read a profile. Raises PolicyError that names the place of what is wrong with it."""
    if len(content) > CONTENT_BYTES_MAX:
        raise PolicyError(f"a profile has at most {CONTENT_BYTES_MAX} bytes")
    try:
        profile = msgspec.json.decode(content, type=Profile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The message may hold a key of the file, and a key may hold what moves a terminal's cursor.
        told = str(error).encode("unicode_escape").decode()
        raise PolicyError(f"no seccomp profile: {told}") from None
    _check_default(profile.default_action)
    _check_errno("$.defaultErrno", profile.default_errno_ret, profile.default_errno)
    for index, entry in enumerate(profile.syscalls or ()):
        _check_entry(f"$.syscalls[{index}]", entry)
    return profile


def _check_default(action: str) -> None:
    if action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
        raise PolicyError(
            f"$.defaultAction: {action} makes the profile a list of what is refused. A call that it forgot "
            "is open, and so is every call of the next kernel. Only a list of what is allowed can be imported"
        )
    if action in ("SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE"):
        raise PolicyError(
            f"$.defaultAction: {action} leaves the decision to another program; import has none"
        )


def _check_entry(place: str, entry: _Entry) -> None:
    if not entry.names and not entry.name:
        raise PolicyError(f"{place}: names no call")
    for at, argument in enumerate(entry.args or ()):
        for key, value in (("value", argument.value), ("valueTwo", argument.value_two)):
            if not 0 <= value < 1 << 64:
                raise PolicyError(f"{place}.args[{at}].{key}: {value} is no unsigned 64-bit number")
    _check_errno(f"{place}.errno", entry.errno_ret, entry.errno_name)


def _check_errno(place: str, code: int | None, name: str | None) -> None:
    if code is not None and not 0 <= code < 4096:
        raise PolicyError(f"{place}Ret: {code} is no errno")
    if name and name not in _ERRNOS:
        raise PolicyError(f"{place}: no error number has the name {name!r}")


def _errno(code: int | None, name: str | None) -> int:
    """The errno that an entry gives: that of its name, its number, or by default EPERM."""
    if name:
        return _ERRNOS[name]
    return errno.EPERM if code is None else code


def convert(profile: Profile, name: str) -> Imported:
    """Make the policy `name` of a profile, for this architecture.

    Raises PolicyError if no job could start with it, or if the compiler refuses it.
    """
    gathered = _Gathered()
    _note_whole(gathered, profile)
    for index, entry in enumerate(profile.syscalls or ()):
        _gather(gathered, f"syscalls[{index}]", entry)
    _resolve(gathered)
    missing = sorted(call for call, args in REQUIRED.items() if not _is_there(gathered, call, bool(args)))
    if missing:
        raise PolicyError(
            f"$.syscalls: {', '.join(missing)} not allowed, or not always, and no job could start. "
            f"Add an entry: {_entry_for(missing)}"
        )
    if sum(map(len, gathered.rules.values())) > _RULES_MAX:
        raise PolicyError(
            f"$.syscalls: more than {_RULES_MAX} entries with args; the kernel takes no such filter"
        )
    text = _write(gathered, name)
    return Imported(text, _checked(text, name), tuple(gathered.notes))


def _is_there(gathered: _Gathered, call: str, may_be_conditional: bool) -> bool:
    """Whether a call is allowed; with which arguments, if it depends on them, the compiler checks."""
    return call in gathered.allowed or (may_be_conditional and call in gathered.rules)


def _entry_for(calls: list[str]) -> str:
    return msgspec.json.encode({"names": calls, "action": _ALLOW}).decode()


def _note_whole(gathered: _Gathered, profile: Profile) -> None:
    action, code = profile.default_action, _errno(profile.default_errno_ret, profile.default_errno)
    if action != _ERRNO:
        gathered.notes.append(f"defaultAction: {action}: calls that are not named answer EPERM")
    elif code != errno.EPERM:
        gathered.notes.append(f"defaultErrnoRet: {code}: calls that are not named answer EPERM")
    if profile.architectures or profile.arch_map:
        gathered.notes.append("architectures: a call by another architecture's entry always kills")
    for key, value in (("flags", profile.flags), ("listenerPath", profile.listener_path)):
        if value:
            gathered.notes.append(f"{key}: has no counterpart here")


def _gather(gathered: _Gathered, place: str, entry: _Entry) -> None:
    """Take in one entry, or note why not."""
    names = dict.fromkeys([*(entry.names or ()), *([entry.name] if entry.name else ())])
    calls = [name for name in names if _is_call(name)]
    if reason := _inapplicable(entry):
        gathered.note(place, calls, f"dropped, {reason}")
        return
    gathered.note(place, map(repr, sorted(names.keys() - calls)), "dropped, no system call has this name")
    if entry.action == "SCMP_ACT_LOG":
        gathered.note(place, calls, "dropped, SCMP_ACT_LOG writes into the host's log")
    elif entry.action != _ALLOW:
        _refuse(gathered, place, entry, calls)
    elif not entry.args:
        gathered.allowed |= dict.fromkeys(calls, place)
    else:
        _allow_some(gathered, place, entry.args, calls)


def _is_call(name: str) -> bool:
    # The library ends a name at its first NUL.
    if not _CALL.fullmatch(name):
        return False
    try:
        numbers.number(name)
    except LookupError:
        return False
    return True


def _inapplicable(entry: _Entry) -> str | None:
    """The reason for which an entry says nothing of jobs here."""
    here = _GO_NAMES[platform.machine()]
    only, never = entry.includes or _Where(), entry.excludes or _Where()
    if only.caps:
        return f"no job has {', '.join(map(repr, only.caps))}"
    if (only.arches and here not in only.arches) or here in (never.arches or ()):
        return f"not for {here}"
    # A refusal stays, whatever the kernel: that allows no more.
    if entry.action == _ALLOW and (only.min_kernel or never.min_kernel):
        return "minKernel: a policy does not look at the kernel's version"
    return None


def _refuse(gathered: _Gathered, place: str, entry: _Entry, calls: list[str]) -> None:
    code = _errno(entry.errno_ret, entry.errno_name)
    if entry.action != _ERRNO:
        gathered.note(place, calls, f"{entry.action} becomes EPERM")
        code = errno.EPERM
    elif code not in errno.errorcode:
        gathered.note(place, calls, f"errno {code} has no name, and becomes EPERM")
        code = errno.EPERM
    if entry.args:
        gathered.note(place, calls, "refused whatever the arguments")
    for call in calls:
        gathered.refused.setdefault(call, (place, code))


def _allow_some(gathered: _Gathered, place: str, arguments: list[_Argument], calls: list[str]) -> None:
    for call in calls:
        try:
            rule = tuple(_comparison(call, argument) for argument in arguments)
            if len({comparison.argument for comparison in rule}) < len(rule):
                raise _InexpressibleError("it compares one argument twice")
        except _InexpressibleError as reason:
            gathered.note(place, [call], f"dropped, {reason}")
        else:
            gathered.rules.setdefault(call, []).append((place, rule))


def _comparison(call: str, argument: _Argument) -> _Comparison:
    """The comparison by 32 bits that holds when the profile's does. Raises _InexpressibleError."""
    at, is_int = argument.index, argument.index in _INTS.get(call, ())
    if argument.op == "SCMP_CMP_EQ":
        mask, value = (1 << 64) - 1, argument.value
    elif argument.op == "SCMP_CMP_MASKED_EQ":
        mask, value = argument.value, argument.value_two
    else:
        raise _InexpressibleError(f"{argument.op} on arg{at}: policies list the values that are allowed")
    if value & ~mask or (is_int and value > _ALL_BITS):
        raise _InexpressibleError(f"arg{at} never has the value {value:#x}")
    if not is_int and mask > _ALL_BITS:
        raise _InexpressibleError(f"arg{at} is not known to be an int, and policies compare 32 bits")
    if not mask & _ALL_BITS:
        raise _InexpressibleError(f"the mask on arg{at} selects no bit of an int")
    return _Comparison(at, mask & _ALL_BITS, value)


def _resolve(gathered: _Gathered) -> None:
    """Leave one decision for each call: refused before allowed, allowed always before sometimes."""
    for call, (place, _) in gathered.refused.items():
        where = gathered.allowed.pop(call, None)
        rules = gathered.rules.pop(call, None)
        if where or rules:
            allowed_at = where or ", ".join(at for at, _ in rules or ())
            gathered.note(place, [call], f"refused altogether, though allowed at {allowed_at}")
    for call in gathered.allowed.keys() & gathered.rules.keys():
        del gathered.rules[call]


def _write(gathered: _Gathered, name: str) -> str:
    lines = [
        f"# Imported from a seccomp profile, for {platform.machine()}; places are the profile's.",
        f'name = "{name}"',
        'description = "Imported from a seccomp profile."',
        *_list("allow", gathered.allowed),
    ]
    answers: dict[str, list[str]] = {}
    for call, (_, code) in gathered.refused.items():
        if code != errno.EPERM:
            answers.setdefault(errno.errorcode[code], []).append(call)
    if answers:
        lines += ["", "[answer]"]
    for code, calls in sorted(answers.items()):
        lines += _list(code, calls)
    for call, rules in sorted(gathered.rules.items()):
        for place, rule in rules:
            lines += ["", f"# {place}", "[[when]]", f'call = "{call}"', *map(_condition, rule)]
    return "\n".join(lines) + "\n"


def _list(key: str, calls: Iterable[str]) -> list[str]:
    return [f"{key} = [", *(f'    "{call}",' for call in sorted(calls)), "]"]


def _condition(comparison: _Comparison) -> str:
    mask = f"mask = {comparison.mask:#x}, " if comparison.mask != _ALL_BITS else ""
    return f"arg{comparison.argument} = {{ {mask}VALUE = {comparison.value:#x} }}"


def _checked(text: str, name: str) -> Policy:
    """The policy that the text is, once the compiler has taken it."""
    if Path(name).name != name:
        raise PolicyError(f"{name!r} is no policy name: it has a slash")
    with tempfile.TemporaryDirectory(prefix="jail-import-") as directory:
        try:
            Path(directory, f"{name}.toml").write_text(text)
        except (OSError, ValueError) as error:
            raise PolicyError(f"{name!r} is no policy name: {error}") from None
        policy = load(name, Path(directory))
    compile_policy(policy)
    return policy
