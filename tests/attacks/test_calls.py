"""Attacks 31 to 66: namespaces, privileges and the kernel's interfaces, call by call.

Where it can be done, a call is given arguments for which the kernel has another answer than the filter
(EFAULT, EBADF, ESRCH, or success), so that the errno tells which of the two refused.
"""

import errno
import shutil
import time
from contextlib import closing
from errno import EBADF, EINVAL, ENOSYS, EPERM, errorcode
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from jail.policy import Verdict, compiler, numbers, simulate, text

SIGSYS, SIGSEGV, SIGCHLD = 31, 11, 17
NAMESPACES = {
    "NEWTIME": 0x80,
    "NEWNS": 0x20000,
    "NEWCGROUP": 0x2000000,
    "NEWUTS": 0x4000000,
    "NEWIPC": 0x8000000,
    "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000,
    "NEWNET": 0x40000000,
}
HIGH_BITS = (0, 1 << 32, -1 << 32)
HERE = 0xFFFFFF9C  # AT_FDCWD
# An address that nothing is mapped at: the kernel answers EFAULT when it looks there.
NOWHERE = 1
NOBODY = 4_000_000  # no process id


@pytest.fixture
def assert_refused(probe):
    """Every call is answered EPERM, or what is told."""

    def check(*calls, code=EPERM):
        found = [
            (call, errorcode.get(outcome.errno, 0))
            for call, outcome in zip(calls, probe(*calls), strict=False)
        ]
        assert [pair for pair in found if pair[1] != errorcode[code]] == []

    return check


def with_high_bits(values):
    return [value | high for value in values for high in HIGH_BITS]


def test_a_nested_user_namespace_is_refused_by_the_filter(assert_refused):
    """Attack 31. The kernel would answer ENOSPC, and EBADF for the setns()."""
    flag = NAMESPACES["NEWUSER"]
    calls = [("unshare", flags) for flags in with_high_bits([flag])]
    calls += [("clone", flags | SIGCHLD, 0, 0, 0, 0) for flags in with_high_bits([flag])]
    assert_refused(*calls, ("setns", -1, 0), ("setns", -1, flag), ("unshare", 0))


def test_nested_namespaces_have_a_second_lock_behind_the_filter(attack):
    """Attack 31. With a maximum of 0 the kernel answers ENOSPC, whatever the policy."""
    names = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time")
    paths = [f"/proc/sys/user/max_{name}_namespaces" for name in names]
    assert attack(argv=["cat", *paths])["stdout"]["text"].split() == ["0"] * len(names)


def test_clone3_looks_absent_and_threads_still_start(attack, built):
    """Attack 32."""
    result = attack(argv=["./clone3"], files={"clone3": built("clone3.c")})
    assert result["stdout"]["text"] == f"{ENOSYS} {ENOSYS}\nthread\n"


@pytest.mark.parametrize("name", NAMESPACES)
def test_no_namespace_can_be_unshared(assert_refused, name):
    """Attack 33."""
    assert_refused(*(("unshare", flags) for flags in with_high_bits([NAMESPACES[name]])))


@pytest.mark.parametrize("name", [name for name in NAMESPACES if name != "NEWTIME"])
def test_no_namespace_can_be_cloned_into(assert_refused, name):
    """Attack 33. CLONE_NEWTIME is no flag of clone()."""
    flags = with_high_bits([NAMESPACES[name]])
    assert_refused(*(("clone", value | SIGCHLD, 0, 0, 0, 0) for value in flags))


