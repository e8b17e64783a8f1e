"""What this host has, found out once: `describe_host()` is the only place that looks.

What the engine insists on is asked of the very functions that insist (cgroup.find, OuterNamespace,
rlimits.check_host, weaknesses), so that doctor cannot promise what the engine then refuses.
"""

import ctypes
import errno
import json
import os
import pwd
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from jail import cgroup, host, image, namespace, policy, rlimits
from jail.doctor.place import Place, find_place
from jail.doctor.trial import Trial
from jail.engine import weaknesses
from jail.errors import HostError
from jail.network.offered import bounds, check_networks
from jail.policy.numbers import number
from jail.sandbox import most_at_once
from jail.settings import Settings

_PROBE_SECONDS = 30
_LIMITS = {"NOFILE": resource.RLIMIT_NOFILE, "STACK": resource.RLIMIT_STACK, "CORE": resource.RLIMIT_CORE}

_KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")

# What sandboxes are made by and a container's or a unit's filter may refuse.
_CALLS = (
    "capset clone3 close_range eventfd2 keyctl landlock_add_rule landlock_create_ruleset "
    "landlock_restrict_self memfd_create mknodat mount mount_setattr openat2 pidfd_open pidfd_send_signal "
    "pivot_root prlimit64 seccomp sethostname setns setresgid setresuid signalfd4 socket timerfd_create "
    "umount2 unshare"
)

# No answers of the kernel's to who asks for nothing: see probe.py.
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EAFNOSUPPORT)

