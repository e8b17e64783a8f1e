"""/etc/hosts of a job that has names to find: there, not to be changed, and nowhere else to be seen."""

import errno
import os
from pathlib import Path

import pytest

from jail.outcome import Failure
from jail.supervisor import HOSTS_BYTES_MAX, Supervisor

NAMES = b"127.0.0.1 localhost\n::1 localhost\n127.1.2.3 server\nfd6a:6169:6c00::7 server\n"

FILL = "#" * 79 + "\n"
LARGEST = (FILL * HOSTS_BYTES_MAX)[: HOSTS_BYTES_MAX - 1].encode() + b"\n"

SEEN = """
import os
for place in ("/box", "/tmp", "/dev/shm"):
    about = os.statvfs(place)
    print(place, os.listdir(place), about.f_blocks, about.f_bfree, about.f_files, about.f_ffree)
for line in open("/proc/self/mountinfo"):
    if " /etc/hosts " not in line:
        print(*line.split()[3:6], line.split(" - ")[1].split()[0])
"""


@pytest.fixture
def told(jail):
    """Run a job that finds `hosts` in /etc/hosts; its run and its result."""

    def run(argv, hosts=NAMES, **body):
        async def scene():
            found = jail.submit({"argv": argv, **body})
            found.processes[0].hosts = hosts
            return found, await jail.answer(found)

        return jail.do(scene())

    return run


def python(script):
    return ["python3", "-ISc", script]


def text(ran):
    _, result = ran
    assert result["status"] == "ok", result
    return result["stdout"]["text"]


def test_a_job_finds_what_it_was_given(told):
    assert text(told(["cat", "/etc/hosts"])) == NAMES.decode()


def test_a_name_in_it_is_resolved(told):
    script = (
        "import socket\n"
        "for family in (socket.AF_INET, socket.AF_INET6):\n"
        "    print(socket.getaddrinfo('server', 80, family, socket.SOCK_STREAM)[0][4][0])"
    )
    assert text(told(python(script))) == "127.1.2.3\nfd6a:6169:6c00::7\n"


def test_without_one_the_images_own_stays_and_nothing_is_mounted(told):
    own = text(
        told(["sh", "-c", "cat /etc/hosts; grep -c etc/hosts /proc/self/mountinfo || true"], hosts=b"")
    )
    assert own == "127.0.0.1 localhost jail\n::1 localhost jail\n0\n"


def test_the_next_job_finds_the_images_own(told):
    text(told(["true"]))
    assert "server" not in text(told(["cat", "/etc/hosts"], hosts=b""))


def test_it_is_inits_and_read_only(told):
    script = "stat -c '%u %g %a %h %F' /etc/hosts; grep ' /etc/hosts ' /proc/self/mountinfo"
    about, mounted = text(told(["sh", "-c", script])).splitlines()
    assert about == "0 0 444 1 regular file"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mounted.split()[5].split(","))


@pytest.mark.parametrize(
    ("trial", "refused"),
    [
        ("os.open('/etc/hosts', os.O_WRONLY)", "EACCES EROFS"),
        ("os.truncate('/etc/hosts', 0)", "EACCES EROFS"),
        ("os.chmod('/etc/hosts', 0o666)", "EROFS"),
        ("os.chown('/etc/hosts', 1000, 1000)", "EROFS"),
        ("os.utime('/etc/hosts')", "EROFS"),
        ("os.unlink('/etc/hosts')", "EBUSY EROFS"),
        ("os.rename('/etc/hosts', '/etc/others')", "EBUSY EROFS"),
        ("os.rename('/tmp/x', '/etc/hosts')", "EXDEV EROFS"),
        ("os.link('/etc/hosts', '/tmp/hosts')", "EXDEV"),
        ("os.link('/etc/hosts', '/etc/others')", "EXDEV EROFS"),
        ("call(libc.umount2, b'/etc/hosts', 2)", "EPERM"),
        ("call(libc.mount, b'/tmp/x', b'/etc/hosts', None, 4096, None)", "EPERM"),
    ],
)
def test_the_job_cannot_change_it_or_take_it_away(told, trial, refused):
    script = (
        "import ctypes, errno, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(function, *arguments):\n"
        "    if function(*arguments) < 0: raise OSError(ctypes.get_errno(), '')\n"
        "open('/tmp/x', 'w').close()\n"
        f"try: {trial}\n"
        "except OSError as error: print(errno.errorcode[error.errno], flush=True)\n"
        "os.write(1, open('/etc/hosts', 'rb').read())"
    )
    error, _, content = text(told(python(script))).partition("\n")
    assert error in refused.split()
    assert content == NAMES.decode()


