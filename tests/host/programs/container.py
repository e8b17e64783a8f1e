"""A rootless container made by hand, with one thing taken away from it, and a command in it.

    python container.py LACK[:ARGUMENT...] COMMAND...

It has what a container of Podman's has that was given all that jail needs: a user namespace with this
user's subordinate ids, a mount and a pid namespace, a fresh /proc, and set-uid programs of its own root's.
This user has in it the id that it has outside, and what is delegated to it. LACK is a function of this
module. Who loads a filter has privilege here, unlike outside: so set-uid programs keep theirs.
"""

import ctypes
import errno
import os
import pwd
import resource
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from jail.namespace import delegated_range
from jail.policy.binding import libseccomp

NEWNS, NEWUSER, NEWPID = 0x20000, 0x10000000, 0x20000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
CAPBSET_DROP, SET_NO_NEW_PRIVS, SET_PDEATHSIG, SIGKILL = 24, 38, 1, 9

# Covered, it holds what is the container's own.
OWN = Path("/mnt")
# First and count of the ids within that are delegated to this user.
DELEGATED = (100_000, 60_000)
USER = pwd.getpwuid(os.getuid()).pw_name

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = (*(ctypes.c_char_p,) * 3, ctypes.c_ulong, ctypes.c_char_p)


def check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    texts = (text.encode() for text in (source, target, kind))
    check(libc.mount(*texts, flags, options.encode()), target)


def bind_read_only(path: str) -> None:
    mount(path, path, "", BIND | REC)
    mount("", path, "", REMOUNT | BIND | RDONLY | NOSUID | NODEV | NOEXEC)


def nothing() -> None:
    """It is as it should be."""


def masked_proc() -> None:
    mount("/dev/null", "/proc/timer_list", "", BIND)


def read_only_sysctls() -> None:
    bind_read_only("/proc/sys")


def whole_proc() -> None:
    mount("proc", "/proc", "proc", 0, "subset=pid")


def sysctl(name: str, value: str) -> None:
    Path("/proc/sys/user", name).write_text(value)


def call(names: str, error: str) -> None:
    made = libseccomp().SyscallFilter(libseccomp().ALLOW)
    made.set_attr(libseccomp().Attr.CTL_NNP, False)
    for name in names.split(","):
        made.add_rule(libseccomp().ERRNO(getattr(errno, error)), name)
    made.load()


def as_docker() -> None:
    """What Docker takes away from who asks for nothing."""
    masked_proc()
    read_only_sysctls()
    read_only_cgroups()
    call("unshare,setns,mount,umount2,pivot_root,keyctl", "EPERM")
    call("clone3", "ENOSYS")


def read_only_cgroups() -> None:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in points:
        if point.startswith("/sys/fs/cgroup") and Path(point, "cgroup.procs").exists():
            bind_read_only(point)


def privileges() -> None:
    check(libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def capability(number: str) -> None:
    check(libc.prctl(CAPBSET_DROP, int(number), 0, 0, 0), "capability")


def subordinate_ids(*ranges: str) -> None:
    for name in ("subuid", "subgid"):
        (OWN / name).write_text("".join(f"{USER}:{text.replace('+', ':')}\n" for text in ranges))


def set_uid_tools() -> None:
    (OWN / "newuidmap").chmod(0o755)


def tools() -> None:
    os.environ["PATH"] = "/nowhere"


def plain_file_system() -> None:
    """An overlay goes on one other, not on two."""
    (OWN / "empty").mkdir()
    for _ in range(2):
        mount("overlay", "/usr", "overlay", 0, f"lowerdir=/usr:{OWN}/empty")


def bare_usr() -> None:
    mount("/dev/null", "/usr/bin/true", "", BIND)


def root_directory() -> None:
    (OWN / "root").mkdir()
    mount("/", f"{OWN}/root", "", BIND | REC)
    os.chroot(OWN / "root")


def libraries(pattern: str) -> None:
    for path in Path("/usr/lib").rglob(pattern):
        mount("/dev/null", str(path.resolve()), "", BIND)


def processes(most: str) -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (int(most), int(most)))


