"""Doctor in a rootless container made by hand (programs/container.py), with one thing taken away, for real.

Each lack is told once, by its check, and the sandbox's that was made in spite of it says the same or nothing.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONTAINER = Path(__file__).parent / "programs" / "container.py"


@pytest.fixture
def without(environment):
    """Doctor's checks by name, in a container that lacks something."""

    def run(lack, **settings):
        done = subprocess.run(
            [sys.executable, "-P", CONTAINER, lack, sys.executable, "-P", "-m", "jail", "doctor", "--json"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment | settings,
        )
        assert "Traceback" not in done.stderr
        if not done.stdout:
            pytest.skip(f"this host has no such container: {done.stderr.strip()}")
        report = json.loads(done.stdout)
        assert done.returncode == (0 if report["ok"] else 1)
        return {check["name"]: check for check in report["checks"]}

    return run


def blamed(checks, status="missing"):
    """The names of those that are said to be missing, but for the sandbox, which rests on them all."""
    return [name for name, check in checks.items() if check["status"] == status and name != "sandbox"]


def test_a_container_that_lacks_nothing_makes_a_sandbox(without):
    checks = without("nothing")
    assert blamed(checks) == []
    assert "ran `true`" in checks["sandbox"]["found"]


@pytest.mark.parametrize(
    ("lack", "name", "cause", "cure"),
    [
        ("masked_proc", "proc", "covers /proc/timer_list", "umount"),
        ("read_only_sysctls", "user namespaces", "/proc/sys is mounted read-only", "/proc"),
        ("root_directory", "user namespaces", "EPERM", "Leave the chroot"),
        ("read_only_cgroups", "cgroup", "cgroup", "jail serve --user NAME"),
        ("privileges", "subordinate ids", "no_new_privs", "NoNewPrivs"),
        ("capability:1", "subordinate ids", "lacks CAP_DAC_OVERRIDE", "setcap cap_setuid=ep"),
        ("capability:7", "subordinate ids", "lacks CAP_SETUID", "CAP_SETUID"),
        ("subordinate_ids", "subordinate ids", "/etc/subuid delegates no ids", "tee /etc/subuid"),
        ("subordinate_ids:700000+60000", "subordinate ids", "700000 to 759999 are not all in", "tee"),
        ("subordinate_ids:100000+100", "subordinate ids", "The range has 100 ids", "lower `slots`"),
        ("set_uid_tools", "subordinate ids", "/mnt/newuidmap is neither set-uid", "chmod u+s /mnt/newuidmap"),
        ("tools", "subordinate ids", "newuidmap is not installed", "apt-get install uidmap"),
        ("plain_file_system", "overlay", "what lies here", "ordinary file system"),
        ("bare_usr", "overlay", "others are mounted: /usr/bin/true", "norbind"),
        ("file_size:4096", "hard rlimits", "RLIMIT_FSIZE here is 4096", "LimitFSIZE="),
        ("open_files:4200", "hard rlimits", "RLIMIT_NOFILE of this process is 4200", "LimitNOFILE="),
        ("processes:2", "processes", "RLIMIT_NPROC 2", "ulimit -u"),
        ("sysctl:max_user_namespaces:0", "user namespaces", "max_user_namespaces is 0", "sysctl --system"),
        ("sysctl:max_net_namespaces:0", "namespaces", "max_net_namespaces is 0", "sysctl --system"),
        ("sysctl:max_net_namespaces:9", "namespaces", "is 9: too few for", "=15000"),
        ("sysctl:max_time_namespaces:0", "time namespace", "max_time_namespaces is 0", "=15000"),
        ("call:unshare:EPERM", "user namespaces", "seccomp filter", "filter"),
        ("call:setns:EPERM", "system calls", "refuses setns", "filter"),
        ("call:clone3:ENOSYS", "system calls", "refuses clone3", "filter"),
        ("call:mount:EPERM", "system calls", "refuses mount", "filter"),
        ("call:keyctl,pivot_root,umount2:EPERM", "system calls", "keyctl, pivot_root, umount2.", "filter"),
        ("call:close_range,mount_setattr:ENOSYS", "system calls", "close_range, mount_setattr.", "filter"),
        ("call:socket:EAFNOSUPPORT", "system calls", "refuses socket", "filter"),
        ("call:seccomp:EPERM", "system calls", "refuses seccomp", "filter"),
        ("call:landlock_restrict_self:EPERM", "system calls", "refuses landlock_restrict_self", "filter"),
    ],
)
def test_what_is_taken_away_is_named_with_its_cure(without, lack, name, cause, cure):
    checks = without(lack, JAIL_SLOTS="8", JAIL_READY_MAX="450" if "open_files" in lack else "64")
    assert name in blamed(checks)
    assert cause in checks[name]["cause"]
    assert cure in checks[name]["cure"]
    others = {checks[other]["cure"] for other in blamed(checks)} - {checks[name]["cure"]}
    assert all(other.startswith("See what is said of") for other in others)
    sandbox = checks["sandbox"]
    assert sandbox["status"] == "missing" or name == "hard rlimits" or "9" in lack
    assert "please report it" not in (sandbox["cure"] or "")


def test_a_library_that_is_not_there_is_named(without):
    check = without("libraries:libseccomp.so.2*")["policies"]
    assert (check["status"], check["cause"]) == ("missing", "libseccomp is not installed.")


def test_a_proc_of_processes_alone_is_named_once(without):
    checks = without("whole_proc")
    assert "shows processes alone, without /proc/meminfo, /proc/sys" in checks["proc"]["cause"]
    assert set(blamed(checks)) <= {"proc", "hard rlimits"}


@pytest.mark.parametrize("name", ["landlock_create_ruleset", "landlock_create_ruleset,landlock_add_rule"])
def test_a_filter_that_hides_landlock_is_not_taken_for_the_kernel(without, name):
    check = without(f"call:{name}:ENOSYS")["landlock"]
    assert check["status"] == "missing"
    assert "Or a seccomp filter hides it" in check["cause"]
    assert "allow_degraded" in check["cure"]


def test_few_processes_for_all_sandboxes_are_a_note(without):
    check = without("processes:60")["processes"]
    assert check["status"] == "note"
    assert check["found"] == "RLIMIT_NPROC 60"
    assert "jobs may find none left" in check["cause"]


def test_few_inotify_instances_are_a_note(without):
    checks = without("sysctl:max_inotify_instances:4")
    assert checks["inotify"]["status"] == "note"
    assert "fs.inotify.max_user_instances" in checks["inotify"]["cure"]
    assert checks["sandbox"]["status"] == "ok"


@pytest.mark.parametrize(
    ("engine", "cure"),
    [
        ("docker", "docker run --security-opt systempaths=unconfined"),
        ("podman", "podman run --security-opt unmask=ALL"),
        ("kubernetes", "procMount: Unmasked, in a pod with hostUsers: false"),
    ],
)
def test_a_container_is_told_in_the_words_of_its_engine(without, engine, cure):
    assert cure in without(f"engine:{engine}")["proc"]["cure"]


def test_all_that_a_plain_container_lacks_is_told_at_once(without):
    checks = without("as_docker")
    assert set(blamed(checks)) == {"user namespaces", "proc", "cgroup"}
