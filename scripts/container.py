"""Write the seccomp profile of containers: scripts/container.py deploy/container/seccomp.json.

To be run when a policy changes that jobs or the service have. A container engine's own profile allows more
than jail and its jobs ever call, and refuses what makes a sandbox. This one is made of what may be called:

- what the policies let jobs and the service call; beneath it each of them keeps its own, narrower filter;
- what makes a sandbox, in NEEDED, each with its reason.

The format is the one that Docker, Podman, CRI-O and containerd share. No architecture is named: it is the
engine's own, and calls by another one's entry are killed.
"""

import errno
import json
import sys
from pathlib import Path

from jail import policy

POLICIES = Path(__file__).parents[1] / "policies"

# The policy with the most for jobs (run and strict are parts of it), and that of the service.
_WHOSE = {"default": POLICIES, "service": POLICIES / "service"}

NEEDED = {
    "clone3": "Sandboxes are cloned into their cgroup and their namespaces; the flags are behind a pointer.",
    "unshare": "The outer user namespace, and the namespaces that a sandbox enters once it is in its cgroup.",
    "setns": "Supervisors enter the outer user namespace.",
    "mount": "The root of a sandbox: overlay, proc, tmpfs.",
    "mount_setattr": "Outputs are read through a mount that is read-only and follows no link.",
    "umount2": "The old root is let go of.",
    "pivot_root": "No path leads from a sandbox to the container's files.",
    "setgroups": "Root of a sandbox has no group of the service.",
    "sethostname": "A sandbox does not tell the container's name.",
    "setdomainname": "The same.",
    "keyctl": "A sandbox has a session keyring of its own.",
    "seccomp": "The filters of jobs and of the service.",
    "sched_setattr": "Who watches a sandbox has the shortest slice of time.",
    # In the policies as well, but no sandbox would be made without them.
    "landlock_create_ruleset": "The files that the service, and a job, can reach.",
    "landlock_add_rule": "The same.",
    "landlock_restrict_self": "The same.",
    "prctl": "Capabilities, no_new_privs, the parent's death.",
    "capset": "A job has no capability.",
}
"""System calls without which there is no sandbox, and why."""


def profile() -> dict[str, object]:
    """The profile as engines read it."""
    called = set()
    for name, directory in _WHOSE.items():
        found = policy.load(name, directory)
        called |= set(found.allow) | {rule.call for rule in (*found.rules, *found.counted)}
    rules = [_allow("What jobs and the service may call.", sorted(called - NEEDED.keys()))]
    rules += [_allow(reason, [call]) for call, reason in NEEDED.items()]
    # As a kernel without the call: programs fall back on an older one.
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.ENOSYS, "syscalls": rules}


def _allow(reason: str, names: list[str]) -> dict[str, object]:
    return {"comment": reason, "names": names, "action": "SCMP_ACT_ALLOW"}


def text() -> str:
    """The same, as it stands in the file."""
    return json.dumps(profile(), indent=1) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
