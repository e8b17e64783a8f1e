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

from jail.doctor.description import ALL_IDS, Gap, Host
from jail.doctor.place import cure, set_sysctl
from jail.doctor.stages import explain, more_processes, no_more_namespaces, no_more_processes, refused_calls
from jail.ids import BLOCK_SLOTS
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

# What a sandbox's init allows it of inotify instances: native/barriers.c.
_INOTIFY_INSTANCES = 16

# Service, keeper, supervisor and their threads.
_OWN_PROCESSES = 32


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
    required = "an ordinary user can make them"
    if host.process_error:
        return _untried("user namespaces", required)
    found = "can be made"
    gap = None
    if host.user_namespace_error:
        found, gap = _words(host.user_namespace_error), _why_no_user_namespace(host)
    return _check("user namespaces", required, found, gap)


def _why_no_user_namespace(host: Host) -> Gap:
    error, most = host.user_namespace_error, host.namespace_maxima.get("user")
    if error == errno.EROFS:
        return Gap(
            "/proc/sys is mounted read-only: a user namespace can be made, and its limits cannot be set.",
            cure("proc", host.place),
        )
    if not host.mapped_ids:
        return Gap(
            "The id of this process is not mapped in the user namespace that it runs in.",
            "Map it (unshare --map-current-user, podman run --userns=keep-id), or start it outside.",
        )
    if most is None and not host.proc_lacks:
        return Gap(
            "The kernel was built without user namespaces (CONFIG_USER_NS).",
            "Boot your distribution's own kernel.",
        )
    if most == 0 or error == errno.ENOSPC:
        return Gap(*no_more_namespaces(host, ("user",)))
    if host.unprivileged_userns_clone is False:
        return Gap(
            "kernel.unprivileged_userns_clone is 0: only root may make a user namespace.",
            set_sysctl("kernel.unprivileged_userns_clone", 1, host.place),
        )
    return _why_refused(host, f"The kernel refuses it: {_words(error)}.")


