"""What a job sees from inside, and what it looks like from outside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jail.image import TOP_DIRECTORIES

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
TOP = ("bin", "box", "dev", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr")
MOUNTS = {"/", *(f"/{name}" for name in TOP)}
MASKED = """
config.gz interrupts kallsyms kcore key-users keys kmsg kpagecgroup kpagecount kpageflags modules
pagetypeinfo sched_debug slabinfo softirqs sysrq-trigger timer_list vmallocinfo
acpi/* asound/* bus/* driver/* fs/* irq/* scsi/* sysvipc/* tty/*
"""


def status_fields(text):
    return {name: value.split() for name, _, value in (line.partition(":") for line in text.splitlines())}


@pytest.fixture(scope="module")
def status(jail):
    return status_fields(jail.run({"argv": ["cat", "/proc/self/status"]})["stdout"]["text"])


@pytest.mark.parametrize("name", CAPABILITY_SETS)
def test_the_job_has_no_capability_in_any_set(status, name):
    assert int(status[name][0], 16) == 0


def test_the_job_can_gain_no_privilege_and_is_under_a_filter(status):
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]


def test_the_job_has_one_user_one_group_and_no_others(status):
    assert status["Uid"] == status["Gid"] == ["1000"] * 4
    assert status["Groups"] == []


def test_the_job_sees_only_its_own_processes(jail):
    result = jail.python("import os; print(*sorted(p for p in os.listdir('/proc') if p.isdigit()))")
    assert result["stdout"]["text"] == "1 2\n"


def test_the_job_sees_only_the_loopback_interface(jail):
    lines = jail.run({"argv": ["cat", "/proc/net/dev"]})["stdout"]["text"].splitlines()
    assert [line.split(":")[0].strip() for line in lines[2:]] == ["lo"]


def test_the_loopback_interface_works_and_leads_nowhere_else(jail):
    # 192.0.2.1 is for documentation (RFC 5737), and connect() of a datagram socket sends nothing.
    result = jail.python(
        "import errno, socket\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    socket.create_connection(server.getsockname()).close()\n"
        "with socket.socket(type=socket.SOCK_DGRAM) as outwards:\n"
        "    print(errno.errorcode[outwards.connect_ex(('192.0.2.1', 9))])"
    )
    assert result["stdout"]["text"] == "ENETUNREACH\n"


def test_the_job_has_three_descriptors(jail):
    result = jail.python(
        "import os\n"
        "for fd in range(4096):\n"
        "    try: os.fstat(fd)\n"
        "    except OSError: continue\n"
        "    print(fd, end=' ')"
    )
    assert result["stdout"]["text"] == "0 1 2 "


def test_descriptors_of_the_service_do_not_reach_the_job(environment, tmp_path):
    leaked = [os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(200)]
    # A process of its own, so that keeper and supervisor are started while they are open.
    script = "import os; print(sorted(os.listdir('/proc/self/fd')))"
    command = [sys.executable, "-P", "-m", "jail", "run", "python3", "-ISc", script]
    result = subprocess.run(
        command, pass_fds=leaked, env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    for descriptor in leaked:
        os.close(descriptor)
    # The fourth is the directory that is being listed.
    assert result.stdout == "['0', '1', '2', '3']\n"


def test_no_file_of_the_host_outside_the_image_is_there(jail, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("alive")
    result = jail.sh(f"cat {canary}; ls -d /root /home /var/log /srv /run /sys /boot /work /mnt")
    assert result["stdout"]["text"] == ""
    assert result["stderr"]["text"].count("No such file") == 10
    assert canary.read_text() == "alive"


def test_mounts_are_those_of_the_sandbox(jail):
    lines = jail.run({"argv": ["cat", "/proc/self/mountinfo"]})["stdout"]["text"].splitlines()
    for line in lines:
        target, options = line.split()[4:6]
        assert target in MOUNTS or target.startswith(("/proc/", "/dev/"))
        if target not in ("/box", "/tmp", "/dev/shm") and "/null " not in line and "devtmpfs" not in line:
            assert "ro" in options.split(",")
        # Nothing of another namespace propagates into this one, nor out of it.
        assert "shared:" not in line
        assert "master:" not in line


def test_users_and_names_are_made_up(jail):
    result = jail.sh("cat /etc/passwd /etc/hostname; hostname; id -un")
    lines = result["stdout"]["text"].splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["root", "jail", "nobody"]
    assert lines[3:] == ["jail", "jail", "jail"]


@pytest.mark.parametrize("place", ["/", "/usr", "/etc", "/dev", "/proc", "/proc/sys", "/usr/bin"])
def test_nothing_can_be_made_outside_the_scratch_directories(jail, place):
    result = jail.sh(f"touch {place}/made || mkdir {place}/made || ln -s x {place}/made")
    assert result["status"] == "nonzero_exit"


@pytest.mark.parametrize("place", ["/box", "/tmp", "/dev/shm"])
def test_scratch_directories_can_be_written_and_are_fresh(jail, place):
    script = f'test -z "$(ls -A {place})" && echo x > {place}/made && cat {place}/made'
    for _ in range(2):
        assert jail.sh(script)["stdout"]["text"] == "x\n"


def test_settings_of_the_kernel_cannot_be_written(jail):
    result = jail.sh(
        "for f in kernel/hostname kernel/core_pattern vm/drop_caches user/max_user_namespaces; do"
        " echo 1 2>/dev/null > /proc/sys/$f && echo $f; done; true"
    )
    assert result["stdout"]["text"] == ""


def test_what_proc_tells_of_the_host_is_masked(jail):
    files = " ".join(f"/proc/{name}" for name in MASKED.split())
    result = jail.sh(f"cat {files} 2>/dev/null | wc -c")
    assert result["stdout"]["text"] == "0\n"


def test_the_working_directory_is_box(jail):
    result = jail.sh("pwd; readlink /proc/self/cwd; cd ..; pwd; ls -id . / | cut -d' ' -f1 | uniq | wc -l")
    assert result["stdout"]["text"] == "/box\n/box\n/\n1\n"


def test_the_environment_is_what_was_asked_and_nothing_of_the_service(jail, monkeypatch):
    monkeypatch.setenv("SECRET", "of the service")
    result = jail.run({"argv": ["env"], "env": {"LANG": "C", "MINE": "a=b\nc"}})
    assert sorted(result["stdout"]["text"].splitlines()) == [
        "HOME=/box",
        "LANG=C",
        "MINE=a=b",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "c",
    ]


@pytest.mark.parametrize(
    "call",
    [
        "unshare(0x10000000)",  # CLONE_NEWUSER
        "unshare(0x00020000)",  # CLONE_NEWNS
        "mount(b'none', b'/tmp', b'tmpfs', 0, 0)",
        "setns(0, 0)",
        "chroot(b'/tmp')",
        "sethostname(b'x', 1)",
        "ptrace(16, 1, 0, 0)",  # PTRACE_ATTACH
    ],
)
def test_privileged_calls_are_refused(jail, call):
    result = jail.python(
        "import ctypes, errno\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"print(libc.{call}, errno.errorcode[ctypes.get_errno()])"
    )
    assert result["stdout"]["text"] == "-1 EPERM\n"


def test_another_architecture_is_killed(jail, program):
    result = jail.run({"argv": ["./foreign"], "files": {"foreign": program("foreign")}})
    assert (result["status"], result["signal"]) == ("syscall_denied", 31)


def test_two_sandboxes_at_once_have_four_host_ids(jail, processes, executing):
    async def scene():
        runs = [jail.submit({"argv": ["sleep", "1000"]}) for _ in range(2)]
        jobs = await executing(jail.supervisor, "sleep", 2)
        inits = [processes.sandbox(jail.supervisor, job)[0] for job in jobs]
        seen = [processes.status(pid) for pid in inits + jobs]
        for run in runs:
            run.cancel()
        return seen, [await jail.answer(run) for run in runs]

    seen, results = jail.do(scene())
    assert len(seen) == 4
    ids = [status["Uid"].split() for status in seen]
    assert all(len(set(four)) == 1 for four in ids)
    users = {four[0] for four in ids}
    assert len(users) == 4
    assert not users & {"0", "1000", str(os.getuid())}
    groups = {status["Gid"].split()[0] for status in seen}
    assert len(groups) == 4
    assert [result["status"] for result in results] == ["cancelled"] * 2


def test_init_and_job_have_no_capability_seen_from_outside(jail, processes, executing):
    async def scene():
        run = jail.submit({"argv": ["sleep", "1000"]})
        (job,) = await executing(jail.supervisor, "sleep")
        seen = [processes.status(pid) for pid in processes.sandbox(jail.supervisor, job)]
        run.cancel()
        await run.task
        return seen

    seen = jail.do(scene())
    assert len(seen) == 2
    for status in seen:
        assert {status[name] for name in CAPABILITY_SETS} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"


def test_service_and_supervisor_run_as_the_unprivileged_user(processes, jail):
    own, supervisor = processes.status(os.getpid()), processes.status(jail.supervisor)
    assert os.getuid() != 0
    for status in (own, supervisor):
        assert set(status["Uid"].split()) == {str(os.getuid())}
    assert int(own["CapEff"], 16) == 0
    # The supervisor is root of the outer user namespace, and of nothing else: that is not ours.
    assert os.readlink(f"/proc/{jail.supervisor}/ns/user") != os.readlink("/proc/self/ns/user")


def test_the_supervisor_sees_of_the_host_what_sandboxes_are_made_of_and_nothing_else(jail):
    # Every sandbox begins with a copy of these mounts.
    lines = Path(f"/proc/{jail.supervisor}/mountinfo").read_text().splitlines()
    mounts = {fields[4]: fields[5].split(",") for fields in map(str.split, lines)}
    lent = jail.engine.means.files.files.lent
    own = {str(jail.instance), f"{jail.engine.settings.images}/layers", str(lent)}
    tops = {place if place in own else f"/{place.split('/')[1]}" for place in mounts}
    assert {"/", "/proc", "/dev", "/usr", *own} <= tops
    assert tops <= {"/", "/proc", "/dev", "/usr", *own, *(f"/{name}" for name in TOP_DIRECTORIES)}
    assert "ro" in mounts["/"]
