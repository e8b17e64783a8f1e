"""Attacks 1 to 8, 21 and 23: getting out through descriptors and /proc."""

import functools
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

EPERM = 1
BUILT_FROM_HOST = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}


@pytest.fixture
def leaking_service(service_class, tmp_path, monkeypatch):
    """A service that inherited two hundred descriptors of a directory of the host, to hand on."""
    # subprocess closes what it was not told of.
    monkeypatch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, close_fds=False))
    with ExitStack() as undo:
        for _ in range(200):
            descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
            undo.callback(os.close, descriptor)
            os.set_inheritable(descriptor, True)
        yield undo.enter_context(closing(service_class({"JAIL_SLOTS": "1"})))


def test_no_descriptor_leads_out_though_the_service_inherited_many(leaking_service):
    """Attack 1."""
    script = (
        "import os\n"
        "def is_open(fd):\n"
        "    try: return os.fstat(fd)\n"
        "    except OSError: return None\n"
        "print(*filter(is_open, range(1024)))"
    )
    lines = httpx.get(f"{leaking_service.url}/metrics").text.splitlines()
    (held,) = [line.split()[1] for line in lines if line.startswith("process_open_fds ")]
    assert float(held) > 200
    body = {"argv": ["python3", "-ISc", script]}
    result = httpx.post(f"{leaking_service.url}/v1/run", json=body, timeout=60).json()
    assert result["stdout"]["text"] == "0 1 2\n", result


def test_no_number_is_a_descriptor_of_a_directory(python):
    """Attack 1."""
    told = python(
        "for fd in range(1024):\n"
        "    for path in ('../../../../etc/shadow', '.'):\n"
        "        told = answer(os.open, path, os.O_RDONLY, dir_fd=fd)\n"
        "        if told not in ('EBADF', 'ENOTDIR'): print(fd, path, told)"
    )
    assert told == ""


def test_the_working_directory_does_not_lead_out(python):
    """Attack 2."""
    told = python(
        "print(os.getcwd(), os.readlink('/proc/self/cwd'))\n"
        "for turn in range(64): os.chdir('..')\n"
        "print(os.getcwd(), os.path.samefile('.', '/'), os.path.samefile('..', '/'))"
    )
    assert told == "/box /box\n/ True True\n"


def test_standard_input_cannot_be_reopened_for_writing(python):
    """Attack 3. Opened it can be, as memory; its seals refuse the rest."""
    told = python(
        "for path in ('/proc/self/fd/0', '/dev/stdin'):\n"
        "    for how in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC):\n"
        "        fd = answer(os.open, path, how)\n"
        "        print(fd if isinstance(fd, str) else answer(os.write, fd, b'changed'))\n"
        "print(answer(os.truncate, '/proc/self/fd/0', 0), answer(os.write, 0, b'x'))\n"
        "print(sys.stdin.read())",
        stdin="as it was",
    )
    *refusals, content = told.splitlines()
    assert set(" ".join(refusals).split()) <= {"EPERM", "EACCES", "EBADF", "EROFS", "EINVAL"}
    assert content == "as it was"


def test_standard_output_and_error_are_pipes(python):
    """Attack 3."""
    told = python("import stat\nprint(*(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (1, 2)))")
    assert told == "True True\n"


OVERWRITE = """
import time
told = set()
while time.process_time() < 0.3:
    for path in ('/proc/self/exe', '/proc/1/exe', '/proc/2/exe'):
        for how in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC): told.add(answer(os.open, path, how))
print(*sorted(told))
"""


def test_the_supervisors_program_cannot_be_overwritten_while_jobs_start(python, target):
    """Attack 4."""
    program = Path(os.readlink(f"/proc/{target.service.supervisor}/exe"))
    before = sha256(program.read_bytes()).digest()
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=target.service.url, timeout=60) as other:
        overwriting = pool.submit(python, OVERWRITE)
        while not overwriting.done():
            assert other.post("/v1/run", json={"argv": ["true"]}).json()["status"] == "ok"
    assert set(overwriting.result().split()) <= {"EROFS", "EACCES", "ETXTBSY"}
    assert sha256(program.read_bytes()).digest() == before


@pytest.mark.parametrize(
    "path", ["/proc/self/exe", "/proc/thread-self/exe", "/proc/1/exe", "/proc/self/fd/3"]
)
@pytest.mark.parametrize("verb", ["keep", "namespace"])
def test_the_supervisors_program_cannot_be_the_job(attack, path, verb):
    """Attack 5."""
    result = attack(argv=[path, verb])
    assert (result["status"], result["stdout"]["text"], result["stderr"]["text"]) == ("start_failed", "", "")


def test_the_memory_of_init_cannot_be_opened(python):
    """Attack 6."""
    ways = "os.O_RDONLY, os.O_WRONLY, os.O_RDWR"
    assert (
        python(f"print(*(answer(os.open, '/proc/1/mem', how) for how in ({ways})))")
        == "EACCES " * 2 + "EACCES\n"
    )


