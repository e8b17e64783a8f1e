"""Importing seccomp profiles: what is kept, what is dropped and told, and what is refused at which place."""

import errno
import itertools
import json
import platform
import time

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jail import policy as policies
from jail.cli import main
from jail.policy import Verdict, bpf, importer, numbers

ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
EQ, MASKED_EQ = "SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"
START = {"names": ["execve", "exit_group", "sendmsg", "write"], "action": ALLOW}
HERE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
ALLOWED, REFUSED = (
    policies.Action(verdict, code) for verdict, code in ((Verdict.ALLOW, 0), (Verdict.ERRNO, 1))
)


def profile(*entries, **rest):
    return {"defaultAction": ERRNO, "syscalls": [START, *entries], **rest}


def allow(*names, **rest):
    return {"names": list(names), "action": ALLOW, **rest}


def arg(index, op, value, two=0):
    return {"index": index, "op": op, "value": value, "valueTwo": two}


def convert(value, name="imported"):
    return importer.convert(importer.read(json.dumps(value).encode()), name)


def ask(imported, call, *args):
    return policies.simulate(policies.compile_policy(imported.policy), numbers.number(call), args)


DOCKER = {
    "defaultAction": ERRNO,
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {
            "names": [
                "execve",
                "exit_group",
                "sendmsg",
                "read",
                "write",
                "mmap",
                "openat",
                "close",
                "frobnicate",
            ],
            "action": ALLOW,
            "args": [],
            "comment": "",
            "includes": {},
            "excludes": {},
        },
        allow("ptrace", "kcmp", args=None, includes={"minKernel": "4.8"}),
        allow("socket", args=[arg(0, "SCMP_CMP_NE", 40)]),
        allow("personality", args=[arg(0, EQ, 0)]),
        allow("personality", args=[arg(0, EQ, 0xFFFFFFFF)]),
        allow("clone", args=[arg(0, MASKED_EQ, 0x7E020000)], excludes={"caps": ["CAP_SYS_ADMIN"]}),
        allow("clone", args=[arg(1, MASKED_EQ, 0x7E020000)], includes={"arches": ["s390", "s390x"]}),
        {"names": ["clone3"], "action": ERRNO, "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        allow("mount", "unshare", "setns", includes={"caps": ["CAP_SYS_ADMIN"]}),
        allow("getpid", includes={"arches": [HERE]}),
        allow("getppid", excludes={"arches": [HERE]}),
        {"name": "gettid", "action": ALLOW, "args": []},
    ],
}


def test_a_docker_profile_becomes_a_policy():
    policy = convert(DOCKER).policy

    assert policy.allow == {
        "execve", "exit_group", "sendmsg", "read", "write", "mmap", "openat", "close", "getpid", "gettid",
    }  # fmt: skip
    assert policy.answers == {"clone3": errno.ENOSYS}
    assert [(rule.call, rule.conditions[0].mask, rule.conditions[0].values) for rule in policy.rules] == [
        ("clone", 0x7E020000, (0,)),
        ("personality", 0xFFFFFFFF, (0,)),
        ("personality", 0xFFFFFFFF, (0xFFFFFFFF,)),
    ]


def test_what_a_docker_profile_loses_is_told_by_place():
    assert convert(DOCKER).notes == (
        "architectures: a call by another architecture's entry always kills",
        "syscalls[0]: 'frobnicate': dropped, no system call has this name",
        "syscalls[1]: ptrace, kcmp: dropped, minKernel: a policy does not look at the kernel's version",
        "syscalls[2]: socket: dropped, SCMP_CMP_NE on arg0: policies list the values that are allowed",
        f"syscalls[6]: clone: dropped, not for {HERE}",
        "syscalls[8]: mount, unshare, setns: dropped, no job has 'CAP_SYS_ADMIN'",
        f"syscalls[10]: getppid: dropped, not for {HERE}",
    )


