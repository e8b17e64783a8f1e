"""data/: the test cases, the groups that they stand in, and by which rules these are judged.

Cases and groups are in the order of their names, in which they are judged. In the legacy format any directory
is a group, with its own testdata.yaml or that of the nearest above; since 2023-07 the groups are `sample`,
`secret` and what lies directly beneath that, each with its own test_group.yaml.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from jail.errors import PackageError
from jail.problems import documents
from jail.problems.files import Files
from jail.problems.files import read as read_file
from jail.problems.metadata import Metadata

SCORE_MAX = 1_000_000
"""Of a group; what a job's tests can be worth."""

GROUPS_MAX = 1000
CASES_MAX = 4096

DATA = "data"
SAMPLE, SECRET = "sample", "secret"
LEGACY_RULES, RULES = "testdata.yaml", "test_group.yaml"

_INPUT, _ANSWER, _FILES, _OWN = ".in", ".ans", ".files", ".yaml"
_CURE = "Mend the package's data/."


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One test case. name: as secret/group/1. input, answer and what `files` holds are paths of the package.

    files: what the program finds beside itself, by name. args: of the program; validator_args: of whoever
    looks at its output, after those that problem.yaml gives.
    """

    name: str
    input: str
    answer: str
    files: dict[str, str] = {}
    args: tuple[str, ...] = ()
    validator_args: tuple[str, ...] = ()


class LegacyRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a group of the legacy format is judged, by the default grader. See jail.problems.grading.

    breaks: what is left of a group is not judged once something in it was rejected.
    """

    breaks: bool = True
    verdict: Literal["worst_error", "first_error", "always_accept"] = "worst_error"
    score: Literal["sum", "avg", "min", "max"] = "sum"
    ignore_sample: bool = False
    accept_if_any_accepted: bool = False
    accept_score: float = 1.0
    reject_score: float = 0.0
    range: tuple[float, float] = (float("-inf"), float("inf"))


class GroupRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a group is judged since 2023-07. max_score: None has no bound. require_pass: names of groups."""

    aggregation: Literal["pass-fail", "sum", "min"]
    max_score: float | None
    require_pass: tuple[str, ...] = ()


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Test cases and groups of them. name: "" of data/ itself, else as secret/group."""

    name: str
    rules: LegacyRules | GroupRules
    members: "tuple[Case | Group, ...]"

    @property
    def cases(self) -> Iterator[Case]:
        """All of it, of the groups within as well, in the order in which they are judged."""
        for member in self.members:
            if isinstance(member, Case):
                yield member
            else:
                yield from member.cases


class _Flags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of one of several validators."""

    name: str = ""
    flags: str = ""


class _Legacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """testdata.yaml."""

    on_reject: Literal["break", "continue"] = "break"
    grading: Literal["default", "custom"] = "default"
    grader_flags: str = ""
    input_validator_flags: Any = None
    output_validator_flags: str | _Flags = ""
    accept_score: float = 1.0
    reject_score: float = 0.0
    range: str = "-inf +inf"


class _Own(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a case and a group can both be told. None: as the group above has it."""

    args: tuple[str, ...] | None = None
    output_validator_args: tuple[str, ...] | None = None
    input_validator_args: Any = None
    input_visualizer_args: Any = None
    output_visualizer_args: Any = None
    full_feedback: Any = None
    hint: Any = None
    description: Any = None


class _Modern(_Own, frozen=True, forbid_unknown_fields=True):
    """test_group.yaml."""

    max_score: Annotated[int, Meta(ge=0, le=SCORE_MAX)] | Literal["unbounded"] | None = None
    score_aggregation: Literal["pass-fail", "sum", "min"] | None = None
    static_validation_score: Any = None
    static_validator_args: Any = None
    require_pass: str | tuple[str, ...] = ()


# A directory: what is in it by name; of a file, nothing.
_Tree = dict[str, "_Tree | None"]


def read(files: Files, metadata: Metadata) -> Group:
    """All test data. Raises PackageError."""
    tree = _tree(files.sizes)
    if SECRET not in tree:
        raise _wrong("there is no data/secret", "Put the test cases there.")
    found = _Legacies(files).root(tree) if metadata.legacy else _Moderns(files, metadata.scoring).root(tree)
    cases = list(found.cases)
    if not any(case.name.startswith(f"{SECRET}/") for case in cases):
        raise _wrong("there is no test case in data/secret", "Put some there, each an .in and an .ans.")
    if len(cases) > CASES_MAX:
        raise _wrong(f"{len(cases)} test cases; the maximum is {CASES_MAX}")
    return found


