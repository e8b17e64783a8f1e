"""`jail serve`: the HTTP service."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import structlog
import uvicorn
import uvloop

from jail import delegation, host, settings, shed
from jail.cli import log, systemd
from jail.cli.failures import explained
from jail.cli.systemd import Notices
from jail.cli.websocket import MESSAGE_BYTES, WebSocket
from jail.cli.workers import Voice, Workers
from jail.engine import Engine, accepted_weaknesses
from jail.errors import HostError
from jail.http import Metrics, Table, build
from jail.settings import Settings, SettingsError

# What uvicorn says of an answer that it cuts.
_WITHOUT_END = "ASGI callable returned without completing response."

# After the last job was cancelled: time for its answer to reach its client.
_LAST_ANSWERS_SECONDS = 5

# After that: time to leave nothing behind.
_CLEARING_SECONDS = 10

# For the next request of a caller who keeps a connection, and has yet to learn that we stop.
_LINGER_SECONDS = 0.5


@click.command()
@click.option("--user", help="As root: delegate a cgroup subtree to this user and become it for good.")
@click.option("--config", type=click.Path(), help="A TOML file; $JAIL_CONFIG by default.")
@click.option("--workers", type=int, help="Processes that take requests; 1 by default.")
def serve(user: str | None, config: str | None, workers: int | None) -> None:
    """Answer POST /v1/run and its like until SIGTERM."""
    with explained():
        delegation.become_ready(user)
        found = settings.load(config=config, workers=workers)
        notices, handed = Notices(), systemd.listeners()
        shed.forget_environment()
        host.return_freed_memory()
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
        log.configure(sys.stderr.buffer)
        listeners = _accepted(found, handed) if handed else _listen(found)
        work = partial(_work, found, listeners, Table(found.workers))
        say_ready = partial(_say_ready, found, listeners[0].getsockname(), notices)
        if found.workers == 1:
            work(0, say_ready, notices)
        else:
            _oversee(found, listeners, work, say_ready, notices)


def _say_ready(found: Settings, address: tuple, notices: Notices) -> None:
    structlog.get_logger().info("ready", address=f"{address[0]}:{address[1]}", slots=found.slots)
    notices.ready()


def _grace_s(found: Settings) -> float:
    """How long it may take to stop, in seconds."""
    return found.drain_ms / 1000 + _LAST_ANSWERS_SECONDS + _CLEARING_SECONDS


def _oversee(
    found: Settings,
    listeners: list[socket.socket],
    work: Callable,
    say_ready: Callable[[], None],
    notices: Notices,
) -> None:
    """As their parent, start the workers, each when the one before is ready, and wait. Raises HostError."""
    landlock = "landlock" not in accepted_weaknesses(found)
    workers = Workers(notices, _grace_s(found))
    # What keeps the first from its work would keep the others too: it is said once.
    are_ready = all(workers.start(number, partial(work, number)) for number in range(found.workers))
    for listener in listeners:
        listener.close()
    workers.pass_on_signals()
    shed.shed_files(landlock)
    if are_ready:
        say_ready()
    workers.wait()


def _work(
    found: Settings,
    listeners: list[socket.socket],
    table: Table,
    number: int,
    say_ready: Callable[[], None],
    voice: Voice,
) -> None:
    """Serve, as worker `number` or as the only one."""
    listener = listeners.pop(number)
    # Whoever closes the last descriptor of one refuses those who still wait there.
    for other in listeners:
        other.close()
    if found.pin:
        # Else the jobs of all workers would be pinned to the same few.
        os.sched_setaffinity(0, host.processors()[number :: found.workers])
    with listener, asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(_serve(found, listener, table, number, say_ready, voice))


def _new_event_loop() -> asyncio.AbstractEventLoop:
    return shed.made_under_filter(uvloop.new_event_loop)


def _address(found: Settings) -> tuple[str, int]:
    name, _, port = found.address.rpartition(":")
    if not port.isdigit():
        raise SettingsError(f"address = {found.address!r} is not HOST:PORT")
    return name.strip("[]"), int(port)


def _require_key(found: Settings, host: str, address: str) -> None:
    """Raises SettingsError if others than this host's own users could run code."""
    if not (host.startswith("127.") or host == "::1" or found.keys_sha256):
        raise SettingsError(
            f"address = {address!r} is not loopback, and no key is configured: "
            "anyone who reaches it could run code. Set keys_sha256."
        )


def _accepted(found: Settings, handed: list[socket.socket]) -> list[socket.socket]:
    """What the service manager listens on: a socket for each worker, as _listen() says why."""
    if len(handed) != found.workers:
        raise SettingsError(
            f"workers = {found.workers}, and the service manager handed over {len(handed)} sockets to listen "
            "on: each worker needs one. In jail.socket: ReusePort=yes, and ListenStream= for each of them."
        )
    for listener in handed:
        host, port, *_ = listener.getsockname()
        _require_key(found, host, f"{host}:{port}")
    return handed


