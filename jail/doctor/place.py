"""Where jail runs, and what a cure is called there: an option of an engine, a line of a unit, a command."""

import re
from pathlib import Path
from typing import Literal

Place = Literal["host", "unit", "docker", "podman", "kubernetes", "container"]
"""host: a shell or the like; unit: a service of systemd; container: one of another engine's."""

Need = Literal["calls", "proc", "privileges", "capabilities", "cgroup", "modules", "sysctl"]
"""What can be refused from outside.

calls: system calls that a filter refuses. proc: /proc with nothing mounted over it. privileges: that set-uid
programs gain some. capabilities: those of newuidmap. cgroup: one to make others in. modules: what AppArmor
or SELinux forbid. sysctl: a limit of the kernel's.
"""

_CURES: dict[Need, dict[Place, str]] = {
    "calls": {
        "docker": "docker run --security-opt seccomp=deploy/container/seccomp.json",
        "podman": "podman run --security-opt seccomp=deploy/container/seccomp.json",
        "kubernetes": "securityContext: seccompProfile: {type: Localhost, localhostProfile: "
        "profiles/jail.json}, which is deploy/container/seccomp.json on every node.",
        "unit": "Unit: no SystemCallFilter=, SystemCallArchitectures=, RestrictNamespaces= or "
        "RestrictAddressFamilies= that refuses it; those of deploy/systemd serve.",
        "container": "Give the container the seccomp profile deploy/container/seccomp.json.",
        "host": "Start it without that filter: `grep Seccomp /proc/PID/status` of its parents shows where it "
        "begins.",
    },
    "proc": {
        "docker": "docker run --security-opt systempaths=unconfined",
        "podman": "podman run --security-opt unmask=ALL",
        "kubernetes": "securityContext: procMount: Unmasked, in a pod with hostUsers: false.",
        "unit": "Unit: no ProtectProc=, ProcSubset=, ProtectKernelTunables= or ProtectKernelLogs=.",
        "container": "Give the container a /proc in which nothing is masked or read-only.",
        "host": "As root: umount what lies over it (findmnt -R /proc), or mount -t proc proc /proc",
    },
    "privileges": {
        "docker": "docker run without --security-opt no-new-privileges",
        "podman": "podman run without --security-opt no-new-privileges",
        "kubernetes": "securityContext: allowPrivilegeEscalation: true",
        "unit": "Unit: NoNewPrivileges=no. Where there is a User=, each of these implies yes: "
        "SystemCallFilter=, SystemCallArchitectures=, Restrict…=, Protect…= of the kernel's, Private…= of "
        "devices and users, LockPersonality=, MemoryDenyWriteExecute=, DynamicUser=.",
        "container": "Start the container without no_new_privs (noNewPrivileges of its process in OCI).",
        "host": "Start it from a process that has not set it: `grep NoNewPrivs /proc/PID/status`.",
    },
    "capabilities": {
        "docker": "docker run --cap-add SETUID --cap-add SETGID",
        "podman": "podman run --cap-add SETUID --cap-add SETGID",
        "kubernetes": "securityContext: capabilities: add: [SETUID, SETGID]",
        "unit": "Unit: CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_DAC_OVERRIDE CAP_SYS_ADMIN, or no "
        "such line. With file capabilities in the place of set-uid the first two do.",
        "container": "Leave CAP_SETUID and CAP_SETGID in the container's bounding set.",
        "host": "Start it from a process that has CAP_SETUID and CAP_SETGID in its bounding set.",
    },
    "cgroup": {
        "docker": "docker run --security-opt writable-cgroups=true --cgroupns private (Engine 28 or later), "
        "as root of the container with `jail serve --user NAME`.",
        "podman": "podman run --security-opt unmask=/sys/fs/cgroup --cgroupns private, as root of the "
        "container with `jail serve --user NAME`.",
        "kubernetes": "A runtime class whose containers may write their cgroup, as deploy/kubernetes has it "
        "(containerd: cgroup_writable = true; CRI-O: io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw).",
        "unit": "Unit: Delegate=yes, no ProtectControlGroups=",
        "container": "Give the container a cgroup namespace of its own and a writable /sys/fs/cgroup.",
        "host": "Start it in a unit with Delegate=yes, with `systemd-run --user --scope -p Delegate=yes`, or "
        "as root with `jail serve --user NAME`.",
    },
    "modules": {
        "docker": "docker run --security-opt apparmor=unconfined (SELinux: --security-opt label=disable)",
        "podman": "podman run --security-opt apparmor=unconfined (SELinux: --security-opt label=disable)",
        "kubernetes": "securityContext: appArmorProfile: {type: Unconfined} (SELinux: seLinuxOptions with a "
        "type that may mount, such as container_engine_t)",
        "unit": "Unit: no AppArmorProfile= or SELinuxContext= that forbids it (journalctl -k tells what).",
        "container": "Run the container without that profile.",
        "host": "See what was denied (journalctl -k, ausearch -m avc), and allow it.",
    },
    "sysctl": {
        "docker": "On the host, as root: ",
        "podman": "On the host, as root: ",
        "kubernetes": "On the node, as root: ",
        "container": "On the host, as root: ",
        "unit": "As root: ",
        "host": "As root: ",
    },
}


# What engines mount into every container, and where each keeps it. Elsewhere a host has their places, too.
_GIVEN = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_PODMANS = re.compile(r"/overlay-containers/[0-9a-f]{64}/userdata/")
_DOCKERS = re.compile(r"/containers/[0-9a-f]{64}/(hosts|hostname|resolv\.conf)$", re.MULTILINE)


def find_place(mountinfo: str, cgroups: str, root: Path = Path("/")) -> Place:
    """Where this process runs, by /proc/self/mountinfo, /proc/self/cgroup and what engines put in `root`."""
    given = _given(mountinfo)
    if "/kubelet/pods/" in given or _begins(root / "etc/hosts", "# Kubernetes-managed hosts file"):
        return "kubernetes"
    # A container whose file system is read-only lacks the file.
    if (root / "run/.containerenv").exists() or _PODMANS.search(given):
        return "podman"
    # Not by /.dockerenv, which a machine has, too, whose file system was an image of Docker's.
    if _DOCKERS.search(given):
        return "docker"
    # os-release and what it is in: https://systemd.io/CONTAINER_INTERFACE
    if (root / "run/systemd/container").exists() or (root / "run/host/container-manager").exists():
        return "container"
    return "unit" if _is_unit(cgroups) else "host"


def cure(need: Need, place: Place) -> str:
    """The words of a cure there."""
    return _CURES[need][place]


def set_sysctl(name: str, value: int, place: Place) -> str:
    """How to set a limit of the kernel's for good."""
    where = cure("sysctl", place)
    return f"{where}echo {name}={value} >/etc/sysctl.d/90-jail.conf; sysctl --system"


def _given(mountinfo: str) -> str:
    """What is mounted on these files, as far as its own file system names it: proc_pid_mountinfo(5)."""
    mounts = (line.split() for line in mountinfo.splitlines())
    return "\n".join(root for _, _, _, root, place, *_ in mounts if place in _GIVEN)


def _begins(path: Path, text: str) -> bool:
    try:
        return path.read_text().startswith(text)
    except (OSError, ValueError):
        return False


def _is_unit(cgroups: str) -> bool:
    """Whether systemd put this process into a service: its cgroup, or that above our leaf, is named so."""
    for line in cgroups.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or controllers == "name=systemd":
            parts = [part for part in path.split("/") if part not in ("", "service")]
            if parts and parts[-1].endswith(".service"):
                return True
    return False