def _tree(paths: Mapping[str, int]) -> _Tree:
    tree: _Tree = {}
    groups = 0
    for path in paths:
        if not path.startswith(f"{DATA}/"):
            continue
        _, *folders, name = path.split("/")
        inner = tree
        for folder in folders:
            groups += folder not in inner
            found = inner.setdefault(folder, {})
            if found is None:
                raise _wrong(f"{path}: {folder} is a file as well")
            inner = found
        if name in inner:
            raise _wrong(f"{path} is a directory as well")
        inner[name] = None
    if groups > GROUPS_MAX:
        raise _wrong(f"{groups} directories; the maximum is {GROUPS_MAX}")
    return tree


def _split(tree: _Tree) -> tuple[list[str], list[str]]:
    """The cases in a directory, and the directories in it that belong to none. Raises PackageError."""
    cases = [name.removesuffix(_INPUT) for name, inner in tree.items() if _is_file(name, inner, _INPUT)]
    folders = [name for name, inner in tree.items() if inner is not None]
    known = set(cases)
    for name, inner in tree.items():
        if _is_file(name, inner, _ANSWER) and name.removesuffix(_ANSWER) not in known:
            raise _wrong(f"{name} is the answer to nothing: there is no {name.removesuffix(_ANSWER)}{_INPUT}")
    return cases, [name for name in folders if name.removesuffix(_FILES) not in known or name in known]


def _is_file(name: str, inner: "_Tree | None", extension: str) -> bool:
    return inner is None and name.endswith(extension)


def _case(place: str, name: str, tree: _Tree, args: tuple[str, ...], flags: tuple[str, ...]) -> Case:
    """place: the directory's name, as secret/group."""
    path = f"{DATA}/{place}/{name}"
    if tree.get(f"{name}{_ANSWER}", {}) is not None:
        raise _wrong(f"{path}{_INPUT} has no answer: there is no {name}{_ANSWER}")
    beside = tree.get(f"{name}{_FILES}") or {}
    return Case(
        name=f"{place}/{name}",
        input=f"{path}{_INPUT}",
        answer=f"{path}{_ANSWER}",
        files={inner: f"{path}{_FILES}/{inner}" for inner in _paths(beside)},
        args=args,
        validator_args=flags,
    )


def _paths(tree: _Tree) -> Iterator[str]:
    for name, inner in sorted(tree.items()):
        if inner is None:
            yield name
        else:
            yield from (f"{name}/{path}" for path in _paths(inner))