def test_an_oci_profile_becomes_a_policy():
    imported = convert(
        {
            "defaultAction": "SCMP_ACT_KILL_PROCESS",
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/listener",
            "listenerMetadata": "mine",
            "syscalls": [
                START,
                allow("ioctl", args=[arg(1, EQ, 0x5401), arg(0, EQ, 1)]),
                {"names": ["tee"], "action": ERRNO, "errnoRet": errno.EINVAL},
                {"names": ["kexec_load"], "action": "SCMP_ACT_KILL"},
            ],
        }
    )

    assert ask(imported, "ioctl", 1, 0x5401) == ALLOWED
    assert ask(imported, "ioctl", 2, 0x5401) == ask(imported, "kexec_load") == REFUSED
    assert ask(imported, "tee") == policies.Action(Verdict.ERRNO, errno.EINVAL)
    assert imported.notes == (
        "defaultAction: SCMP_ACT_KILL_PROCESS: calls that are not named answer EPERM",
        "architectures: a call by another architecture's entry always kills",
        "flags: has no counterpart here",
        "listenerPath: has no counterpart here",
        "syscalls[3]: kexec_load: SCMP_ACT_KILL becomes EPERM",
    )


def test_another_default_errno_is_told():
    told = "defaultErrnoRet: 38: calls that are not named answer EPERM"
    assert convert(profile(defaultErrnoRet=38)).notes == (told,)


def test_an_errno_by_name_wins_over_its_number():
    refusal = {"names": ["tee"], "action": ERRNO, "errno": "EINVAL", "errnoRet": 1}
    imported = convert(profile(refusal, defaultErrno="ENOSYS", defaultErrnoRet=1))

    assert ask(imported, "tee") == policies.Action(Verdict.ERRNO, errno.EINVAL)
    assert imported.notes == ("defaultErrnoRet: 38: calls that are not named answer EPERM",)


# --- never more than the profile


@pytest.mark.parametrize("op", ["NE", "LT", "LE", "GE", "GT"])
def test_a_comparison_that_policies_do_not_have_drops_the_allowance(op):
    imported = convert(profile(allow("socket", args=[arg(0, EQ, 1), arg(1, f"SCMP_CMP_{op}", 2)])))

    assert ask(imported, "socket", 1, 1) == ask(imported, "socket", 1, 3) == REFUSED
    assert f"SCMP_CMP_{op} on arg1" in imported.notes[0]


@pytest.mark.parametrize(
    ("call", "condition", "told"),
    [
        ("socket", arg(0, EQ, 1 << 32), "never has the value 0x100000000"),
        ("socket", arg(0, MASKED_EQ, 0xF, 0x10), "never has the value 0x10"),
        ("socket", arg(0, MASKED_EQ, 1 << 32), "selects no bit"),
        ("socket", arg(0, MASKED_EQ, 0), "selects no bit"),
        ("mmap", arg(0, EQ, 0), "not known to be an int"),
        ("mmap", arg(0, MASKED_EQ, 1 << 40), "not known to be an int"),
    ],
)
def test_a_comparison_of_more_than_an_int_drops_the_allowance(call, condition, told):
    imported = convert(profile(allow(call, args=[condition])))

    assert ask(imported, call) == REFUSED
    assert told in imported.notes[0]


@pytest.mark.parametrize(
    ("call", "condition", "allowed", "refused"),
    [
        ("socket", arg(0, EQ, 2), (2, 2 + (1 << 32)), (0, 3)),
        ("socket", arg(0, MASKED_EQ, (1 << 64) - 1, 2), (2, 2 + (1 << 32)), (0, 3)),
        ("socket", arg(0, MASKED_EQ, 0xF, 2), (2, 0x12), (3,)),
        ("mmap", arg(0, MASKED_EQ, 0xFFF, 0), (0, 1 << 40), (1,)),
    ],
)
def test_an_int_is_compared_as_the_kernel_reads_it(call, condition, allowed, refused):
    imported = convert(profile(allow(call, args=[condition])))

    assert {ask(imported, call, value) for value in allowed} == {ALLOWED}
    assert {ask(imported, call, value) for value in refused} == {REFUSED}
    assert imported.notes == ()


def test_an_argument_that_is_compared_twice_drops_the_allowance():
    imported = convert(profile(allow("socket", args=[arg(0, EQ, 1), arg(0, EQ, 2)])))

    assert ask(imported, "socket", 1) == ask(imported, "socket", 2) == REFUSED
    assert "one argument twice" in imported.notes[0]