def _why_refused(host: Host, otherwise: str) -> Gap:
    """What refuses to have a user namespace, or to do anything in it."""
    if host.refused:
        return Gap(*refused_calls(host))
    if host.apparmor_restricts and (not host.label or host.label.startswith("unprivileged_userns")):
        return Gap(
            "AppArmor keeps ordinary programs from user namespaces (Ubuntu 23.10 and later).",
            f"{cure('sysctl', host.place)}load the profile that has `userns,`: install -m 644 "
            "deploy/apparmor/jail /etc/apparmor.d/jail && apparmor_parser -r /etc/apparmor.d/jail; or do "
            "without the restriction: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )
    if host.filtered:
        cause = "A seccomp filter over this process refuses it, as a container's does."
        return Gap(cause, cure("calls", host.place))
    if host.label:
        return Gap(
            f"{host.label} forbids it: a profile of AppArmor's or SELinux'.", cure("modules", host.place)
        )
    return Gap(otherwise, "Leave the chroot, if this is one; else look for what forbids it (dmesg).")


def _refused_inside(host: Host) -> Gap | None:
    """Why nothing can be done in a user namespace that could be made; None if something can."""
    error = next((found for name in _MEANS if (found := host.probes.get(name))), 0)
    if not error or error == errno.ENOSPC:
        return None
    return _why_refused(host, f"In a user namespace of ours we may do nothing: {_words(error)}.")


def _calls(host: Host) -> Check:
    required = "those that sandboxes are made by are not filtered"
    # Where the namespace cannot even be entered, nothing was asked of the kernel in it.
    if not host.probes or (host.probes.get("enter") and not host.refused):
        return _untried("system calls", required)
    found = ", ".join(f"{name} {_words(error)}" for name, error in host.refused.items())
    gap = Gap(*refused_calls(host)) if host.refused else None
    return _check("system calls", required, found or "none is refused", gap)


def _namespaces(host: Host) -> Check:
    refused = {name: error for name, error in host.probes.items() if error and name in _INSIDE}
    required = f"{', '.join(_NAMESPACES)}, and mounts in them"
    if not host.probes:
        return _untried("namespaces", required)
    gap = _refused_inside(host)
    if gap is None and refused:
        name, error = next(iter(refused.items()))
        gap = _namespace_gap(name, error, host)
    found = ", ".join(f"{name} {_words(error)}" for name, error in refused.items())
    return _check("namespaces", required, found or "all", gap or _too_few_namespaces(host))


def _namespace_gap(name: str, error: int, host: Host) -> Gap:
    if error == errno.ENOSPC:
        return Gap(*no_more_namespaces(host, (name,)))
    cause = f"Namespaces cannot be made: {name}, {_words(error)}."
    if error == errno.EINVAL:
        return Gap(cause, "The kernel was built without them: boot your distribution's own.")
    return Gap(cause, cure("calls", host.place))


def _too_few_namespaces(host: Host) -> Gap | None:
    """One of each kind for each sandbox, and one for what we are in ourselves."""
    for kind, most in host.namespace_maxima.items():
        if most <= host.sandboxes:
            name = f"user.max_{kind}_namespaces"
            return Gap(
                f"{name} is {most}: too few for {host.sandboxes} sandboxes, 2 x slots + ready_max.",
                set_sysctl(name, 15_000, host.place),
            )
    return None


def _untried(name: str, required: str) -> Check:
    """It rests on something that is missing, which has a check of its own: here no more than a note."""
    return Check(name=name, status="note", required=required, found="not tried, for want of the above")


def _time_namespace(host: Host) -> Check:
    if "time" not in host.probes:
        return _untried("time namespace", "optional")
    error = host.probes["time"]
    if error and error != errno.EINVAL:
        # It is tried wherever the kernel has them, and nothing is best effort.
        return _check("time namespace", "optional", _words(error), _namespace_gap("time", error, host))
    gap = Gap(
        f"A time namespace cannot be made: {_words(error)}.",
        "Nothing needs one; a kernel with CONFIG_TIME_NS hides more of the host.",
    )
    return _check(
        "time namespace", "optional", "can be made" if not error else "none", gap if error else None, "note"
    )


def _ids(host: Host) -> Check:
    required = f"{IDS_PER_SLOT} of each a sandbox, mapped by newuidmap and newgidmap"
    if host.process_error or (host.user_namespace_error and not _why_tools_fail(host)):
        return _untried("subordinate ids", required)
    counts = [found[1] if found else 0 for found in (host.subuids, host.subgids)]
    found = "no range" if not min(counts) else f"{min(counts)}, for {min(counts) // IDS_PER_SLOT} sandboxes"
    return _check("subordinate ids", required, found, _why_no_ids(host))


def _why_no_ids(host: Host) -> Gap | None:
    if not host.subuids or not host.subgids:
        return host.ids and Gap(host.ids.cause, _delegate_ids(host))
    if host.ids is None:
        return _too_few_ids(host)
    return _why_tools_fail(host) or _why_not_mapped(host) or host.ids


def _why_tools_fail(host: Host) -> Gap | None:
    weak = next((tool.path for tool in host.tools.values() if tool and not tool.privileged), None)
    if weak:
        return Gap(
            f"{weak} is neither set-uid root nor has it file capabilities.",
            f"As root: chmod u+s {weak}, or install its package anew (Debian: apt-get install --reinstall "
            "uidmap; Fedora: dnf reinstall shadow-utils)",
        )
    if host.no_new_privs:
        return Gap(
            "no_new_privs is set on this process: set-uid programs such as newuidmap gain nothing.",
            cure("privileges", host.place),
        )
    return _why_tools_can_have_no_capability(host)


def _why_tools_can_have_no_capability(host: Host) -> Gap | None:
    """As root they open a file of another user's first, and write it with all their power."""
    set_uid = any(tool and tool.set_uid for tool in host.tools.values())
    lacks = [name for name in host.not_bounding if set_uid or name in ("CAP_SETGID", "CAP_SETUID")]
    if not lacks:
        return None
    means = cure("capabilities", host.place)
    if set_uid and host.place != "unit":
        means += (
            " To do with these two, as root: setcap cap_setuid=ep $(command -v newuidmap); "
            "setcap cap_setgid=ep $(command -v newgidmap)"
        )
    names = " and ".join(lacks)
    return Gap(f"The capability bounding set lacks {names}: newuidmap and newgidmap can map no range.", means)


def _why_not_mapped(host: Host) -> Gap | None:
    for first, count in (host.subuids, host.subgids):
        if not any(start <= first and first + count <= start + most for start, most in host.mapped_ids):
            cause = f"The delegated ids {first} to {first + count - 1} are not all in this user namespace."
            return Gap(cause, _delegate_ids(host))
    return None


def _delegate_ids(host: Host) -> str:
    """On a host beyond everyone's own, in a container most of those that it has."""
    if ALL_IDS in host.mapped_ids or not host.mapped_ids:
        return f"As root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 {host.user}"
    start, most = max(host.mapped_ids, key=lambda extent: extent[1])
    first = start + most // 4
    line = f"{host.user}:{first}:{start + most - first}"
    return (
        f"As root in the image: echo {line} | tee /etc/subuid >/etc/subgid. If that is too few, give the "
        "container more ids (a longer range in the host's /etc/subuid; Kubernetes: hostUsers: false)."
    )


def _too_few_ids(host: Host) -> Gap | None:
    """Services take them in blocks; the network hub has a pair, too."""
    needed = -(-(host.sandboxes + 1) // BLOCK_SLOTS) * BLOCK_SLOTS * IDS_PER_SLOT
    count = min(host.subuids[1], host.subgids[1])
    if count >= needed:
        return None
    return Gap(
        f"The range has {count} ids; {host.sandboxes} sandboxes, 2 x slots + ready_max, take {needed}.",
        f"{_delegate_ids(host)} Or lower `slots` or `ready_max`.",
    )


def _overlay(host: Host) -> Check:
    if "overlay" not in host.probes:
        return _untried("overlay", "mounts in a user namespace")
    error = host.probes["overlay"]
    gap = Gap(*explain("root", error, host)) if error else None
    return _check("overlay", "mounts in a user namespace", _words(error) if error else "mounts", gap)


def _proc(host: Host) -> Check:
    hidden = host.proc_lacks or ("proc" not in host.probes and host.proc_covered)
    if "proc" not in host.probes and not hidden:
        return _untried("proc", "a fresh one mounts")
    error = errno.EPERM if hidden else host.probes["proc"]
    gap = Gap(*explain("proc", error, host)) if error else None
    return _check("proc", "a fresh one mounts", _words(error) if error else "a fresh one mounts", gap)


def _cgroup(host: Host) -> Check:
    required = "cpu, memory and pids, delegated to this user"
    if host.cgroup_gap:
        return _check("cgroup", required, "none", _why_no_cgroup(host, host.cgroup_gap))
    found = f"{host.cgroup_version}, cpu, memory and pids"
    if not host.cgroup_uncounted:
        return _check("cgroup", required, f"{found}, and io is counted", None)
    names = ", ".join(host.cgroup_uncounted)
    means = "To have them counted, delegate it too (Delegate=cpu io memory pids)."
    if host.cgroup_version == "v1":
        means = (
            "Start it as root with --user NAME. Kernels of late count only once blkio has a throttle setting."
        )
    gap = Gap(
        f"{names} does not count for us: io_read_bytes and io_write_bytes of every result are null.", means
    )
    return _check("cgroup", required, f"{found}; not {names}", gap, "note")


def _why_no_cgroup(host: Host, gap: Gap) -> Gap:
    if host.place not in ("host", "unit"):
        return Gap(gap.cause, cure("cgroup", host.place))
    absent = [name for name in ("cpu", "memory", "pids") if name not in (host.controllers or ())]
    if host.controllers is not None and absent:
        return Gap(
            f"The kernel offers no cgroup controller {' nor '.join(absent)}.",
            "Boot without cgroup_disable= (Raspberry Pi: with cgroup_enable=memory in cmdline.txt).",
        )
    if host.place == "unit" and host.controllers is not None:
        return Gap(gap.cause, cure("cgroup", "unit"))
    means = gap.cure
    if host.user_manager is False:
        means += f" {host.user} has no session manager; as root: loginctl enable-linger {host.user}"
    return Gap(gap.cause, means)


def _processes(host: Host) -> Check:
    """What a sandbox has itself, and what its job may have by default, all at once."""
    needed = _OWN_PROCESSES + 2 * host.sandboxes + host.slots * host.pids
    required = f"{needed} for {host.slots} jobs of {host.pids} each"
    if host.process_error:
        return _check("processes", required, _words(host.process_error), Gap(*no_more_processes(host)))
    low = {name: bound for name, bound in host.process_bounds.items() if bound < needed}
    found = ", ".join(f"{name} {bound}" for name, bound in (low or host.process_bounds).items())
    gap = Gap(
        f"All sandboxes together can have no more: jobs may find none left within their own limit. They need "
        f"{needed}: {host.slots} jobs, {host.pids} processes each by default, and what waits.",
        more_processes(host),
    )
    return _check("processes", required, found or "unlimited", gap if low else None, "note")


def _memory(host: Host) -> Check:
    gap = None
    if host.memory_bytes > host.allowed_bytes:
        gap = Gap(
            "Jobs may have more memory than this service's own cgroup may: the kernel would end any of them.",
            "Lower `memory_bytes` (or leave it out: it is then three quarters of what there is), or raise "
            "MemoryMax= of the unit, the limit of the container.",
        )
    sizes = (f"{size / (1 << 30):.1f} GiB" for size in (host.memory_bytes, host.allowed_bytes))
    return _check("memory", "for all jobs, no more than there is", " of ".join(sizes), gap, "note")


def _inotify(host: Host) -> Check:
    instances, watches = host.inotify
    needed = _INOTIFY_INSTANCES * host.slots
    if host.proc_lacks:
        return _untried("inotify", f"{needed} instances")
    gap = None
    if instances < needed or not watches:
        gap = Gap(
            f"Jobs that watch files may find no inotify instance left: each may have {_INOTIFY_INSTANCES}.",
            set_sysctl("fs.inotify.max_user_instances", max(1024, 2 * needed), host.place),
        )
    found = f"{instances} instances, {watches} watches"
    return _check("inotify", f"{needed} instances for {host.slots} jobs", found, gap, "note")


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
    if gap and name == "landlock" and host.filtered:
        gap = Gap(
            f"{gap.cause} Or a seccomp filter hides it.", f"{cure('calls', host.place)} Else: {gap.cure}"
        )
    if gap is None or name in host.accepted:
        return _check(name, required, found, gap, "degraded")
    means = f'{gap.cure} To do without: allow_degraded = ["{name}"].'
    return _check(name, required, found, Gap(gap.cause, means))


def _seccomp(host: Host) -> Check:
    required = ", ".join(SECCOMP_ACTIONS)
    if host.proc_lacks:
        return _untried("seccomp", required)
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
    gap = host.policy_gap
    if gap and host.refused.keys() & {"seccomp", "memfd_create"}:
        gap = Gap(*refused_calls(host))
    return _check("policies", "every one compiles", found, gap)


def _networks(host: Host) -> Check:
    """Only an operator who names them cannot do without."""
    required = "the processes of a job can reach each other, and nobody else"
    gap, found = host.networks_gap, "cannot be had"
    if host.networks == "off":
        return _check("networks", required, "switched off", None)
    if gap is None and host.trial.networks:
        found = "fails"
        gap = Gap(
            f"A job with a network cannot be run: {host.trial.networks}.",
            "It takes bridge, veth and nf_tables for bridges: boot your distribution's own kernel with its "
            'nftables. To do without: networks = ["none"].',
        )
    status = "missing" if host.networks == "wanted" or found == "fails" else "note"
    return _check("networks", required, found if gap else "made and taken apart", gap, status)


def _egress(host: Host) -> Check:
    """Nothing is asked of a host whose operator lets no job out."""
    required = "a way out, where `egress` names destinations"
    if not host.egress:
        return _check("egress", required, "switched off", None)
    gap, found = host.egress_gap, "none"
    if gap is None and host.trial.egress:
        found = "fails"
        gap = Gap(
            f"A job with a way out cannot be run: {host.trial.egress}.",
            "It takes bridge, veth, tun, sch_tbf and nf_tables with NAT, and connections tracked by mark and "
            "count: boot your distribution's own kernel with its nftables. To do without: egress = [].",
        )
    return _check("egress", required, found if gap else "there is one", gap)


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
    if trial.problem and not is_ready(others):
        gap = Gap("It failed, for what is missing above.", "Mend that first, and look again.")
        return _check("sandbox", required, "not made", gap)
    if trial.failure:
        stage, error, index = trial.failure.stage, trial.failure.error, trial.failure.index
        words = (f"stage {stage}", error and _words(error), index and f"index {index}")
        found = ", ".join(filter(None, words))
        return _check("sandbox", required, found, Gap(*explain(stage, error, host)))
    means = f"If this names {host.state}, set `state` (JAIL_STATE) to another directory; else it is our bug."
    return _check("sandbox", required, "failed", Gap(f"The trial failed: {trial.problem}.", means))


CHECKS: tuple[Callable[[Host], Check], ...] = (
    _kernel,
    _processes,
    _user_namespaces,
    _calls,
    _namespaces,
    _ids,
    _overlay,
    _proc,
    _cgroup,
    _swap,
    _seccomp,
    _landlock,
    _rlimits,
    _memory,
    _inotify,
    _policy,
    _networks,
    _egress,
    _time_namespace,
    _hardware,
)
"""In the order in which a sandbox needs them. The sandbox itself comes last: see `examine`."""