def test_mounting_the_old_way_is_refused_by_the_filter(assert_refused):
    """Attack 34. The kernel would answer EFAULT or EINVAL to those marked, EPERM to the others."""
    remount, bind = 0x20, 0x1000
    assert_refused(
        ("mount", NOWHERE, NOWHERE, NOWHERE, 0, NOWHERE),  # EFAULT
        ("mount", "=none", "=/", "=", remount | bind, 0),
        ("mount", "=none", "=/usr", "=", remount | bind, 0),
        ("mount", "=none", "=/proc", "=", remount | bind, 0),
        ("mount", "=none", "=/tmp", "=tmpfs", 0, 0),
        ("mount", "=/proc", "=/tmp", "=", bind, 0),
        ("umount2", "=/proc", 0x7FFFFFFF),  # EINVAL
        ("umount2", "=/proc/keys", 2),
        ("pivot_root", "=/tmp", "=/tmp"),
        ("chroot", NOWHERE),  # EFAULT
        ("chroot", "=/tmp"),
    )


def test_mounting_the_new_way_looks_absent(assert_refused):
    """Attack 34. The kernel has these calls, and would open "/" for the second."""
    assert_refused(
        ("fsopen", "=tmpfs", 0),
        ("open_tree", HERE, "=/", 0),
        ("open_tree", HERE, "=/", 1),
        ("fsmount", -1, 0, 0),
        ("fsconfig", -1, 0, 0, 0, 0),
        ("fspick", HERE, "=/", 0),
        ("move_mount", -1, "=", -1, "=", 4),
        ("mount_setattr", HERE, "=/", 0, "@32", 32),
        code=ENOSYS,
    )


def test_no_cgroup_file_system_can_be_mounted(assert_refused, attack):
    """Attack 35."""
    kinds = [("cgroup2", "0")] + [("cgroup", f"={name}") for name in ("memory", "rdma", "misc", "devices")]
    assert_refused(*(("mount", "=none", "=/tmp", f"={kind}", 0, data) for kind, data in kinds))
    seen = attack(argv=["cat", "/proc/self/cgroup", "/proc/self/mountinfo"])["stdout"]["text"]
    lines = seen.splitlines()
    assert not [line for line in lines if " - cgroup" in line]
    # The cgroup namespace hides where it hangs.
    assert {line.split(":")[2] for line in lines if line.count(":") == 2 and " " not in line} == {"/"}


def test_no_limit_of_its_own_cgroup_is_there_to_write(attack):
    """Attack 36."""
    names = "-name 'cgroup.*' -o -name 'memory.max' -o -name 'memory.limit_in_bytes' -o -name 'pids.max'"
    result = attack(
        argv=["sh", "-c", f"find / \\( {names} \\) ! -type d -path '*/cgroup*' 2>/dev/null; true"]
    )
    assert [line for line in result["stdout"]["text"].splitlines() if not line.startswith("/usr/")] == []


def test_no_thread_has_a_capability(python):
    """Attack 37. And neither has pid 1."""
    lines = python(
        "import threading\n"
        "done, ready = threading.Event(), threading.Barrier(4)\n"
        "def wait(): ready.wait(); done.wait()\n"
        "threads = [threading.Thread(target=wait) for _ in range(3)]\n"
        "[thread.start() for thread in threads]; ready.wait()\n"
        "tasks = [f'/proc/self/task/{task}' for task in os.listdir('/proc/self/task')]\n"
        "for path in (*tasks, '/proc/1'):\n"
        "    fields = dict(line.split(':', 1) for line in open(f'{path}/status'))\n"
        "    names = ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp']\n"
        "    print(*(int(fields[name], 16) for name in names))\n"
        "done.set()"
    ).splitlines()
    assert lines[:-1] == ["0 0 0 0 0 1 2"] * 4
    assert lines[-1].startswith("0 0 0 0 0 1 ")


def test_becoming_root_and_executing_again_gains_nothing(python):
    """Attack 38."""
    told = python(
        "for call in (libc.setuid, libc.setgid, libc.seteuid):\n"
        "    print(call(0), errno.errorcode[ctypes.get_errno()])\n"
        "sys.stdout.flush()\n"
        "os.execv('/bin/grep', ['grep', '-E', '^(Uid|Cap)', '/proc/self/status'])"
    ).splitlines()
    assert told[:3] == ["-1 EPERM"] * 3
    assert told[3].split() == ["Uid:"] + ["1000"] * 4
    assert {line.split()[1] for line in told[4:]} == {"0" * 16}