@pytest.mark.parametrize(
    "action", [ERRNO, "SCMP_ACT_KILL", "SCMP_ACT_TRAP", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"]
)
@pytest.mark.parametrize("args", [[], [arg(0, EQ, 40)]])
@pytest.mark.parametrize("allowed", [allow("socket"), allow("socket", args=[arg(0, EQ, 1)])])
@pytest.mark.parametrize("order", [1, -1])
def test_what_is_refused_in_one_place_is_allowed_in_none(action, args, allowed, order):
    refusal = {"names": ["socket"], "action": action, "args": args}
    imported = convert(profile(*[allowed, refusal][::order]))

    assert ask(imported, "socket", 1) == ask(imported, "socket", 40) == REFUSED
    assert "refused altogether, though allowed at syscalls[" in imported.notes[-1]


@pytest.mark.parametrize("where", [{"excludes": {"minKernel": "4.8"}}, {"includes": {"minKernel": "4.8"}}])
def test_a_refusal_on_some_kernels_holds_on_every_one(where):
    refusal = {"names": ["read"], "action": ERRNO, **where}
    assert ask(convert(profile(allow("read"), refusal)), "read") == REFUSED


def test_a_refusal_for_others_does_not_concern_jobs():
    refusals = [{"caps": ["CAP_BPF"]}, {"arches": ["riscv64"]}]
    entries = [{"names": ["read"], "action": ERRNO, "includes": where} for where in refusals]
    assert ask(convert(profile(allow("read"), *entries)), "read") == ALLOWED


def test_logging_is_dropped_and_not_allowed():
    imported = convert(profile({"names": ["read"], "action": "SCMP_ACT_LOG"}))

    assert ask(imported, "read") == REFUSED
    assert imported.notes == ("syscalls[1]: read: dropped, SCMP_ACT_LOG writes into the host's log",)


@pytest.mark.parametrize("code", [0, 4000])
def test_an_errno_without_a_name_becomes_eperm(code):
    imported = convert(profile({"names": ["read"], "action": ERRNO, "errnoRet": code}))

    assert ask(imported, "read") == REFUSED
    assert f"errno {code} has no name" in imported.notes[0]


def test_allowed_always_is_more_than_allowed_sometimes():
    imported = convert(profile(allow("socket", args=[arg(0, EQ, 1)]), allow("socket")))

    assert ask(imported, "socket", 2) == ALLOWED
    assert imported.policy.rules == ()


@pytest.mark.parametrize("name", ["read\0x", "read\n", 'r"', "READ", "", "\x1b[2J", "ünknown", "a" * 70])
def test_a_name_of_no_call_is_told_and_changes_nothing(name):
    imported = convert(profile(allow(name)))

    assert imported.policy.allow == set(START["names"])
    assert imported.notes == (f"syscalls[1]: {name!r}: dropped, no system call has this name",)


ARGUMENTS = st.builds(
    arg,
    st.integers(0, 2),
    st.sampled_from([EQ, MASKED_EQ, MASKED_EQ, "SCMP_CMP_NE", "SCMP_CMP_LE", "SCMP_CMP_GT"]),
    st.sampled_from([0, 1, 2, 3, 0xFFFFFFFF, 1 << 32, (1 << 64) - 1]),
    st.sampled_from([0, 1, 2, 1 << 32]),
)
ENTRIES = st.builds(
    lambda name, action, args: {"names": [name], "action": action, "args": args},
    st.sampled_from(["socket", "lseek"]),
    st.sampled_from([ALLOW, ALLOW, ALLOW, ERRNO]),
    st.lists(ARGUMENTS, max_size=2),
)
COMPARE = {
    EQ: lambda value, one, _: value == one,
    MASKED_EQ: lambda value, one, two: value & one == two,
    "SCMP_CMP_NE": lambda value, one, _: value != one,
    "SCMP_CMP_LE": lambda value, one, _: value <= one,
    "SCMP_CMP_GT": lambda value, one, _: value > one,
}
VALUES = [0, 1, 2, 3, 1 << 32, (1 << 32) + 1, (1 << 64) - 1]
CALLS = [(call, *args) for call in ("socket", "lseek") for args in itertools.product(VALUES, repeat=3)]


def allowed_by(entries, call, *values):
    """Whether the profile's text allows a call, read by whoever lets a refusal win."""
    actions = {
        entry["action"]
        for entry in entries
        if entry["names"] == [call]
        and all(COMPARE[a["op"]](values[a["index"]], a["value"], a["valueTwo"]) for a in entry["args"])
    }
    return actions == {ALLOW}


@given(st.lists(ENTRIES, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None, database=None, derandomize=True)
def test_a_policy_never_allows_what_its_profile_does_not(entries):
    imported = convert(profile(*entries))
    program = policies.compile_policy(imported.policy)

    for call, *values in CALLS:
        # The kernel reads socket's arguments as ints, and lseek's second one whole.
        read = [value & 0xFFFFFFFF for value in values] if call == "socket" else values
        if policies.simulate(program, numbers.number(call), values) == ALLOWED:
            assert allowed_by(entries, call, *read), (call, values, imported.text)


# --- refused


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({**profile(), "defaultAction": ALLOW}, r"\$\.defaultAction: .* a list of what is refused"),
        ({**profile(), "defaultAction": "SCMP_ACT_LOG"}, r"\$\.defaultAction"),
        ({**profile(), "defaultAction": "SCMP_ACT_NOTIFY"}, r"\$\.defaultAction: .* another program"),
        ({**profile(), "defaultAction": "SCMP_ACT_WHAT"}, r"\$\.defaultAction"),
        ({"syscalls": []}, "defaultAction"),
        ([], "array"),
        (None, "null"),
        (profile(surprise=1), "surprise"),
        (profile(defaultErrnoRet="1"), r"\$\.defaultErrnoRet"),
        (profile(syscalls=3), r"\$\.syscalls"),
        (profile(architectures="x"), r"\$\.architectures"),
        (profile(archMap=[{"subArchitectures": []}]), r"\$\.archMap\[0\]"),
        (profile({"action": ALLOW}), r"\$\.syscalls\[1\]: names no call"),
        (profile({"action": ALLOW, "names": []}), r"\$\.syscalls\[1\]: names no call"),
        (profile({"action": ALLOW, "names": "read"}), r"\$\.syscalls\[1\]\.names"),
        (profile({"action": ALLOW, "names": ["read", 7]}), r"\$\.syscalls\[1\]\.names\[1\]"),
        (profile({"names": ["read"]}), r"action.* \$\.syscalls\[1\]|action.*\$\.syscalls\[1\]"),
        (profile(allow("read", exclude={})), r"exclude.*\$\.syscalls\[1\]"),
        (profile(allow("read", includes={"cap": []})), r"cap.*\$\.syscalls\[1\]\.includes"),
        (profile(allow("read", includes={"minKernel": 4.8})), r"\$\.syscalls\[1\]\.includes\.minKernel"),
        (profile(allow("read", errnoRet=-1)), r"\$\.syscalls\[1\]\.errnoRet"),
        (profile(allow("read", errnoRet=4096)), r"\$\.syscalls\[1\]\.errnoRet"),
        (profile(allow("read", errno="EWHAT")), r"\$\.syscalls\[1\]\.errno: .* 'EWHAT'"),
        (profile(defaultErrno="EWHAT"), r"\$\.defaultErrno: .* 'EWHAT'"),
        (profile(defaultErrnoRet=-1), r"\$\.defaultErrnoRet: -1"),
        (profile(allow("read", args={})), r"\$\.syscalls\[1\]\.args"),
        (profile(allow("read", args=[arg(6, EQ, 0)])), r"\$\.syscalls\[1\]\.args\[0\]\.index"),
        (profile(allow("read", args=[arg(0, "EQ", 0)])), r"\$\.syscalls\[1\]\.args\[0\]\.op"),
        (profile(allow("read", args=[arg(0, EQ, -1)])), r"\$\.syscalls\[1\]\.args\[0\]\.value: -1"),
        (profile(allow("read", args=[arg(0, EQ, 0, 1 << 64)])), r"\$\.syscalls\[1\]\.args\[0\]\.valueTwo"),
        (profile(allow("read", args=[arg(0, EQ, "0")])), r"\$\.syscalls\[1\]\.args\[0\]\.value"),
    ],
)
def test_a_wrong_profile_is_refused_by_place(value, told):
    with pytest.raises(policies.PolicyError, match=told):
        convert(value)


