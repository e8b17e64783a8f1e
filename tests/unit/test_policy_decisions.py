"""Programs read and written again: whatever comes out answers as what went in."""

import itertools
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jail import policy as policies
from jail.policy import bpf
from jail.policy.assembly import assemble
from jail.policy.decisions import ARCH, GO_ON, NUMBER, Decision, Word, decide, read
from jail.policy.simulate import Verdict, simulate

ALWAYS_THE_SAME = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
ALLOW, KILL, ASK = bpf.RET_ALLOW, Verdict.KILL_PROCESS.value, bpf.RET_USER_NOTIF
NATIVE = bpf.native_arch()
ARG0, ARG1 = (Word(offset) for offset in bpf.ARGUMENT_OFFSETS[:2])


def program(*instructions):
    return b"".join(bpf.INSTRUCTION.pack(*instruction) for instruction in instructions)


def length(code):
    return len(code) // bpf.INSTRUCTION.size


def answer(code, nr, args=(), arch=NATIVE):
    action = simulate(code, nr, args, arch)
    return action.verdict.value | action.data


# --- read

OFFSETS = [bpf.NR_OFFSET, bpf.ARCH_OFFSET, *bpf.ARGUMENT_OFFSETS[:2], bpf.ARGUMENT_OFFSETS[0] + 4]
JUMPS = [bpf.JUMP_EQUAL, bpf.JUMP_GREATER, bpf.JUMP_GREATER_EQUAL, bpf.JUMP_ANY_BIT]
# Few, so that comparisons meet; the borders of 32 bits and of the x32 entry among them.
VALUES = [0, 1, 2, 3, 4, 7, 8, bpf.X32_BIT - 1, bpf.X32_BIT, bpf.X32_BIT + 1, NATIVE - 1, NATIVE, NATIVE + 1]
VALUES += [0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
MASKS = [0, 1, 6, 0xF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]


@st.composite
def programs(draw):
    """Any program that the kernel would take, of the instructions that there are here."""
    load = st.tuples(st.just(bpf.LOAD), st.just(0), st.just(0), st.sampled_from(OFFSETS))
    cut = st.tuples(st.just(bpf.AND), st.just(0), st.just(0), st.sampled_from(MASKS))
    end = st.tuples(st.just(bpf.RETURN), st.just(0), st.just(0), st.sampled_from([ALLOW, KILL, ASK]))
    code = [draw(load)]
    for left in range(draw(st.integers(0, 24)), 0, -1):
        ahead = st.integers(0, min(left, 6) - 1)
        jump = st.tuples(st.just(bpf.JUMP), st.just(0), st.just(0), ahead)
        compare = st.tuples(st.sampled_from(JUMPS), ahead, ahead, st.sampled_from(VALUES))
        code.append(draw(compare | load | compare | cut | compare | jump | compare | end))
    return program(*code, (bpf.RETURN, 0, 0, draw(st.sampled_from([ALLOW, bpf.RET_ERRNO | 1]))))


def calls(chosen):
    """Many of all combinations of values, for the words that programs() compares."""
    for _ in range(300):
        nr, arch, low, high, second = (chosen.choice(VALUES) for _ in range(5))
        yield nr, (high << 32 | low, second), arch


@settings(ALWAYS_THE_SAME, max_examples=600)
@given(programs(), st.integers(0, 1 << 32))
def test_what_is_read_and_written_again_answers_the_same(code, seed):
    again = assemble(read(code, {}))

    for nr, args, arch in calls(random.Random(seed)):
        assert answer(again, nr, args, arch) == answer(code, nr, args, arch), (nr, args, arch)


@settings(ALWAYS_THE_SAME, max_examples=200)
@given(programs(), st.sampled_from(VALUES), st.sampled_from(VALUES), st.integers(0, 1 << 32))
def test_what_is_read_for_a_number_and_range_answers_the_same_for_them(code, number, first, seed):
    last = max(value for value in VALUES if value - first < 5)
    again = assemble(read(code, {NUMBER: (number, number), ARG0: (first, last)}))

    for _, args, arch in calls(random.Random(seed)):
        if first <= args[0] % (1 << 32) <= last:
            assert answer(again, number, args, arch) == answer(code, number, args, arch), (args, arch)


def test_what_is_known_is_not_asked_again():
    asks_twice = program(
        (bpf.LOAD, 0, 0, bpf.ARCH_OFFSET),
        (bpf.JUMP_EQUAL, 0, 5, NATIVE),
        (bpf.LOAD, 0, 0, bpf.NR_OFFSET),
        (bpf.JUMP_GREATER, 0, 3, 7),
        (bpf.LOAD, 0, 0, bpf.ARCH_OFFSET),
        (bpf.JUMP_EQUAL, 0, 1, NATIVE),
        (bpf.RETURN, 0, 0, ALLOW),
        (bpf.RETURN, 0, 0, KILL),
    )

    assert read(asks_twice, {ARCH: (NATIVE, NATIVE)}) == Decision(NUMBER, ((0, KILL), (8, ALLOW)))
    assert read(asks_twice, {ARCH: (NATIVE, NATIVE), NUMBER: (8, 9)}) == ALLOW


def test_a_word_of_no_bits_is_not_asked_for():
    code = program(
        (bpf.LOAD, 0, 0, 20),
        (bpf.AND, 0, 0, 0),
        (bpf.JUMP_EQUAL, 0, 1, 0),
        (bpf.RETURN, 0, 0, ALLOW),
        (bpf.RETURN, 0, 0, KILL),
    )

    assert read(code, {}) == ALLOW


def test_an_instruction_that_is_none_of_ours_is_an_error():
    with pytest.raises(ValueError, match="unexpected code 0x99"):
        read(program((0x99, 0, 0, 0)), {})


def chain(pairs):
    """Allows where any of the words has the value beside it."""
    tests = [((bpf.LOAD, 0, 0, word.offset), (bpf.JUMP_EQUAL, 0, 1, k)) for word, k in pairs]
    allow = (bpf.RETURN, 0, 0, ALLOW)
    return program(*(one for pair in tests for one in (*pair, allow)), (bpf.RETURN, 0, 0, KILL))


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([(ARG0, 2 * k) for k in range(1300)], id="values of one argument"),
        pytest.param([(word, k) for k in range(650) for word in (ARG0, ARG1)], id="arguments in turn"),
    ],
)
def test_what_takes_too_long_to_read_goes_on_instead(pairs):
    start = time.monotonic()

    assert read(chain(pairs), {}) == GO_ON
    assert time.monotonic() - start < 10


