"""What a sandbox weighs: one that is ready, and one whose job sleeps; many alive at once."""

import json
import math
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec

from benchmark import load, memory
from benchmark.client import Connection
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.row import Row
from benchmark.service import await_many, children, parent, ready, serving
from benchmark.session import Session
from jail.host import cgroup_mounts

TITLE = "density: memory of a sandbox, and a thousand at once"
IS_PLAIN = True

SLEEPING, SLEEPING_FULL = 100, 1000
READY, READY_FULL = 64, 256
KIB_AIM = 400

_MEMORY_BYTES = 8 << 20
_SLEEP = {"argv": ["sleep", "900"], "limits": {"memory_bytes": _MEMORY_BYTES, "wall_ms": 900_000, "pids": 8}}
_SETTLE_SECONDS = 1.5
# What jail.rlimits asks of a service for each slot, and for itself.
_FILES_PER_SLOT, _FILES_BASE = 24, 128
_SPARE_SLOTS = 2


class Weight(msgspec.Struct, frozen=True):
    """KiB for each of `count` sandboxes.

    lost: by the system, of each kind. charged: to the sandbox's cgroup. init, job: pages that only its
    init has, and only its second process, which is the job once it runs.
    """

    count: int
    lost: memory.Memory
    charged: float
    init: float
    job: float


class Figures(msgspec.Struct, frozen=True):
    """`start_ms`, `start_ready_ms`: of a service without ready sandboxes, and until READY of them are.

    `services` share the sleeping jobs, as many as the limit of open files asks for; they slept after
    `seconds`. `beside`: no-op jobs meanwhile.
    """

    sleeping: Weight
    services: int
    seconds: float
    beside: Times
    start_ms: float
    start_ready_ms: float | None = None
    ready: Weight | None = None


def measure(session: Session) -> Figures:
    """Raises OSError, UnavailableError."""
    count = SLEEPING_FULL if session.is_full else SLEEPING
    advance = session.task("density", 3)
    none = _start(0)
    advance()
    some = _start(READY) if ready(READY) else None
    if some and session.is_full:
        some = some[0], _start(READY_FULL)[1]
    advance()
    found = _sleep(count, none[0], some)
    advance()
    return found


def _start(count: int) -> tuple[float, Weight | None]:
    """A service with that many ready sandboxes: milliseconds until they are, and what each weighs."""
    before = _settled()
    with serving(ready(count) or {}) as service:
        began = time.monotonic()
        service.await_ready(count)
        spent_ms = service.start_ms + (time.monotonic() - began) * 1e3
        weight = _weigh(before, _settled(), service.inits(), count) if count else None
    return spent_ms, weight


def _sleep(count: int, start_ms: float, some: tuple[float, Weight | None] | None) -> Figures:
    each = slots_each(count)
    services = math.ceil(count / each)
    settings = {
        "slots": each + _SPARE_SLOTS,
        "memory_bytes": (each + _SPARE_SLOTS) << 30,
        # As many at the end as at the start.
        **(ready(_SPARE_SLOTS) or {}),
    }
    with ExitStack() as held:
        running = [held.enter_context(serving(settings)) for _ in range(services)]
        for service in running:
            load.warm_up(service.port)
        before, began = _settled(), time.monotonic()
        for number in range(count):
            client = held.enter_context(closing(Connection(running[number % services].port)))
            client.send(body=json.dumps(_SLEEP).encode())
        await_many(lambda: sum(len(service.jobs()) for service in running), count)
        seconds = time.monotonic() - began
        after = _settled()
        jobs = {parent(job) for service in running for job in service.jobs()}
        weight = _weigh(before, after, sorted(jobs), count)
        beside = load.sequence(running[0].port, 50)
    return Figures(weight, services, seconds, beside, start_ms, *(some or ()))


def slots_each(count: int) -> int:
    """How many of `count` sleeping jobs one service may have, by the files that it may open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return count
    most = (hard - _FILES_BASE) // _FILES_PER_SLOT - _SPARE_SLOTS
    return math.ceil(count / math.ceil(count / most))


def _settled() -> memory.Memory:
    """After what was just freed or asked for has been accounted for."""
    time.sleep(_SETTLE_SECONDS)
    return memory.now()


def _weigh(before: memory.Memory, after: memory.Memory, inits: Sequence[int], count: int) -> Weight:
    seconds = [pid for init in inits for pid in children(init)]
    return Weight(
        count,
        before.lost(after, count),
        statistics.mean(charged(pid) for pid in inits),
        statistics.mean(memory.own(pid) for pid in inits),
        sum(memory.own(pid) for pid in seconds) / len(inits),
    )


def charged(pid: int) -> float:
    """KiB charged to the cgroup that a process is in: its pages, files in tmpfs, kernel objects."""
    mounted = cgroup_mounts(Path("/proc/self/mountinfo").read_text())
    places = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    controllers = {name: path.lstrip("/") for _, names, path in places for name in names.split(",")}
    if "memory" in controllers:
        file = mounted["memory"] / controllers["memory"] / "memory.usage_in_bytes"
    else:
        file = mounted["cgroup2"] / controllers[""] / "memory.current"
    return int(file.read_text()) / 1024


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """What the system loses is what is aimed at; its parts follow."""
    for name, weight in (("ready", found.ready), ("sleeping", found.sleeping)):
        if weight is not None:
            yield from _weight_rows(name, weight)
    yield Row(
        name="sandboxes alive at once",
        value=found.sleeping.count,
        unit="",
        at_least=SLEEPING_FULL if found.sleeping.count > SLEEPING else None,
        note=f"of {found.services} service(s), all asleep after {found.seconds:.1f} s",
    )
    yield Row(name="a no-op job beside them: p50", value=found.beside.p50_ms)
    yield Row(name="start of the service", value=found.start_ms, note="to /readyz")
    if found.start_ready_ms is not None:
        yield Row(
            name=f"the same, until {READY} are ready",
            value=found.start_ready_ms,
            ratio=found.start_ready_ms / found.start_ms,
            to="none ready",
        )


def _weight_rows(name: str, weight: Weight) -> Iterator[Row]:
    lost = weight.lost
    yield Row(
        name=f"{name}: processes' own pages",
        value=weight.init + weight.job,
        unit="KiB",
        at_most=KIB_AIM,
        note=f"init {weight.init:.0f}, second process {weight.job:.0f}",
    )
    yield Row(
        name=f"{name}: lost of MemAvailable",
        value=lost.available,
        unit="KiB",
        at_most=KIB_AIM,
        note=f"slab {lost.slab:.0f}, tables {lost.tables:.0f}, stacks {lost.stacks:.0f}, "
        f"per processor {lost.percpu:.0f}",
    )
    yield Row(
        name=f"{name}: charged to its cgroup",
        value=weight.charged,
        unit="KiB",
        note=f"each of {weight.count}",
    )