NO_JSON = [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'{"defaultAction":"\xff"}']


@pytest.mark.parametrize("content", NO_JSON, ids=range(len(NO_JSON)))
def test_what_is_no_json_is_refused(content):
    with pytest.raises(policies.PolicyError, match="no seccomp profile"):
        importer.read(content)


def test_a_key_of_the_profile_does_not_reach_the_terminal_as_it_is():
    with pytest.raises(policies.PolicyError) as caught:
        convert(profile(**{"\x1b[2J": 1}))
    assert str(caught.value).isprintable()


def test_a_huge_profile_is_refused():
    with pytest.raises(policies.PolicyError, match="at most"):
        importer.read(b" " * (importer.CONTENT_BYTES_MAX + 1))


def test_more_conditions_than_a_filter_holds_are_refused():
    many = [allow("ioctl", args=[arg(1, EQ, value)]) for value in range(bpf.INSTRUCTIONS_MAX + 1)]
    with pytest.raises(policies.PolicyError, match=r"\$\.syscalls: more than"):
        convert(profile(*many))


def test_as_many_conditions_as_are_let_through_are_refused_in_time():
    # Neighbours would become a range.
    many = [allow("ioctl", args=[arg(1, EQ, 2 * value)]) for value in range(bpf.INSTRUCTIONS_MAX)]
    start = time.monotonic()
    with pytest.raises(policies.PolicyError, match="instructions; the kernel takes"):
        convert(profile(*many))
    assert time.monotonic() - start < 20


