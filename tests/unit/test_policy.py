"""The default policy: its program, what goes to init, and what it must refuse whatever its text says.

That the program does what the text says is shown in test_policy_whole.py.
"""

import errno
import itertools
import platform
import tomllib
from pathlib import Path

import pytest

from jail import policy as policies
from jail.policy import bpf, numbers
from jail.policy.compiler import REQUIRED
from jail.policy.simulate import Verdict
from jail.policy.text import Condition, Rule

POLICIES = Path(__file__).parents[2] / "policies"
POLICY = policies.load("default", POLICIES)
PROGRAM = policies.compile_policy(POLICY)
RULES = (*POLICY.rules, *POLICY.counted)
NUMBERS = sorted({numbers.number(rule.call) for rule in RULES} - {None})
WORD = 1 << 32

ALLOWED = policies.Action(Verdict.ALLOW, 0)
HANDED_OVER = policies.Action(Verdict.USER_NOTIF, 0)


def refused(code):
    return policies.Action(Verdict.ERRNO, code)


def ask(call, *args):
    number = call if isinstance(call, int) else numbers.number(call)
    return policies.simulate(PROGRAM, number, args)


# --- the program


def test_program_fits_the_kernel_and_the_time_to_load_it():
    instructions = len(PROGRAM) // bpf.INSTRUCTION.size

    assert len(PROGRAM) % bpf.INSTRUCTION.size == 0
    # 4096 is the kernel's limit; ours keeps loading under about 0.1 ms.
    assert instructions <= 320


def test_calls_do_not_share_what_they_compare():
    """libseccomp 2.5.4 merges comparisons of these two calls, and then takes one argument for the other."""
    word = WORD - 1
    rules = (
        ("sendfile", (1, word, 0, 0x10000)),
        ("rt_tgsigqueueinfo", (1, word, 5), (5, 0x100, 0x100)),
        ("rt_tgsigqueueinfo", (1, word, 0)),
    )
    made = policies.Policy(
        name="made-up",
        description="",
        allow=frozenset(REQUIRED),
        rules=tuple(
            Rule(call, tuple(Condition(n, mask, v, tuple(map(str, v))) for n, mask, *v in conditions), "here")
            for call, *conditions in rules
        ),
    )
    number = numbers.number("rt_tgsigqueueinfo")
    program = policies.compile_policy(made)
    assert policies.simulate(program, number, [0, 5, 0, 0, 0, 3]) == refused(errno.EPERM)
    assert policies.simulate(program, number, [0, 5, 0, 0, 0, 0x100]) == ALLOWED


def test_same_policy_gives_the_same_bytes():
    assert policies.compile_policy(policies.load("default", POLICIES)) == PROGRAM


def test_kernel_answers_unconditional_calls_without_running_the_filter():
    allowed = {numbers.number(call) for call in POLICY.allow} - {None}

    assert [nr for nr in allowed if not policies.cacheable(PROGRAM, nr)] == []
    assert not any(policies.cacheable(PROGRAM, nr) for nr in NUMBERS)


def test_surface_counts_allowed_calls_of_all_known_ones():
    allowed, known = policies.surface(POLICY)

    unconditional = {nr for nr in numbers.known() if policies.cacheable(PROGRAM, nr)}
    assert allowed == len(unconditional) + len(NUMBERS)
    assert known == len(numbers.known())


# --- what goes to init


def test_an_explained_filter_hands_over_what_the_plain_one_refuses_and_nothing_else():
    told = policies.explained(PROGRAM)

    for nr in [*range(600), 10_000]:
        for args in ([0] * 6, [6] * 6, [2**64 - 1] * 6):
            plain = policies.simulate(PROGRAM, nr, args)
            expected = HANDED_OVER if plain.verdict is Verdict.ERRNO else plain
            assert policies.simulate(told, nr, args) == expected


def test_an_explained_denial_is_answered_as_the_plain_one():
    answers = policies.denials(POLICY)

    for nr, (code, _) in enumerate(answers):
        plain = ask(nr, *[2**64 - 1] * 6)
        assert plain.verdict is not Verdict.ERRNO or plain.data == code, nr
    # What lies beyond is newer than our tables, and init answers so by itself.
    assert len(answers) == max(numbers.known()) + 1


