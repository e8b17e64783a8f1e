"""The hub's program: `python -P -m jail.network SLOTS`, with a socket of its client as standard input.

It is started as root of the outer user namespace, in whichever network namespace, and works in a new one.
The end of the socket tells of its end; what it has to say of a failure before it serves is its first packet.
"""

import importlib.util
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import msgspec

from jail.network import namespaces, rules
from jail.network.protocol import Refused

_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
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


def main(slots: int) -> None:
    """Serve on standard input until it ends. Raises OSError where the host lacks something."""
    control = socket.socket(fileno=0)
    try:
        _prepare(slots)
        _leave_out_init("pyroute2")
        from jail.network.hub import Hub
    except (OSError, subprocess.SubprocessError) as error:
        refused = Refused(0, getattr(error, "errno", None) or 0, _words(error))
        control.send(msgspec.json.encode(refused))
        raise
    Hub(control, slots).serve()


def _prepare(slots: int) -> None:
    """A network namespace where nothing passes but what the rules show. Raises OSError, SubprocessError."""
    namespaces.leave_for_new()
    for name, value in _SYSCTLS.items():
        path = Path("/proc/sys/net", name)
        if path.exists():
            path.write_text(value)
    command = shutil.which("nft", path=_PROGRAMS)
    if command is None:
        raise FileNotFoundError("nft is not installed")
    subprocess.run(
        [command, "-f", "-"],
        input=rules.ruleset(slots),
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
    main(int(sys.argv[1]))