def test_the_longest_list_of_names_is_read_in_time():
    start = time.monotonic()
    imported = convert(profile(*(allow(*(f"x{at}_{n}" for n in range(100))) for at in range(2500))))

    assert imported.policy.allow == set(START["names"])
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("left", "is_conditional"),
    [
        *((name, False) for name in START["names"]),
        *((name, True) for name in ("execve", "exit_group", "write")),
    ],
)
def test_a_profile_without_what_starts_a_job_is_refused_with_the_cure(left, is_conditional):
    start = allow(*(name for name in START["names"] if name != left))
    some = [allow(left, args=[arg(0, MASKED_EQ, 1)])] if is_conditional else []

    with pytest.raises(policies.PolicyError) as caught:
        convert({"defaultAction": ERRNO, "syscalls": [start, *some]})

    told = str(caught.value)
    assert told.startswith(f"$.syscalls: {left} not allowed")
    cure = json.loads(told[told.index("{") :])
    assert convert({"defaultAction": ERRNO, "syscalls": [start, *some, cure]}).policy.allow == set(
        START["names"]
    )


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "A", "a\n", 'a"', "a\0", "x" * 300])
def test_a_name_that_no_policy_can_have_is_refused(name):
    with pytest.raises(policies.PolicyError, match="is no policy name"):
        convert(profile(), name)


# --- the command


@pytest.fixture
def run(tmp_path):
    """Run `jail policy import` on a profile: its exit status, stdout and stderr."""

    def run(value, *arguments):
        path = tmp_path / "mine.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        done = CliRunner().invoke(main, ["policy", "import", str(path), *arguments])
        return done.exit_code, done.output

    return run


def test_the_output_is_a_policy_of_its_directory(run, tmp_path):
    target = tmp_path / "box.toml"
    status, told = run(DOCKER, "--output", str(target))

    assert status == 0, told
    assert policies.load("box", tmp_path) == convert(DOCKER, "box").policy
    assert "syscalls[2]: socket: dropped" in told
    assert "box: 12 of " in told


def test_without_an_output_the_policy_is_printed_under_the_name_of_the_file(run):
    status, printed = run(profile())

    assert status == 0
    assert 'name = "mine"\n' in printed


def test_the_name_can_be_chosen(run):
    assert 'name = "other"\n' in run(profile(), "--name", "other")[1]


def test_a_name_that_is_not_the_outputs_is_refused(run, tmp_path):
    status, told = run(profile(), "--name", "other", "--output", str(tmp_path / "box.toml"))
    assert (status, "other.toml" in told) == (2, True)


def test_a_policy_that_is_there_stays(run, tmp_path):
    target = tmp_path / "box.toml"
    target.write_text("mine")

    status, told = run(profile(), "--output", str(target))

    assert (status, "box.toml: File exists" in told, target.read_text()) == (2, True, "mine")


def test_a_wrong_profile_writes_nothing(run, tmp_path):
    target = tmp_path / "box.toml"
    status, told = run({"defaultAction": ALLOW}, "--output", str(target))

    assert (status, target.exists()) == (1, False)
    assert told.startswith("jail: $.defaultAction: SCMP_ACT_ALLOW makes the profile")
