"""The outer user namespace: this user's id and the range delegated to it.

It is made once, at start, by a short-lived process that newuidmap(1) and newgidmap(1) write the maps
for; it lives on as a descriptor. Every supervisor enters it: so a new one needs no set-uid program.

Inside, id 0 is this user, and 1 to the length of the range are the ids of the range. Of the first
SANDBOX_IDS every sandbox has two, which nobody else has, and so has every service's network hub: see
jail.ids. One more, which nobody runs as, owns what sandboxes left for others. The others own the files of
images, so that no sandbox's processes do: see image_id().

What the kernel counts for each user namespace it counts for those above, too, and at last for this
user. Of that, all sandboxes together can have half: the rest stays for the user's other programs.
"""

import errno
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from jail.errors import HostError

IDS_PER_SLOT = 2

SANDBOX_IDS = 1 << 14
"""How many ids of the range are for sandboxes; those after them are for the files of images."""

_FROZEN_IDS = 1

NOBODY = 65534
"""The user and group of an image that are found in it wherever they come from."""

NETWORKS = 512
"""How many network namespaces there can be at once, of whoever does not say otherwise."""


def program() -> Path:
    """The supervisor's program, which comes with the package."""
    return Path(__file__).parent / "jail-supervisor"


def delegated_range(text: str, user: str, uid: int) -> tuple[int, int] | None:
    """The first id and the length of the user's longest range in subuid(5) or subgid(5)."""
    ranges = []
    for line in text.splitlines():
        name, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if name in (user, str(uid)) and first.isdigit() and count.isdigit():
            ranges.append((int(first), int(count)))
    return max(ranges, key=lambda found: found[1], default=None)


def image_id(number: int, length: int) -> int | None:
    """The id, as the outer namespace has it, of an image's user or group; None where a range is too short.

    length: of the delegated range. An image's root is this user. The usual range has 65536 ids: where
    NOBODY would be after its end, it has the last one.
    """
    if number == 0:
        return 0
    last_is_nobody = length < SANDBOX_IDS + NOBODY
    if number == NOBODY and last_is_nobody and length > SANDBOX_IDS:
        return length
    found = SANDBOX_IDS + number
    return found if number > 0 and found <= length - last_is_nobody else None


def _read_range(path: str) -> tuple[int, int]:
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    found = delegated_range(Path(path).read_text() if Path(path).exists() else "", user, uid)
    if found is None or found[1] < IDS_PER_SLOT:
        raise HostError(
            f"{path} delegates no ids to {user}.",
            f"As root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 {user}",
        )
    return found


def _write_map(command: str, process: int, own: int, delegated: tuple[int, int]) -> None:
    tool = shutil.which(command)
    if tool is None:
        raise HostError(
            f"{command} is not installed.",
            "As root: apt-get install uidmap (Fedora: dnf install shadow-utils)",
        )
    first, count = delegated
    lines = [f"0 {own} 1", f"1 {first} {count}"]
    arguments = [number for line in lines for number in line.split()]
    try:
        done = subprocess.run([tool, str(process), *arguments], capture_output=True, text=True, check=False)
        refusal = done.stderr.strip() if done.returncode else None
    except OSError as error:
        # A program with a capability that nobody here can have.
        refusal = f"{command}: {error.strerror}"
    if refusal is not None:
        raise HostError(
            f"{command} refused: {refusal}",
            "Check that it is set-uid root (or has cap_setuid). In a container: no no-new-privileges, the "
            "capabilities SETUID and SETGID, and a range that the container has (Kubernetes: "
            "allowPrivilegeEscalation: true).",
        )


def _explain(error: int) -> HostError:
    """`error`: the holder's exit status, an errno; or the signal that a foreign filter killed it with."""
    # A mount says so, on Ubuntu too.
    if error == errno.EROFS:
        return HostError(
            f"/proc/sys/user cannot be written: {os.strerror(error)}.",
            "Containers cover /proc. Docker, Podman: --security-opt systempaths=unconfined; Kubernetes: "
            "procMount: Unmasked.",
        )
    if error in (errno.EPERM, errno.EACCES) and _apparmor_restricts():
        return HostError(
            "AppArmor forbids this program to make a user namespace (Ubuntu 23.10 and later).",
            "Load deploy/apparmor, or set kernel.apparmor_restrict_unprivileged_userns=0.",
        )
    if error == errno.EACCES:
        # unshare(2) has no such error of its own, and within the namespace all its files are ours.
        return HostError(
            "A security module forbids this program to make a user namespace, or to set its limits.",
            "AppArmor: load deploy/apparmor; in a container: --security-opt apparmor=unconfined. "
            "SELinux: `ausearch -m avc` says which rule.",
        )
    return HostError(
        f"A user namespace cannot be made: {os.strerror(error)}.",
        "Set user.max_user_namespaces (and on old Debian kernel.unprivileged_userns_clone=1); in a "
        "container, give it a seccomp profile that allows unshare and clone3 with namespaces: "
        "--security-opt seccomp=deploy/container/seccomp.json",
    )


def _apparmor_restricts() -> bool:
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    return restricted.exists() and restricted.read_text().strip() == "1"


def half_of(kind: str) -> int:
    """Half of what this user may have: of inotify "instances" or "watches"."""
    # The first is of the namespace that we are in, the second of the host.
    paths = (Path(f"/proc/sys/user/max_inotify_{kind}"), Path(f"/proc/sys/fs/inotify/max_user_{kind}"))
    return min((int(path.read_text()) for path in paths if path.exists()), default=0) // 2


def holder_command(networks: int = NETWORKS) -> list[str]:
    """The command that makes such a namespace and holds it until its stdin ends."""
    numbers = (half_of("instances"), half_of("watches"), networks)
    return [str(program()), "namespace", *map(str, numbers)]


class OuterNamespace:
    """The outer user namespace, held open.

    Attributes: `descriptor`, of the namespace; `slots`, how many pairs of ids it has; `frozen`, the id that
    owns what sandboxes left for others.
    """

    def __init__(self, networks: int = NETWORKS) -> None:
        """Make it, for so many network namespaces at once. Raises HostError with cause and cure.

        Those count that nothing lives in and that the kernel has yet to take down, one after the other.
        """
        uids, gids = _read_range("/etc/subuid"), _read_range("/etc/subgid")
        self.slots = (min(uids[1], gids[1], SANDBOX_IDS) - _FROZEN_IDS) // IDS_PER_SLOT
        self.frozen = 1 + IDS_PER_SLOT * self.slots
        holder = subprocess.Popen(
            holder_command(networks),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
        )
        with holder:
            if not holder.stdout.read(1):
                raise _explain(abs(holder.wait()))
            _write_map("newuidmap", holder.pid, os.getuid(), uids)
            _write_map("newgidmap", holder.pid, os.getgid(), gids)
            self.descriptor = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def ids(self, pair: int) -> tuple[int, int]:
        """The ids, as the outer namespace has them, of init and of the job, or of a hub: pair 0 is first."""
        first = 1 + IDS_PER_SLOT * pair
        return first, first + 1

    def close(self) -> None:
        """Let go of it. What runs in it keeps it."""
        os.close(self.descriptor)
