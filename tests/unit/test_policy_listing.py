"""Policies in words: each line, what decides, and what two policies differ in."""

import platform
from pathlib import Path

import pytest

from jail import policy as policies
from jail.policy import listing, numbers

POLICIES = Path(__file__).parents[2] / "policies"
X32 = pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has an x32 entry")
HEAD = 'name = "{name}"\ndescription = "d"\n'


@pytest.fixture
def policy(tmp_path):
    """Load a policy from its rules."""

    def load(text, name="p"):
        (tmp_path / f"{name}.toml").write_text(HEAD.format(name=name) + text)
        return policies.load(name, tmp_path)

    return load


def lines(policy):
    return [f"{entry.call} {listing.words(entry)}" for entry in listing.entries(policy)]


def when(call, **arguments):
    tables = "\n".join(f"{name} = {table}" for name, table in arguments.items())
    return f'\n[[when]]\ncall = "{call}"\n{tables}\n'


ONE = when("socket", arg0="{ B = 2, A = 1 }", arg1="{ mask = 0xf, S = 3 }")


def test_there_is_a_line_for_every_call_and_rule_in_alphabetical_order(policy):
    found = policy(
        'allow = ["write", "read"]\n[answer]\nENOSYS = ["clone3"]' + ONE + when("socket", arg2="{ C = 3 }")
    )

    assert lines(found) == [
        "clone3 ENOSYS",
        "read always",
        "socket if arg0 is one of A=0x1, B=0x2 and arg1 & 0xf is S=0x3",
        "socket if arg2 is C=0x3",
        "write always",
    ]


def test_rules_that_differ_in_one_argument_alone_are_one_line(policy):
    found = [
        when("socket", arg0="{ A = 1 }", arg1="{ S = 3 }"),
        when("socket", arg0="{ B = 2 }", arg1="{ D = 4 }"),
        when("socket", arg0="{ A = 1 }", arg1="{ D = 4 }"),
        when("socket", arg0="{ A = 1 }", arg1="{ S = 3 }"),
        when("socket", arg0="{ A = 1 }", arg1="{ mask = 0xf, X = 5 }"),
    ]

    assert lines(policy("".join(found))) == [
        "socket if arg0 is A=0x1 and arg1 & 0xf is X=0x5",
        "socket if arg0 is A=0x1 and arg1 is one of S=0x3, D=0x4",
        "socket if arg0 is B=0x2 and arg1 is D=0x4",
    ]


COUNT = """
[[count]]
call = "fcntl"
arg1 = { F_SETLK = 6, F_SETLKW = 7 }
max = 9
answer = "ENOLCK"
"""


def test_what_is_counted_is_a_line_of_its_own(policy):
    assert lines(policy(COUNT)) == [
        "fcntl always, but at most 9 times if arg1 is one of F_SETLK=0x6, F_SETLKW=0x7, then ENOLCK"
    ]


def test_what_counts_is_named(policy):
    nr = numbers.number("fcntl")

    assert listing.decision(policy(COUNT), nr, (0, 6)) == "p.toml: count[0] (fcntl), counted"
    assert listing.decision(policy(COUNT), nr, (0, 1)) == "p.toml: count[0] (fcntl)"
    assert listing.find_value(policy(COUNT), nr, 1, "F_SETLKW") == 7


def test_listing_ends_with_what_is_not_named(policy):
    assert listing.plain(policy('allow = ["read"]')) == (
        "p: d\n\nread  always\n(any other call)  EPERM\n(unknown number)  ENOSYS\n(foreign entry)  killed\n"
    )


# --- what decides


@pytest.mark.parametrize(
    ("call", "args", "told"),
    [
        ("read", (), "allow"),
        ("clone3", (), "answer.ENOSYS"),
        ("socket", (2, 0x13), "p.toml: when[0] (socket)"),
        ("socket", (2 + (7 << 32), 3), "p.toml: when[0] (socket)"),
        ("socket", (-1, 3), "none holds of p.toml: when[0] (socket)"),
        ("ptrace", (), "the policy does not name it"),
        (10_000, (), "no known call has this number"),
        (-1, (), "no known call has this number"),
        pytest.param(0x40000001, (), "the x32 entry is another architecture's", marks=X32),
    ],
)
def test_what_decides_is_named(policy, call, args, told):
    found = policy('allow = ["read"]\n[answer]\nENOSYS = ["clone3"]' + ONE)
    number = call if isinstance(call, int) else numbers.number(call)

    assert listing.decision(found, number, args) == told


@pytest.mark.parametrize("argument", range(6))
@pytest.mark.parametrize("value", [0, 1, 2, 3, 4, 2**32 + 1, -1])
def test_what_decides_agrees_with_the_compiled_filter(argument, value):
    found = policies.load("default", POLICIES)
    program = policies.compile_policy(found)
    for nr in numbers.known():
        args = [0] * argument + [value]
        is_allowed = policies.simulate(program, nr, args).verdict is policies.Verdict.ALLOW
        told = listing.decision(found, nr, args)
        is_counted = told.endswith(", counted")
        assert is_allowed == (told == "allow" or (told.startswith("parts/") and not is_counted)), (nr, told)


# --- names of calls and values


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("-7", -7), ("0x1f", 31), ("A", 1), ("B|0x80", 0x82), ("S", 3), ("0b1|0o10", 9)],
)
def test_a_value_is_a_number_or_a_name(policy, text, value):
    assert listing.find_value(policy(ONE), numbers.number("socket"), 0, text) == value