def test_what_the_job_may_write_to_is_as_it_would_be_without(told):
    limits = {"disk_bytes": 65536, "files": 16}
    body = {"limits": limits, "files": {"a/b.txt": "b"}}
    without = text(told(python(SEEN), hosts=b"", **body))
    assert text(told(python(SEEN), hosts=LARGEST, **body)) == without
    assert "/dev/shm [] 16 16 16 15" in without


def test_files_and_names_come_in_one_plan(told):
    files = {"a.txt": "first", "b/c.txt": {"base64": "AAEC"}}
    script = "import os; os.write(1, open('a.txt', 'rb').read() + open('b/c.txt', 'rb').read())"
    assert text(told(python(script), files=files)) == "first\0\1\2"
    assert text(told(["cat", "/etc/hosts"], files=files)) == NAMES.decode()


def test_the_largest_there_may_be_is_there_whole(told):
    assert text(told(["cat", "/etc/hosts"], hosts=LARGEST)) == LARGEST.decode()


def test_a_larger_one_is_our_mistake_and_no_jobs(told):
    run, result = told(["true"], hosts=LARGEST + b"#")
    assert result["status"] == "sandbox_error"
    assert run.failure == Failure("hosts", errno.E2BIG, 0)


def shared_memory(jail, pid):
    """What the cgroup of a process of ours has in tmpfs, in bytes."""
    fields = dict(line.split() for line in (cgroup_of(jail, pid) / "memory.stat").read_text().splitlines())
    return int(fields["shmem"])


def cgroup_of(jail, pid):
    return next(
        path
        for path in jail.cgroups
        if (path / "memory.stat").exists() and str(pid) in (path / "cgroup.procs").read_text().split()
    )


def test_the_job_pays_for_it(jail, executing):
    async def scene(hosts):
        run = jail.submit({"argv": ["sleep", "1000"]})
        run.processes[0].hosts = hosts
        (sleeper,) = await executing(jail.supervisor, "sleep")
        used = shared_memory(jail, sleeper)
        run.cancel()
        await run.task
        return used

    assert jail.do(scene(LARGEST)) - jail.do(scene(b"")) == HOSTS_BYTES_MAX


@pytest.mark.parametrize(
    "change",
    [
        lambda start: {"hosts_bytes": HOSTS_BYTES_MAX + 1, "plan_bytes": 1 << 20},
        lambda start: {"hosts_bytes": start.plan_bytes + 1},
    ],
)
def test_a_service_that_was_taken_over_can_give_no_more(jail, told, monkeypatch, change):
    start = Supervisor.start

    def start_changed(self, slot, about):
        for name, value in change(about.message).items():
            setattr(about.message, name, value)
        start(self, slot, about)

    monkeypatch.setattr(Supervisor, "start", start_changed)
    run, _ = told(["true"])
    assert run.failure == Failure("supervisor", errno.EPROTO, 0)
    monkeypatch.undo()
    jail.settle()


def remove(path):
    path.unlink()


def link(path):
    path.unlink()
    path.symlink_to("/tmp/hosts")


def directory(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "error"), [(remove, errno.ENOENT), (link, errno.ELOOP), (directory, errno.ENOTDIR)]
)
def test_an_image_in_which_it_is_no_file_fails_by_name(engine_with, state, change, error):
    with engine_with(slots=1, ready_min=0, ready_max=0, state=str(state)) as own:
        change(own.instance / "host/root/etc/hosts")

        async def scene(hosts):
            run = own.submit({"argv": ["true"]})
            run.processes[0].hosts = hosts
            return run, (await run.task).status

        run, status = own.do(scene(NAMES))
        assert (status, run.failure) == ("sandbox_error", Failure("hosts", error, 2))
        assert own.do(scene(b""))[1] == "ok"


def test_nothing_of_it_stays_on_the_host(told, jail):
    before = Path("/proc/self/mountinfo").read_text()
    text(told(["true"], hosts=LARGEST))
    jail.settle()
    assert Path("/proc/self/mountinfo").read_text() == before
    assert os.stat("/etc/hosts").st_dev == os.stat("/etc").st_dev
