"""From the place where a sandbox's set-up failed to the host's part in it.

The stages are those of native/message.h, in the order of set-up there.
"""

import errno
import os
from collections.abc import Callable

from jail.doctor.description import Host
from jail.doctor.place import cure, set_sysctl

Explanation = tuple[str, str]

_LIMITED_KINDS = {"clone": ("user", "pid"), "namespaces": ("mnt", "net", "ipc", "uts", "cgroup", "time")}


def explain(stage: str, error: int, host: Host) -> Explanation:
    """A sentence of cause and one of cure for a failure in `stage` with that errno value."""
    name = errno.errorcode.get(error, str(error))
    if host.refused and (error in (errno.EPERM, errno.EACCES, errno.ENOSYS) or stage == "keeper"):
        return refused_calls(host)
    if stage in _EXPLAIN:
        return _EXPLAIN[stage](name, host)
    words = f"Set-up failed at stage {stage}: {name}, {os.strerror(error)}."
    if host.filtered:
        return f"{words} A seccomp filter over this process may refuse it.", cure("calls", host.place)
    if host.label:
        return f"{words} {host.label} may forbid it.", cure("modules", host.place)
    return (
        words,
        "Nothing here is known to cause that: please report it, with `jail doctor --json`.",
    )


def refused_calls(host: Host) -> Explanation:
    """A filter refuses calls that sandboxes are made by."""
    return (
        f"A seccomp filter over this process refuses {', '.join(host.refused)}.",
        cure("calls", host.place),
    )


def no_more_namespaces(host: Host, kinds: tuple[str, ...]) -> Explanation:
    """The kernel makes no more of one of these kinds of namespace: ENOSPC."""
    maxima = {kind: host.namespace_maxima[kind] for kind in kinds if kind in host.namespace_maxima}
    if not maxima:
        return "A limit on namespaces is reached.", "Raise user.max_*_namespaces on the host (sysctl)."
    kind = min(maxima, key=lambda kind: maxima[kind])
    name = f"user.max_{kind}_namespaces"
    cause = f"No more namespaces can be made: {name} is {maxima[kind]} here."
    nested = " Or this is a user namespace within too many others: 32 is the most." if kind == "user" else ""
    return cause + nested, set_sysctl(name, 15_000, host.place)


def no_more_processes(host: Host) -> Explanation:
    """The kernel starts no more processes: EAGAIN."""
    told = ", ".join(f"{name} {bound}" for name, bound in host.process_bounds.items()) or "of this user"
    return f"The limit on processes is reached: {told}.", more_processes(host)


def more_processes(host: Host) -> str:
    """How to be allowed more of them."""
    return {
        "docker": "docker run --pids-limit 4096 --ulimit nproc=-1",
        "podman": "podman run --pids-limit 4096 --ulimit nproc=-1",
        "kubernetes": "podPidsLimit in the kubelet's configuration: 4096 or more.",
        "unit": "Unit: TasksMax=infinity, LimitNPROC=infinity",
    }.get(
        host.place,
        "ulimit -u unlimited (for good: nproc in /etc/security/limits.conf); in a unit, TasksMax=.",
    )


def _clone(name: str, host: Host) -> Explanation:
    if name == "ENOSYS":
        return "clone3 is hidden from us, as old container profiles for seccomp do.", cure(
            "calls", host.place
        )
    if name == "ENOSPC":
        return no_more_namespaces(host, _LIMITED_KINDS["clone"])
    if name in ("EBUSY", "EOPNOTSUPP", "EACCES") and host.cgroup_version == "v2":
        return (
            f"A sandbox cannot be born in its cgroup: {name}.",
            f"{cure('cgroup', host.place)} Keep other processes out of that cgroup.",
        )
    if name == "EAGAIN":
        return no_more_processes(host)
    return f"A sandbox's namespaces cannot be made: {name}.", cure("calls", host.place)


def _namespaces(name: str, host: Host) -> Explanation:
    if name == "ENOSPC":
        return no_more_namespaces(host, _LIMITED_KINDS["namespaces"])
    return f"A sandbox's namespaces cannot be made: {name}.", cure("calls", host.place)