@pytest.mark.parametrize(
    ("call", "count"),
    [("socket", 3), ("unshare", 1), ("mount", 5), ("getpid", 0), ("mmap", 6), ("clone3", 2)],
)
def test_a_denial_has_as_many_arguments_as_its_call(call, count):
    assert policies.argument_count(numbers.number(call)) == count


def test_the_calls_that_are_counted_are_told_by_their_numbers():
    told = policies.counted_calls(POLICY)

    assert told == ((numbers.number("fcntl"), 65536, errno.ENOLCK),)


# --- the text: what no edit may let through


REFUSED = (
    "acct add_key bpf chroot clock_adjtime clock_settime delete_module fanotify_init finit_module "
    "get_mempolicy init_module io_setup ioprio_set kcmp kexec_load keyctl lookup_dcookie mbind "
    "memfd_secret migrate_pages mount move_pages nfsservctl open_by_handle_at perf_event_open "
    "pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev ptrace quotactl "
    "quotactl_fd reboot request_key seccomp set_mempolicy sethostname setns settimeofday swapoff "
    "swapon sync syslog umount2 unshare userfaultfd vhangup adjtimex kexec_file_load setgroups "
    "sched_setattr setdomainname remap_file_pages fanotify_mark "
    # These exist on x86_64 alone.
    "iopl ioperm modify_ldt uselib ustat sysfs create_module"
)


@pytest.mark.parametrize("call", REFUSED.split())
def test_privileged_or_far_reaching_call_is_refused(call):
    if numbers.number(call) is None:
        pytest.skip(f"{platform.machine()} has no {call}")

    assert ask(call) == refused(errno.EPERM)


UNAVAILABLE = (
    "clone3 io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig "
    "fsmount fspick mount_setattr open_tree_attr listmount statmount cachestat"
)


@pytest.mark.parametrize("call", [*UNAVAILABLE.split(), 470, 471, 511, 10_000, 0x3FFFFFFF])
def test_call_with_a_fallback_looks_absent(call):
    assert ask(call) == refused(errno.ENOSYS)


@pytest.mark.parametrize("call", ["splice", "tee", "vmsplice"])
def test_splicing_looks_impossible_for_these_descriptors(call):
    assert ask(call) == refused(errno.EINVAL)


@pytest.mark.parametrize("call", ["execve", "write", "sendto", "exit_group"])
def test_init_can_start_the_job_and_report_that_it_could_not(call):
    no_signal = 0x4000

    assert ask(call, 3, 0, 0, no_signal) == ALLOWED


UNIX = {(1, kind, protocol) for kind in (1, 2, 5) for protocol in (0, 1)}
INET = {(family, *rest) for family in (2, 10) for rest in [(1, 0), (1, 6), (2, 0), (2, 17)]}
PROTOCOLS = [*range(32), 58, 132, 136, 255, 262]
SOCKETS = list(itertools.product(range(51), range(1, 6), PROTOCOLS))


@pytest.mark.parametrize("high", [0, WORD, -WORD])
@pytest.mark.parametrize("flags", [0, 0x800, 0x80000, 0x80800])
def test_sockets_are_those_of_three_families(flags, high):
    allowed = {s for s in SOCKETS if ask("socket", s[0] | high, s[1] | flags, s[2]) == ALLOWED}

    assert allowed == UNIX | INET


def test_socket_pairs_are_local():
    assert {s for s in SOCKETS if ask("socketpair", *s) == ALLOWED} == UNIX


