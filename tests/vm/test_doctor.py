"""Doctor on a stock system, in the shipped unit with one line changed, under other sysctls, and by hand."""

import json
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SERVICE = (CHECKOUT / "deploy/systemd/jail.service").read_text()
UNIT = Path("/run/systemd/system/doctor.service")
ANSWER = Path("/run/doctor.json")
JAIL = "/opt/jail/bin/jail"
# Of the service as such: doctor is no service.
NOT_DOCTORS = re.compile(
    r"^(Type|ExecStart|Restart|RestartSec|WatchdogSec|NotifyAccess|Requires|After|StartLimitIntervalSec)=.*\n",
    re.MULTILINE,
)

# What is emulated can take its time.
SECONDS = 300


def command(*words, **more):
    """Its output. Raises CalledProcessError."""
    return subprocess.run(
        words, stdout=subprocess.PIPE, text=True, check=True, timeout=SECONDS, **more
    ).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def alone(installed):
    # They would share ids with what is tried here.
    command("systemctl", "stop", "jail.socket", "jail.service")
    yield
    UNIT.unlink(missing_ok=True)
    command("systemctl", "daemon-reload")


def by_name(text):
    report = json.loads(text)
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ok"] == (not missing(checks))
    return checks


def missing(checks):
    return [name for name, check in checks.items() if check["status"] == "missing"]


def in_unit(*lines):
    """The checks of doctor in the shipped unit, with these lines at the end of [Service]."""
    kept = NOT_DOCTORS.sub("", SERVICE).partition("[Install]")[0]
    own = (
        "Type=oneshot",
        f"ExecStart=-{JAIL} doctor --json",
        f"StandardOutput=truncate:{ANSWER}",
        "StandardError=journal",
    )
    UNIT.write_text("\n".join((kept, *own, *lines, "")))
    ANSWER.unlink(missing_ok=True)
    command("systemctl", "daemon-reload")
    command("systemctl", "start", UNIT.name)
    return by_name(ANSWER.read_text())


def by_hand(*words):
    """The checks of doctor as a command of this session's, as root unless the words say another."""
    done = subprocess.run(
        [*words, JAIL, "doctor", "--json"], stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=False
    )
    return by_name(done.stdout)


@contextmanager
def sysctl(name, value):
    path = Path("/proc/sys", name.replace(".", "/"))
    if not path.exists():
        pytest.skip(f"this kernel has no {name}")
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


def test_the_shipped_unit_lacks_nothing():
    checks = in_unit()
    assert missing(checks) == []
    assert "ran `true`" in checks["sandbox"]["found"]
    assert checks["cgroup"]["found"] == "v2, cpu, memory and pids, and io is counted"
    assert [name for name, check in checks.items() if check["status"] == "note" and name != "hardware"] == []


@pytest.mark.parametrize(
    ("line", "name", "cause", "cure"),
    [
        ("Delegate=no", "cgroup", "is not delegated to this user", "Unit: Delegate=yes"),
        ("ProtectControlGroups=yes", "cgroup", "is not delegated", "no ProtectControlGroups="),
        ("NoNewPrivileges=yes", "subordinate ids", "no_new_privs is set", "Unit: NoNewPrivileges=no"),
        (
            "CapabilityBoundingSet=",
            "subordinate ids",
            "CAP_SETGID and CAP_SETUID",
            "CapabilityBoundingSet=",
        ),
        ("PrivateUsers=yes", "subordinate ids", "are not all in this user namespace", "/etc/subuid"),
        ("RestrictNamespaces=yes", "user namespaces", "seccomp filter", "no SystemCallFilter=, "),
        ("SystemCallFilter=~keyctl:EPERM", "system calls", "refuses keyctl", "no SystemCallFilter=, "),
        ("SystemCallFilter=~clone3:ENOSYS", "system calls", "refuses clone3", "no SystemCallFilter=, "),
        ("RestrictAddressFamilies=AF_UNIX", "system calls", "refuses socket", "RestrictAddressFamilies="),
        (
            "ProtectKernelTunables=yes",
            "user namespaces",
            "/proc/sys is mounted read-only",
            "ProtectKernelTunables=",
        ),
        ("ProcSubset=pid", "proc", "shows processes alone", "ProcSubset="),
        ("InaccessiblePaths=/usr/games", "overlay", "others are mounted: /usr/games", "norbind"),
        ("LimitNOFILE=512", "hard rlimits", "RLIMIT_NOFILE here is 512", "LimitNOFILE=4096"),
    ],
)
def test_a_line_that_takes_something_away_is_named_with_its_cure(line, name, cause, cure):
    checks = in_unit(line)
    assert {name, "sandbox"} <= set(missing(checks))
    assert cause in checks[name]["cause"]
    assert cure in checks[name]["cure"]


