"""What holds for every body and for every policy, looked for with generated ones.

Both are made from a right one by little changes, so that they come past the first check.
"""

import copy
import errno
import itertools
import json
import math
import posixpath
import tempfile
import tomllib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from offered import Offered

from jail import policy as policies
from jail import spec
from jail.limits import CEILINGS, MINIMA, Limits
from jail.policy import Verdict, numbers
from jail.spec import JobSpec, SpecError

ALWAYS_THE_SAME = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)

# --- bodies

FIELDS = Limits.__struct_fields__
VALID = {
    "argv": ["sh", "-c", "true"],
    "image": "host",
    "policy": "default",
    "network": "none",
    "files": {"a": "x", "d/b": {"text": "é", "executable": True}, "d/e/c": {"base64": "AP8="}},
    "stdin": {"text": "in"},
    "env": {"LANG": "C", "X": "1"},
    "outputs": ["a", "d/b?", "c"],
    "limits": {field: getattr(Limits(), field) for field in FIELDS},
    "on_output_limit": "kill",
}
TEXT = st.text("a/.?=\0é\ud800`$ -", max_size=6)
EDGES = [
    edge
    for bounds in (MINIMA, Limits(), CEILINGS)
    for field in FIELDS
    for bound in [getattr(bounds, field)]
    for edge in (bound - 1, bound, bound + 1, -bound, float(bound), bound + 0.5, str(bound))
]
STRANGE = [
    *(None, True, False, 0, -0.0, 2**53, 2**63, 2**64, 10**400, math.nan, math.inf, 1e-320, 1e308),
    *(
        "",
        "a",
        "..",
        "/",
        "a/b",
        "d",
        "d/b",
        "d/e",
        "a\0",
        "\ud800",
        "x" * 256,
        "x" * 70_000,
        "x" * 140_000,
        "!",
        "AAAA",
    ),
    *([], {}, [""], [[]], {"text": "a"}, {"base64": "!"}, {"text": "", "base64": ""}, {"": ""}, ["a"] * 5000),
]
VALUES = st.sampled_from(STRANGE) | st.sampled_from(EDGES) | TEXT | st.integers() | st.floats()
NAMES = st.sampled_from([*VALID, *FIELDS, "text", "base64", "executable", "d", "d/e", "..", "CPU_MS"]) | TEXT


