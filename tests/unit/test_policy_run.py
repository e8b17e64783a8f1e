"""The policy `run`: a part of default, and what it leaves out."""

import errno
from pathlib import Path

import pytest

from jail import policy as policies
from jail.policy import listing, numbers
from jail.policy.simulate import Verdict

POLICIES = Path(__file__).parents[2] / "policies"
RUN, DEFAULT = (policies.load(name, POLICIES) for name in ("run", "default"))
PROGRAMS = {policy.name: policies.compile_policy(policy) for policy in (RUN, DEFAULT)}
ALLOWED = policies.Action(Verdict.ALLOW, 0)
REFUSED = policies.Action(Verdict.ERRNO, errno.EPERM)
WORD = 1 << 32


def ask(policy, call, *args):
    number = call if isinstance(call, int) else numbers.number(call)
    return policies.simulate(PROGRAMS[policy], number, args)


def test_default_allows_more_calls_than_run_and_run_nothing_more():
    assert listing.difference(DEFAULT, RUN).added == ()
    assert policies.surface(RUN)[0] <= policies.surface(DEFAULT)[0] - 70


LEFT_OUT = (
    "inotify_init1 timerfd_create signalfd4 memfd_create execveat mlock mq_open semget shmget msgget capset "
    "setuid landlock_create_ruleset sched_setaffinity sched_setscheduler recvmmsg sendmmsg fallocate syncfs "
    "ptrace process_vm_readv process_vm_writev pidfd_getfd process_madvise"
)


@pytest.mark.parametrize("call", LEFT_OUT.split())
def test_call_that_computing_does_not_need_is_refused(call):
    assert ask("run", call) == REFUSED


AF_UNIX, STREAM = 1, 1


@pytest.mark.parametrize("family", range(46))
@pytest.mark.parametrize("call", ["socket", "socketpair"])
def test_sockets_are_local_streams(call, family):
    found = {(kind, protocol) for kind in range(8) for protocol in range(20)}
    allowed = {rest for rest in found if ask("run", call, family, *rest) == ALLOWED}

    assert allowed == ({(STREAM, 0), (STREAM, 1)} if family == AF_UNIX else set())


FORBIDDEN = [
    ("fcntl", 1, [6, 7, 37, 38, 8, 10, 1024, 1026, 1033], "F_SETLK F_OFD_SETLK F_SETOWN F_SETLEASE"),
    ("ioctl", 1, [0x8912, 0x8913], "SIOCGIFCONF"),
    ("mknodat", 2, [0, 0x1000, 0x8000], "S_IFIFO"),
]


@pytest.mark.parametrize(("call", "argument", "values", "what"), FORBIDDEN)
def test_value_that_computing_does_not_need_is_refused(call, argument, values, what):
    assert {ask("run", call, *[0] * argument, value) for value in values} == {REFUSED}, what


@pytest.mark.parametrize(
    ("call", "code"),
    [("listxattr", errno.ENOTSUP), ("setxattr", errno.ENOTSUP), ("futex_wait", errno.ENOSYS)],
)
def test_what_callers_can_do_without_looks_absent(call, code):
    assert ask("run", call) == policies.Action(Verdict.ERRNO, code)