def test_of_equal_names_the_nearest_counts(policy):
    found = policy(when("socket", arg0="{ A = 1 }", arg1="{ A = 2 }") + when("ioctl", arg0="{ A = 3 }"))
    socket, ioctl, read = map(numbers.number, ("socket", "ioctl", "read"))

    assert [listing.find_value(found, socket, at, "A") for at in (0, 1)] == [1, 2]
    assert listing.find_value(found, ioctl, 5, "A") == 3
    assert listing.find_value(found, read, 2, "A") in (1, 2, 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [("C", "'C' is no number; .*: A, B$"), ("", "''"), ("A|", "''"), (str(1 << 64), "more than 64 bits")],
)
def test_a_value_that_is_neither_is_refused(policy, text, told):
    with pytest.raises(LookupError, match=told):
        listing.find_value(policy(ONE), numbers.number("socket"), 0, text)


@pytest.mark.parametrize(("text", "told"), [("raed", "'raed'"), (str(1 << 31), "32 bits")])
def test_a_call_that_does_not_exist_is_refused(text, told):
    with pytest.raises(LookupError, match=told):
        listing.find_call(text)


# --- differences

R = 'allow = ["read"]\n'


def difference(policy, first, second):
    found = listing.difference(policy(R + first, "a"), policy(R + second, "b"))
    added = [f"+ {entry.call} {listing.words(entry)}" for entry in found.added]
    removed = [f"- {entry.call} {listing.words(entry)}" for entry in found.removed]
    return [*added, *removed, *(f"~ {' '.join(change)}" for change in found.changed)]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("", "", []),
        (ONE, ONE, []),
        # Names are for the reader.
        (when("ioctl", arg1="{ A = 1 }"), when("ioctl", arg1="{ B = 1 }"), []),
        # Order is nothing, nor how values are spread over rules.
        (
            when("ioctl", arg1="{ A = 1, B = 2 }"),
            when("ioctl", arg1="{ B = 2 }") + when("ioctl", arg1="{ A = 1 }"),
            [],
        ),
        ("", when("ioctl", arg1="{ A = 1 }"), ["+ ioctl if arg1 is A=0x1"]),
        (
            when("ioctl", arg1="{ A = 1 }"),
            when("ioctl", arg1="{ A = 1, B = 2, C = 3 }"),
            ["+ ioctl if arg1 is one of B=0x2, C=0x3"],
        ),
        # A narrower rule allows nothing more.
        (
            when("mmap", arg3="{ mask = 4, NONE = 0 }"),
            when("mmap", arg3="{ mask = 6, NONE = 0 }"),
            ["- mmap if arg3 & 0x4 is NONE=0x0"],
        ),
        (
            when("socket", arg0="{ A = 1, B = 2 }"),
            ONE,
            ["- socket if arg0 is one of A=0x1, B=0x2"],
        ),
        # The same value under another mask is another set.
        (
            when("mmap", arg3="{ mask = 4, NONE = 0 }"),
            when("mmap", arg3="{ mask = 8, NONE = 0 }"),
            ["+ mmap if arg3 & 0x8 is NONE=0x0", "- mmap if arg3 & 0x4 is NONE=0x0"],
        ),
        (
            when("socket", arg0="{ A = 1 }", arg1="{ S = 3 }"),
            when("socket", arg0="{ A = 1, B = 2 }", arg1="{ S = 3, D = 4 }"),
            [
                "+ socket if arg0 is A=0x1 and arg1 is D=0x4",
                "+ socket if arg0 is B=0x2 and arg1 is one of S=0x3, D=0x4",
            ],
        ),
        ("[answer]\nENOSYS = ['clone3']", "", ["~ clone3 ENOSYS EPERM"]),
        (
            "[answer]\nENOSYS = ['clone3', 'tee']",
            "[answer]\nEINVAL = ['tee']\nENOSYS = ['clone3']",
            ["~ tee ENOSYS EINVAL"],
        ),
        ("[answer]\nENOSYS = ['ioctl']", when("ioctl", arg1="{ A = 1 }"), ["+ ioctl if arg1 is A=0x1"]),
    ],
)
def test_difference_is_what_one_allows_and_the_other_does_not(policy, first, second, told):
    assert difference(policy, first, second) == told


def test_counting_is_a_difference(policy):
    counted = "always, but at most {} times if arg1 is one of F_SETLK=0x6, F_SETLKW=0x7, then ENOLCK"
    more, always, some = COUNT.replace("9", "10"), 'allow = ["fcntl"]', when("fcntl", arg1="{ F_GETFD = 1 }")

    def compare(first, second):
        found = listing.difference(policy(first, "a"), policy(second, "b"))
        return found.added, found.removed, found.changed

    (only,) = listing.entries(policy(COUNT))
    assert compare(COUNT, COUNT) == ((), (), ())
    assert compare(COUNT, more) == ((), (), (("fcntl", counted.format(9), counted.format(10)),))
    assert compare(always, COUNT) == ((), (), (("fcntl", "always", counted.format(9)),))
    assert compare(some, COUNT) == ((only,), (), ())
    assert compare("", COUNT) == ((only,), (), ())


def test_always_is_more_than_any_condition(policy):
    always, sometimes = policy('allow = ["ioctl"]', "a"), policy(when("ioctl", arg1="{ A = 1 }"), "b")

    assert listing.difference(sometimes, always).added == (listing.Entry("ioctl"),)
    assert listing.difference(sometimes, always).removed == ()
