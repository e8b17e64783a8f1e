"""From the place where a sandbox's set-up failed to the host's part in it.

The stages are those of native/message.h, in the order of set-up there.
"""

import errno
import os
from collections.abc import Callable

from jail.doctor.description import Host

_CONTAINER = "(Docker and Podman: --security-opt seccomp=FILE with clone3, unshare, setns, mount, pivot_root)"

Explanation = tuple[str, str]


def explain(stage: str, error: int, host: Host) -> Explanation:
    """A sentence of cause and one of cure for a failure in `stage` with that errno value."""
    name = errno.errorcode.get(error, str(error))
    if stage in _EXPLAIN:
        return _EXPLAIN[stage](name, host)
    return (
        f"Set-up failed at stage {stage}: {name}, {os.strerror(error)}.",
        "Nothing about this host is known to cause that: please report it, with `jail doctor --json`.",
    )


def _clone(name: str, host: Host) -> Explanation:
    if name == "ENOSYS":
        return (
            "clone3 is hidden from us, as old container profiles for seccomp do.",
            f"Update the container engine, or give it a profile that allows clone3 {_CONTAINER}.",
        )
    if name == "ENOSPC":
        return (
            "A limit on namespaces is reached: user.max_*_namespaces, or 32 levels of nesting.",
            "As root: raise user.max_user_namespaces and its like (on the host, if this is a container).",
        )
    if name in ("EBUSY", "EOPNOTSUPP", "EACCES") and host.cgroup_version == "v2":
        return (
            f"A sandbox cannot be born in its cgroup: {name}.",
            "Start it in a unit of its own with Delegate=yes, and keep other processes out of it.",
        )
    if name == "EAGAIN":
        return (
            "The limit on processes is reached (RLIMIT_NPROC, or pids.max of a cgroup above).",
            "Raise it: TasksMax= in the unit, or ulimit -u.",
        )
    return (
        f"A sandbox's namespaces cannot be made: {name}.",
        f"Let ordinary users make user namespaces, and a container's seccomp profile allow it {_CONTAINER}.",
    )


def _cgroup(name: str, host: Host) -> Explanation:
    return (
        f"A sandbox cannot move into its cgroup: {name}.",
        "The delegated cgroups, their cgroup.procs and tasks have to belong to this user: start it as root "
        "with --user NAME, which sees to it.",
    )


def _root(name: str, host: Host) -> Explanation:
    if name == "ENODEV":
        return "The kernel has no overlay file system.", "As root: modprobe overlay (CONFIG_OVERLAY_FS)."
    if name in ("EPERM", "EACCES"):
        return (
            f"overlay cannot be mounted in a user namespace: {name}.",
            "It needs Linux 5.11 or later, and in a container a seccomp profile and an AppArmor profile that "
            f"allow mount {_CONTAINER}.",
        )
    return (
        f"overlay cannot be mounted on what lies here: {name}.",
        "An overlay does not go on two others, nor on some network file systems: put the container's root, "
        "or /usr and `state`, on an ordinary file system such as ext4 or xfs.",
    )


def _proc(name: str, host: Host) -> Explanation:
    if name in ("EPERM", "EACCES"):
        covered = ", ".join(host.proc_covered) or "the /proc here, or it is mounted read-only or with hidepid"
        return (
            "The kernel refuses a fresh /proc, since it would show what is hidden from us: "
            f"something covers {covered}.",
            "Docker: --security-opt systempaths=unconfined. Podman: --security-opt unmask=ALL. Kubernetes: "
            "procMount: Unmasked with hostUsers: false. Unit: no ProtectProc=, ProtectKernelTunables= or "
            "ProtectKernelLogs=.",
        )
    return f"/proc cannot be mounted: {name}.", "Boot your distribution's own kernel."


def _landlock(name: str, host: Host) -> Explanation:
    return (
        f"Landlock refuses our rules: {name}.",
        "In a container, let its seccomp profile allow the landlock calls; on a kernel that has it switched "
        "off, add landlock to lsm= at boot.",
    )


def _seccomp(name: str, host: Host) -> Explanation:
    return (
        f"The kernel does not take the filter: {name}.",
        "Boot a kernel with CONFIG_SECCOMP_FILTER; in a container, let its own filter allow seccomp.",
    )


def _rlimits(name: str, host: Host) -> Explanation:
    return (
        f"The resource limits of a job cannot be set: {name}.",
        "Raise the service's own hard limits (Limit… in the unit).",
    )


def _exec(name: str, host: Host) -> Explanation:
    return (
        f"The program `true` cannot be started in the image `host`: {name}.",
        "The host's /usr has to hold it, with its loader and libraries, on a file system without noexec.",
    )


def _time(name: str, host: Host) -> Explanation:
    return "Set-up did not end in time.", "The host is overloaded: give it fewer slots, or more processors."


def _supervisor(name: str, host: Host) -> Explanation:
    return (
        "jail-supervisor ended at once; it says why on stderr.",
        "It enters the outer user namespace and makes namespaces there: see what is missing above.",
    )


_EXPLAIN: dict[str, Callable[[str, Host], Explanation]] = {
    "keeper": _supervisor,
    "supervisor": _supervisor,
    "clone": _clone,
    "cgroup": _cgroup,
    "private": _root,
    "root": _root,
    "proc": _proc,
    "rlimits": _rlimits,
    "landlock": _landlock,
    "program": _exec,
    "seccomp": _seccomp,
    "exec": _exec,
    "time": _time,
}
