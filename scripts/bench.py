"""What a job costs here, beside the least that a fresh sandbox can cost; scripts/bench runs this.

Three things run in turn, each doing the same job, `true`:

floor   native/floor.c: what this kernel takes for it, see there
engine  what `jail run` uses: from a body's bytes to a result, without HTTP
http    `jail serve`, started for this; one client, one that pauses, then eight at once

The floor is measured before and after, since a busy machine makes it move. Ratios within one run
mean something; times from two runs do not.
"""

import argparse
import asyncio
import math
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import msgspec
import uvloop
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from jail import settings, spec
from jail.engine import Engine
from jail.namespace import OuterNamespace

BODY = b'{"argv": ["/bin/true"]}'
CLIENTS = 8
WARM_UP = 20
PAUSE_SECONDS = 0.3
START_SECONDS = 30
STEADY = 0.15
"""A floor that moves by more than this share within a run is worth a warning."""

Advance = Callable[[], None]


class Floor(msgspec.Struct, frozen=True):
    """Milliseconds; see native/floor.c."""

    bare_ms: float
    cold_ms: float
    start_ms: float
    churn_ms: float


class Times(msgspec.Struct, frozen=True):
    """Milliseconds, from one job being sent to its answer being there."""

    p50_ms: float
    p99_ms: float


class Http(Times, frozen=True):
    """`sparse_p50_ms`: with a pause between jobs. `jobs_per_s`: with CLIENTS at once."""

    sparse_p50_ms: float
    jobs_per_s: float


class Figures(msgspec.Struct, frozen=True):
    """All that one run of the benchmark finds; what --json writes."""

    floor: Floor
    engine: Times
    http: Http


class Connection:
    """A kept-alive connection that knows just enough HTTP: what is measured is the service."""

    def __init__(self, port: int) -> None:
        """Connect. Raises OSError."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._received = b""

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def send(self, head: str = "POST /v1/run", body: bytes = BODY) -> None:
        """Send a request at once."""
        lines = f"{head} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.socket.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (lines.encode(), len(body), body))

    def receive(self) -> bytes | None:
        """Take in what has come: the whole answer, or None while there is more of it to come."""
        chunk = self.socket.recv(65_536)
        if not chunk:
            raise ConnectionError("the service closed the connection")
        self._received += chunk
        head, _, body = self._received.partition(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length: ")
        if not length or len(body) < int(length.split(b"\r\n", 1)[0]):
            return None
        answer, self._received = self._received, b""
        return answer

    def ask(self, head: str = "POST /v1/run", body: bytes = BODY) -> bytes:
        """Send a request and wait for the whole answer."""
        self.send(head, body)
        answer = None
        while answer is None:
            answer = self.receive()
        return answer


def measure_floor(program: str, runs: int) -> Floor:
    """Run native/floor.c's program as the supervisor is run. Raises CalledProcessError."""
    namespace = OuterNamespace()
    try:
        done = subprocess.run(
            [program, str(runs)], stdin=namespace.descriptor, stdout=subprocess.PIPE, check=True
        )
    finally:
        namespace.close()
    return msgspec.convert(
        dict(line.split() for line in done.stdout.decode().splitlines()), Floor, strict=False
    )


async def measure_engine(runs: int, advance: Advance) -> Times:
    """One job after the other, without HTTP."""
    async with Engine(settings.load()) as engine:

        async def run() -> None:
            result = await engine.submit(spec.parse(BODY, engine.rules)).task
            if result.status != "ok":
                raise RuntimeError(f"a job ended with {result}")

        for _ in range(WARM_UP):
            await run()
        times = []
        for _ in range(runs):
            began = time.perf_counter()
            await run()
            times.append(time.perf_counter() - began)
            advance()
    return _times(times)