def test_init_cannot_be_traced_or_written_to(probe):
    """Attack 6. PTRACE_ATTACH and PTRACE_SEIZE; and the job's end is told as it was: `probe` sees to that."""
    calls = [
        ("ptrace", 16, 1, 0, 0),
        ("ptrace", 0x4206, 1, 0, 0),
        ("process_vm_writev", 1, "@16", 1, "@16", 1, 0),
    ]
    assert [outcome.errno for outcome in probe(*calls)] == [EPERM] * 3


OF_INIT = (
    *("root", "cwd", "exe", "fd", "fdinfo", "environ", "maps", "smaps", "mem", "map_files", "auxv", "stack"),
    *("syscall", "pagemap", "io", "personality", "ns/user", "ns/net", "ns/mnt"),
    *("task/1/mem", "task/1/root", "task/1/fd", "task/1/environ"),
)


def test_nothing_of_init_can_be_read(python):
    """Attack 7."""
    told = python(
        f"for name in {OF_INIT}: print(answer(os.open, f'/proc/1/{{name}}', os.O_RDONLY))\n"
        "print(answer(os.listdir, '/proc/1/root'), answer(os.stat, '/proc/1/cwd/..'))"
    )
    assert set(told.split()) == {"EACCES"}


def test_the_environment_of_the_service_is_not_there(attack, secret):
    """Attack 8."""
    script = "env; cat /proc/*/environ /proc/*/cmdline /proc/*/comm 2>/dev/null | tr '\\0' '\\n'"
    seen = attack(argv=["sh", "-c", script], env={"MINE": "x"})["stdout"]["text"]
    assert "MINE=x" in seen
    assert secret not in seen
    assert "JAIL_" not in seen


def test_where_the_service_is_installed_is_not_told(attack, target):
    """Attack 8. Nor by the arguments of pid 1."""
    program = Path(os.readlink(f"/proc/{target.service.supervisor}/exe"))
    seen = attack(argv=["sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"])["stdout"]["text"]
    assert seen.startswith(program.name)
    assert str(program.parent) not in seen


def test_the_mount_table_tells_no_path_of_the_service(attack, target):
    """Attack 21."""
    told = attack(argv=["cat", "/proc/self/mountinfo", "/proc/self/mounts", "/proc/self/mountstats"])
    text = told["stdout"]["text"]
    instance = Path(os.readlink(f"/proc/{target.service.supervisor}/cwd"))
    private = {str(Path.home()), str(instance), str(instance.parents[1]), instance.name}
    assert [path for path in private if path in text] == []


def test_the_mount_table_names_nothing_of_the_host_but_what_the_image_is_of(attack):
    """Attack 21."""
    lines = attack(argv=["cat", "/proc/self/mountinfo"])["stdout"]["text"].splitlines()
    options = [option for line in lines for option in line.split()[-1].split(",")]
    layers = {layer for option in options if option.startswith("lowerdir") for layer in option[9:].split(":")}
    assert "/usr" in layers
    assert {layer for layer in layers if layer.startswith("/")} <= BUILT_FROM_HOST


OF_THE_KERNEL = (
    *("acpi", "allocinfo", "asound", "bootconfig", "bus", "cmdline", "config.gz", "diskstats", "driver"),
    *(
        "dynamic_debug",
        "fs",
        "interrupts",
        "iomem",
        "ioports",
        "irq",
        "kallsyms",
        "kcore",
        "key-users",
        "keys",
    ),
    *("kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "modules", "pagetypeinfo"),
    *("partitions", "sched_debug", "scsi", "slabinfo", "softirqs", "sysrq-trigger", "sysvipc", "timer_list"),
    *("tty", "vmallocinfo"),
)


def test_interfaces_of_the_kernel_in_proc_are_masked(python):
    """Attack 23. Each is absent, refused, /dev/null or an empty directory; nothing is written."""
    told = python(
        f"for name in {OF_THE_KERNEL}:\n"
        "    path = f'/proc/{name}'\n"
        "    if os.path.isdir(path):\n"
        "        if answer(os.listdir, path) not in ([], 'EACCES'): print(name)\n"
        "        continue\n"
        "    for how in (os.O_RDONLY, os.O_WRONLY):\n"
        "        fd = answer(os.open, path, how | os.O_NONBLOCK)\n"
        "        if isinstance(fd, str): continue\n"
        "        if os.fstat(fd).st_rdev != os.makedev(1, 3): print(name, how)\n"
        "        os.close(fd)"
    )
    assert told == ""


@pytest.mark.parametrize("place", ["/proc/sys", "/proc/pressure", "/proc/irq"])
def test_no_setting_of_the_kernel_can_be_opened_for_writing(python, place):
    """Attack 23."""
    told = python(
        f"for folder, _, names in os.walk({place!r}):\n"
        "    for name in names:\n"
        "        told = answer(os.open, f'{folder}/{name}', os.O_WRONLY | os.O_NONBLOCK)\n"
        "        if not isinstance(told, str): print(folder, name)"
    )
    assert told == ""
