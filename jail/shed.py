"""What the service gives up for good once everything is open, before it answers the first request.

It faces the network and needs little: `shed()` leaves it no way to start a program, to trace, mount,
connect or make a namespace, and no file but those it works with; other processes of its user cannot look
into it. None of this can be undone. What it starts would inherit all of it, so the keeper, which starts
supervisors, is there before (native/keeper.c).

Nothing here fails open: what cannot be done raises HostError, and the service does not start. The five
calls are made with ctypes, by jail.libc: they take integers and packed bytes, so a C module of our own in the
service's address space would add a build step and nothing else.
"""

import ctypes
import os
import struct
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import jail
from jail import host, libc, policy
from jail.cgroup import Hierarchy
from jail.errors import HostError
from jail.policy.numbers import number

POLICY = "service"
"""The filter's name, and that of its directory: there policy.names() does not list it, so no job has it."""

RESOLVER = "resolver"
"""The name of the filter beside it, of processes that ask for the addresses of a name."""

IMAGES, PULL = "images", "pull"
"""The names of the filters of the program that administers images, without the network and with it."""

UNPACKER = "unpacker"
"""The name of the filter of processes that read archives."""

T = TypeVar("T")

_KEPT = ("PATH",)

_THREADS_SECONDS = 5
_DEFECT = "This is a defect: please report it."

# <linux/prctl.h>, <linux/seccomp.h>
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1

# <linux/landlock.h>; the numbers of the calls are the same on every architecture.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READ = _READ_FILE | _READ_DIR
_MADE = _MAKE_DIR | _MAKE_REG | _MAKE_SYM
_KEEP = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MADE

# How many rights on files each ABI knows, from the first on: 13, and REFER, TRUNCATE and IOCTL_DEV.
_FILE_RIGHTS = (13, 14, 15, 15, 16)
_BIND_TCP, _CONNECT_TCP = 1, 2  # from ABI 4
_SCOPE_ABSTRACT_UNIX_SOCKET = 1  # from ABI 6

_DNS_PORTS = (53,)
_RESOLVING = ("/etc", "/usr", "/lib", "/lib64", "/run", "/var/lib")
"""What is read to find addresses: files, modules, sockets of caches; and certificates of the host."""

_ABI_OF_RENAMES = 2


def forget_environment() -> None:
    """Empty this process's environment, and what /proc/PID/environ shows of it; PATH stays.

    To be called once the settings are read.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    os.environ.clear()
    # proc_pid_stat(5): env_start and env_end are fields 50 and 51; the third comes after the brackets.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    ctypes.memset(start, 0, end - start)
    os.environ |= kept


def made_under_filter(make: Callable[[], T]) -> T:
    """What `make` returns, called in a thread of its own under the filter that shed() will load.

    For the event loop: libuv makes itself an io_uring, whose operations pass by every filter, and
    aborts if it is refused later. If it can make none it does without.
    """
    program = _program(POLICY)

    def under_filter() -> T:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _load_filter(program, 0)
        return make()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(under_filter).result()


def shed(
    state: Path,
    hierarchy: Hierarchy,
    landlock: bool = True,
    readable: Iterable[Path] = (),
    files: Iterable[Path] = (),
) -> None:
    """Give up what this process does not need, in every thread. Raises HostError, PolicyError.

    `state`, `files` and the claimed cgroups stay its own, and what is beneath `readable` can be read.
    `landlock` is False only where the operator has accepted that the host has none. To be called by the one
    thread there is: Landlock reaches no other.
    """
    # What is stored is linked to where jobs have it.
    others = [(path, _READ) for path in readable] + [(path, _KEEP | _REFER) for path in files]
    _shed([*_code_rules(), *others, *_rules(state, hierarchy)] if landlock else None)


def shed_files(landlock: bool = True) -> None:
    """The same for the parent of workers, which works with no file at all."""
    _shed(_code_rules() if landlock else None)


def shed_for_resolver(landlock: bool = True) -> None:
    """The same for a process that asks for one name: it reads, and talks to resolvers, TCP on their port.

    To be called in a child without capabilities, after `prepare(RESOLVER)`.
    """
    _shed(_resolving_rules() if landlock else None, RESOLVER, _DNS_PORTS)


def shed_for_images(store: Path, pulls: bool, landlock: bool = True) -> None:
    """The same for the program of images: it keeps `store`, and if it pulls calls registries, on any port.

    Raises HostError, PolicyError.
    """
    if landlock and 0 < host.landlock_abi() < _ABI_OF_RENAMES:
        raise HostError(
            "This kernel's Landlock lets nobody rename files from one directory to another.",
            "Boot Linux 5.19 or later, or use `jail image` on this host.",
        )
    rules = [(store, _KEEP | _REFER), *_code_rules(), *(_resolving_rules() if pulls else ())]
    _shed(rules if landlock else None, PULL if pulls else IMAGES, None if pulls else ())


def shed_for_unpacker() -> None:
    """Give up the calls that whoever reads an archive needs not; what files there are its root decides.

    To be called in a child without threads, after `prepare(UNPACKER)`.
    """
    program = _program(UNPACKER)
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _load_filter(program, 0)


def prepare(name: str) -> None:
    """Compile that filter, so that no child has to."""
    _program(name)


def _resolving_rules() -> Iterator[tuple[Path, int]]:
    return ((Path(path), _READ) for path in _RESOLVING)


def _shed(
    rules: Iterable[tuple[Path, int]] | None, name: str = POLICY, ports: Iterable[int] | None = ()
) -> None:
    program = _program(name)
    # A thread that ends by pthread_exit(3) opens it by name.
    with suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1")
    _wait_until_alone()
    _prctl(_PR_SET_DUMPABLE, 0)
    # Landlock and seccomp ask for it from whoever has no capability.
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if rules is not None:
        _restrict_files(host.landlock_abi(), rules, ports)
    # Last, so that it need not allow the above.
    _load_filter(program, _SECCOMP_FILTER_FLAG_TSYNC)


@cache
def _program(name: str) -> bytes:
    directory = policy.shipped_directory() / POLICY
    return policy.compile_policy(policy.load(name, directory), required={})


def _wait_until_alone() -> None:
    """A thread that was joined may still be on its way out."""
    deadline = time.monotonic() + _THREADS_SECONDS
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > deadline:
            raise HostError("The service has threads before it serves.", _DEFECT)
        os.sched_yield()


def _code_rules() -> Iterator[tuple[Path, int]]:
    """Modules that are imported late, and the lines that a traceback shows."""
    return ((path, _READ) for path in _code())


def _rules(state: Path, hierarchy: Hierarchy) -> Iterator[tuple[Path, int]]:
    """What it goes on opening besides, found by looking at what it does, and the rights beneath each."""
    # Metrics of this process. Not /proc/self, whose inode the kernel may forget, and the rule with it.
    # Memory, descriptors and environments of others are denied to whoever is under Landlock.
    yield Path("/proc"), _READ
    # libuv holds it open, to let go of where there is no room for one more connection.
    yield Path(os.devnull), _READ_FILE
    # os.cpu_count()
    yield Path("/sys/devices/system/cpu"), _READ
    yield state, _KEEP
    for path in hierarchy.bases:
        yield path, _READ_DIR | _REMOVE_DIR
    for path in hierarchy.claimed:
        yield path, _READ | _WRITE_FILE | _MAKE_DIR | _REMOVE_DIR


def _code() -> set[Path]:
    """The directories of Python's own modules, of packages and of this one."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {path for path in sys.path if path.endswith("-packages")}
    return {path for path in (*map(Path, paths), Path(jail.__file__).parent) if path.is_dir()}


