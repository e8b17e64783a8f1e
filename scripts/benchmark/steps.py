"""What one of many tests over one compiled program costs, and what a large stored input costs each job."""

import json
import statistics
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing

import msgspec

from benchmark import load
from benchmark.client import Connection, result
from benchmark.figures import Times
from benchmark.floor import Floor
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import Session

TITLE = "steps, tests and stored files"
IS_PLAIN = True

TESTS, TESTS_FULL = 100, 500
TIMES_MAX = 1.3
"""How many times a single run of the same program, compiled before, a test may cost."""

INPUT_BYTES = 64 << 20
COPY_MAX = 0.1
"""Of a job's peak memory, how much of such an input may be in it."""

SOURCE = "int main(void) { return 0; }"
LIMITS = {"memory_bytes": 64 << 20}
COMPILE = {
    "name": "compile",
    "argv": ["gcc", "-O1", "-o", "program", "program.c"],
    "files": {"program.c": SOURCE},
    "compiles": True,
}
RUN = {"name": "run", "argv": ["./program"], "limits": LIMITS}


class Round(msgspec.Struct, frozen=True):
    """A single run; ms that each of many tests took; one job with a stored input, and with none."""

    single: Times
    test_ms: float
    with_input: Times
    without: Times


class Figures(msgspec.Struct, frozen=True):
    """`tests`: of each job of many; `peak_bytes`: the largest of any job with an input of INPUT_BYTES."""

    rounds: tuple[Round, ...]
    tests: int
    peak_bytes: int


def measure(session: Session) -> Figures:
    """Raises OSError, UnavailableError."""
    tests = TESTS_FULL if session.is_full else TESTS
    advance = session.task("steps and tests", session.rounds)
    found = []
    with serving() as service, closing(Connection(service.port)) as connection:
        single = _body(argv=["./program"], files={"program": _compiled(connection)}, limits=LIMITS)
        stored = _put(connection, bytes(INPUT_BYTES))
        without = _body(argv=["/bin/true"], limits=LIMITS)
        with_input = _body(argv=["/bin/true"], limits=LIMITS, files={"in": stored})
        reads = _body(argv=["head", "-c", "1000", "in"], limits=LIMITS, files={"in": stored})
        for body in (single, with_input, without):
            load.sequence(service.port, 20, body=body)
        for _ in range(session.rounds):
            found.append(
                Round(
                    load.sequence(service.port, session.runs, body=single),
                    _test_ms(connection, tests),
                    load.sequence(service.port, session.runs, body=with_input),
                    load.sequence(service.port, session.runs, body=without),
                )
            )
            advance()
        told = [result(connection.ask(body=reads)) for _ in range(100)]
        return Figures(tuple(found), tests, max(one["usage"]["memory_peak_bytes"] for one in told))


def _body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def _compiled(connection: Connection) -> dict[str, str]:
    """The program, as a stored file."""
    job = {name: COMPILE[name] for name in ("argv", "files")}
    told = result(connection.ask(body=_body(**job, outputs=["program"])))
    return _put(connection, b64decode(told["outputs"]["program"]["base64"]))


def _put(connection: Connection, content: bytes) -> dict[str, str]:
    """Store it; what a job names it by."""
    told = json.loads(connection.ask("PUT /v1/files", content).partition(b"\r\n\r\n")[2])
    return {"file": told["file"]}


def _test_ms(connection: Connection, tests: int) -> float:
    """What each took, side by side as they were, without the compilation."""
    told = result(connection.ask(body=_body(steps=[COMPILE, RUN], tests=[{"expected": ""}] * tests)))
    return (told["timing"]["run_ms"] - told["steps"]["compile"]["usage"]["wall_ms"]) / tests


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """A test over a single run, a job with a large input over one without, and what of it is in memory."""
    tests = [each.test_ms / each.single.p50_ms for each in found.rounds]
    yield Row(
        name=f"one of {found.tests} tests",
        value=statistics.median(each.test_ms for each in found.rounds),
        ratio=statistics.median(tests),
        to="a single run",
        at_most=TIMES_MAX,
        note=f"rounds {min(tests):.2f} to {max(tests):.2f}",
    )
    inputs = [each.with_input.p50_ms / each.without.p50_ms for each in found.rounds]
    yield Row(
        name="one client's p50, 64 MiB stored",
        value=statistics.median(each.with_input.p50_ms for each in found.rounds),
        ratio=statistics.median(inputs),
        to="without",
        note=f"rounds {min(inputs):.2f} to {max(inputs):.2f}",
    )
    yield Row(
        name="most memory of 100 jobs that read of it",
        value=found.peak_bytes / (1 << 20),
        unit="MiB",
        ratio=found.peak_bytes / INPUT_BYTES,
        to="the input",
        at_most=COPY_MAX,
    )
