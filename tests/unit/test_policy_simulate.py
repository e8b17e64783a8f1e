"""The evaluator, on programs small enough to read."""

import pytest

from jail.policy import bpf
from jail.policy.simulate import Action, Verdict, cacheable, simulate

ALLOW = (bpf.RETURN, 0, 0, bpf.RET_ALLOW)
KILL = (bpf.RETURN, 0, 0, Verdict.KILL_PROCESS.value)
LOW_OF_ARG0, HIGH_OF_ARG0 = 16, 20


def program(*instructions):
    return b"".join(bpf.INSTRUCTION.pack(*instruction) for instruction in instructions)


@pytest.mark.parametrize(
    ("jump", "passes"),
    [
        (bpf.JUMP_EQUAL, [6]),
        (bpf.JUMP_GREATER, [7, 0xFFFFFFFF]),
        (bpf.JUMP_GREATER_EQUAL, [6, 7, 0xFFFFFFFF]),
        (bpf.JUMP_ANY_BIT, [2, 4, 6, 7, 0xFFFFFFFF]),
    ],
)
def test_jump_compares_without_sign(jump, passes):
    code = program((bpf.LOAD, 0, 0, LOW_OF_ARG0), (jump, 1, 0, 6), KILL, ALLOW)
    values = [0, 1, 2, 4, 6, 7, 0xFFFFFFFF]

    allowed = [v for v in values if simulate(code, 0, [v]).verdict is Verdict.ALLOW]

    assert allowed == passes


def test_halves_of_an_argument_are_loaded_apart_and_masked():
    code = program(
        (bpf.LOAD, 0, 0, HIGH_OF_ARG0),
        (bpf.AND, 0, 0, 0xF0),
        (bpf.JUMP_EQUAL, 0, 1, 0x20),
        ALLOW,
        KILL,
    )

    assert simulate(code, 0, [0x2F_0000_0000]).verdict is Verdict.ALLOW
    assert simulate(code, 0, [0x2F]).verdict is Verdict.KILL_PROCESS


def test_errno_comes_with_its_number():
    code = program((bpf.RETURN, 0, 0, bpf.RET_ERRNO | 38))

    assert simulate(code, 0, []) == Action(Verdict.ERRNO, 38)


@pytest.mark.parametrize("code", [program((0x99, 0, 0, 0)), program((bpf.JUMP, 0, 0, 7)), b""])
def test_program_that_the_kernel_would_not_take_is_an_error(code):
    with pytest.raises(ValueError, match=r"unexpected code|past its end"):
        simulate(code, 0, [])


def test_only_what_never_reads_an_argument_is_cacheable():
    reads = program((bpf.LOAD, 0, 0, LOW_OF_ARG0), ALLOW)
    knows = program((bpf.LOAD, 0, 0, bpf.NR_OFFSET), (bpf.JUMP_EQUAL, 1, 0, 1), KILL, ALLOW)

    assert not cacheable(reads, 1)
    assert [cacheable(knows, nr) for nr in (0, 1)] == [False, True]