def places(value, path=()):
    """The ways to everything within a body."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


@st.composite
def mutated(draw):
    """A valid body with one change, and the names of top-level fields that can be blamed for it."""
    body = copy.deepcopy(VALID)
    *above, key = draw(st.sampled_from(places(VALID)[1:]))
    parent = body
    for step in above:
        parent = parent[step]
    how = draw(st.sampled_from(["replace", "remove", "add", "rename"]))
    if how == "replace":
        parent[key] = draw(VALUES)
    elif how == "remove":
        del parent[key]
    else:
        value = copy.deepcopy(parent[key]) if how == "rename" else draw(VALUES)
        name = draw(NAMES)
        if isinstance(parent, list):
            parent.insert(key, value)
        else:
            parent[name] = value
            if how == "rename" and name != key:
                del parent[key]
        return body, {key, name} if parent is body else {above[0]}
    return body, {above[0] if above else key}


@st.composite
def rules(draw):
    """Limits of an operator: ceilings somewhere above the minima, defaults between the two."""

    def between(low, high):
        ranges = {field: (getattr(low, field), getattr(high, field)) for field in FIELDS}
        kinds = {field: st.floats if field == "cpus" else st.integers for field in FIELDS}
        # Often at an end.
        return {field: draw(st.sampled_from(ends) | kinds[field](*ends)) for field, ends in ranges.items()}

    ceilings = Limits(**between(MINIMA, CEILINGS))
    return spec.Rules(
        defaults=Limits(**between(MINIMA, ceilings)),
        ceilings=ceilings,
        images=Offered(),
        policies=("default",),
        processes=2,
        memory_bytes=ceilings.memory_bytes,
    )


AS_SHIPPED = spec.Rules(
    defaults=Limits(),
    ceilings=CEILINGS,
    images=Offered(),
    policies=("default",),
    processes=3,
    memory_bytes=CEILINGS.memory_bytes,
)


def assert_within(limits, ceilings):
    """Every limit is a number of its kind within its range."""
    for field in FIELDS:
        value = getattr(limits, field)
        assert type(value) is (float if field == "cpus" else int)
        assert getattr(MINIMA, field) <= value <= getattr(ceilings, field)


def assert_sound(job, ceilings):
    """What the rest of jail takes for granted of a job."""
    for process in job.processes:
        assert_process_sound(process, ceilings)


def assert_process_sound(job, ceilings):
    assert_within(job.limits, ceilings)
    assert job.argv
    assert job.argv[0]
    assert (job.image, job.policy) == ("host", "default")
    assert spec.DEFAULT_ENV.keys() <= job.env.keys()
    strings = [*job.argv, *(f"{name}={value}" for name, value in job.env.items())]
    assert not any("\0" in string for string in strings)
    assert sum(len(string.encode()) + 1 for string in strings) <= job.limits.stack_bytes // 4
    paths = [file.path for file in job.files]
    for path in [*paths, *(output.path for output in job.outputs)]:
        assert posixpath.normpath(f"/box/{path}") == f"/box/{path}"
    assert not any(one != other and other.startswith(f"{one}/") for one in paths for other in paths)
    assert len({output.path for output in job.outputs}) == len(job.outputs)
    assert sum(len(file.content) for file in job.files) <= job.limits.disk_bytes
    assert len(job.files) < job.limits.files


def job_or_error(body, offered):
    try:
        return spec.parse(json.dumps(body).encode(), offered)
    except SpecError as error:
        return error


def top(field):
    """The top-level field in which a field lies."""
    return field.partition(".")[0].partition("[")[0]


@settings(ALWAYS_THE_SAME, max_examples=1000)
@given(mutated())
def test_a_body_with_one_change_is_a_sound_job_or_refused_by_what_was_changed(case):
    body, changed = case
    found = job_or_error(body, AS_SHIPPED)
    if isinstance(found, JobSpec):
        assert_sound(found, CEILINGS)
    elif found.field == "":
        # A field without a name; or what the decoder knows no place of: no UTF-8, no number of JSON.
        assert "" in changed or "JSON" in found.detail, found
    else:
        # Files have to fit into the limits, arguments and variables into the stack.
        blamed = changed | {"limits": {"files", "argv"}, "env": {"argv"}}.get(
            min(changed & {"limits", "env"}, default=""), set()
        )
        assert any(found.field.startswith(name) for name in blamed), (found.field, blamed)


@settings(ALWAYS_THE_SAME, max_examples=500)
@given(mutated(), st.integers(0, 2))
def test_a_process_with_one_change_is_part_of_a_sound_job_or_refused_by_its_place(case, place):
    changed, _ = case
    programs = [VALID, VALID, VALID]
    programs[place] = changed
    processes = [{**program, "name": f"p{number}"} for number, program in enumerate(programs)]
    for process in processes:
        process.pop("network", None)
    found = job_or_error({"processes": processes}, AS_SHIPPED)
    if isinstance(found, JobSpec):
        assert_sound(found, CEILINGS)
        assert [process.name for process in found.processes] == ["p0", "p1", "p2"]
        assert found.memory_bytes <= AS_SHIPPED.memory_bytes
    elif found.field == "processes":
        assert "memory_bytes" in found.detail
    else:
        assert found.field.startswith(f"processes[{place}].") or "JSON" in found.detail, found


@settings(ALWAYS_THE_SAME, max_examples=300)
@given(rules(), mutated())
def test_whatever_the_operator_offers_a_job_is_within_it(offered, case):
    body, changed = case
    if "limits" not in changed:
        # What the body asks for is seldom to be had here; the defaults are.
        del body["limits"]
    found = job_or_error(body, offered)
    if isinstance(found, JobSpec):
        assert_sound(found, offered.ceilings)


@settings(ALWAYS_THE_SAME, max_examples=300)
@given(
    rules(),
    st.dictionaries(
        st.sampled_from(FIELDS), st.sampled_from(EDGES) | st.integers(1, 2**33) | st.floats(), max_size=3
    ),
)
def test_limits_are_what_was_asked_or_the_defaults_or_refused_by_name(offered, asked):
    found = job_or_error({"argv": ["a"], "limits": asked}, offered)
    if isinstance(found, JobSpec):
        (process,) = found.processes
        assert_within(process.limits, offered.ceilings)
        for field in FIELDS:
            assert getattr(process.limits, field) == asked.get(field, getattr(offered.defaults, field))
    elif found.field.startswith("limits."):
        assert found.field.removeprefix("limits.") in asked
    elif found.field == "":
        assert not all(map(math.isfinite, (value for value in asked.values() if isinstance(value, float))))
    else:
        # The default environment alone is too much for the stack that the operator offers.
        assert found.field == "argv"


# --- policies

WORD = 1 << 32
KNOWN = numbers.known()
NEEDED = ["execve", "write", "exit_group", "sendmsg"]
# Of this architecture; of others; of none.
# The last two are of other architectures.
CALLS = ["read", "socket", "clone", "ioctl", "prctl", "futex", "getpid", "openat2", "clone3", "mseal"]
CALLS += ["lseek", "fcntl", "mprotect", "kcmp", "bpf", "mmap2", "_llseek"]
CODES = ["ENOSYS", "EPERM", "EINVAL", "EACCES", "ENOENT"]
WORDS = st.sampled_from([0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]) | st.integers(
    0, WORD - 1
)
MASKS = st.sampled_from([0xFFFFFFFF, 1, 0xF, 0xFFFFFFF0, 0x80000000, 0x7FFFFFFF, 0x00FF0000])


@st.composite
def conditions(draw, right):
    """One argument's table; where it need not be right, values may lie outside of the mask."""
    mask = draw(st.none() | MASKS | st.integers(1 if right else 0, WORD - 1))
    values = draw(st.lists(WORDS, min_size=1, max_size=3))
    if mask is None:
        return {f"V{at}": value for at, value in enumerate(values)}
    return {"mask": mask} | {f"V{at}": value & mask if right else value for at, value in enumerate(values)}


