"""Doctor on this host: as it is, and with one thing taken away, for real, from doctor's process alone."""

import ctypes
import json
import resource
import subprocess
import sys

import pytest

from jail.policy.binding import libseccomp

PR_SET_NO_NEW_PRIVS = 38


@pytest.fixture
def doctor(environment):
    """Run it, in a process that `prepare` has taken something from."""

    def run(*options, prepare=None, **settings):
        return subprocess.run(
            [sys.executable, "-P", "-m", "jail", "doctor", *options],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            preexec_fn=prepare,
            env=environment | settings,
        )

    return run


@pytest.fixture
def look(doctor):
    """What it says to scripts: whether all is well, and the checks by name."""

    def run(prepare=None, **settings):
        done = doctor("--json", prepare=prepare, **settings)
        report = json.loads(done.stdout)
        assert done.returncode == (0 if report["ok"] else 1)
        return report["ok"], {check["name"]: check for check in report["checks"]}

    return run


def test_a_host_that_lacks_nothing_makes_a_sandbox(look):
    ok, checks = look()
    assert ok
    assert "ran `true`" in checks["sandbox"]["found"]


def test_people_are_told_the_verdict(doctor):
    done = doctor()
    assert done.returncode == 0
    assert "jail can run here" in done.stdout


def test_a_low_hard_limit_is_missing(look):
    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))

    ok, checks = look(lower)
    assert not ok
    assert checks["hard rlimits"]["status"] == "missing"
    assert "512" in checks["hard rlimits"]["cause"]


def test_no_new_privs_keeps_ids_from_being_mapped(look):
    def forbid():
        assert ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0

    ok, checks = look(forbid)
    assert not ok
    assert "no_new_privs" in checks["subordinate ids"]["cause"]


def refuse(*calls):
    """A filter as a container's: those calls answer EPERM."""

    def load():
        made = libseccomp().SyscallFilter(libseccomp().ALLOW)
        for call in calls:
            made.add_rule(libseccomp().ERRNO(1), call)
        made.load()

    return load


def test_a_filter_that_refuses_user_namespaces_is_named(look):
    ok, checks = look(refuse("unshare"))
    assert not ok
    assert "seccomp filter" in checks["user namespaces"]["cause"]
    assert checks["overlay"]["status"] == "note"


def test_a_filter_that_refuses_mounts_is_named(look):
    ok, checks = look(refuse("mount"))
    assert not ok
    assert checks["user namespaces"]["status"] == "ok"
    assert "seccomp filter" in checks["namespaces"]["cause"]


def test_a_state_directory_that_is_closed_to_sandboxes_does_not_matter(look, tmp_path):
    tmp_path.chmod(0o700)
    ok, _checks = look(JAIL_STATE=str(tmp_path / "state"))
    assert ok


def test_a_state_directory_that_cannot_be_made_is_named(look):
    ok, checks = look(JAIL_STATE="/usr/jail-state")
    assert not ok
    assert "/usr/jail-state" in checks["sandbox"]["cause"]


def test_a_policy_that_does_not_compile_is_named(look, tmp_path):
    (tmp_path / "default.toml").write_text("allow = 1\n")
    ok, checks = look(JAIL_POLICIES=str(tmp_path))
    assert not ok
    assert checks["policies"]["status"] == "missing"
    assert "default" in checks["policies"]["cause"]
