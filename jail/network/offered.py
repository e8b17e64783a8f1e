"""Which networks jobs can have on this host."""

import shutil

from jail.errors import HostError
from jail.settings import NETWORKS

PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where the hub looks for programs of the host; it has no environment."""


def offered(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The modes of NETWORKS that jobs can have: those that are wanted, or else all that this host can give.

    Raises HostError for one that is wanted and cannot be had.
    """
    lack = _lack()
    if lack is None:
        return wanted or NETWORKS
    if "isolated" in wanted:
        raise lack
    return ("none",)


def _lack() -> HostError | None:
    if shutil.which("nft", path=PROGRAMS):
        return None
    return HostError(
        "nft, without which no network is closed to others, is not installed.",
        'As root: apt-get install nftables. To do without: networks = ["none"].',
    )