def test_a_policy_that_takes_too_long_to_read_answers_as_it_says():
    conditions = [
        (policies.Condition(argument, 0xFFFFFFFF, (2 * value,), ("v",)),)
        for value in range(100)
        for argument in (0, 1)
    ]
    policy = policies.Policy(
        name="p",
        description="d",
        allow=frozenset({"execve", "exit_group", "write", "sendmsg"}),
        rules=tuple(policies.Rule("ioctl", one, "p") for one in conditions),
    )
    code = policies.compile_policy(policy)
    number = policies.numbers.number("ioctl")

    for args in itertools.product([*range(5), 197, 198, 199, 200, 0xFFFFFFFF], repeat=2):
        allowed = any(value % 2 == 0 and value < 200 for value in args)
        assert answer(code, number, args) == (ALLOW if allowed else bpf.RET_ERRNO | 1), args
    assert answer(code, number, [0, 0], bpf.AUDIT_ARCH_I386) == KILL
    assert [answer(code, nr) for nr in (0, 0x3FFFFFFF)] == [bpf.RET_ERRNO | 1, bpf.RET_ERRNO | 38]


# --- assemble


def test_neighbours_with_one_answer_are_one_run():
    assert decide(ARG0, [(0, KILL), (3, ALLOW), (4, ALLOW), (9, KILL)]) == Decision(
        ARG0, ((0, KILL), (3, ALLOW), (9, KILL))
    )
    assert decide(ARG0, [(0, ALLOW), (5, ALLOW)]) == ALLOW


def test_a_decision_about_the_same_word_becomes_part_of_it():
    inner = Decision(ARG0, ((5, KILL), (6, ALLOW)))

    assert decide(ARG0, [(0, ALLOW), (5, inner)]) == Decision(ARG0, ((0, ALLOW), (5, KILL), (6, ALLOW)))


def test_one_comparison_is_enough_for_a_value_alone_and_for_a_bit():
    alone = decide(ARG0, [(0, KILL), (5, ALLOW), (6, KILL)])
    bit = decide(Word(16, 8), [(0, KILL), (1, ALLOW)])

    assert [length(assemble(node)) for node in (alone, bit)] == [4, 4]
    assert [answer(assemble(alone), 0, [value]) for value in (4, 5, 6)] == [KILL, ALLOW, KILL]
    assert [answer(assemble(bit), 0, [value]) for value in (7, 8, 9, 16)] == [KILL, ALLOW, ALLOW, KILL]


def test_what_two_decisions_lead_to_stands_there_once():
    shared = decide(ARG1, [(value, bpf.RET_ERRNO | value) for value in range(20)])
    once = decide(ARG0, [(0, ALLOW), (1, shared)])
    twice = decide(ARG0, [(0, shared), (1, ALLOW), (2, shared)])

    assert length(assemble(twice)) == length(assemble(once))


@pytest.mark.parametrize("count", [2, 3, 130, 600])
@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("answers", [2, 1000], ids=["of two answers", "of many"])
def test_a_decision_of_any_size_lands_on_the_right_answer(count, step, answers):
    """The farthest answer is many times as far as a conditional jump reaches."""
    node = decide(ARG0, [(step * at, bpf.RET_ERRNO | at % answers) for at in range(count)])
    code = assemble(node)

    for value in range(step * count + 2):
        at = min(value // step, count - 1)
        assert answer(code, 0, [value]) == bpf.RET_ERRNO | at % answers


def test_what_follows_the_program_decides_where_it_says_so():
    node = decide(NUMBER, [(0, GO_ON), *((at, bpf.RET_ERRNO | at) for at in range(1, 300)), (300, GO_ON)])
    code = assemble(decide(ARCH, [(0, GO_ON), (NATIVE, node), (NATIVE + 1, GO_ON)]))
    code += program((bpf.RETURN, 0, 0, KILL))

    errors = [bpf.RET_ERRNO | 1, bpf.RET_ERRNO | 299]
    assert [answer(code, nr) for nr in (0, 1, 299, 300)] == [KILL, *errors, KILL]
    assert answer(code, 1, arch=NATIVE - 1) == KILL