def arguments(right):
    """A rule without its call: tables of one or two arguments."""
    places = st.integers(0, 5).map("arg{}".format)
    return st.dictionaries(places, conditions(right), min_size=1, max_size=2)


@st.composite
def written_policies(draw):
    """The texts of a policy and of the parts that it includes: half of them right, the others perhaps."""
    right = draw(st.booleans())
    calls = st.sampled_from(CALLS if right else [*CALLS, "raed"])
    codes = st.sampled_from(CODES if right else [*CODES, "EWHAT"])
    fates = st.just("allow") | codes | arguments(right) | st.lists(arguments(right), min_size=1, max_size=3)
    decided = draw(
        st.lists(st.tuples(calls, fates), max_size=5, unique_by=(lambda pair: pair[0]) if right else None)
    )
    tables = [{"allow": [], "answer": {}, "when": [], "count": []} for _ in range(3)]
    tables[0]["allow"] += NEEDED if right else draw(st.sampled_from([NEEDED, NEEDED[1:]]))
    for call, fate in decided:
        table = draw(st.sampled_from(tables))
        if fate == "allow":
            table["allow"].append(call)
        elif isinstance(fate, str):
            table["answer"].setdefault(fate, []).append(call)
        elif isinstance(fate, dict):
            table["count"].append({"call": call, **fate, "max": 1, "answer": "EAGAIN"})
        else:
            table["when"] += [{"call": call, **compared} for compared in fate]
    heads = [{"name": "p", "include": ["1", "2"]}, {}, {}]
    texts = [written({"description": "d", **pair[0], **pair[1]}) for pair in zip(heads, tables, strict=True)]
    return right, texts