def test_securebits_are_locked(probe):
    """Attack 38. NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE set, and all four locked."""
    get, set_, keep = ("prctl", 27), ("prctl", 28, 0, 0, 0, 0), ("prctl", 8, 1, 0, 0, 0)
    bits, changed, kept = probe(get, set_, keep)
    assert bits.result == 0xEF
    assert (changed.errno, kept.errno) == (EPERM, EPERM)


def test_ids_and_groups_cannot_be_changed(probe, python):
    """Attack 39. Of the ids, the kernel refuses what is mapped, and knows nothing else."""
    mapped = probe(*((call, 0, 0, 0) for call in ("setresuid", "setresgid")))
    unmapped = probe(*((call, 12345, 12345, 12345) for call in ("setresuid", "setresgid")))
    groups = probe(("setgroups", 0, 0), ("setgroups", 0x7FFFFFFF, NOWHERE))
    assert {outcome.errno for outcome in mapped + groups} == {EPERM}
    assert {outcome.errno for outcome in unmapped} == {EINVAL}
    assert (
        python("print(os.getresuid(), os.getresgid(), os.getgroups())") == f"{(1000,) * 3} {(1000,) * 3} []\n"
    )


@pytest.mark.parametrize("call", ["getpid", "socket"])
def test_the_x32_entry_ends_the_job(attack, built, call):
    """Attack 40. A kernel without x32 would answer ENOSYS."""
    number = numbers.number(call) | 0x40000000
    result = attack(argv=["./probe", f"{number},40,1,0"], files={"probe": built("probe.c")})
    assert (result["status"], result["signal"], result["stdout"]["text"]) == ("syscall_denied", SIGSYS, "")


@pytest.mark.parametrize(("call", "family"), [("20", "0"), ("102", "40"), ("359", "40")])
def test_the_i386_entry_ends_the_job(attack, built, call, family):
    """Attacks 41 and 42. getpid(), socketcall(SYS_SOCKET, AF_VSOCK) and socket()."""
    result = attack(argv=["./int80", call, family], files={"int80": built("int80.c")})
    if result["signal"] == SIGSEGV:
        pytest.skip("the host's kernel has no i386 entry")
    assert (result["status"], result["signal"], result["stdout"]["text"]) == ("syscall_denied", SIGSYS, "")


