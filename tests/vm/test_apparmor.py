"""deploy/apparmor, where AppArmor decides about user namespaces: Linux 6.7 and later.

Ubuntu's kernels have a switch that takes user namespaces from every program without a profile. Debian's have
none; but there, too, a program under a profile can make one only if that profile says `userns,`. So the
service is put under one that says everything else, and is left to what the profile of jail-supervisor gives.
"""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

PROFILE = Path(__file__).resolve().parents[2] / "deploy/apparmor/jail"
MASK = Path("/sys/kernel/security/apparmor/features/namespaces/mask")
DROP_IN = Path("/run/systemd/system/jail.service.d/apparmor.conf")
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

# As that switch has it for what has no profile: everything, user namespaces excepted. What is executed has
# its own profile, if there is one.
RESTRICTED = """
abi <abi/4.0>,
profile restricted {
  capability, network, unix, signal, ptrace, mount, umount, pivot_root, dbus, mqueue, io_uring,
  /** rwlkm,
  /** pix,
}
"""

pytestmark = pytest.mark.skipif(
    not MASK.exists() or "userns_create" not in MASK.read_text(),
    reason="this kernel's AppArmor does not decide about user namespaces",
)


def load(text):
    """Load profiles until they are removed."""
    subprocess.run([*PARSER, "--replace"], input=text, text=True, check=True, timeout=120)


def remove(text):
    subprocess.run([*PARSER, "--remove"], input=text, text=True, check=True, timeout=120)


@contextmanager
def loaded(text):
    load(text)
    try:
        yield
    finally:
        remove(text)


@pytest.fixture(autouse=True)
def restricted(installed):
    """The service will be started under a profile without `userns,`."""
    with loaded(RESTRICTED):
        DROP_IN.parent.mkdir(parents=True)
        DROP_IN.write_text("[Service]\nAppArmorProfile=restricted\nRestart=no\n")
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        yield
        subprocess.run(["systemctl", "stop", "jail.socket", "jail.service"], check=True)
        DROP_IN.unlink()
        DROP_IN.parent.rmdir()
        subprocess.run(["systemctl", "daemon-reload"], check=True)


def start():
    done = subprocess.run(["systemctl", "start", "jail.service"], check=False, timeout=120)
    return done.returncode == 0


def last_words():
    words = ("journalctl", "-u", "jail.service", "-o", "cat", "-n", "10")
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def labels():
    """The profile of each process of the service that is there, by the name of its program."""
    found = {}
    for path in Path("/sys/fs/cgroup/system.slice/jail.service").rglob("cgroup.procs"):
        for pid in path.read_text().split():
            process = Path("/proc", pid)
            found[(process / "comm").read_text().strip()] = (process / "attr/current").read_text().strip()
    return found


def test_without_the_profile_the_service_says_what_it_lacks():
    assert not start()
    assert "user namespace" in last_words()


def test_with_the_profile_jobs_run():
    with loaded(PROFILE.read_text()):
        assert start()
        answer = httpx.post(f"{URL}/v1/run", json={"argv": ["echo", "hello"]}, timeout=120).json()
        found = labels()
    assert answer["stdout"]["text"] == "hello\n"
    assert found["jail-supervisor"].startswith("jail ")
    assert found["jail"] == "restricted (enforce)"


def test_the_right_is_that_of_its_path_alone():
    copy = Path("/usr/local/bin/jail-supervisor")
    (program,) = Path("/opt/jail").glob("lib/python3*/site-packages/jail/jail-supervisor")
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    with loaded(PROFILE.read_text()):
        for path, is_allowed in ((program, True), (copy, False)):
            words = (
                "systemd-run",
                "--quiet",
                "--pipe",
                "--wait",
                "-pUser=jail",
                "-pAppArmorProfile=restricted",
            )
            # It makes a namespace, and says so with a byte.
            done = subprocess.run(
                [*words, path, "namespace", "1", "1", "1"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
            assert (done.stdout == b"n") is is_allowed