def _restrict_files(abi: int, rules: Iterable[tuple[Path, int]], ports: Iterable[int] | None = ()) -> None:
    """landlock(7): everything that this ABI knows is denied, but for `rules` and connecting to `ports`.

    None: to any.
    """
    if not abi:
        raise HostError("The kernel has no Landlock.", 'To do without: allow_degraded = ["landlock"].')
    handled = (1 << _FILE_RIGHTS[min(abi, len(_FILE_RIGHTS)) - 1]) - 1
    # Not LANDLOCK_SCOPE_SIGNAL: it would keep our death, a signal to the keeper, from being told.
    network = _BIND_TCP | (_CONNECT_TCP if ports is not None else 0)
    attributes = struct.pack("=QQQ", handled, network, _SCOPE_ABSTRACT_UNIX_SOCKET)
    # A kernel refuses what is longer than it knows.
    attributes = attributes[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _call(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path, rights in rules:
            _allow_beneath(ruleset, path, rights & handled)
        for port in (ports or ()) if abi >= 4 else ():
            # struct landlock_net_port_attr
            _call(_LANDLOCK_ADD_RULE, ruleset, _RULE_NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
        _call(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_beneath(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        # What is not there needs no rule: containers hide parts of /sys.
        return
    except OSError as error:
        raise HostError(f"{path} cannot be opened: {error.strerror}.", "Let this user reach it.") from None
    try:
        # struct landlock_path_beneath_attr is packed.
        rule = struct.pack("=Qi", rights, descriptor)
        _call(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _load_filter(program: bytes, flags: int) -> None:
    """seccomp(2), in this thread and those that it makes later; with TSYNC in every thread there is."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions of 8 bytes, and where.
    filters = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    thread = _call(number("seccomp"), _SECCOMP_SET_MODE_FILTER, flags, filters)
    if thread:
        raise HostError(f"Thread {thread} cannot take the filter.", _DEFECT)


def _prctl(option: int, value: int) -> None:
    _call(number("prctl"), option, value, 0, 0, 0)


def _call(call: int, *arguments: int | bytes) -> int:
    """A system call by its number. Raises HostError."""
    try:
        return libc.syscall(call, *arguments)
    except OSError as error:
        raise HostError(
            f"The service cannot shed what it does not need: system call {call}: {error.strerror}.",
            "In a container, let its seccomp profile allow seccomp, prctl and the landlock calls.",
        ) from None
