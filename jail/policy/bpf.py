"""Classic BPF as seccomp(2) reads it: instruction codes, the data it looks at, what it returns.

Sources: include/uapi/linux/{bpf_common,filter,seccomp,audit}.h.
"""

import platform
import struct

# struct sock_filter: u16 code, u8 jump if true, u8 jump if false, u32 k; native byte order.
INSTRUCTION = struct.Struct("=HBBI")
# All bits of what an instruction loads and compares.
WORD_MAX = 0xFFFFFFFF
# The kernel refuses longer programs (BPF_MAXINSNS).
INSTRUCTIONS_MAX = 4096

# struct seccomp_data: int nr, u32 arch, u64 instruction_pointer, u64 args[6].
DATA = struct.Struct("=IIQ6Q")
NR_OFFSET = 0
ARCH_OFFSET = 4
# Of an argument's low 32 bits, on the little-endian machines that there are in AUDIT_ARCHES.
ARGUMENT_OFFSETS = tuple(range(16, 64, 8))

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
JUMP = 0x05  # BPF_JMP | BPF_JA
JUMP_EQUAL = 0x15
JUMP_GREATER = 0x25
JUMP_GREATER_EQUAL = 0x35
JUMP_ANY_BIT = 0x45
RETURN = 0x06  # BPF_RET | BPF_K

RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000
RET_DATA_MASK = 0x0000FFFF

# A number with this bit comes through the x32 entry of x86_64.
X32_BIT = 0x40000000

AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def native_arch() -> int:
    """Tell the AUDIT_ARCH_* value of this machine; KeyError where jail was never ported."""
    return AUDIT_ARCHES[platform.machine()]
