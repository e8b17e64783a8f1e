"""What a compiled filter answers to one call, without the kernel.

A second opinion on libseccomp, which has merged comparisons wrongly before (its 2.5.4
still does for 64-bit LT and LE): the tests put every boundary value through this
evaluator and compare with the policy's text.
"""

import sys
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from jail.policy import bpf


class Verdict(Enum):
    """The action part of a filter's answer (SECCOMP_RET_ACTION_FULL)."""

    KILL_PROCESS = 0x80000000
    KILL_THREAD = 0x00000000
    TRAP = 0x00030000
    ERRNO = bpf.RET_ERRNO
    USER_NOTIF = bpf.RET_USER_NOTIF
    TRACE = 0x7FF00000
    LOG = 0x7FFC0000
    ALLOW = bpf.RET_ALLOW


class Action(NamedTuple):
    """A filter's answer: the verdict, and its data (the errno where the verdict is ERRNO)."""

    verdict: Verdict
    data: int


class _Run(NamedTuple):
    answer: int
    offsets: frozenset[int]


_JUMPS = {
    bpf.JUMP_EQUAL: lambda a, k: a == k,
    bpf.JUMP_GREATER: lambda a, k: a > k,
    bpf.JUMP_GREATER_EQUAL: lambda a, k: a >= k,
    bpf.JUMP_ANY_BIT: lambda a, k: a & k != 0,
}


def simulate(program: bytes, nr: int, args: Sequence[int], arch: int | None = None) -> Action:
    """Tell the action that `program` takes on call number `nr`.

    program is an array of struct sock_filter; args holds up to six values, each cut to its
    low 64 bits, missing ones 0; arch is an AUDIT_ARCH_* value, by default this machine's.
    Raises ValueError on an instruction that libseccomp does not generate or a jump out of
    the program.
    """
    answer = _run(program, nr, args, arch).answer
    return Action(Verdict(answer & ~bpf.RET_DATA_MASK), answer & bpf.RET_DATA_MASK)


def cacheable(program: bytes, nr: int, arch: int | None = None) -> bool:
    """Tell whether the kernel allows call number `nr` without running `program` at each call.

    It does so for calls that the program allows having looked at the number and the
    architecture alone (seccomp_is_const_allow() in kernel/seccomp.c, since Linux 5.11).
    """
    run = _run(program, nr, (), arch)
    return run.answer == Verdict.ALLOW.value and run.offsets <= {bpf.NR_OFFSET, bpf.ARCH_OFFSET}


def _run(program: bytes, nr: int, args: Sequence[int], arch: int | None) -> _Run:
    data = _data(nr, args, bpf.native_arch() if arch is None else arch)
    size = bpf.INSTRUCTION.size
    accumulator, position, offsets = 0, 0, set()
    while position * size < len(program):
        op, if_true, if_false, k = bpf.INSTRUCTION.unpack_from(program, position * size)
        position += 1
        if op == bpf.RETURN:
            return _Run(k, frozenset(offsets))
        if op == bpf.LOAD:
            offsets.add(k)
            accumulator = int.from_bytes(data[k : k + 4], sys.byteorder)
        elif op == bpf.AND:
            accumulator &= k
        elif op == bpf.JUMP:
            position += k
        elif op in _JUMPS:
            position += if_true if _JUMPS[op](accumulator, k) else if_false
        else:
            raise ValueError(f"instruction {position - 1} has the unexpected code {op:#04x}")
    raise ValueError("the program runs past its end")


def _data(nr: int, args: Sequence[int], arch: int) -> bytes:
    padded = [*args, *[0] * (6 - len(args))]
    return bpf.DATA.pack(nr & 0xFFFFFFFF, arch, 0, *(value & 0xFFFFFFFFFFFFFFFF for value in padded))
