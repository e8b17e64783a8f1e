"""The hub's program, with the arguments SLOTS ID [BOUNDS] and a socket of its client as stdin.

The keeper starts it, by the command of jail.keeper.module_command(), as root of the outer user namespace, in
whichever network namespace; it works in a new one.
It becomes ID, and what it leaves behind the next: ids of the outer namespace that no sandbox has.
The end of the socket tells of its end; what it has to say of a failure before it serves is its first packet.
BOUNDS, in JSON, are those of jail.network.protocol: with them segments may have a way out.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType

import msgspec

from jail.network import confinement, namespaces, rules
from jail.network.protocol import Bounds, Refused

_LOAD_SECONDS = 60
_WORDS_MAX = 500

_SYSCTLS = {
    # A new namespace may have these from the host.
    "ipv4/ip_forward": "0",
    "ipv6/conf/all/forwarding": "0",
    # The hub's own ends say nothing: no address, no reports of groups.
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    # Frames on a bridge are for the tables of bridges alone, even where the host runs containers.
    "bridge/bridge-nf-call-arptables": "0",
    "bridge/bridge-nf-call-ip6tables": "0",
    "bridge/bridge-nf-call-iptables": "0",
}
"""Beneath /proc/sys/net. What is not there is not in this kernel."""


def main(slots: int, identity: int, bounds: Bounds | None) -> None:
    """Serve on standard input until it ends. Raises OSError where the host lacks something."""
    control = socket.socket(fileno=0)
    try:
        outside = _leave_behind(control, identity + 1, bounds.landlock) if bounds else None
        _move(outside)
        _prepare(slots, bounds)
        # While it can read them: as ID it reaches no file that is not everybody's.
        _leave_out_init("pyroute2")
        from jail.network.hub import Hub

        confinement.give_up(identity, [outside.fileno()] if outside else [])
        hub = Hub(control, slots, (outside, bounds) if outside and bounds else None)
    except (OSError, subprocess.SubprocessError) as error:
        refused = Refused(0, getattr(error, "errno", None) or 0, _words(error))
        control.send(msgspec.json.encode(refused))
        raise
    hub.serve()


def _leave_behind(control: socket.socket, identity: int, landlock: bool) -> socket.socket:
    """Fork what is to stay in the network that we are in now; our end of its socket. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        return ours
    status = 1
    try:
        ours.close()
        control.close()
        # Only there: the hub needs nothing of what it imports.
        from jail.network.outside import stay

        stay(theirs, identity, landlock)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _move(outside: socket.socket | None) -> None:
    """To a new network namespace, which is that of whoever makes the way out. Raises OSError."""
    if outside is None:
        namespaces.leave_for_new()
        return
    _, descriptors, _, _ = socket.recv_fds(outside, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise ChildProcessError("what stays in the host's network has ended")
    for namespace in descriptors:
        namespaces.enter(namespace)
        os.close(namespace)


def _prepare(slots: int, bounds: Bounds | None) -> None:
    """Have nothing pass but what the rules show. Raises OSError, SubprocessError."""
    for name, value in _SYSCTLS.items():
        path = Path("/proc/sys/net", name)
        if path.exists():
            path.write_text(value)
    command = shutil.which("nft", path=rules.PROGRAMS)
    if command is None:
        raise FileNotFoundError("nft is not installed")
    for text in rules.transactions(slots, bounds):
        subprocess.run(
            [command, "-f", "-"],
            input=text,
            text=True,
            capture_output=True,
            check=True,
            env={},
            timeout=_LOAD_SECONDS,
        )


def _leave_out_init(package: str) -> None:
    """Have modules of a package imported without what its __init__ does: here it imports all of them.

    It is all that this program does not use of it, 19 of 36 MB and the longest part of its start.
    """
    found = importlib.util.find_spec(package)
    if found is None:
        raise ModuleNotFoundError(package)
    module = ModuleType(package)
    module.__path__ = found.submodule_search_locations
    sys.modules[package] = module


def _words(error: Exception) -> str:
    said = getattr(error, "stderr", None)
    return said.strip()[:_WORDS_MAX] if said else str(error)


if __name__ == "__main__":
    bounds = msgspec.json.decode(sys.argv[3], type=Bounds) if sys.argv[3:] else None
    main(int(sys.argv[1]), int(sys.argv[2]), bounds)
