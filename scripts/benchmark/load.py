"""One client after the other, or several at once: how long each job took them."""

import selectors
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

import msgspec

from benchmark.client import NO_OP, Connection, check
from benchmark.figures import Times, times


class Load(msgspec.Struct, frozen=True):
    """What several clients at once find: jobs per second of all together, and each job's time."""

    clients: int
    jobs_per_s: float
    times: Times


def sequence(port: int, jobs: int, pause_seconds: float = 0, body: bytes = NO_OP) -> Times:
    """One client, one job after the other, with a pause before each."""
    found = []
    with closing(Connection(port)) as connection:
        for _ in range(jobs):
            time.sleep(pause_seconds)
            began = time.perf_counter()
            answer = connection.ask(body=body)
            found.append(time.perf_counter() - began)
            check(answer)
    return times(found)


def warm_up(port: int, jobs: int = 20) -> None:
    """What is done once is done before it is measured."""
    sequence(port, jobs)


class Crowd:
    """Clients that each send their next job when the last is answered.

    `ends` and `seconds`: of each job in the order of its end, when that was and how long it took.
    """

    def __init__(self, port: int, clients: int, held: ExitStack) -> None:
        """Connect them all; they are closed with `held`. Raises OSError."""
        self.ends: list[float] = []
        self.seconds: list[float] = []
        self._sent_at: dict[Connection, float] = {}
        self._clients = [held.enter_context(closing(Connection(port))) for _ in range(clients)]
        self._ready = held.enter_context(selectors.DefaultSelector())
        for client in self._clients:
            self._ready.register(client.socket, selectors.EVENT_READ, client)

    def run(self, goes_on: Callable[[int], bool]) -> None:
        """One job each, then more while `goes_on(jobs sent so far)`; ends with the last answer."""
        for client in self._clients:
            self._send(client)
        sent = len(self._clients)
        while self._sent_at:
            for key, _ in self._ready.select():
                if self._take_in(key.data) and goes_on(sent):
                    self._send(key.data)
                    sent += 1

    def _send(self, client: Connection) -> None:
        self._sent_at[client] = time.perf_counter()
        client.send()

    def _take_in(self, client: Connection) -> bool:
        """Whether that was the end of an answer; it is checked. Raises OSError."""
        answer = client.receive()
        if answer is None:
            return False
        end = time.perf_counter()
        self.ends.append(end)
        self.seconds.append(end - self._sent_at.pop(client))
        check(answer)
        return True


def crowd(port: int, clients: int, jobs: int) -> Load:
    """That many clients at once, until so many jobs are answered."""
    with ExitStack() as held:
        found = Crowd(port, clients, held)
        began = time.perf_counter()
        found.run(lambda sent: sent < jobs)
    return Load(clients, len(found.ends) / (found.ends[-1] - began), times(found.seconds))