@pytest.mark.parametrize(
    ("line", "name", "found", "cure"),
    [
        ("LimitNPROC=90", "processes", "RLIMIT_NPROC 90", "LimitNPROC=infinity"),
        ("TasksMax=90", "processes", "pids.max 90", "TasksMax=infinity"),
        (
            "MemoryMax=256M\nEnvironment=JAIL_MEMORY_BYTES=536870912",
            "memory",
            "0.5 GiB of 0.2 GiB",
            "MemoryMax=",
        ),
    ],
)
def test_a_line_that_leaves_jobs_less_than_they_are_promised_is_a_note(line, name, found, cure):
    checks = in_unit(line)
    assert missing(checks) == []
    assert (checks[name]["status"], checks[name]["found"]) == ("note", found)
    assert cure in checks[name]["cure"]


@pytest.mark.parametrize(
    ("setting", "value", "name", "cause"),
    [
        ("user.max_user_namespaces", "0", "user namespaces", "user.max_user_namespaces is 0"),
        ("kernel.unprivileged_userns_clone", "0", "user namespaces", "unprivileged_userns_clone is 0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "user namespaces", "AppArmor"),
        ("user.max_net_namespaces", "10", "namespaces", "user.max_net_namespaces is 10: too few"),
    ],
)
def test_a_sysctl_that_forbids_it_is_named_with_its_cure(setting, value, name, cause):
    with sysctl(setting, value):
        checks = in_unit()
    assert name in missing(checks)
    assert cause in checks[name]["cause"]
    assert f"{setting}=" in checks[name]["cure"]


def test_few_inotify_instances_are_a_note():
    with sysctl("fs.inotify.max_user_instances", "16"):
        check = in_unit()["inotify"]
    assert (check["status"], "fs.inotify.max_user_instances=" in check["cure"]) == ("note", True)


def test_a_user_without_subordinate_ids_is_told_how_to_have_some():
    subuid = Path("/etc/subuid")
    before = subuid.read_text()
    subuid.write_text("")
    try:
        check = in_unit()["subordinate ids"]
    finally:
        subuid.write_text(before)
    assert check["cause"] == "/etc/subuid delegates no ids to jail."
    assert check["cure"].startswith("As root: usermod --add-subuids ")
    assert check["cure"].endswith(" jail")


def test_a_newuidmap_without_privilege_is_named():
    command("chmod", "u-s", "/usr/bin/newuidmap")
    try:
        check = in_unit()["subordinate ids"]
    finally:
        command("chmod", "u+s", "/usr/bin/newuidmap")
    assert "/usr/bin/newuidmap is neither set-uid root" in check["cause"]
    assert "chmod u+s /usr/bin/newuidmap" in check["cure"]


def test_a_newuidmap_that_is_not_there_is_named_by_its_package():
    os.rename("/usr/bin/newuidmap", "/usr/bin/elsewhere")
    try:
        check = in_unit()["subordinate ids"]
    finally:
        os.rename("/usr/bin/elsewhere", "/usr/bin/newuidmap")
    assert check["cause"] == "newuidmap is not installed."
    assert "apt-get install uidmap" in check["cure"]


def test_root_is_told_to_name_a_user():
    (check,) = by_hand().values()
    assert check["cause"] == "jail does not run as root."
    assert "jail doctor --user NAME" in check["cure"]


def test_root_that_names_a_user_has_everything():
    done = subprocess.run(
        [JAIL, "doctor", "--user", "jail", "--json"], stdout=subprocess.PIPE, text=True, timeout=SECONDS
    )
    assert missing(by_name(done.stdout)) == []


def test_a_user_without_a_session_is_told_of_lingering():
    # In a scope, as a login is: these tests are in a service.
    check = by_hand("systemd-run", "--scope", "--quiet", "--", "runuser", "-u", "jail", "--")["cgroup"]
    assert check["status"] == "missing"
    assert "loginctl enable-linger jail" in check["cure"]
    assert "systemd-run --user --scope -p Delegate=yes" in check["cure"]


def test_a_user_who_lingers_has_everything():
    command("loginctl", "enable-linger", "jail")
    try:
        command("systemctl", "start", f"user@{command('id', '-u', 'jail')}.service")
        checks = by_hand("runuser", "-u", "jail", "--")
    finally:
        command("loginctl", "disable-linger", "jail")
    assert missing(checks) == []