def _cgroup(name: str, host: Host) -> Explanation:
    return (
        f"A sandbox cannot move into its cgroup: {name}.",
        "The delegated cgroups, their cgroup.procs and tasks have to belong to this user: start it as root "
        "with --user NAME, which sees to it.",
    )


def _session(name: str, host: Host) -> Explanation:
    if name == "EDQUOT":
        return "This user may have no more session keyrings.", set_sysctl(
            "kernel.keys.maxkeys", 2000, host.place
        )
    return f"A sandbox can have no session keyring of its own: keyctl, {name}.", cure("calls", host.place)


def _network(name: str, host: Host) -> Explanation:
    return f"A sandbox's loopback interface cannot be set up: {name}.", cure("calls", host.place)


def _root(name: str, host: Host) -> Explanation:
    if name == "ENODEV":
        return "The kernel has no overlay file system.", "As root: modprobe overlay (CONFIG_OVERLAY_FS)."
    if name in ("EPERM", "EACCES") and host.label:
        return f"{host.label} forbids to mount an overlay: {name}.", cure("modules", host.place)
    if name in ("EPERM", "EACCES"):
        return (
            f"overlay cannot be mounted in a user namespace: {name}.",
            "It needs Linux 5.11 or later, and that no security module forbids it: "
            f"{cure('modules', host.place)}",
        )
    if host.usr_gap:
        return host.usr_gap.cause, host.usr_gap.cure
    return (
        f"overlay cannot be mounted on what lies here: {name}.",
        "An overlay does not go on two others, nor on some network file systems: put the container's root, "
        "or /usr and `state`, on an ordinary file system such as ext4 or xfs.",
    )


def _proc(name: str, host: Host) -> Explanation:
    if name not in ("EPERM", "EACCES"):
        return f"/proc cannot be mounted: {name}.", "Boot your distribution's own kernel."
    if host.label and not host.proc_covered:
        return f"{host.label} forbids to mount a fresh /proc: {name}.", cure("modules", host.place)
    covered = ", ".join(host.proc_covered) or "the /proc here, or it is mounted read-only or with hidepid"
    if host.proc_lacks:
        covered = f"it shows processes alone, without {', '.join(host.proc_lacks)}"
    else:
        covered = f"something covers {covered}"
    return (
        f"The kernel refuses a fresh /proc, since it would show what is hidden from us: {covered}.",
        cure("proc", host.place),
    )


def _landlock(name: str, host: Host) -> Explanation:
    return (
        f"Landlock refuses our rules: {name}.",
        f"{cure('calls', host.place)} On a kernel that has it switched off, add landlock to lsm= at boot.",
    )


def _seccomp(name: str, host: Host) -> Explanation:
    return (
        f"The kernel does not take the filter: {name}.",
        f"Boot a kernel with CONFIG_SECCOMP_FILTER; if a filter refuses it: {cure('calls', host.place)}",
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
    if name == "ENOSPC":
        return no_more_namespaces(host, _LIMITED_KINDS["namespaces"])
    if name == "EAGAIN":
        return no_more_processes(host)
    if name in ("EPERM", "ENOSYS") and host.filtered:
        cause = f"jail-supervisor ended at once: {name}. A seccomp filter over it may refuse something."
        return cause, cure("calls", host.place)
    return (
        f"jail-supervisor ended at once{f': {name}' if name != '0' else ''}; it says why on stderr.",
        "It enters the outer user namespace, mounts and makes namespaces there: see what is missing above.",
    )


_EXPLAIN: dict[str, Callable[[str, Host], Explanation]] = {
    "keeper": _supervisor,
    "supervisor": _supervisor,
    "clone": _clone,
    "cgroup": _cgroup,
    "namespaces": _namespaces,
    "session": _session,
    "private": _root,
    "root": _root,
    "proc": _proc,
    "network": _network,
    "rlimits": _rlimits,
    "landlock": _landlock,
    "program": _exec,
    "seccomp": _seccomp,
    "exec": _exec,
    "time": _time,
}