def file_size(most: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))


def open_files(most: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(most), int(most)))


def outside(program: str, resolv: str) -> None:
    """In a network that tests/network/outside.py makes."""
    runpy.run_path(program)["begin"](resolv)


def small_disk(path: str, size: str) -> None:
    mount("tmpfs", path, "tmpfs", 0, f"size={size},mode=0777")


def engine(name: str) -> None:
    """What engines leave behind for who wants to know; and a /proc that needs a cure."""
    masked_proc()
    if name == "podman":
        mount("tmpfs", "/run", "tmpfs", 0)
        Path("/run/.containerenv").touch()
    elif name == "docker":
        place = OWN / "containers" / ("0123456789abcdef" * 4)
        place.mkdir(parents=True)
        shutil.copy("/etc/hosts", place / "hosts")
        mount(f"{place}/hosts", "/etc/hosts", "", BIND)
    elif name == "kubernetes":
        (OWN / "hosts").write_text("# Kubernetes-managed hosts file.\n127.0.0.1 localhost\n")
        mount(f"{OWN}/hosts", "/etc/hosts", "", BIND)


def map_ids(process: int, uid: int, gid: int) -> None:
    for tool, own, path in (("newuidmap", uid, "/etc/subuid"), ("newgidmap", gid, "/etc/subgid")):
        first, count = delegated_range(Path(path).read_text(), USER, uid)
        rest = min(count - 1, DELEGATED[1])
        numbers = (0, first, 1, own, own, 1, DELEGATED[0], first + 1, rest)
        subprocess.run([tool, str(process), *map(str, numbers)], check=True)


def in_child(do: Callable[[], int | None]) -> Callable[[], int]:
    """Start it; what is returned waits for it and answers its exit status."""
    child = os.fork()
    if not child:
        status = 99
        try:
            status = do() or 0
        except BaseException as error:
            sys.stderr.write(f"container: {error!r}\n")
        os._exit(status)
    return lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def enter_user_namespace(uid: int, gid: int) -> None:
    """With this user's ids and those delegated to it, as its root."""
    process = os.getpid()
    made, tell = os.pipe()
    mapped = in_child(lambda: (os.read(made, 1), map_ids(process, uid, gid))[1])
    check(libc.unshare(NEWUSER), "user namespace")
    os.write(tell, b"n")
    if mapped():
        raise SystemExit("container: the ids cannot be mapped")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def furnish() -> None:
    check(libc.prctl(SET_PDEATHSIG, SIGKILL), "parent")
    mount("", "/", "", REC | PRIVATE)
    mount("tmpfs", str(OWN), "tmpfs", 0, "mode=0755")
    for name in ("newuidmap", "newgidmap"):
        shutil.copy(shutil.which(name), OWN / name)
        (OWN / name).chmod(0o4755)
    subordinate_ids(f"{DELEGATED[0]}+{DELEGATED[1] - 1}")
    for name in ("subuid", "subgid"):
        mount(f"{OWN}/{name}", f"/etc/{name}", "", BIND)
    os.environ["PATH"] = f"{OWN}:{os.environ['PATH']}"
    mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC)


def main(lack: str, *command: str) -> None:
    # Files are a container's, whatever a unit says of ours.
    os.umask(0o022)
    uid, gid = os.getuid(), os.getgid()
    enter_user_namespace(uid, gid)
    check(libc.unshare(NEWNS | NEWPID), "namespaces")

    def inside() -> None:
        furnish()
        name, *arguments = lack.split(":")
        globals()[name](*arguments)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        os.execvp(command[0], command)

    raise SystemExit(in_child(inside)() & 0xFF)


if __name__ == "__main__":
    main(*sys.argv[1:])
