"""The parts of the benchmark, in the order of the table."""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from benchmark import (
    calls,
    churn,
    clients,
    cores,
    density,
    explain,
    images,
    inside,
    latency,
    networks,
    peers,
    pool,
    precision,
    runtimes,
    steps,
)
from benchmark.floor import Floor
from benchmark.row import Row
from benchmark.session import Session


class Section(Protocol):
    """What each of these modules has."""

    TITLE: str
    IS_PLAIN: bool
    Figures: type[msgspec.Struct]

    def measure(self, session: Session) -> msgspec.Struct:
        """Find the figures. Raises OSError, UnavailableError."""

    def rows(self, found: msgspec.Struct, floor: Floor) -> Iterator[Row]:
        """Tell them."""


SECTIONS: dict[str, Section] = {
    "latency": latency,
    "clients": clients,
    "cores": cores,
    "pool": pool,
    "peers": peers,
    "explain": explain,
    "calls": calls,
    "inside": inside,
    "precision": precision,
    "runtimes": runtimes,
    "networks": networks,
    "images": images,
    "steps": steps,
    "density": density,
    "churn": churn,
}
"""By the name that --only takes."""