class _Legacies:
    """Groups of the legacy format."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def root(self, tree: _Tree) -> Group:
        wanted = {name: tree[name] for name in (SAMPLE, SECRET, LEGACY_RULES) if name in tree}
        return self._group("", wanted, LegacyRules(), ())

    def _group(self, name: str, tree: _Tree, rules: LegacyRules, flags: tuple[str, ...]) -> Group:
        if LEGACY_RULES in tree:
            rules, flags = self._rules(f"{DATA}/{name}/{LEGACY_RULES}".replace("//", "/"), not name)
        # The one flag that is not for the groups beneath.
        within = msgspec.structs.replace(rules, ignore_sample=False)
        cases, folders = _split(tree)
        members: dict[str, Case | Group] = {one: _case(name, one, tree, (), flags) for one in cases}
        for folder in folders:
            inner = f"{name}/{folder}".removeprefix("/")
            if folder in members:
                raise _wrong(f"{inner} is a test case and a group")
            members[folder] = self._group(inner, tree[folder] or {}, within, flags)
        return Group(name=name, rules=rules, members=tuple(members[one] for one in sorted(members)))

    def _rules(self, path: str, is_root: bool) -> tuple[LegacyRules, tuple[str, ...]]:
        found = documents.read(path, read_file(self._files, path), _Legacy)
        if found.grading == "custom":
            cure = "Say by grader_flags of the default grader what it does, or judge it elsewhere."
            raise PackageError(f"{path} asks for a grader of its own, which is not supported.", cure)
        words = found.grader_flags.split()
        if unknown := set(words) - _GRADER_FLAGS:
            raise _wrong(f"{path}: {min(unknown)!r} is no flag of the default grader")
        if "ignore_sample" in words and not is_root:
            raise _wrong(f"{path}: ignore_sample is for data/{LEGACY_RULES} alone")
        flags = found.output_validator_flags
        rules = LegacyRules(
            breaks=found.on_reject == "break",
            verdict=_last(words, ("worst_error", "first_error", "always_accept")),
            score=_last(words, ("sum", "avg", "min", "max")),
            ignore_sample="ignore_sample" in words,
            accept_if_any_accepted="accept_if_any_accepted" in words,
            accept_score=found.accept_score,
            reject_score=found.reject_score,
            range=_range(path, found.range),
        )
        return rules, tuple((flags.flags if isinstance(flags, _Flags) else flags).split())


_GRADER_FLAGS = {
    *("worst_error", "first_error", "always_accept"),
    *("sum", "avg", "min", "max"),
    *("ignore_sample", "accept_if_any_accepted"),
}


def _last(words: list[str], known: tuple[str, ...]) -> Any:
    """Of several that contradict each other the last one counts; the first of `known` is the default."""
    return next((word for word in reversed(words) if word in known), known[0])


def _range(path: str, text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split())
    except ValueError:
        raise _wrong(f"{path}: the range {text[:100]!r} is not two numbers") from None
    if not low <= high:
        raise _wrong(f"{path}: the range {text[:100]!r} does not go up")
    return low, high


class _Moderns:
    """Groups of the formats since 2023-07."""

    def __init__(self, files: Files, scoring: bool) -> None:
        self._files = files
        self._scoring = scoring

    def root(self, tree: _Tree) -> Group:
        if LEGACY_RULES in tree or any(LEGACY_RULES in (tree.get(one) or {}) for one in (SAMPLE, SECRET)):
            raise _wrong(f"{LEGACY_RULES} is of the legacy format", f"Write {RULES} in its place.")
        found = [self._top(name, tree[name] or {}) for name in (SAMPLE, SECRET) if name in tree]
        return Group(name="", rules=GroupRules(aggregation="pass-fail", max_score=None), members=tuple(found))

    def _top(self, name: str, tree: _Tree) -> Group:
        own = self._own(f"{DATA}/{name}", tree, _Own(), _Modern)
        cases, folders = _split(tree)
        if folders and (cases or name == SAMPLE):
            raise _wrong(f"data/{name} has groups, and may have test cases only or nothing but groups")
        members = [self._group(f"{name}/{folder}", tree[folder] or {}, own) for folder in sorted(folders)]
        usual = "sum" if name == SECRET and self._scoring else "pass-fail"
        rules = self._rules(own, usual, 100.0 if name == SECRET else None)
        return Group(name=name, rules=rules, members=(*members, *self._cases(name, tree, own)))

    def _group(self, name: str, tree: _Tree, above: _Own) -> Group:
        own = self._own(f"{DATA}/{name}", tree, above, _Modern)
        members = self._cases(name, tree, own)
        if not members:
            raise _wrong(f"data/{name} has no test case")
        return Group(name=name, rules=self._rules(own, "pass-fail", None), members=members)

    def _cases(self, place: str, tree: _Tree, above: _Own) -> tuple[Case, ...]:
        """Those in a directory, and in the directories within it that are no groups."""
        cases, folders = _split(tree)
        found: list[Case] = []
        for name in sorted(cases):
            own = self._own(f"{DATA}/{place}", tree, above, _Own, f"{name}{_OWN}")
            found.append(_case(place, name, tree, own.args or (), own.output_validator_args or ()))
        for folder in () if place in (SAMPLE, SECRET) else sorted(folders):
            if RULES in (tree[folder] or {}):
                raise _wrong(f"data/{place}/{folder} is a group within a group")
            found += self._cases(f"{place}/{folder}", tree[folder] or {}, above)
        return tuple(found)

    def _own(self, place: str, tree: _Tree, above: _Own, kind: type, name: str = RULES) -> Any:
        path = f"{place}/{name}"
        own = (
            documents.read(path, read_file(self._files, path), kind) if tree.get(name, {}) is None else kind()
        )
        inherited = {
            field: getattr(above, field)
            for field in ("args", "output_validator_args")
            if getattr(own, field) is None
        }
        return msgspec.structs.replace(own, **inherited)

    def _rules(self, own: _Modern, usual: str, most: float | None) -> GroupRules:
        if own.static_validation_score is not None:
            raise PackageError("Static validators are not supported.", "Judge it elsewhere.")
        asked = own.max_score
        required = (own.require_pass,) if isinstance(own.require_pass, str) else own.require_pass
        max_score = most if asked is None else None if asked == "unbounded" else float(asked)
        aggregation = own.score_aggregation or usual
        return GroupRules(aggregation=aggregation, max_score=max_score, require_pass=required)


def _wrong(reason: str, cure: str = _CURE) -> PackageError:
    return PackageError(f"The test data cannot be used: {reason}.", cure)
