"""The checks: pure functions from a Host to what it means for jail.

Each row of CHECKS looks at one thing. The last of them is the truth, since a real sandbox was made for
it; the others say why it is so, and what would go wrong later.
"""

import errno
import os
import signal
from collections.abc import Callable
from typing import Literal

import msgspec

from jail.doctor.description import Gap, Host
from jail.doctor.stages import explain
from jail.namespace import IDS_PER_SLOT

Status = Literal["ok", "missing", "degraded", "note"]

KERNEL_FLOOR = (6, 1)
SECCOMP_ACTIONS = ("errno", "kill_process", "user_notif")

# Without these the sandbox of design.md cannot be made; a time namespace is taken where there is one.
_NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup")

# Without these nothing else can be done inside.
_MEANS = ("enter", "mnt", "mount")

_INSIDE = {*_MEANS, *_NAMESPACES}

# What Landlock learnt with each ABI (Documentation/userspace-api/landlock.rst).
_LANDLOCK_NEWS = {
    2: "moves between directories",
    3: "truncation",
    5: "ioctls of devices",
    6: "signals and abstract sockets",
}

_FILTER_CURE = (
    "In a container, give it a seccomp profile that allows clone, clone3, unshare, setns, mount, umount2 "
    "and pivot_root (Docker and Podman: --security-opt seccomp=FILE)."
)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    status: ok; missing, jail refuses to start; degraded, weaker than promised, and accepted by name in
    the settings; note, worth knowing and nothing more. `cause` and `cure` are None when ok.
    """

    name: str
    status: Status
    required: str
    found: str
    cause: str | None = None
    cure: str | None = None


def examine(host: Host) -> list[Check]:
    """Everything there is to say of `host`, in the order of CHECKS."""
    checks: list[Check] = []
    for look in CHECKS:
        checks.append(look(host))
    return [*checks, _sandbox(host, checks)]


def is_ready(checks: list[Check]) -> bool:
    """Whether nothing required is missing."""
    return all(check.status != "missing" for check in checks)


def _check(name: str, required: str, found: str, gap: Gap | None, status: Status = "missing") -> Check:
    if gap is None:
        return Check(name=name, status="ok", required=required, found=found)
    return Check(name=name, status=status, required=required, found=found, cause=gap.cause, cure=gap.cure)


def _words(error: int) -> str:
    """An errno value, or the negative of a signal, by name and in words."""
    if error < 0:
        return f"killed by {signal.Signals(-error).name}"
    return f"{errno.errorcode.get(error, error)}: {os.strerror(error)}"


def _kernel(host: Host) -> Check:
    numbers = host.kernel.split("-")[0].split(".")[:2]
    version = tuple(int(number) for number in numbers if number.isdigit())
    gap = None
    if version < KERNEL_FLOOR:
        gap = Gap(
            f"Linux {host.kernel} is older than jail relies on: cgroup.kill, openat2, mount and id rules.",
            "Boot a newer kernel: Debian 12, Ubuntu 24.04 and RHEL 10 come with one.",
        )
    return _check("kernel", "Linux 6.1 or later", f"Linux {host.kernel}", gap)


def _user_namespaces(host: Host) -> Check:
    found = "can be made"
    gap = None
    if host.user_namespace_error:
        found, gap = _words(host.user_namespace_error), _why_no_user_namespace(host)
    return _check("user namespaces", "an ordinary user can make them", found, gap)


def _why_no_user_namespace(host: Host) -> Gap:
    if host.max_user_namespaces is None:
        return Gap(
            "The kernel was built without user namespaces (CONFIG_USER_NS).",
            "Boot your distribution's own kernel.",
        )
    if host.max_user_namespaces == 0 or host.user_namespace_error == errno.ENOSPC:
        return Gap(
            f"user.max_user_namespaces is {host.max_user_namespaces}, and no more can be made.",
            "As root: echo user.max_user_namespaces=15000 >/etc/sysctl.d/90-jail.conf; sysctl --system "
            "(on the host, if this is a container).",
        )
    if host.unprivileged_userns_clone is False:
        return Gap(
            "kernel.unprivileged_userns_clone is 0: only root may make a user namespace.",
            "As root: echo kernel.unprivileged_userns_clone=1 >/etc/sysctl.d/90-jail.conf; sysctl --system",
        )
    if host.apparmor_restricts:
        return _APPARMOR
    if host.filtered:
        return Gap("A seccomp filter over this process refuses it, as a container's does.", _FILTER_CURE)
    return Gap(
        f"The kernel refuses it: {_words(host.user_namespace_error)}.",
        "Leave the chroot, if this is one; else look for a security module that forbids it (dmesg).",
    )


_APPARMOR = Gap(
    "AppArmor keeps ordinary programs from user namespaces (Ubuntu 23.10 and later).",
    "Load an AppArmor profile for jail-supervisor that has `userns,` (deploy/apparmor), or as root: "
    "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
)


def _refused_inside(host: Host) -> Gap | None:
    """Why nothing can be done in a user namespace that could be made; None if something can."""
    error = next((found for name in _MEANS if (found := host.probes.get(name))), 0)
    if not error:
        return None
    if host.apparmor_restricts:
        return _APPARMOR
    if host.filtered:
        return Gap("A seccomp filter over this process refuses it, as a container's does.", _FILTER_CURE)
    return Gap(
        f"In a user namespace of ours we may do nothing: {_words(error)}.",
        "Look for a security module that forbids it (dmesg).",
    )


def _namespaces(host: Host) -> Check:
    refused = {name: error for name, error in host.probes.items() if error and name in _INSIDE}
    required = f"{', '.join(_NAMESPACES)}, and mounts in them"
    if not host.probes:
        return _untried("namespaces", required)
    gap = _refused_inside(host)
    if gap is None and refused:
        name, error = next(iter(refused.items()))
        gap = Gap(f"Namespaces cannot be made: {name}, {_words(error)}.", _namespace_cure(name, error))
    found = ", ".join(f"{name} {_words(error)}" for name, error in refused.items())
    return _check("namespaces", required, found or "all", gap)


def _namespace_cure(name: str, error: int) -> str:
    if error == errno.ENOSPC:
        return f"As root: sysctl user.max_{name}_namespaces=15000 (on the host, if this is a container)."
    if error == errno.EINVAL:
        return "The kernel was built without them: boot your distribution's own."
    return _FILTER_CURE


def _untried(name: str, required: str) -> Check:
    """It rests on something that is missing, which has a check of its own: here no more than a note."""
    return Check(name=name, status="note", required=required, found="not tried, for want of the above")


def _time_namespace(host: Host) -> Check:
    if "time" not in host.probes:
        return _untried("time namespace", "optional")
    error = host.probes["time"]
    gap = Gap(
        f"A time namespace cannot be made: {_words(error)}.",
        "Nothing needs one; a kernel with CONFIG_TIME_NS hides more of the host.",
    )
    return _check(
        "time namespace", "optional", "can be made" if not error else "none", gap if error else None, "note"
    )


def _ids(host: Host) -> Check:
    required = f"{IDS_PER_SLOT} of each a sandbox, mapped by newuidmap and newgidmap"
    if host.user_namespace_error:
        return _untried("subordinate ids", required)
    counts = [found[1] if found else 0 for found in (host.subuids, host.subgids)]
    found = "no range" if not min(counts) else f"{min(counts)}, for {min(counts) // IDS_PER_SLOT} sandboxes"
    return _check("subordinate ids", required, found, _why_no_ids(host))


def _why_no_ids(host: Host) -> Gap | None:
    if host.ids is None:
        return None
    if not host.subuids or not host.subgids:
        return host.ids
    weak = next((tool.path for tool in host.tools.values() if tool and not tool.privileged), None)
    if weak:
        return Gap(
            f"{weak} is neither set-uid root nor has it file capabilities.",
            f"As root: chmod u+s {weak}, or apt-get install --reinstall uidmap",
        )
    if host.no_new_privs:
        return Gap(
            "no_new_privs is set on this process: set-uid programs such as newuidmap gain nothing.",
            "Unit: NoNewPrivileges=no, and no SystemCallFilter=, Protect…= or Restrict…= that implies it. "
            "Container: allowPrivilegeEscalation: true, or no --security-opt no-new-privileges.",
        )
    return host.ids


def _overlay(host: Host) -> Check:
    if "overlay" not in host.probes:
        return _untried("overlay", "mounts in a user namespace")
    error = host.probes["overlay"]
    gap = Gap(*explain("root", error, host)) if error else None
    return _check("overlay", "mounts in a user namespace", _words(error) if error else "mounts", gap)


def _proc(host: Host) -> Check:
    if "proc" not in host.probes:
        return _untried("proc", "a fresh one mounts")
    error = host.probes["proc"]
    gap = Gap(*explain("proc", error, host)) if error else None
    return _check("proc", "a fresh one mounts", _words(error) if error else "a fresh one mounts", gap)


def _cgroup(host: Host) -> Check:
    required = "cpu, memory and pids, delegated to this user"
    if host.cgroup_gap:
        cure = host.cgroup_gap.cure
        if host.user_manager is False:
            cure += f" {host.user} has no session manager; as root: loginctl enable-linger {host.user}"
        return _check("cgroup", required, "none", Gap(host.cgroup_gap.cause, cure))
    found = f"{host.cgroup_version}, cpu, memory and pids"
    if not host.cgroup_uncounted:
        return _check("cgroup", required, f"{found}, and io is counted", None)
    names = ", ".join(host.cgroup_uncounted)
    gap = Gap(
        f"{names} is not delegated: io_read_bytes and io_write_bytes of every result are null.",
        "To have them counted, delegate it too (Delegate=cpu io memory pids).",
    )
    return _check("cgroup", required, f"{found}; not {names}", gap, "note")


def _swap(host: Host) -> Check:
    size = f"{host.swap_bytes / (1 << 30):.1f} GiB of swap" if host.swap_bytes else "no swap"
    return _weakness("swap", "none, or counted by cgroups", size, host)


def _landlock(host: Host) -> Check:
    lacking = [what for since, what in _LANDLOCK_NEWS.items() if host.landlock_abi < since]
    found = f"ABI {host.landlock_abi}" if host.landlock_abi else "none"
    if host.landlock_abi and lacking:
        found += f", without {', '.join(lacking)}"
    return _weakness("landlock", "ABI 1 or later", found, host)


def _weakness(name: str, required: str, found: str, host: Host) -> Check:
    gap = host.weaknesses.get(name)
    if gap is None or name in host.accepted:
        return _check(name, required, found, gap, "degraded")
    cure = f'{gap.cure} To do without: allow_degraded = ["{name}"].'
    return _check(name, required, found, Gap(gap.cause, cure))


def _seccomp(host: Host) -> Check:
    required = ", ".join(SECCOMP_ACTIONS)
    absent = [action for action in SECCOMP_ACTIONS if action not in host.seccomp_actions]
    gap = None
    if absent:
        gap = Gap(
            f"The kernel cannot filter system calls with {', '.join(absent)}.",
            "Boot a kernel with CONFIG_SECCOMP_FILTER; every distribution's has it.",
        )
    found = required if not absent else ", ".join(host.seccomp_actions) or "no filters"
    return _check("seccomp", required, found, gap)


def _rlimits(host: Host) -> Check:
    values = {name: "unlimited" if value < 0 else value for name, value in host.rlimits.items()}
    found = ", ".join(f"{name} {value}" for name, value in values.items())
    return _check("hard rlimits", "at least the ceilings of the settings", found, host.rlimits_gap)


def _policy(host: Host) -> Check:
    library = f"libseccomp {host.libseccomp or 'of an unknown version'}"
    programs = [f"{name} ({count} instructions)" for name, count in host.policies.items()]
    found = ": ".join(filter(None, (library, ", ".join(programs))))
    return _check("policies", "every one compiles", found, host.policy_gap)


def _hardware(host: Host) -> Check:
    gap = None
    if host.vulnerable:
        gap = Gap(
            f"The kernel does not mitigate {', '.join(host.vulnerable)}: jobs may learn each other's data.",
            "Update firmware and kernel, and boot without mitigations=off.",
        )
    elif host.smt:
        gap = Gap(
            "Two jobs can share a core (SMT) and what it caches.",
            "Where that matters: echo off >/sys/devices/system/cpu/smt/control",
        )
    found = ", ".join(host.vulnerable) or ("SMT is on" if host.smt else "nothing known")
    return _check("hardware", "informative", found, gap, "note")


def _sandbox(host: Host, others: list[Check]) -> Check:
    """The trial. What kept the engine from starting at all is told above, if it is told there."""
    trial, required = host.trial, "one is made, and runs a program"
    if trial.went_well:
        times = f"made in {trial.setup_ms:.1f} ms, ran `true` in {trial.run_ms:.1f} ms"
        return _check("sandbox", required, times, None)
    if trial.refused:
        gap = Gap(*trial.refused)
        if not is_ready(others):
            gap = Gap("It was not tried, for what is missing above.", "Mend that first, and look again.")
        return _check("sandbox", required, "not made", gap)
    if trial.failure:
        stage, error, index = trial.failure.stage, trial.failure.error, trial.failure.index
        words = (f"stage {stage}", error and _words(error), index and f"index {index}")
        found = ", ".join(filter(None, words))
        return _check("sandbox", required, found, Gap(*explain(stage, error, host)))
    cure = f"If this names {host.state}, set `state` (JAIL_STATE) to another directory; else it is our bug."
    return _check("sandbox", required, "failed", Gap(f"The trial failed: {trial.problem}.", cure))


CHECKS: tuple[Callable[[Host], Check], ...] = (
    _kernel,
    _user_namespaces,
    _namespaces,
    _ids,
    _overlay,
    _proc,
    _cgroup,
    _swap,
    _seccomp,
    _landlock,
    _rlimits,
    _policy,
    _time_namespace,
    _hardware,
)
"""In the order in which a sandbox needs them. The sandbox itself comes last: see `examine`."""
