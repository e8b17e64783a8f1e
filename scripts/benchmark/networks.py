"""What a network of its own costs a job, and whether anything is left of many of them."""

import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from benchmark import load
from benchmark.churn import throughput
from benchmark.client import NO_OP, Connection, check
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.row import Row
from benchmark.service import Service, children, serving
from benchmark.session import Session

TITLE = "isolated networks"
IS_PLAIN = True

ISOLATED = b'{"argv": ["/bin/true"], "network": {"mode": "isolated"}}'
TIMES_MAX = 3
"""How many times the p50 of a job without a network."""

_IN_A_ROW, _IN_A_ROW_FULL = 500, 5000
_GONE_SECONDS = 30


class Round(msgspec.Struct, frozen=True):
    """One client back to back: without a network, and with one."""

    none: Times
    isolated: Times


class Figures(msgspec.Struct, frozen=True):
    """`tenths`: jobs per second of each tenth of `jobs` in a row; `left`: what the hub then has of them."""

    rounds: tuple[Round, ...]
    jobs: int
    tenths: tuple[float, ...]
    left: dict[str, int]


def measure(session: Session) -> Figures:
    """Raises OSError, UnavailableError."""
    jobs = _IN_A_ROW_FULL if session.is_full else _IN_A_ROW
    advance = session.task("isolated networks", session.rounds + 10)
    found = []
    with serving() as service:
        for body in (ISOLATED, NO_OP):
            load.sequence(service.port, 20, body=body)
        for _ in range(session.rounds):
            none = load.sequence(service.port, session.runs)
            found.append(Round(none, load.sequence(service.port, session.runs, body=ISOLATED)))
            advance()
        tenths = []
        for _ in range(10):
            tenths.append(_rate(service.port, jobs // 10))
            advance()
        return Figures(tuple(found), jobs, tuple(tenths), _left(service))


def _rate(port: int, jobs: int) -> float:
    with closing(Connection(port)) as connection:
        began = time.perf_counter()
        for _ in range(jobs):
            check(connection.ask(body=ISOLATED))
        return jobs / (time.perf_counter() - began)


def _left(service: Service) -> dict[str, int]:
    """Links of sandboxes, routes and neighbours in the hub's namespace.

    The kernel takes its time over links. Raises OSError if some stay.
    """
    (hub,) = (pid for keeper in children(service.pid) for pid in children(keeper)[1:])
    network = Path(f"/proc/{hub}/net")

    def links() -> int:
        lines = (network / "dev").read_text().splitlines()[2:]
        return sum(line.strip().startswith("p") for line in lines)

    deadline = time.monotonic() + _GONE_SECONDS
    while links() and time.monotonic() < deadline:
        time.sleep(0.01)
    return {
        "links": links(),
        "routes": len((network / "route").read_text().splitlines()[1:]),
        "neighbours": len((network / "arp").read_text().splitlines()[1:]),
    }


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """Latency over that without a network, the last tenth over the first, and what is left."""
    ratios = [each.isolated.p50_ms / each.none.p50_ms for each in found.rounds]
    yield Row(
        name="one client's p50",
        value=statistics.median(each.isolated.p50_ms for each in found.rounds),
        ratio=statistics.median(ratios),
        to="without a network",
        at_most=TIMES_MAX,
        note=f"rounds {min(ratios):.2f} to {max(ratios):.2f}",
    )
    yield throughput(found.tenths, f"{found.jobs:,} jobs in a row")
    note = ", ".join(f"{name} {count}" for name, count in found.left.items())
    yield Row(name="left in the hub", value=sum(found.left.values()), unit="", at_most=0, note=note)
