"""Getting a cgroup subtree of one's own, and giving up root for good.

Three ways lead to a process that may make cgroups and has no privilege:

- root: delegates a subtree to a user and becomes that user (`jail serve --user NAME`);
- an ordinary user of a systemd host: runs itself again in a delegated user scope;
- an ordinary user who has a subtree already: nothing to do.

    python -m jail.delegation NAME COMMAND…     do what is needed of these, then run the command as NAME
"""

import errno
import os
import pwd
import shutil
import sys
from pathlib import Path

from jail.cgroup import files, v1, v2
from jail.cgroup.find import V1_NAME, WRITABLE_IN_CONTAINER
from jail.errors import HostError
from jail.host import cgroup_mounts, own_path_v2
from jail.privileges import clear_ambient, set_capabilities

_FILTER = "In a container, let its seccomp profile allow prctl and capset."

# Set in the scope, so that a scope without delegation is not entered again and again.
_IN_SCOPE = "_JAIL_IN_SCOPE"


def become_ready(user: str | None) -> None:
    """Come to be an ordinary user with a cgroup subtree, if that can be. Raises HostError.

    Whether it could be is not checked here: whoever makes the first cgroup is told.
    """
    _become_ready(user, [sys.executable, "-P", "-m", "jail", *sys.argv[1:]])


def _become_ready(user: str | None, again: list[str]) -> None:
    """`again`: the command that this process came from, to be run anew in a scope."""
    if os.getuid() == 0:
        if user is None:
            raise HostError(
                "jail does not run as root.",
                "Start it as an ordinary user, or as root with `jail serve --user NAME`.",
            )
        become(user)
        return
    give_up_capabilities()
    if user is not None and user != pwd.getpwuid(os.getuid()).pw_name:
        raise HostError(f"Only root can become {user}.", "Leave --user out, or start it as root.")
    if _wants_scope():
        _enter_scope(again)


def give_up_capabilities() -> None:
    """Have none in any set but the bounding one. Raises HostError.

    Podman gives what --cap-add names to an ordinary user, too, and to all that it executes.
    """
    try:
        clear_ambient()
        set_capabilities(0)
    except OSError as error:
        raise HostError(f"Capabilities cannot be given up: {error.strerror}.", _FILTER) from None


def become(user: str) -> None:
    """As root: delegate a subtree to `user` and become it, with no way back. Raises HostError."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise HostError(f"There is no user {user}.", f"As root: useradd --system {user}") from None
    if account.pw_uid == 0:
        raise HostError(f"{user} is root.", "Name an ordinary user.")
    try:
        _delegate(account.pw_uid, account.pw_gid)
    except OSError as error:
        raise HostError(
            f"A cgroup subtree cannot be delegated: {error.strerror}: {error.filename}.",
            "In a container, let its root, with --cap-add CHOWN, write a cgroup of its own: "
            f"{WRITABLE_IN_CONTAINER}",
        ) from None
    try:
        os.setgroups([])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    except OSError as error:
        raise HostError(
            f"This root may not become {user}: {error.strerror}.",
            "Give it CAP_SETUID and CAP_SETGID (--cap-add of a container, capabilities: add in Kubernetes), "
            "or start it as that user.",
        ) from None
    os.environ |= {"HOME": account.pw_dir, "USER": user, "LOGNAME": user}
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        os.environ.pop(name, None)
    os.chdir("/")


def _delegate(uid: int, gid: int) -> None:
    mounted = cgroup_mounts(Path("/proc/self/mountinfo").read_text())
    name = V1_NAME.format(uid=uid)
    if all(controller in mounted for controller in v1.REQUIRED):
        for controller in (*v1.REQUIRED, *v1.OPTIONAL):
            if controller in mounted:
                _give(mounted[controller] / name, ("cgroup.procs", "tasks"), uid, gid)
    elif "cgroup2" in mounted:
        _delegate_v2(mounted["cgroup2"], name, uid, gid)


def _give(directory: Path, names: tuple[str, ...], uid: int, gid: int) -> None:
    directory.mkdir(exist_ok=True)
    for path in (directory, *(directory / name for name in names)):
        os.chown(path, uid, gid)


def _delegate_v2(root: Path, name: str, uid: int, gid: int) -> None:
    """Documentation/admin-guide/cgroup-v2.rst, "Delegation": the directory and these three files."""
    given = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
    offered = (root / "cgroup.controllers").read_text().split()
    controllers = [found for found in (*v2.REQUIRED, *v2.OPTIONAL) if found in offered]
    wanted = " ".join(f"+{found}" for found in controllers)
    try:
        files.write(root / "cgroup.subtree_control", wanted)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # In a container the root that we see is an inner node: nothing may live in it.
        v2.move_aside(root, root / "init")
        files.write(root / "cgroup.subtree_control", wanted)
    service = root / name / v2.SERVICE
    service.mkdir(parents=True, exist_ok=True)
    # From outside, only root can move a process in; and only while this is root's: in a container it may
    # have no power over what belongs to others.
    files.write(service / "cgroup.procs", os.getpid())
    for directory in (service, service.parent):
        _give(directory, given, uid, gid)


def _wants_scope() -> bool:
    """Whether this is a systemd host with cgroup v2 that has not delegated anything to us."""
    if os.environ.pop(_IN_SCOPE, None) or not Path("/run/systemd/system").exists():
        return False
    mounted = cgroup_mounts(Path("/proc/self/mountinfo").read_text())
    if "cgroup2" not in mounted or "memory" in mounted:
        return False
    own = mounted["cgroup2"] / (own_path_v2(Path("/proc/self/cgroup").read_text()) or "")
    return own.name != v2.SERVICE and not _is_delegated(own)


def _is_delegated(directory: Path) -> bool:
    """Whether systemd marked the cgroup as delegated.

    Being able to write there is not enough: a terminal's shell owns its cgroup as well, and would be moved.
    """
    try:
        return os.getxattr(directory, "user.delegate") == b"1"
    except OSError:
        return False


def _enter_scope(command: list[str]) -> None:
    os.environ[_IN_SCOPE] = "1"
    runtime = os.environ.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    # Not Path's exists(), which raises where ProtectHome= has closed the way.
    if not os.path.exists(f"{runtime}/systemd/private") or not shutil.which("systemd-run"):
        raise HostError(
            "This user has no systemd session manager that could delegate a cgroup to it.",
            "As root: loginctl enable-linger USER; or start it in a unit with Delegate=yes.",
        )
    # A scope, not a service: terminal, environment and working directory stay ours.
    scope = ["systemd-run", "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--"]
    os.execvp(scope[0], [*scope, *command])


if __name__ == "__main__":
    _become_ready(sys.argv[1], [sys.executable, "-P", "-m", "jail.delegation", *sys.argv[1:]])
    os.execvp(sys.argv[2], sys.argv[2:])
