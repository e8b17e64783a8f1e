"""How exact verdicts are: spread of CPU times, excess over limits, verdicts that differ without a reason.

All with and without `pin`. A virtual machine's own processors are not even: the same program runs
outside in turn, and says what the host alone makes of it.
"""

import json
import os
import statistics
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec

from benchmark.client import Connection, result
from benchmark.figures import percentile
from benchmark.floor import Floor
from benchmark.row import Row
from benchmark.service import Service, await_many, serving
from benchmark.session import Advance, Session

TITLE = "judging precision: the same program again and again"
IS_PLAIN = False

ROUNDS = 400
"""Of programs/spin.c, for a job; tens of milliseconds."""

LIMIT_MS, AMPLE_MS = 30, 60_000
MARGIN = 1.05
"""A limit by so much above what is needed should never be reached."""

RUNS, RUNS_FULL = 40, 200
JUDGED, JUDGED_FULL = 100, 1000


class Series(msgspec.Struct, frozen=True):
    """Milliseconds of CPU time by run: as reported, as the program counts its own, and of one outside."""

    reported: tuple[float, ...]
    own: tuple[float, ...]
    outside: tuple[float, ...]


class Verdicts(msgspec.Struct, frozen=True):
    """Of how many jobs; how many reached a limit of `limit_ms`, and how many outside would have."""

    jobs: int
    limit_ms: int
    inside: int
    outside: int


class Precision(msgspec.Struct, frozen=True):
    """Found with one value of `pin`. Excesses are milliseconds beyond LIMIT_MS."""

    alone: Series
    beside: Series
    cpu_excess: tuple[float, ...]
    wall_excess: tuple[float, ...]
    verdicts: Verdicts


class Figures(msgspec.Struct, frozen=True):
    """With jobs anywhere, and with each on a processor of its own."""

    free: Precision
    pinned: Precision


class Program:
    """programs/spin.c, to be run outside and, by a service, inside."""

    def __init__(self, session: Session, service: Service, stack: ExitStack) -> None:
        """Compile it. Raises UnavailableError."""
        self._path = session.compiled("spin")
        self._file = {"base64": b64encode(self._path.read_bytes()).decode(), "executable": True}
        self._service = service
        self._connection = stack.enter_context(closing(Connection(service.port)))

    def _body(self, rounds: int, cpu_ms: int, wall_ms: int) -> bytes:
        limits = {"cpu_ms": cpu_ms, "wall_ms": wall_ms}
        job = {"argv": ["./spin", str(rounds)], "files": {"spin": self._file}, "limits": limits}
        return json.dumps(job).encode()

    def judge(self, rounds: int = ROUNDS, cpu_ms: int = AMPLE_MS, wall_ms: int = AMPLE_MS) -> dict:
        """The answer to one job, whatever came of it."""
        answer = self._connection.ask(body=self._body(rounds, cpu_ms, wall_ms))
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    def inside(self) -> tuple[float, float]:
        """What one job used as reported, and as it counted itself. Raises OSError."""
        found = result(self._connection.ask(body=self._body(ROUNDS, AMPLE_MS, AMPLE_MS)))
        return found["usage"]["cpu_ms"], int(found["stdout"]["text"]) / 1e6

    def outside(self) -> float:
        """What a process used that is in no sandbox."""
        silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        pid = os.posix_spawn(self._path, ["spin", str(ROUNDS)], {}, file_actions=silent)
        used = os.wait4(pid, 0)[2]
        return (used.ru_utime + used.ru_stime) * 1e3

    @contextmanager
    def neighbour(self) -> Iterator[None]:
        """Another job that keeps a processor busy for as long as the context lasts."""
        with closing(Connection(self._service.port)) as other:
            other.send(body=self._body(0, AMPLE_MS * 10, AMPLE_MS * 10))
            await_many(self._spinning, 1)
            yield

    def _spinning(self) -> int:
        """How many jobs execute it: the first process of a ready sandbox is another program."""
        return sum(Path(f"/proc/{job}/comm").read_text() == "spin\n" for job in self._service.jobs())


def measure(session: Session) -> Figures:
    """Measure without and with `pin`. Raises OSError, UnavailableError."""
    return Figures(free=_precision(session, pin=False), pinned=_precision(session, pin=True))


def _precision(session: Session, pin: bool) -> Precision:
    runs = RUNS_FULL if session.is_full else RUNS
    judged = JUDGED_FULL if session.is_full else JUDGED
    advance = session.task("pinned" if pin else "not pinned", 4 * runs + judged)
    with ExitStack() as stack:
        service = stack.enter_context(serving({"pin": pin, "slots": 2}))
        program = Program(session, service, stack)
        alone = _series(program, runs, advance)
        with program.neighbour():
            beside = _series(program, runs, advance)
        cpu = _excess(program, "cpu_ms", runs, advance)
        wall = _excess(program, "wall_ms", runs, advance)
        limit_ms = int(statistics.median(alone.reported) * MARGIN)
        return Precision(alone, beside, cpu, wall, _verdicts(program, limit_ms, judged, advance))


def _series(program: Program, runs: int, advance: Advance) -> Series:
    inside, outside = [], []
    for _ in range(runs):
        inside.append(program.inside())
        outside.append(program.outside())
        advance()
    reported, own = zip(*inside, strict=True)
    return Series(reported, own, tuple(outside))


def _excess(program: Program, limit: str, runs: int, advance: Advance) -> tuple[float, ...]:
    found = []
    for _ in range(runs):
        answer = program.judge(0, **{limit: LIMIT_MS})
        if answer["limit"] != limit:
            raise OSError(f"a job was answered with {answer}")
        found.append(answer["usage"][limit] - LIMIT_MS)
        advance()
    return tuple(found)


def _verdicts(program: Program, limit_ms: int, judged: int, advance: Advance) -> Verdicts:
    inside = outside = 0
    for _ in range(judged):
        inside += program.judge(cpu_ms=limit_ms)["status"] == "cpu_limit"
        outside += program.outside() > limit_ms
        advance()
    return Verdicts(judged, limit_ms, inside, outside)


def variation(values: tuple[float, ...]) -> float:
    """The coefficient of variation, in percent."""
    return statistics.pstdev(values) / statistics.mean(values) * 100


def _spread(name: str, series: Series, at_most: float) -> Row:
    added = [reported - own for reported, own in zip(series.reported, series.own, strict=True)]
    return Row(
        name=f"cpu_ms, {name}",
        value=variation(series.reported),
        unit="% CV",
        at_most=at_most,
        note=f"outside {variation(series.outside):.2f} %; "
        f"above the program's own: {statistics.median(added):.2f} ± {statistics.pstdev(added):.2f} ms",
    )


def _beyond(name: str, excess: tuple[float, ...]) -> Row:
    note = f"half of them at most {statistics.median(excess):.2f}"
    return Row(name=f"beyond a limit of {name}, p99", value=percentile(excess, 0.99), at_most=5, note=note)


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """Each figure without and with `pin`."""
    for words, precision in (("", found.free), (", pinned", found.pinned)):
        yield _spread(f"alone{words}", precision.alone, 2)
        yield _spread(f"beside a busy job{words}", precision.beside, 5)
        yield _beyond(f"CPU time{words}", precision.cpu_excess)
        yield _beyond(f"real time{words}", precision.wall_excess)
        verdicts = precision.verdicts
        yield Row(
            name=f"at {MARGIN:g} x what is needed: ended{words}",
            value=verdicts.inside,
            unit=f"of {verdicts.jobs}",
            at_most=0,
            note=f"outside {verdicts.outside} took longer",
        )
