"""Look at the host: which cgroups are there, and where this user may make some."""

import os
from collections.abc import Mapping
from pathlib import Path

from jail.cgroup import v1, v2
from jail.cgroup.interface import Hierarchy
from jail.errors import HostError
from jail.host import cgroup_mounts, own_path_v2

V1_NAME = "jail-{uid}"
"""The directory that is delegated to a user in every v1 hierarchy."""

WRITABLE_IN_CONTAINER = (
    "--cgroupns=private, and --security-opt writable-cgroups=true (Docker) or unmask=/sys/fs/cgroup "
    "(Podman); Kubernetes: docs/kubernetes.md"
)
"""The options of a container whose cgroups can be written."""


def find() -> Hierarchy:
    """The hierarchy in which this user may make cgroups. Raises HostError with cause and cure."""
    mounted = cgroup_mounts(Path("/proc/self/mountinfo").read_text())
    if all(name in mounted for name in v1.REQUIRED):
        return _find_v1(mounted)
    if "cgroup2" in mounted:
        return _find_v2(mounted["cgroup2"])
    raise HostError(
        "No cgroup file system with the controllers memory, pids and cpu is mounted.",
        "Mount cgroup2 on /sys/fs/cgroup, or, in a container, let it have one.",
    )


def _find_v1(mounted: Mapping[str, Path]) -> Hierarchy:
    name = V1_NAME.format(uid=os.getuid())
    places = {
        controller: mounted[controller] / name
        for controller in (*v1.REQUIRED, *v1.OPTIONAL)
        if controller in mounted
    }
    bases = {controller: path for controller, path in places.items() if os.access(path, os.W_OK)}
    if "blkio" in bases and not _counts_io(mounted["blkio"]):
        del bases["blkio"]
    absent = [str(places[controller]) for controller in v1.REQUIRED if controller not in bases]
    if absent:
        raise HostError(
            f"cgroup v1: this user has no writable {', '.join(absent)}.",
            "Start it as root with `jail serve --user NAME`, which delegates them.",
        )
    return v1.HierarchyV1(bases)


def _counts_io(mount: Path) -> bool:
    """Whether reads and writes are counted. Newer kernels (6.18) begin with the first throttle setting.

    Joining a controller that has counted nothing for the whole host would cost each sandbox 0.1 ms.
    """
    try:
        return (mount / v1.IO_COUNTER).read_text().split()[-1] != "0"
    except FileNotFoundError:
        return False


def _find_v2(root: Path) -> Hierarchy:
    own = root / (own_path_v2(Path("/proc/self/cgroup").read_text()) or "")
    if own.name == v2.SERVICE:
        own = own.parent
    writable = all(os.access(own / name, os.W_OK) for name in ("", "cgroup.procs", "cgroup.subtree_control"))
    if not writable:
        raise HostError(
            f"cgroup v2: {own} is not delegated to this user.",
            "Start it in a unit with Delegate=yes, with `systemd-run --user --scope -p Delegate=yes`, "
            "or as root with `jail serve --user NAME`. In a container: as its root, with "
            f"{WRITABLE_IN_CONTAINER}",
        )
    offered = (own / "cgroup.controllers").read_text().split()
    absent = [name for name in v2.REQUIRED if name not in offered]
    if absent:
        raise HostError(
            f"cgroup v2: the controllers {', '.join(absent)} are not delegated to {own}.",
            "systemctl edit user@.service, and set [Service] Delegate=cpu cpuset io memory pids.",
        )
    try:
        return v2.settle(own)
    except OSError as error:
        raise HostError(
            f"cgroup v2: {own} cannot be divided into one for the service and others for sandboxes: "
            f"{error.strerror}.",
            "Start it in a unit of its own with Delegate=yes, and keep other processes out of it.",
        ) from None