# capabilities(7): without these no map of a range is written.
_MAPPING = {"CAP_DAC_OVERRIDE": 1, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_ADMIN": 21}

# Mounted on directories that the kernel keeps empty for them, so that they hide nothing.
_HARMLESS = {"/proc/fs/nfsd", "/proc/sys/fs/binfmt_misc"}

ALL_IDS = (0, (1 << 32) - 1)
"""The ids of a user namespace in which none is missing: first and count."""


class Gap(msgspec.Struct, frozen=True):
    """Something that is not as it should be: a sentence of cause and one of cure."""

    cause: str
    cure: str


class Tool(msgspec.Struct, frozen=True):
    """A program that maps ids. `privileged`: it is set-uid root or has file capabilities."""

    path: str
    privileged: bool
    set_uid: bool = True


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the checks look at. None means: the host has no such thing, or it was not tried.

    place: where we run, which decides what a cure is called.
    unprivileged_userns_clone, apparmor_restricts: the sysctls of those names. label: what AppArmor or SELinux
    confine this process by, empty for nothing.
    namespace_maxima: user.max_*_namespaces by kind, in the user namespace that we are in.
    filtered: this process is under a seccomp filter, as in a container. no_new_privs: set-uid programs
    gain nothing here. not_bounding: of the capabilities that map ids, those that nothing we start can have.
    user_namespace_error: errno of making one, negative for the signal that ended the attempt.
    probes: errno by name, from `probe`. refused: the same of system calls that a filter refuses.
    proc_covered: what is mounted on parts of /proc. proc_lacks: files without which it shows processes
    alone. usr_gap: why no overlay goes on /usr.
    mapped_ids: first id and count of each range that this user namespace has.
    subuids, subgids: first id and length. tools: newuidmap and newgidmap. ids: why mapping them failed.
    user_manager: whether this user has a systemd session manager; None without systemd.
    cgroup_version: "v1" or "v2". cgroup_gap: why none can be made. cgroup_uncounted: what results lack.
    controllers: those at the root of the v2 tree that we see.
    weaknesses: by names of settings.DEGRADABLE. accepted: those that the operator accepts.
    rlimits: hard limits by name, -1 for none. policies: instructions by name.
    process_bounds: how many processes there can be, by what says so. process_error: errno of starting one.
    memory_bytes, allowed_bytes: what jobs may have by the settings, and what this process may by its cgroups.
    inotify: instances and watches for all sandboxes together.
    networks: whether jobs are to have some: "off", "offered" if there can be any, or "wanted". networks_gap:
    what they lack. egress: whether jobs are to have a way out. egress_gap: what it lacks.
    slots, sandboxes, pids: of the settings: jobs at once, sandboxes at once, processes of a job by default.
    state: the directory for what lives as long as the service.
    vulnerable: hardware vulnerabilities that the kernel does not mitigate. smt: two threads on a core.
    """

    user: str
    kernel: str
    place: Place = "host"
    unprivileged_userns_clone: bool | None = None
    apparmor_restricts: bool = False
    label: str = ""
    namespace_maxima: Mapping[str, int] = {}
    filtered: bool = False
    no_new_privs: bool = False
    not_bounding: tuple[str, ...] = ()
    user_namespace_error: int = 0
    probes: Mapping[str, int] = {}
    refused: Mapping[str, int] = {}
    proc_covered: tuple[str, ...] = ()
    proc_lacks: tuple[str, ...] = ()
    usr_gap: Gap | None = None
    mapped_ids: tuple[tuple[int, int], ...] = (ALL_IDS,)
    subuids: tuple[int, int] | None = None
    subgids: tuple[int, int] | None = None
    tools: Mapping[str, Tool | None] = {}
    ids: Gap | None = None
    user_manager: bool | None = None
    cgroup_version: str | None = None
    cgroup_gap: Gap | None = None
    cgroup_uncounted: tuple[str, ...] = ()
    controllers: tuple[str, ...] | None = None
    swap_bytes: int = 0
    weaknesses: Mapping[str, Gap] = {}
    accepted: tuple[str, ...] = ()
    seccomp_actions: tuple[str, ...] = ()
    landlock_abi: int = 0
    rlimits: Mapping[str, int] = {}
    rlimits_gap: Gap | None = None
    process_bounds: Mapping[str, int] = {}
    process_error: int = 0
    memory_bytes: int = 0
    allowed_bytes: int = 0
    inotify: tuple[int, int] = (0, 0)
    libseccomp: str | None = None
    policies: Mapping[str, int] = {}
    policy_gap: Gap | None = None
    networks: Literal["off", "offered", "wanted"] = "offered"
    networks_gap: Gap | None = None
    egress: bool = False
    egress_gap: Gap | None = None
    slots: int = 0
    sandboxes: int = 0
    pids: int = 0
    state: str = ""
    vulnerable: tuple[str, ...] = ()
    smt: bool = False
    trial: Trial = Trial()


def describe_host(settings: Settings, trial: Trial) -> Host:
    """Look at everything, as the user that would run the service; `trial` goes in as it is."""
    mine = _status()
    return Host(
        user=_user(),
        kernel=os.uname().release,
        place=find_place(_text("/proc/self/mountinfo"), _text("/proc/self/cgroup")),
        unprivileged_userns_clone=_switch("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts=bool(_switch("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")),
        label=_label(),
        namespace_maxima=_namespace_maxima(),
        filtered=mine.get("Seccomp") == "2",
        no_new_privs=mine.get("NoNewPrivs") == "1",
        not_bounding=_not_bounding(mine.get("CapBnd", "")),
        proc_covered=_proc_covered(),
        proc_lacks=tuple(path for path in ("/proc/meminfo", "/proc/sys") if not os.path.exists(path)),
        usr_gap=_gap(lambda: image.refuse_mounts([Path("/usr")])),
        mapped_ids=_mapped_ids(),
        user_manager=has_session_manager(),
        accepted=settings.allow_degraded,
        seccomp_actions=tuple(_text("/proc/sys/kernel/seccomp/actions_avail").split()),
        landlock_abi=host.landlock_abi(),
        rlimits={name: resource.getrlimit(limit)[1] for name, limit in _LIMITS.items()},
        rlimits_gap=_gap(lambda: _check_rlimits(settings)),
        process_bounds=_process_bounds(),
        memory_bytes=settings.memory_bytes,
        allowed_bytes=host.memory_bytes(),
        inotify=(namespace.half_of("instances"), namespace.half_of("watches")),
        networks=_networks(settings),
        networks_gap=_gap(check_networks),
        egress=bool(settings.egress),
        egress_gap=_gap(lambda: bounds(settings)),
        slots=settings.slots,
        sandboxes=most_at_once(settings.slots, settings.ready_max),
        pids=settings.defaults.pids,
        state=settings.state,
        smt=bool(_switch("/sys/devices/system/cpu/smt/active")),
        vulnerable=_vulnerable(),
        trial=trial,
        **_describe_weaknesses(),
        **_describe_what_starts(),
        **_describe_cgroup(),
        **_describe_policies(settings.policies),
    )


def _networks(settings: Settings) -> Literal["off", "offered", "wanted"]:
    if not settings.networks:
        return "offered"
    return "wanted" if "isolated" in settings.networks else "off"


def _describe_weaknesses() -> dict[str, object]:
    found = {name: Gap(gap.cause, gap.cure) for name, gap in weaknesses().items()}
    return {"weaknesses": found, "swap_bytes": host.swap_bytes()}


def _describe_what_starts() -> dict[str, object]:
    """What can only be found out by starting processes."""
    try:
        return {**_describe_namespaces(), **_describe_ids()}
    except BlockingIOError as error:
        return {"process_error": error.errno}


def _label() -> str:
    """proc_pid_attr(5): of AppArmor its own file first, since others may come to share the common one."""
    found = _text("/proc/self/attr/apparmor/current") or _text("/proc/self/attr/current")
    found = found.strip("\0\n ")
    return "" if found.startswith("unconfined") or ":unconfined_" in found else found


def _namespace_maxima() -> dict[str, int]:
    found = {kind: _number(f"/proc/sys/user/max_{kind}_namespaces") for kind in _KINDS}
    return {kind: most for kind, most in found.items() if most is not None}


def _not_bounding(mask: str) -> tuple[str, ...]:
    has = int(mask or "-1", 16)
    return tuple(name for name, bit in _MAPPING.items() if not has >> bit & 1)


def _mapped_ids() -> tuple[tuple[int, int], ...]:
    """user_namespaces(7), "User and group ID mappings"."""
    lines = (line.split() for line in _text("/proc/self/uid_map").splitlines())
    return tuple((int(first), int(count)) for first, _, count in lines)


def _process_bounds() -> dict[str, int]:
    """RLIMIT_NPROC counts for everything in the user namespaces that this process makes, too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    own = None if soft == resource.RLIM_INFINITY else soft
    bounds = {"RLIMIT_NPROC": own, "pids.max": host.processes()}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _check_rlimits(settings: Settings) -> None:
    rlimits.check_host(settings.ceilings)
    rlimits.raise_open_files(settings.slots, settings.ready_max)


def _gap(check: Callable[[], object]) -> Gap | None:
    try:
        check()
    except HostError as error:
        return Gap(error.cause, error.cure)
    except FileNotFoundError as error:
        return Gap(f"{error.filename} is not there.", "See what is said of proc.")
    return None


def _text(path: str | Path) -> str:
    """The text of a file, empty if the kernel was built without it or hides it."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text else None


def _switch(path: str) -> bool | None:
    text = _text(path)
    return text != "0" if text else None


def _status() -> dict[str, str]:
    """proc_pid_status(5)."""
    pairs = (line.partition(":") for line in _text("/proc/self/status").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _proc_covered() -> tuple[str, ...]:
    try:
        return tuple(sorted(set(host.mounts_beneath("/proc")) - _HARMLESS))
    except OSError:
        return ()


def has_session_manager() -> bool | None:
    """Whether systemd runs a manager for this user, which could delegate a scope; None without systemd."""
    if not Path("/run/systemd/system").exists():
        return None
    # Not Path's, which raises where ProtectHome= has closed the way.
    return os.path.exists(f"/run/user/{os.getuid()}/systemd/private")


def _vulnerable() -> tuple[str, ...]:
    """Documentation/ABI/testing/sysfs-devices-system-cpu, "vulnerabilities"."""
    folder = Path("/sys/devices/system/cpu/vulnerabilities")
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return tuple(file.name for file in files if _text(file).startswith("Vulnerable"))


def _describe_namespaces() -> dict[str, object]:
    """Make a user namespace as the service does, by the same program, and see what can be done inside."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(namespace.holder_command(), **pipes) as holder:
        if not holder.stdout.read(1):
            return {"user_namespace_error": holder.wait()}
        found = _probe(holder.pid)
        return {"refused": _refused(found.pop("calls", {})), "probes": found}


def _refused(answers: Mapping[str, int]) -> dict[str, int]:
    """Those that a filter refuses: without one, it is somebody else who does."""
    if _status().get("Seccomp") != "2":
        return {}
    # A kernel without keys has none to leak, and one without Landlock is told of elsewhere.
    optional = ("keyctl",) if host.landlock_abi() else ("keyctl", "landlock")
    return {
        name: error
        for name, error in answers.items()
        if error < 0 or (error in _REFUSALS and not (error == errno.ENOSYS and name.startswith(optional)))
    }


def _probe(process: int) -> dict[str, Any]:
    try:
        # One's own id may be mapped without any privilege (user_namespaces(7)), so this needs no range.
        _write(f"/proc/{process}/uid_map", f"0 {os.getuid()} 1")
        _write(f"/proc/{process}/setgroups", "deny")
        _write(f"/proc/{process}/gid_map", f"0 {os.getgid()} 1")
        descriptor = os.open(f"/proc/{process}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return {"enter": error.errno}
    program = str(Path(__file__).with_name("probe.py"))
    try:
        done = subprocess.run(
            [sys.executable, "-I", program, str(descriptor), json.dumps(_numbers())],
            pass_fds=(descriptor,),
            stdout=subprocess.PIPE,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    finally:
        os.close(descriptor)
    # Killed half-way, by a seccomp filter for one: the signal, as a negative number.
    return json.loads(done.stdout) if done.returncode == 0 else {"enter": done.returncode}


def _numbers() -> dict[str, int]:
    """None without libseccomp, which is missed elsewhere."""
    try:
        found = {name: number(name) for name in _CALLS.split()}
    except HostError:
        return {}
    return {name: value for name, value in found.items() if value is not None}


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


def _describe_ids() -> dict[str, object]:
    user, uid = _user(), os.getuid()
    return {
        "subuids": namespace.delegated_range(_text("/etc/subuid"), user, uid),
        "subgids": namespace.delegated_range(_text("/etc/subgid"), user, uid),
        "tools": {name: _tool(name) for name in ("newuidmap", "newgidmap")},
        "ids": _gap(lambda: namespace.OuterNamespace().close()),
    }


def _tool(name: str) -> Tool | None:
    path = shutil.which(name)
    if path is None:
        return None
    about = os.stat(path)
    is_setuid = about.st_uid == 0 and bool(about.st_mode & stat.S_ISUID)
    return Tool(path, is_setuid or "security.capability" in os.listxattr(path), is_setuid)


def _describe_cgroup() -> dict[str, object]:
    root = Path("/sys/fs/cgroup/cgroup.controllers")
    offered = tuple(root.read_text().split()) if root.exists() else None
    try:
        hierarchy = cgroup.find()
    except HostError as error:
        return {"cgroup_gap": Gap(error.cause, error.cure), "controllers": offered}
    except OSError as error:
        cause = f"The cgroups cannot be arranged: {error.strerror}: {error.filename}."
        cure = "Start it in a cgroup of its own that is delegated to it."
        return {"cgroup_gap": Gap(cause, cure), "controllers": offered}
    version, uncounted = hierarchy.version, hierarchy.missing
    return {"cgroup_version": version, "cgroup_uncounted": uncounted, "controllers": offered}


def _describe_policies(directory: str) -> dict[str, object]:
    place = Path(directory) if directory else policy.shipped_directory()
    lengths = {}
    gap = None
    try:
        for name in policy.names(place):
            lengths[name] = len(policy.compile_policy(policy.load(name, place))) // 8
    except policy.PolicyError as error:
        gap = Gap(f"{error}.", "Mend that policy, or leave `policies` unset.")
    except HostError as error:
        gap = Gap(error.cause, error.cure)
    except OSError as error:
        cause = f"libseccomp can make no filter here: {error.strerror}."
        gap = Gap(cause, "See what is said of system calls and of hard rlimits: it is kept from one of them.")
    return {"libseccomp": _libseccomp_version(), "policies": lengths, "policy_gap": gap}


def _libseccomp_version() -> str | None:
    """seccomp_version(3), which neither binding offers."""

    class Version(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint) for name in ("major", "minor", "micro")]

    try:
        ask = ctypes.CDLL("libseccomp.so.2").seccomp_version
    except (OSError, AttributeError):
        return None
    ask.restype = ctypes.POINTER(Version)
    found = ask().contents
    return f"{found.major}.{found.minor}.{found.micro}"