@contextmanager
def serving() -> Iterator[int]:
    """`jail serve` on a free port, for as long as the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        service = subprocess.Popen(
            # -P: the installed package, also where the current directory is a checkout.
            [sys.executable, "-P", "-m", "jail", "serve"],
            env={**os.environ, "JAIL_ADDRESS": f"127.0.0.1:{port}"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _await_ready(service, port)
            yield port
        except OSError:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()


def _await_ready(service: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while service.poll() is None and time.monotonic() < deadline:
        try:
            with closing(Connection(port)) as connection:
                if b" 200 " in connection.ask("GET /readyz", b"")[:20]:
                    return
        except ConnectionError:
            pass
        time.sleep(0.05)
    raise OSError("jail serve did not get ready")


def measure_sequence(port: int, runs: int, advance: Advance, pause_seconds: float = 0) -> Times:
    """One client, one job after the other, with a pause before each."""
    times = []
    with closing(Connection(port)) as connection:
        for _ in range(runs):
            time.sleep(pause_seconds)
            began = time.perf_counter()
            answer = connection.ask()
            times.append(time.perf_counter() - began)
            _check(answer)
            advance()
    return _times(times)


def measure_throughput(port: int, runs: int, advance: Advance) -> float:
    """Jobs per second with CLIENTS at once, each sending its next job when the last is answered."""
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Connection(port))) for _ in range(CLIENTS)]
        ready = stack.enter_context(selectors.DefaultSelector())
        began = time.perf_counter()
        for client in clients:
            ready.register(client.socket, selectors.EVENT_READ, client)
            client.send()
        sent, answered = CLIENTS, 0
        while answered < runs:
            for key, _ in ready.select():
                answer = key.data.receive()
                if answer is None:
                    continue
                if sent < runs:
                    key.data.send()
                    sent += 1
                _check(answer)
                answered += 1
                advance()
        return runs / (time.perf_counter() - began)


def _check(answer: bytes) -> None:
    if b" 200 " not in answer[:20] or b'"status":"ok"' not in answer.replace(b'": ', b'":'):
        raise OSError(f"a job was answered with {answer.decode(errors='replace')}")


def _times(seconds: list[float]) -> Times:
    ordered = sorted(seconds)
    last = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return Times(statistics.median(ordered) * 1e3, last * 1e3)


def measure(program: str, runs: int) -> tuple[Figures, float]:
    """Measure everything; beside it, by what share the floor moved meanwhile."""
    console = Console(stderr=True)
    sparse = max(10, runs // 10)
    with Progress(console=console, transient=True) as progress:

        def task(name: str, total: int) -> Advance:
            number = progress.add_task(name, total=total)
            return lambda: progress.advance(number)

        floors, engine = task("floor", 2), task("engine", runs)
        one, pausing = task("http, one client", runs), task("http, with pauses", sparse)
        many = task(f"http, {CLIENTS} clients", runs * 2)
        before = measure_floor(program, runs)
        floors()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            without_http = runner.run(measure_engine(runs, engine))
        with serving() as port:
            measure_sequence(port, WARM_UP, lambda: None)
            in_turn = measure_sequence(port, runs, one)
            paused = measure_sequence(port, sparse, pausing, PAUSE_SECONDS)
            jobs_per_s = measure_throughput(port, runs * 2, many)
        after = measure_floor(program, runs)
        floors()
    pairs = list(zip(msgspec.structs.astuple(before), msgspec.structs.astuple(after), strict=True))
    floor = Floor(*(statistics.mean(pair) for pair in pairs))
    http = Http(in_turn.p50_ms, in_turn.p99_ms, paused.p50_ms, jobs_per_s)
    moved = max(max(pair) / min(pair) - 1 for pair in pairs)
    return Figures(floor, without_http, http), moved


def table(figures: Figures) -> Table:
    """Lay the figures out, each with its ratios to the floor."""
    floor, engine, http = figures.floor, figures.engine, figures.http
    fresh_ms = floor.bare_ms + floor.cold_ms
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    found.add_column("job: /bin/true")
    for name in ("ms", "x bare", "x (bare + cold)", "jobs/s", "x churn's"):
        found.add_column(name, justify="right")

    def row(name: str, ms: float) -> None:
        found.add_row(name, f"{ms:.2f}", f"{ms / floor.bare_ms:.1f}", f"{ms / fresh_ms:.2f}")

    def rate(name: str, jobs_per_s: float) -> None:
        ratio = jobs_per_s * floor.churn_ms / 1e3
        found.add_row(name, f"{1e3 / jobs_per_s:.2f}", "", "", f"{jobs_per_s:.0f}", f"{ratio:.2f}")
        found.add_section()

    row("floor: bare", floor.bare_ms)
    row("floor: cold", floor.cold_ms)
    row("floor: start", floor.start_ms)
    rate("floor: churn", 1e3 / floor.churn_ms)
    row("engine: p50", engine.p50_ms)
    row("engine: p99", engine.p99_ms)
    found.add_section()
    row("HTTP: p50", http.p50_ms)
    row("HTTP: p99", http.p99_ms)
    row("HTTP: p50, sparse", http.sparse_p50_ms)
    rate(f"HTTP: {CLIENTS} clients", http.jobs_per_s)
    return found


def show(figures: Figures, moved: float, console: Console) -> None:
    """Print the table, and what a reader should know about it."""
    console.print(table(figures))
    console.print("Aims: HTTP p50 at most 5 x (bare + cold), then 3.5 x bare;")
    console.print("      jobs/s with several clients at least 0.75 x churn's.")
    if moved > STEADY:
        console.print(f"The floor moved by {moved:.0%} meanwhile: this machine is not quiet.")


def main() -> None:
    """Measure, print, and write the figures if asked to."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    about = "What a job costs on this host, beside the least that a fresh sandbox can cost."
    parser = argparse.ArgumentParser(prog="scripts/bench", description=about)
    parser.add_argument("floor", help="the program made of native/floor.c")
    parser.add_argument("--runs", type=int, default=300, help="jobs of a kind (%(default)s)")
    parser.add_argument("--json", action="store_true", help="JSON on stdout, the table on stderr")
    options = parser.parse_args()
    figures, moved = measure(options.floor, max(10, options.runs))
    show(figures, moved, Console(stderr=options.json))
    if options.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")


if __name__ == "__main__":
    main()