SIGCHLD = 17
NAMESPACES = {
    "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWCGROUP": 0x02000000,
    "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}


@pytest.mark.parametrize("high", [0, WORD, -WORD])
@pytest.mark.parametrize("flag", NAMESPACES.values(), ids=NAMESPACES)
def test_clone_makes_no_namespace(flag, high):
    assert ask("clone", flag | SIGCHLD | high) == refused(errno.EPERM)
    assert ask("clone", sum(NAMESPACES.values()) | high) == refused(errno.EPERM)


@pytest.mark.parametrize("flags", [SIGCHLD, 0x1200011, 0x3D0F00, 0x4111, 0x80000000 | SIGCHLD])
def test_clone_makes_processes_and_threads(flags):
    assert ask("clone", flags) == ALLOWED


# The argument that is an int, and values for it.
FORBIDDEN = [
    ("ioctl", 1, [0x5412, 0x541C, 0xC0045877, 0x1, 0x5480, 0xAE01], "TIOCSTI TIOCLINUX FIFREEZE"),
    ("personality", 0, [8, 0x0040000, 0x0400000, 0xFFFFFFFE], "PER_LINUX32 ADDR_NO_RANDOMIZE"),
    ("prctl", 0, [22, 35, 53, 67, 8, 28, 47, 0x59616D61], "SET_SECCOMP SET_MM MEMORY_MERGE"),
    ("mknod", 1, [0x2000, 0x2180, 0x6000, 0x61B6], "S_IFCHR S_IFBLK"),
    ("mknodat", 2, [0x2000, 0x2180, 0x6000, 0x61B6], "S_IFCHR S_IFBLK"),
    ("sendto", 3, [1, 0x4001], "MSG_OOB"),
    ("sendmsg", 2, [1, 0x4001], "MSG_OOB"),
    ("sendmmsg", 3, [1, 0x4001], "MSG_OOB"),
    ("sched_setscheduler", 1, [1, 2, 6, 0x40000001], "SCHED_FIFO SCHED_RR SCHED_DEADLINE"),
    ("mmap", 3, [0x40000, 0x40022], "MAP_HUGETLB"),
    ("memfd_create", 1, [4, 5], "MFD_HUGETLB"),
    ("shmget", 2, [0x800, 0xB80], "SHM_HUGETLB"),
    ("madvise", 2, [12, 100, 101], "MADV_MERGEABLE MADV_HWPOISON"),
]
CASES = [(call, at, value, what) for call, at, values, what in FORBIDDEN for value in values]


@pytest.mark.parametrize("high", [0, WORD, -WORD])
@pytest.mark.parametrize(("call", "argument", "value", "what"), CASES)
def test_forbidden_value_is_refused(call, argument, value, what, high):
    if numbers.number(call) is None:
        pytest.skip(f"{platform.machine()} has no {call}")

    assert ask(call, *[0] * argument, value + high) == refused(errno.EPERM), what


SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP = 1, 0, 6


@pytest.mark.parametrize(
    ("level", "option"),
    [
        pytest.param(SOL_SOCKET, 26, id="SO_ATTACH_FILTER"),
        pytest.param(SOL_SOCKET, 50, id="SO_ATTACH_BPF"),
        pytest.param(SOL_SOCKET, 51, id="SO_ATTACH_REUSEPORT_CBPF"),
        pytest.param(IPPROTO_TCP, 31, id="TCP_ULP"),
        pytest.param(IPPROTO_TCP, 19, id="TCP_REPAIR"),
        pytest.param(IPPROTO_IP, 64, id="IPT_SO_SET_REPLACE"),
    ],
)
@pytest.mark.parametrize("high", [0, WORD, -WORD])
def test_forbidden_socket_option_is_refused(level, option, high):
    assert ask("setsockopt", 3, level + high, option + high) == refused(errno.EPERM)


# --- the house rules for policies


PARTS = sorted(POLICIES.glob("**/*.toml"))


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_every_rule_has_its_reason_on_the_line_above(path):
    lines = path.read_text().splitlines()
    headings = [at for at, line in enumerate(lines) if line in ("[[when]]", "[answer]")]

    bare = [at + 1 for at in headings if not lines[at - 1].startswith("#")]

    # unavailable.toml is one such table, and its description is the reason.
    assert bare == [] or path.stem == "unavailable"


def test_every_part_is_used():
    texts = [tomllib.loads((POLICIES / f"{n}.toml").read_text()) for n in policies.names(POLICIES)]
    included = {part for text in texts for part in text["include"]}

    # netlink is for operators' own policies: it says why.
    assert {path.stem for path in POLICIES.glob("parts/*.toml")} == included | {"netlink"}
