"""Barriers that stand behind others, each seen by itself: what they stop is stopped before they are met.

Some are seen from outside, at init or in the job's /proc; the others by what they leave the job to do.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jail import host, outputs

# statfs(2): ST_RDONLY, ST_NOSUID, ST_NODEV, ST_NOEXEC, ST_NOSYMFOLLOW.
WANTED_FLAGS = 1 | 2 | 4 | 8 | 0x2000

LAYERS_MAX = 16  # Documentation/userspace-api/landlock.rst: LANDLOCK_MAX_NUM_LAYERS


SLEEPER = {"argv": ["sleep", "60"]}


def test_init_is_undumpable(running):
    """Attack 6. Its files in /proc belong to root then, and not to its own user: proc(5), /proc/PID."""
    with running(SLEEPER, "sleep") as (init, _):
        assert os.stat(f"/proc/{init}/status").st_uid == 0


def test_init_has_given_up_its_authority(running, processes):
    """Attacks 6 and 37. Under no filter itself, it has nothing that a flaw in it would lend to a job."""
    with running(SLEEPER, "sleep") as (init, _):
        status = processes.status(init)
    sets = {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
    assert (sets, status["NoNewPrivs"]) == ({"0" * 16}, "1")


def test_a_sandbox_has_a_session_keyring_of_its_own(running, processes):
    """Attack 123. The kernel counts it for init's user, of whom there is no other."""
    with running(SLEEPER, "sleep") as (init, _):
        uid = processes.status(init)["Uid"].split()[0]
        users = dict(line.split(":", 1) for line in Path("/proc/key-users").read_text().splitlines())
    counts = {int(user): line.split()[2] for user, line in users.items()}
    assert int(counts[int(uid)].split("/")[0]) > 0


def test_the_job_is_under_landlock(python):
    """Attack 49. Of the layers that there are, one is taken."""
    if not host.landlock_abi():
        pytest.skip("the kernel has no Landlock")
    # A ruleset for LANDLOCK_ACCESS_FS_EXECUTE, put upon itself until there is no more room.
    told = python(
        "import struct\n"
        "ruleset = libc.syscall(444, struct.pack('Q', 1), 8, 0)\n"
        "layers = 0\n"
        "while libc.syscall(446, ruleset, 0) == 0: layers += 1\n"
        "print(layers)"
    )
    assert told == f"{LAYERS_MAX - 1}\n"


def test_what_the_service_ignores_or_blocks_the_job_does_not(environment, state):
    """Attack 100. The other way round: whoever started the service with nohup did not mean the jobs."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "jail",
        "run",
        "--",
        "grep",
        "-E",
        "Sig(Blk|Ign)",
        "/proc/self/status",
    ]
    script = 'trap "" HUP TERM INT QUIT PIPE USR1; exec "$@"'
    told = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        env={**environment, "JAIL_STATE": str(state)},
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert told.stdout.split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16], told


def test_outputs_are_read_through_a_mount_that_is_blind_to_links(jail, monkeypatch):
    """Attacks 15 and 16. The job sees another of the same files."""
    flags = []

    def read(descriptor, budget):
        flags.append(os.fstatvfs(descriptor).f_flag)
        return kept(descriptor, budget)

    kept = outputs._read
    monkeypatch.setattr(outputs, "_read", read)
    told = jail.run({"argv": ["sh", "-c", "touch out; cat /proc/self/mountinfo"], "outputs": ["out"]})
    assert flags[0] & WANTED_FLAGS == WANTED_FLAGS
    (box,) = [line.split()[5].split(",") for line in told["stdout"]["text"].splitlines() if " /box " in line]
    assert {"rw", "nosuid", "nodev"} <= set(box)
    assert not {"noexec", "nosymfollow"} & set(box)


def test_no_mount_follows_the_hosts(attack):
    """Attack 21. Where the host's are shared, as systemd makes them: mount_namespaces(7)."""
    shared = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " shared:" in line]
    if not any(line.split()[4] in ("/", "/dev") for line in shared):
        pytest.skip("neither / nor /dev of the host is a shared mount, whose copies could follow it")
    assert "master:" not in attack(argv=["cat", "/proc/self/mountinfo"])["stdout"]["text"]


def test_supplementary_groups_are_out_of_reach_for_good(attack):
    """Attack 39. user_namespaces(7): what was denied before the map cannot be allowed again."""
    assert attack(argv=["cat", "/proc/self/setgroups"])["stdout"]["text"] == "deny\n"


def test_proc_and_dev_are_read_only(python):
    """Attacks 23 and 25. Though the files are the job's own, or nobody's."""
    told = python(
        "for path in ('/proc/self/comm', '/proc/self/oom_score_adj', '/proc/self/timerslack_ns'):\n"
        "    print(answer(os.open, path, os.O_WRONLY))\n"
        "print(answer(os.mkdir, '/dev/x'), answer(os.mkdir, '/dev/shm'))"
    )
    assert told.split() == ["EROFS"] * 4 + ["EEXIST"]


def test_what_root_alone_may_read_in_proc_is_masked_all_the_same(python):
    """Attack 23. The null device lies on it, where the kernel has it."""
    told = python(
        "import stat\n"
        "for name in ('kcore', 'sysrq-trigger', 'timer_list', 'kallsyms', 'keys', 'iomem', 'locks'):\n"
        "    path = f'/proc/{name}'\n"
        "    if os.path.exists(path) and os.stat(path).st_rdev != os.makedev(1, 3): print(name)"
    )
    assert told == ""


def test_every_resource_limit_is_in_force(attack):
    """Attacks 29, 78 and 80 to 82. As the kernel tells them, soft and hard."""
    limits = {
        "Max core file size": "1",
        "Max stack size": str(8 << 20),
        "Max open files": "256",
        "Max locked memory": str(1 << 20),
        "Max pending signals": "256",
        "Max msgqueue size": "0",
        "Max nice priority": "0",
        "Max realtime priority": "0",
    }
    text = attack(argv=["cat", "/proc/self/limits"])["stdout"]["text"]
    told = {
        name: line[len(name) :].split()[:2]
        for name in limits
        for line in text.splitlines()
        if line.startswith(name)
    }
    assert told == {name: [value, value] for name, value in limits.items()}


def test_speculation_is_restricted_for_good(attack):
    """Attack 127. Where processor and boot options leave it to the thread."""
    text = attack(argv=["grep", "-i", "speculation", "/proc/self/status"])["stdout"]["text"]
    told = dict(line.split(":\t") for line in text.splitlines())
    own = Path("/proc/self/status").read_text()
    if "thread vulnerable" not in own and "conditional enabled" not in own:
        pytest.skip("processor and boot options leave no thread a choice about its speculation")
    assert told.get("Speculation_Store_Bypass", "thread force mitigated") in (
        "thread force mitigated",
        "not vulnerable",
    )
    assert told.get("SpeculationIndirectBranch") in (
        "conditional force disabled",
        "not affected",
        "always disabled",
    )