def _listen(found: Settings) -> list[socket.socket]:
    """A socket for each worker."""
    name, port = _address(found)
    try:
        family, _, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        _require_key(found, address[0], found.address)
        only = socket.create_server(address, family=family, backlog=1024)
        if found.workers == 1:
            return [only]
        # Not one for all: there the worker that is awake takes every connection of a moment, and keeps them.
        # Here the kernel deals them out. An address that someone has is refused above, and never shared.
        address = only.getsockname()
        only.close()
        make = partial(socket.create_server, address, family=family, backlog=1024, reuse_port=True)
        return [make() for _ in range(found.workers)]
    except OSError as error:
        raise SettingsError(f"address = {found.address!r}: {error.strerror}") from None


class _Server(uvicorn.Server):
    """On a signal: take no more jobs, let those under way end, then stop. The same without a keeper."""

    def __init__(
        self, config: uvicorn.Config, engine: Engine, say_ready: Callable[[], None], voice: Voice
    ) -> None:
        super().__init__(config)
        self._engine = engine
        self._say_ready = say_ready
        self._voice = voice
        self._keeper_lost = False
        self._loop = asyncio.get_running_loop()
        # A signal may come before there are any.
        self.servers = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say_ready()

    def handle_exit(self, sig: int, frame: object) -> None:
        # Not uvicorn's own, which raises the signal again when it has served: that would end us
        # before the engine has left nothing behind.
        self._engine.drain(self._engine.settings.drain_ms / 1000)
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._stop_listening)

    def _stop_listening(self) -> None:
        """Now: who connects from here on waits for whoever listens next on this socket, if anyone does."""
        for server in self.servers:
            server.close()
        self._voice.stopping(_grace_s(self._engine.settings))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # What is kept alive and idle is closed in there; each of the others ends with an answer that says so.
        if self.server_state.connections:
            await asyncio.sleep(_LINGER_SECONDS)
        await super().shutdown(sockets)

    async def serve_with_keeper(self, listener: socket.socket) -> None:
        """Serve until told to stop. Raises HostError if it was the keeper's loss that told."""
        # As the first process of a container we are parent to what a lost supervisor leaves.
        # Not by the loop, which keeps this signal to itself. Nothing is started any more whose end matters.
        signal.signal(signal.SIGCHLD, _bury_orphans)
        lost = self._engine.sandboxes.keeper.lost
        besides = self._stop_without_keeper(lost), self._live(), self._tell_of_lost_hubs()
        tasks = [asyncio.create_task(each) for each in besides]
        await self.serve(sockets=[listener])
        for task in tasks:
            task.cancel()
        if self._keeper_lost:
            raise HostError(
                "The keeper was lost: without it this process can start no supervisor.",
                "Start the service again, as a service manager does (Restart=on-failure).",
            )

    async def _live(self) -> None:
        """Give signs of life: that this goes on shows that the loop turns."""
        while self._voice.sign_of_life_s:
            self._voice.alive()
            await asyncio.sleep(self._voice.sign_of_life_s)

    async def _tell_of_lost_hubs(self) -> None:
        while True:
            status, words = await self._engine.sandboxes.networks.loss()
            structlog.get_logger().error("network hub lost", status=status, words=words)

    async def _stop_without_keeper(self, lost: asyncio.Event) -> None:
        await lost.wait()
        # Whoever stops a service may end all its processes at once: then nothing is wrong.
        if not self.should_exit:
            structlog.get_logger().error("keeper lost")
            self._keeper_lost = True
            self.handle_exit(signal.SIGTERM, None)


def _bury_orphans(*_signal: object) -> None:
    # The keeper among them: whoever waits for it later is told that it has ended, and no more is to be known.
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


async def _serve(
    found: Settings,
    listener: socket.socket,
    table: Table,
    number: int,
    say_ready: Callable[[], None],
    voice: Voice,
) -> None:
    threads = ThreadPoolExecutor()
    asyncio.get_running_loop().set_default_executor(threads)
    async with Engine(settings.share(found, number)) as engine:
        metrics = Metrics(engine, table, number)
        config = configure(
            build(engine, found, metrics),
            timeout_graceful_shutdown=found.drain_ms // 1000 + _LAST_ANSWERS_SECONDS,
        )
        _shed(engine, threads)
        besides = [asyncio.create_task(each) for each in (metrics.refresh(), engine.keep_files())]
        await _Server(config, engine, say_ready, voice).serve_with_keeper(listener)
        for task in besides:
            task.cancel()


def configure(application: Callable, **options: object) -> uvicorn.Config:
    """How the application is served, loaded. options: of uvicorn's."""
    # A program in a sandbox may leave its answer without an end, as often as it likes.
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != _WITHOUT_END)
    config = uvicorn.Config(
        application,
        http="httptools",
        ws=WebSocket,
        ws_max_size=MESSAGE_BYTES,
        # A caller could send a little that becomes much.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here asks where a caller is, and who calls could claim it.
        proxy_headers=False,
        **options,
    )
    # What it imports and makes late, so that it comes before.
    config.load()
    return config


def _shed(engine: Engine, threads: ThreadPoolExecutor) -> None:
    """Threads of before would keep what this one gives up: new ones take their place."""
    threads.shutdown()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
    landlock = "landlock" not in engine.means.degraded
    readable, files = (Path(engine.settings.images),), (Path(engine.settings.files),)
    shed.shed(Path(engine.settings.state), engine.sandboxes.hierarchy, landlock, readable, files)
