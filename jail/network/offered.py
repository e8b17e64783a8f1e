"""Which networks jobs can have on this host."""

import os
import shutil

from jail import host
from jail.errors import HostError
from jail.network.protocol import Bounds
from jail.network.rules import PROGRAMS
from jail.network.way import TUN
from jail.settings import EGRESS_PROGRAMS, NETWORKS, Settings

_PACKAGES = {"slirp4netns": "slirp4netns", "pasta": "passt"}


def offered(settings: Settings) -> tuple[str, ...]:
    """The modes of networks that jobs can have: those that are wanted, or else all that this host can give.

    Raises HostError for one that is wanted and cannot be had.
    """
    try:
        check_networks()
    except HostError:
        if settings.egress or "isolated" in settings.networks:
            raise
        return ("none",)
    modes = settings.networks or NETWORKS
    if not settings.egress:
        return modes
    find_way(settings.egress_program)
    return (*modes, "egress")


def check_networks() -> None:
    """Raises HostError where no hub can be."""
    if not shutil.which("nft", path=PROGRAMS):
        raise HostError(
            "nft, without which no network is closed to others, is not installed.",
            'As root: apt-get install nftables. To do without: networks = ["none"], egress = [].',
        )


def bounds(settings: Settings) -> Bounds | None:
    """What the hub has to know of egress; None where it is off. Raises HostError."""
    if not settings.egress:
        return None
    return Bounds(
        program=find_way(settings.egress_program),
        bytes_per_s=settings.egress_bytes_per_s,
        connections=settings.egress_connections,
        landlock=bool(host.landlock_abi()),
    )


def find_way(name: str = "") -> str:
    """The path of the way out of that name, or of the first that is installed. Raises HostError."""
    # pasta is the younger: that of Debian 12 tells nobody that a connection was refused.
    paths = (shutil.which(program, path=PROGRAMS) for program in ([name] if name else EGRESS_PROGRAMS))
    found = next(filter(None, paths), None)
    if found is None:
        wanted = name or " or ".join(EGRESS_PROGRAMS)
        raise HostError(
            f"The way out of `egress`, {wanted}, is not installed.",
            f"As root: apt-get install {_PACKAGES[name or EGRESS_PROGRAMS[0]]}. To do without: egress = [].",
        )
    if not os.path.exists(TUN):
        raise HostError(
            f"There is no {TUN}, which the way out of `egress` makes its device with.",
            "As root: modprobe tun. In a container: --device /dev/net/tun. To do without: egress = [].",
        )
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise HostError(
            f"{TUN} is closed to this user: the way out of `egress` cannot make its device.",
            f"As root: chmod 666 {TUN}, as udev has it. To do without: egress = [].",
        )
    return found