def test_a_program_of_i386_ends_at_its_socketcall(attack, built):
    """Attack 42."""
    options = ("-m32", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie")
    result = attack(argv=["./call"], files={"call": built("socketcall32.c", *options)})
    if result["status"] == "start_failed":
        pytest.skip("the host's kernel runs no program of i386")
    assert (result["status"], result["signal"]) == ("syscall_denied", SIGSYS)


# A call with an int argument that the filter compares, and which the kernel would not answer EPERM.
COMPARED = {
    "socket family": ("socket", [(40, 1, 0), (38, 5, 0), (17, 2, 0)], 0),
    "socket type": ("socket", [(2, 10, 0), (2, 3, 1)], 1),
    "socket protocol": ("socket", [(2, 1, 262), (2, 2, 136)], 2),
    "socketpair": ("socketpair", [(2, 1, 0, "@8"), (30, 1, 0, "@8")], 0),
    "ioctl": ("ioctl", [(-1, 0x5412), (-1, 0x541C), (-1, 0xC0045877)], 1),
    "personality": ("personality", [(0x0040000,), (0x0400000,), (8,)], 0),
    "prctl": ("prctl", [(22, 1), (53, 0)], 0),
    "setsockopt level": ("setsockopt", [(-1, 41 + 100, 1, "@4", 4)], 1),
    "setsockopt option": ("setsockopt", [(-1, 1, 26, "@16", 16), (-1, 6, 31, "@4", 4)], 2),
    "madvise": ("madvise", [(0, 0, 12), (0, 0, 100)], 2),
    "sched_setscheduler": ("sched_setscheduler", [(NOBODY, 1, "@4"), (NOBODY, 2, "@4")], 1),
    "mknodat": ("mknodat", [(-1, "=x", 0x2000, 0), (-1, "=x", 0x6000, 0)], 2),
    "memfd_create": ("memfd_create", [("=x", 4)], 1),
    "sendto": ("sendto", [(-1, NOWHERE, 1, 1, 0, 0)], 3),
}


@pytest.mark.parametrize("what", COMPARED)
def test_high_bits_of_an_int_do_not_pass_the_filter(assert_refused, what):
    """Attack 43."""
    call, cases, index = COMPARED[what]
    assert_refused(
        *(
            (call, *case[:index], case[index] | high, *case[index + 1 :])
            for case in cases
            for high in (*HIGH_BITS, 0x7FFFFFFF << 32)
        )
    )


def neighbours(condition_values):
    return sorted({value + step for value in condition_values for step in (-1, 0, 1)})


def rule_values(call, argument):
    """What the shipped policy compares that argument of the call with."""
    rules = [rule for rule in text.load("default").rules if rule.call == call]
    conditions = [condition for rule in rules for condition in rule.conditions]
    return {value for condition in conditions if condition.argument == argument for value in condition.values}


# Arguments with which the kernel, when it is asked, answers this and never EPERM.
@pytest.mark.parametrize(
    ("call", "argument", "case", "kernel"),
    [
        ("ioctl", 1, (-1, None, 0), EBADF),
        ("setsockopt", 1, (-1, None, 1, 0, 0), EBADF),
        ("setsockopt", 2, (-1, 1, None, 0, 0), EBADF),
        ("mknodat", 2, (-1, "=x", None, 0), EBADF),
        ("sched_setscheduler", 1, (-1, None, 0), EINVAL),
        ("madvise", 2, (1, 1, None), EINVAL),
    ],
)
def test_the_filter_in_the_kernel_answers_as_its_evaluator_at_every_edge(probe, call, argument, case, kernel):
    """Attack 44. The evaluator is held against the policy's text in tests/unit/test_policy_whole.py."""
    program = compiler.compile_policy(text.load("default"))
    values = with_high_bits(value & 0xFFFFFFFF for value in neighbours(rule_values(call, argument)))
    calls = [(call, *(value if part is None else part for part in case)) for value in values]
    plain = [tuple(0 if isinstance(part, str) else part for part in one[1:]) for one in calls]
    verdicts = [simulate(program, numbers.number(call), args) for args in plain]
    expected = [verdict.data if verdict.verdict is Verdict.ERRNO else kernel for verdict in verdicts]
    assert {EPERM, kernel} == set(expected)
    found = [outcome.errno for part in chunks(calls, 200) for outcome in probe(*part)]
    assert found == expected


def chunks(values, size):
    return [values[start : start + size] for start in range(0, len(values), size)]


def test_io_uring_looks_absent(assert_refused):
    """Attack 45."""
    calls = [("io_uring_setup", 1, "@120"), ("io_uring_enter", -1, 0, 0, 0, 0, 0)]
    assert_refused(*calls, ("io_uring_register", -1, 0, 0, 0), code=ENOSYS)


@pytest.mark.parametrize("kind", [1, 2, 5, 1 | 0x80000, 1 | 0x800])
def test_no_vsock_socket_can_be_had(assert_refused, kind):
    """Attack 46. Nothing is connected: the socket itself is refused."""
    assert_refused(*(("socket", family, kind, 0) for family in with_high_bits([40])))
    assert_refused(*(("socketpair", family, kind, 0, "@8") for family in with_high_bits([40])))


def test_nothing_can_be_spliced_into_a_shared_file(probe, attack, assert_refused):
    """Attack 47. The kernel would answer EBADF; the hash of a file of the image stays."""
    program = Path("/usr/bin/env").resolve()
    before = sha256(program.read_bytes()).digest()
    assert_refused(*(("socket", family, 5, 0) for family in with_high_bits([38])))
    calls = [("splice", -1, 0, -1, 0, 1, 0), ("tee", -1, -1, 1, 0), ("vmsplice", -1, NOWHERE, 1, 0)]
    assert_refused(*calls, code=EINVAL)
    script = f"for how in '>' '>>' '1<>'; do eval \"echo x $how {program}\"; done; truncate -s 0 {program}"
    assert attack(argv=["sh", "-c", script])["status"] == "nonzero_exit"
    assert sha256(program.read_bytes()).digest() == before


def test_of_all_socket_families_only_local_and_internet_ones_open(attack, built):
    """Attack 48. What is refused is refused by the filter: the kernel would say EAFNOSUPPORT and others."""
    result = attack(argv=["./families"], files={"families": built("families.c")})
    assert result["status"] == "ok", result
    lines = result["stdout"]["text"].splitlines()
    opened = {tuple(map(int, line.split())) for line in lines if not line.startswith("errno")}
    local = {(1, kind, protocol) for kind in (1, 2, 5) for protocol in (0, 1)}
    internet = {(family, kind, 0) for family in (2, 10) for kind in (1, 2)}
    internet |= {(family, kind, protocol) for family in (2, 10) for kind, protocol in ((1, 6), (2, 17))}
    assert local | {one for one in internet if one[0] == 2} <= opened <= local | internet
    assert [line for line in lines if line.startswith("errno")] in (
        [f"errno {EPERM}"],
        [f"errno {EPERM}", "errno 97"],
    )


def test_multipath_tcp_is_refused(assert_refused):
    """Attack 49."""
    families = [("socket", family, 1, 262) for family in (2, 10)]
    assert_refused(*families, *(("socket", 2, 1, 262 | high) for high in HIGH_BITS))


def test_out_of_band_data_is_refused_in_every_way_of_sending(assert_refused, python):
    """Attack 50. The kernel would answer EBADF to the first three."""
    assert_refused(
        *(("sendto", -1, NOWHERE, 1, flags, 0, 0) for flags in with_high_bits([1, 0x41])),
        *(("sendmsg", -1, NOWHERE, flags) for flags in with_high_bits([1, 0x41])),
        *(("sendmmsg", -1, NOWHERE, 1, flags) for flags in with_high_bits([1, 0x41])),
    )
    told = python(
        "import socket\n"
        "one, two = socket.socketpair()\n"
        "seen = set()\n"
        "for turn in range(1000):\n"
        "    for send in (lambda: one.send(b'x', socket.MSG_OOB),\n"
        "                 lambda: one.sendmsg([b'x'], [], socket.MSG_OOB)):\n"
        "        try: seen.add(send())\n"
        "        except OSError as error: seen.add(errno.errorcode[error.errno])\n"
        "print(*seen)"
    )
    assert told == "EPERM\n"


def test_raw_and_ping_sockets_are_refused(assert_refused):
    """Attack 51. To the pings the kernel would answer EACCES or a socket."""
    raw = [("socket", family, 3, protocol) for family in (2, 10) for protocol in (1, 6, 17, 58, 255)]
    assert_refused(*raw, ("socket", 2, 2, 1), ("socket", 10, 2, 58), ("socket", 17, 3, 0x300))


def test_every_netlink_protocol_is_refused(assert_refused):
    """Attack 52. The kernel would open most of them."""
    assert_refused(*(("socket", 16, kind, protocol) for kind in (2, 3) for protocol in range(32)))


def test_kernel_objects_and_keys_are_refused_by_the_filter(assert_refused):
    """Attack 53. The kernel would answer E2BIG, EINVAL, a descriptor, a key."""
    session = -3
    assert_refused(
        ("bpf", 0, "@8192", 8192),
        ("bpf", 5, "@128", 128),
        ("perf_event_open", "@128", 0, -1, -1, -1),
        ("userfaultfd", 1),
        ("keyctl", 0, session, 0),
        ("add_key", "=user", "=x", "=y", 1, session),
        ("request_key", "=user", "=x", 0, session),
        ("fanotify_init", -1, 0),
    )


def test_other_processes_cannot_be_traced_or_robbed(assert_refused, probe):
    """Attack 54. For a pid that is not there the kernel would answer ESRCH, for a bad descriptor EBADF."""
    attach, seize = 16, 0x4206
    assert_refused(
        *(("ptrace", how, pid, 0, 0) for how in (attach, seize) for pid in (1, NOBODY)),
        ("ptrace", 0, 0, 0, 0),
        *((f"process_vm_{how}v", NOBODY, 0, 0, 0, 0, 0) for how in ("read", "write")),
        *((f"process_vm_{how}v", 1, "@16", 1, "@16", 1, 0) for how in ("read", "write")),
        ("pidfd_getfd", -1, 0, 0),
        ("kcmp", NOBODY, NOBODY, 0, 0, 0),
        ("process_madvise", -1, 0, 0, 0, 0),
        ("process_mrelease", -1, 0),
    )
    opened, robbed, killed, signalled = probe(
        ("pidfd_open", 1, 0), ("pidfd_getfd", 3, 0, 0), ("kill", 1, 9), ("pidfd_send_signal", 3, 9, 0, 0)
    )
    assert opened.result == 3
    assert robbed.errno == EPERM
    # By the kernel: pid 1 has another uid, and is init.
    assert (killed.errno, signalled.errno) == (EPERM, EPERM)


def test_a_file_handle_opens_nothing(probe):
    """Attack 55. The kernel would answer EBADF; a handle can be asked for (EOVERFLOW: ours is too short)."""
    asked, opened, beneath = probe(
        ("name_to_handle_at", HERE, "=/box", "@8", "@4", 0),
        ("open_by_handle_at", -1, "@136", 0),
        ("open_by_handle_at", HERE, "@136", 0),
    )
    assert asked.errno == errno.EOVERFLOW
    assert (opened.errno, beneath.errno) == (EPERM, EPERM)


def test_no_personality_but_the_plain_one_can_be_taken(probe, assert_refused):
    """Attack 56. The kernel would take every one of them."""
    assert_refused(*(("personality", how) for how in with_high_bits([0x0040000, 0x0400000, 0x8, 0x4000000])))
    assert [outcome.result for outcome in probe(("personality", 0xFFFFFFFF), ("personality", 0))] == [0, 0]


@pytest.fixture
def without_time(tmp_path_factory):
    """A directory of policies as shipped, whose default refuses time()."""
    directory = tmp_path_factory.mktemp("policies")
    shutil.copytree(text.shipped_directory(), directory, dirs_exist_ok=True)
    part = directory / "parts" / "time.toml"
    part.write_text(part.read_text().replace('    "time",\n', ""))
    return directory


def test_the_vsyscall_page_is_filtered_too(service_class, built, without_time):
    """Attack 57. It honours a policy without time(), where the host has such a page at all."""
    body = {"argv": ["./vsyscall"], "files": {"vsyscall": built("vsyscall.c")}}
    running = service_class({"JAIL_SLOTS": "1", "JAIL_POLICIES": str(without_time)})
    with closing(running), httpx.Client(base_url=running.url, timeout=60) as client:
        result = client.post("/v1/run", json=body).json()
    if result["signal"] == SIGSEGV:
        pytest.skip("the host's kernel has no vsyscall page")
    assert result["stdout"]["text"] == f"{-EPERM}\n" or result["signal"] == SIGSYS, result


def test_a_program_that_was_never_a_file_gains_nothing(python):
    """Attack 58. Allowed by design: policies/parts/processes.toml says why."""
    for way in ("os.execve(fd, argv, {})", "os.execv(f'/proc/self/fd/{fd}', argv)"):
        told = python(
            "fd = os.memfd_create('hidden', 0)\n"
            "os.write(fd, open('/bin/grep', 'rb').read())\n"
            "argv = ['grep', '-E', '^(Uid|CapEff|NoNewPrivs|Seccomp):', '/proc/self/status']\n"
            f"{way}"
        )
        assert told.split() == (
            ["Uid:", *["1000"] * 4, "CapEff:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]
        )


def test_calls_that_run_the_machine_are_refused(assert_refused):
    """Attack 59. With arguments invalid for root too; the kernel would answer the marked ones otherwise."""
    assert_refused(
        ("reboot", 0, 0, 0, 0),
        ("kexec_load", 0, 17, NOWHERE, -1),
        ("kexec_file_load", -1, -1, 0, 0, -1),
        ("init_module", NOWHERE, 0, NOWHERE),
        ("finit_module", -1, NOWHERE, -1),
        ("delete_module", NOWHERE, -1),
        ("syslog", 3, 0, -1),
        ("syslog", 10, 0, 0),  # a size, where dmesg_restrict is 0
        ("swapon", NOWHERE, -1),  # EINVAL
        ("swapoff", NOWHERE),
        ("acct", NOWHERE),
        ("quotactl", -1, NOWHERE, 0, 0),  # EINVAL
        ("quotactl_fd", -1, -1, 0, 0),  # EBADF
        ("sethostname", NOWHERE, -1),
        ("setdomainname", NOWHERE, -1),
    )


def test_no_clock_can_be_set(assert_refused, probe):
    """Attack 60. The kernel would answer EINVAL or EFAULT to the first four; no clock moves."""
    before = time.time() - time.monotonic()
    assert_refused(
        ("clock_settime", 99, NOWHERE),
        ("settimeofday", NOWHERE, 0),
        ("adjtimex", NOWHERE),
        ("clock_adjtime", 99, NOWHERE),
        ("adjtimex", "@208"),
    )
    # Clocks that wake a sleeping machine: the kernel asks for a capability, or has no such clock.
    alarms = probe(*(("timerfd_create", clock, 0) for clock in (8, 9)), ("timer_create", 9, 0, "@8"))
    assert {outcome.errno for outcome in alarms} <= {EPERM, errno.EOPNOTSUPP}
    assert abs(time.time() - time.monotonic() - before) < 0.5


def test_file_systems_and_disks_cannot_be_told_anything(assert_refused, python):
    """Attack 61. FIFREEZE, FITHAW, FIBMAP, FITRIM, BLKROSET, LOOP_SET_FD: the kernel would answer EBADF."""
    requests = [0xC0045877, 0xC0045878, 1, 0xC0185879, 0x125D, 0x4C00]
    assert_refused(*(("ioctl", -1, request, 0) for request in with_high_bits(requests)))
    told = python(
        "for place in ('/', '/box', '/usr'):\n"
        "    fd = os.open(place, os.O_RDONLY)\n"
        "    for request in (0xC0045877, 0xC0045878):\n"
        "        libc.ioctl(fd, ctypes.c_ulong(request), 0); print(errno.errorcode[ctypes.get_errno()])"
    )
    assert told.split() == ["EPERM"] * 6


def test_the_process_can_only_restrict_itself_further(probe):
    """Attack 62. Seccomp and no_new_privs stand after every attempt; the kernel would take some."""
    refused = [
        ("prctl", 22, 0, 0, 0, 0),  # PR_SET_SECCOMP, off
        ("prctl", 22, 1, 0, 0, 0),
        ("prctl", 22, 2, NOWHERE, 0, 0),
        ("prctl", 35, 1, 0, 0, 0),  # PR_SET_MM
        ("prctl", 53, 0, 2, 0, 0),  # PR_SET_SPECULATION_CTRL
        ("prctl", 67, 1, 0, 0, 0),  # PR_SET_MEMORY_MERGE
        ("prctl", 0x59616D61, -1, 0, 0, 0),  # PR_SET_PTRACER
        ("prctl", 24, 99, 0, 0, 0),  # PR_CAPBSET_DROP
        ("prctl", 47, 2, 0, 0, 0),  # PR_CAP_AMBIENT
        ("arch_prctl", 0x1012, 0),  # ARCH_SET_CPUID
        ("arch_prctl", 0x2003, 0),  # ARCH_MAP_VDSO_64
    ]
    kernel = [("prctl", 38, 0, 0, 0, 0), ("prctl", 4, 1, 0, 0, 0)]
    outcomes = probe(*refused, *kernel, ("prctl", 21), ("prctl", 39, 0, 0, 0, 0))
    denied = [outcome.errno for outcome in outcomes[: len(refused)]]
    assert denied == [EPERM] * len(refused)
    # PR_SET_NO_NEW_PRIVS with 0 is EINVAL; PR_SET_DUMPABLE with 1 is the job's state already.
    assert [outcome.errno for outcome in outcomes[len(refused) :]] == [EINVAL, 0, 0, 0]
    assert [outcome.result for outcome in outcomes[-2:]] == [2, 1]


def test_no_filter_of_its_own_can_be_installed(assert_refused):
    """Attack 63. The kernel would answer EFAULT or EINVAL, and 0 to the last."""
    listener = 8
    assert_refused(
        ("seccomp", 1, listener, NOWHERE),
        ("seccomp", 1, listener, "@16"),
        ("seccomp", 1, 0, "@16"),
        ("seccomp", 0, 1, 0),
        ("seccomp", 2, 0, "@4"),
    )


def test_segments_and_ports_are_refused_by_the_filter(assert_refused):
    """Attack 64. The kernel would answer 0 bytes, EINVAL."""
    assert_refused(("modify_ldt", 0, "@16", 16), ("iopl", 4), ("ioperm", -1, 2, 1))
    assert_refused(("iopl", 3), ("ioperm", 0x378, 1, 1), ("modify_ldt", 1, "@16", 16))


def test_page_zero_cannot_be_mapped(probe):
    """Attack 65. By the kernel: vm.mmap_min_addr, and no capability."""
    if int(Path("/proc/sys/vm/mmap_min_addr").read_text()) == 0:
        pytest.skip("the host's vm.mmap_min_addr is 0")
    fixed, anonymous, private = 0x10, 0x20, 2
    calls = [("mmap", 0, 4096, prot, fixed | anonymous | private, -1, 0) for prot in (3, 7)]
    assert {outcome.errno for outcome in probe(*calls)} == {EPERM}


def test_memory_may_be_written_and_executed_as_compilers_do(python):
    """Attack 65. Allowed by design; not from /dev/shm, whose mount says noexec."""
    told = python(
        "import mmap\n"
        "mmap.mmap(-1, 4096, prot=7).close()\n"
        "for place in ('/box/x', '/dev/shm/x'):\n"
        "    with open(place, 'wb+') as file:\n"
        "        file.truncate(4096)\n"
        "        try: mmap.mmap(file.fileno(), 4096, prot=5).close(); print('mapped')\n"
        "        except OSError as error: print(errno.errorcode[error.errno])"
    )
    assert told == "mapped\nEPERM\n"


def test_memory_policy_is_refused_by_the_filter(assert_refused):
    """Attack 66. The kernel would answer ESRCH, EINVAL or 0."""
    assert_refused(
        ("mbind", 1, 4096, 99, 0, 0, -1),
        ("set_mempolicy", 99, 0, 0),
        ("get_mempolicy", 0, 0, 0, 0, 0),
        ("set_mempolicy_home_node", 1, 1, 0, 0),
        *((call, NOBODY, 0, 0, 0, 0) for call in ("migrate_pages",)),
        ("move_pages", 1, 0, 0, 0, 0, -1),
        ("move_pages", NOBODY, 0, 0, 0, 0, 2),
    )