def toml(value):
    """A value of TOML on one line; JSON's strings and lists are TOML's too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def written(table):
    return "".join(f"{key} = {toml(value)}\n" for key, value in table.items())


def loaded(texts):
    """The policy of these texts, the first of which includes the others."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "parts").mkdir()
        (directory / "p.toml").write_text(texts[0])
        for at, text in enumerate(texts[1:], 1):
            (directory / "parts" / f"{at}.toml").write_text(text)
        return policies.load("p", directory)


def expected(tables, number, args):
    """What the tables of the texts say of a call, without anything of jail.policy but the numbers."""
    answer = errno.EPERM if number in KNOWN else errno.ENOSYS
    for table in tables:
        for count in table.get("count", []):
            if number == numbers.number(count["call"]):
                asked = holds(count, args)
                return policies.Action(Verdict.USER_NOTIF if asked else Verdict.ALLOW, 0)
        if number in map(numbers.number, table.get("allow", [])):
            return policies.Action(Verdict.ALLOW, 0)
        for code, calls in table.get("answer", {}).items():
            if number in map(numbers.number, calls):
                return policies.Action(Verdict.ERRNO, getattr(errno, code))
        for when in table.get("when", []):
            if number == numbers.number(when["call"]) and holds(when, args):
                return policies.Action(Verdict.ALLOW, 0)
    return policies.Action(Verdict.ERRNO, answer)


def holds(when, args):
    """Whether every argument that is told has one of its values, in the bits that count."""
    for name, table in when.items():
        if name.startswith("arg"):
            mask = table.get("mask", WORD - 1)
            values = [value for key, value in table.items() if key != "mask"]
            if args[int(name[3:])] % WORD & mask not in values:
                return False
    return True


def edges(tables, number):
    """Lists of arguments about every value that the tables compare a call's arguments with."""
    rules = [rule for table in tables for rule in (*table.get("when", []), *table.get("count", []))]
    whens = [when for when in rules if numbers.number(when["call"]) == number]
    choices = [{0} for _ in range(6)]
    for when in whens:
        for name in when.keys() - {"call", "max", "answer"}:
            mask = when[name].get("mask", WORD - 1)
            for value in (value for key, value in when[name].items() if key != "mask"):
                near = {value, value + 1, value - 1, value | ~mask % WORD, value ^ (mask & -mask)}
                choices[int(name[3:])] |= {one % WORD for one in near}
    alike = [[one] * 6 for one in (0, 1, WORD - 1, WORD, WORD**2 - 1)]
    # Of many combinations every so many: a step that divides none of the lengths.
    some = list(itertools.product(*map(sorted, choices)))
    some = some[:: 1 + len(some) // 97]
    return [*alike, *some, *([value + WORD for value in args] for args in some[::3])]


@settings(ALWAYS_THE_SAME, max_examples=200)
@given(written_policies())
def test_a_policy_answers_as_its_text_says_or_is_refused(case):
    right, texts = case
    try:
        program = policies.compile_policy(loaded(texts))
    except policies.PolicyError:
        assert not right
        return
    tables = [tomllib.loads(text) for text in texts]
    named = {call for table in tables for call in calls_of(table)}
    for number in {numbers.number(call) for call in named} - {None} | {0, numbers.LAST_KNOWN, 10_000}:
        for args in edges(tables, number):
            assert policies.simulate(program, number, args) == expected(tables, number, args), (number, args)


def calls_of(table):
    answered = [call for calls in table.get("answer", {}).values() for call in calls]
    ruled = [rule["call"] for key in ("when", "count") for rule in table.get(key, [])]
    return [*table.get("allow", []), *answered, *ruled]
