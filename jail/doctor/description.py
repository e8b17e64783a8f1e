"""What this host has, found out once: `describe_host()` is the only place that looks.

What the engine insists on is asked of the very functions that insist (cgroup.find, OuterNamespace,
rlimits.check_host, weaknesses), so that doctor cannot promise what the engine then refuses.
"""

import ctypes
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

import msgspec

from jail import cgroup, host, namespace, policy, rlimits
from jail.doctor.trial import Trial
from jail.engine import weaknesses
from jail.errors import HostError
from jail.settings import Settings

_PROBE_SECONDS = 30
_LIMITS = {"NOFILE": resource.RLIMIT_NOFILE, "STACK": resource.RLIMIT_STACK, "CORE": resource.RLIMIT_CORE}


class Gap(msgspec.Struct, frozen=True):
    """Something that is not as it should be: a sentence of cause and one of cure."""

    cause: str
    cure: str


class Tool(msgspec.Struct, frozen=True):
    """A program that maps ids. `privileged`: it is set-uid root or has file capabilities."""

    path: str
    privileged: bool


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the checks look at. None means: the host has no such thing, or it was not tried.

    max_user_namespaces, unprivileged_userns_clone, apparmor_restricts: the sysctls of those names.
    filtered: this process is under a seccomp filter, as in a container. no_new_privs: set-uid programs
    gain nothing here.
    user_namespace_error: errno of making one, negative for the signal that ended the attempt.
    probes: errno by name, from `probe`. proc_covered: what is mounted on parts of /proc.
    subuids, subgids: first id and length. tools: newuidmap and newgidmap. ids: why mapping them failed.
    user_manager: whether this user has a systemd session manager; None without systemd.
    cgroup_version: "v1" or "v2". cgroup_gap: why none can be made. cgroup_uncounted: what results lack.
    weaknesses: by names of settings.DEGRADABLE. accepted: those that the operator accepts.
    rlimits: hard limits by name, -1 for none. policies: instructions by name.
    state: the directory for what lives as long as the service.
    vulnerable: hardware vulnerabilities that the kernel does not mitigate. smt: two threads on a core.
    """

    user: str
    kernel: str
    max_user_namespaces: int | None = None
    unprivileged_userns_clone: bool | None = None
    apparmor_restricts: bool = False
    filtered: bool = False
    no_new_privs: bool = False
    user_namespace_error: int = 0
    probes: Mapping[str, int] = {}
    proc_covered: tuple[str, ...] = ()
    subuids: tuple[int, int] | None = None
    subgids: tuple[int, int] | None = None
    tools: Mapping[str, Tool | None] = {}
    ids: Gap | None = None
    user_manager: bool | None = None
    cgroup_version: str | None = None
    cgroup_gap: Gap | None = None
    cgroup_uncounted: tuple[str, ...] = ()
    swap_bytes: int = 0
    weaknesses: Mapping[str, Gap] = {}
    accepted: tuple[str, ...] = ()
    seccomp_actions: tuple[str, ...] = ()
    landlock_abi: int = 0
    rlimits: Mapping[str, int] = {}
    rlimits_gap: Gap | None = None
    libseccomp: str | None = None
    policies: Mapping[str, int] = {}
    policy_gap: Gap | None = None
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
        max_user_namespaces=_number("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone=_switch("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts=bool(_switch("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")),
        filtered=mine.get("Seccomp") == "2",
        no_new_privs=mine.get("NoNewPrivs") == "1",
        proc_covered=_covered("/proc"),
        user_manager=has_session_manager(),
        swap_bytes=host.swap_bytes(),
        weaknesses={name: Gap(gap.cause, gap.cure) for name, gap in weaknesses().items()},
        accepted=settings.allow_degraded,
        seccomp_actions=tuple(_text("/proc/sys/kernel/seccomp/actions_avail").split()),
        landlock_abi=host.landlock_abi(),
        rlimits={name: resource.getrlimit(number)[1] for name, number in _LIMITS.items()},
        rlimits_gap=_gap(lambda: rlimits.check_host(settings.ceilings)),
        state=settings.state,
        smt=bool(_switch("/sys/devices/system/cpu/smt/active")),
        vulnerable=_vulnerable(),
        trial=trial,
        **_describe_namespaces(),
        **_describe_ids(),
        **_describe_cgroup(),
        **_describe_policies(settings.policies),
    )


def _gap(check: Callable[[], object]) -> Gap | None:
    try:
        check()
    except HostError as error:
        return Gap(error.cause, error.cure)
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


def _covered(place: str) -> tuple[str, ...]:
    """Mount points beneath `place`, from proc_pid_mountinfo(5)."""
    points = (line.split()[4] for line in _text("/proc/self/mountinfo").splitlines())
    return tuple(sorted({point for point in points if point.startswith(f"{place}/")}))


def has_session_manager() -> bool | None:
    """Whether systemd runs a manager for this user, which could delegate a scope; None without systemd."""
    if not Path("/run/systemd/system").exists():
        return None
    return Path(f"/run/user/{os.getuid()}/systemd/private").exists()


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
        return {"probes": _probe(holder.pid)}


def _probe(process: int) -> dict[str, int]:
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
            [sys.executable, "-I", program, str(descriptor)],
            pass_fds=(descriptor,),
            stdout=subprocess.PIPE,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    finally:
        os.close(descriptor)
    # Killed half-way, by a seccomp filter for one: the signal, as a negative number.
    return json.loads(done.stdout) if done.returncode == 0 else {"enter": done.returncode}


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
    return Tool(path, is_setuid or "security.capability" in os.listxattr(path))


def _describe_cgroup() -> dict[str, object]:
    try:
        hierarchy = cgroup.find()
    except HostError as error:
        return {"cgroup_gap": Gap(error.cause, error.cure)}
    except OSError as error:
        cause = f"The cgroups cannot be arranged: {error.strerror}: {error.filename}."
        return {"cgroup_gap": Gap(cause, "Start it in a cgroup of its own that is delegated to it.")}
    return {"cgroup_version": hierarchy.version, "cgroup_uncounted": hierarchy.missing}


def _describe_policies(directory: str) -> dict[str, object]:
    place = Path(directory) if directory else policy.shipped_directory()
    lengths = {}
    gap = None
    try:
        for name in policy.names(place):
            lengths[name] = len(policy.compile_policy(policy.load(name, place))) // 8
    except policy.PolicyError as error:
        gap = Gap(f"{error}.", "Mend that policy, or leave `policies` unset.")
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
