"""deploy/apparmor, where AppArmor decides about user namespaces: Linux 6.7 and later.

Ubuntu's kernels have a switch that takes user namespaces from every program without a profile. Debian's have
none; but there, too, a program under a profile can make one only if that profile says `userns,`. So what that
switch does is done here by profiles that say everything else.
"""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

SHIPPED = (Path(__file__).resolve().parents[2] / "deploy/apparmor/jail").read_text()
MASK = Path("/sys/kernel/security/apparmor/features/namespaces/mask")
URL = "http://127.0.0.1:8099"

# Not of this Debian's release, which is older than the rule.
PLACE = Path("/opt/trixie")
PARSER = (
    PLACE / "usr/lib64/ld-linux-x86-64.so.2",
    "--library-path",
    PLACE / "usr/lib/x86_64-linux-gnu",
    PLACE / "usr/sbin/apparmor_parser",
    f"--base={PLACE}/etc/apparmor.d",
    "--skip-cache",
    "--quiet",
)

# What is executed has its own profile, if there is one.
ALL_BUT_USERNS = """
  capability, network, unix, signal, ptrace, mount, umount, pivot_root, dbus, mqueue, io_uring,
  /** rwlkm,
  /** pix,
"""
RESTRICTED = f"abi <abi/4.0>,\nprofile restricted {{{ALL_BUT_USERNS}}}\n"

pytestmark = pytest.mark.skipif(
    not MASK.exists() or "userns_create" not in MASK.read_text(),
    reason="this kernel's AppArmor does not decide about user namespaces",
)


@contextmanager
def loaded(text):
    """Have profiles in force until the end of the context."""
    subprocess.run([*PARSER, "--replace"], input=text, text=True, check=True, timeout=120)
    try:
        yield
    finally:
        subprocess.run([*PARSER, "--remove"], input=text, text=True, check=True, timeout=120)


@pytest.fixture
def stopped(installed):
    """The service is not running, before and after."""
    yield
    subprocess.run(["systemctl", "stop", "jail.socket", "jail.service"], check=True, timeout=120)


def start():
    done = subprocess.run(["systemctl", "start", "jail.service"], check=False, timeout=120)
    return done.returncode == 0


def last_words():
    words = ("journalctl", "-u", "jail.service", "-o", "cat", "-n", "20")
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def labels():
    """The profile of each process of the service, by the name of its program."""
    found = {}
    for path in Path("/sys/fs/cgroup/system.slice/jail.service").rglob("cgroup.procs"):
        for pid in path.read_text().split():
            process = Path("/proc", pid)
            found[(process / "comm").read_text().strip()] = (process / "attr/current").read_text().strip()
    return found


def test_without_the_rule_the_service_says_who_forbids_what(stopped):
    without = SHIPPED.replace(" flags=(unconfined)", "").replace("\n  userns,\n", ALL_BUT_USERNS)
    assert without.count("userns,") == SHIPPED.count("userns,") - 1
    with loaded(without):
        assert not start()
        assert "A security module forbids this program to make a user namespace" in last_words()


def test_with_the_shipped_profile_jobs_run(stopped):
    with loaded(SHIPPED):
        assert start()
        answer = httpx.post(f"{URL}/v1/run", json={"argv": ["echo", "hello"]}, timeout=120).json()
        found = labels()
    assert answer["stdout"]["text"] == "hello\n"
    assert (found["jail"], found["jail-supervisor"]) == ("unconfined", "jail (unconfined)")


def test_it_gives_the_right_by_the_path_alone(installed):
    (program,) = Path("/opt/jail").glob("lib/python3*/site-packages/jail/jail-supervisor")
    copy = Path("/usr/local/bin/jail-supervisor")
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    with loaded(RESTRICTED):
        assert not makes_a_namespace(program)
        with loaded(SHIPPED):
            assert makes_a_namespace(program)
            assert not makes_a_namespace(copy)


def makes_a_namespace(program):
    """Whether a program that is executed by a restricted one can: it says so with a byte, and ends."""
    unit = ("systemd-run", "--quiet", "--pipe", "--wait", "-pUser=jail", "-pAppArmorProfile=restricted")
    words = ("sh", "-c", 'exec "$0" namespace 1 1 1', program)
    done = subprocess.run([*unit, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120)
    return done.stdout == b"n"
