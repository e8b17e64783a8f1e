"""The ports of live jobs that callers can reach through the service, and every connection to them.

A job that publishes has its Ports from when it was started until nothing of it lives. They go before its
sandbox does: a connection is a socket of the sandbox's network namespace, and would keep that alive.

What a connection holds is bounded both ways, and whoever writes waits until the other side has taken it.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

JOB_CONNECTIONS = 64
"""To the ports of one job, at once."""

CONNECTIONS = 256
"""To the ports of all jobs of one worker, at once: each costs two descriptors and up to half a MiB."""

CONNECT_SECONDS = 5
"""For a connection to be made. Inside, that takes no time unless a program lets its backlog run full."""

FINISH_SECONDS = 5
"""For a program to take the last of what was sent to it."""

BUFFER_BYTES = 65_536

# So that programs that let their backlog run full do not keep others from being dialled.
_JOB_DIALS = 4
_DIALS = 32

Dial = Callable[[], Awaitable[socket.socket]]
"""Makes a TCP socket within a sandbox that is connected to a port there. Raises OSError.

When it is cancelled it leaves none.
"""


class NotPublishedError(Exception):
    """There is no such job, or it has ended, or does not publish that port: nobody learns which."""


class BusyError(Exception):
    """There are too many connections: `job`, to this job; otherwise to all of them."""

    def __init__(self, job: bool) -> None:
        """Tell which bound was reached."""
        super().__init__()
        self.job = job


class Traffic:
    """What has passed since the service began, in bytes: `to_jobs_bytes`, `from_jobs_bytes`."""

    def __init__(self) -> None:
        """Nothing, so far."""
        self.to_jobs_bytes = 0
        self.from_jobs_bytes = 0


class Connection:
    """A connection to a port of a job. Whatever it does raises OSError once it is lost.

    `ended`: the job has, and so it was closed.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ports: "Ports") -> None:
        """Take over both halves, to one of `ports`."""
        self._reader = reader
        self._writer = writer
        self._ports = ports
        self._traffic = ports.traffic
        self.ended = False

    async def read(self, most_bytes: int = BUFFER_BYTES) -> bytes:
        """What the program sent, as soon as there is something; b"" at the end of its stream."""
        data = await self._reader.read(most_bytes)
        self._traffic.from_jobs_bytes += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Send to the program, and wait while it does not read."""
        if self._writer.is_closing():
            raise ConnectionResetError(errno.ECONNRESET, "closed")
        self._writer.write(data)
        self._traffic.to_jobs_bytes += len(data)
        await self._writer.drain()

    async def finish(self) -> None:
        """Close it when the program has taken what was sent, or after FINISH_SECONDS."""
        self._writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await self.closed()
        self.abort()

    def abort(self) -> None:
        """Close it at once, whatever is on its way."""
        self._writer.transport.abort()

    async def closed(self) -> None:
        """Wait until its socket is closed."""
        with suppress(OSError):
            await self._writer.wait_closed()

    async def close(self) -> None:
        """Close it at once, and make room for another."""
        self.abort()
        await self.closed()
        self._ports.open.discard(self)


class Ports:
    """Those of one job. `open`: its connections."""

    def __init__(self, dials: Mapping[int, Dial], traffic: Traffic, dialling: asyncio.Semaphore) -> None:
        """Take how to reach each port, and what bounds the dialling of all jobs."""
        self._dials = dials
        self._dialling = asyncio.Semaphore(_JOB_DIALS)
        self._all_dialling = dialling
        self.traffic = traffic
        self._opening: set[asyncio.Task[Connection]] = set()
        self.open: set[Connection] = set()
        self._ended = False

    @property
    def connections(self) -> int:
        """How many there are, and are being made."""
        return len(self._opening) + len(self.open)

    async def connect(self, port: int) -> Connection:
        """A connection, to be closed. Raises NotPublishedError, BusyError, TimeoutError, OSError."""
        if self._ended or port not in self._dials:
            raise NotPublishedError
        if self.connections >= JOB_CONNECTIONS:
            raise BusyError(job=True)
        # A task of its own, which the end of the job can cancel and wait for.
        opening = asyncio.create_task(self._connect(self._dials[port]))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        try:
            return await opening
        except asyncio.CancelledError:
            if opening.cancelled() and not asyncio.current_task().cancelling():
                raise NotPublishedError from None
            if not opening.cancelled() and not opening.exception():
                # It was made in the very turn of the loop in which its caller went.
                await opening.result().close()
            raise

    async def _connect(self, dial: Dial) -> Connection:
        async with asyncio.timeout(CONNECT_SECONDS):
            async with self._dialling, self._all_dialling:
                end = await dial()
            try:
                reader, writer = await asyncio.open_connection(sock=end, limit=BUFFER_BYTES)
            except BaseException:
                end.close()
                raise
        connection = Connection(reader, writer, self)
        self.open.add(connection)
        return connection

    async def end(self) -> None:
        """Take no more, and wait until all that there are have been closed."""
        self._ended = True
        for opening in self._opening:
            opening.cancel()
        if self._opening:
            await asyncio.wait(self._opening)
        for connection in self.open:
            connection.ended = True
            connection.abort()
        for connection in tuple(self.open):
            await connection.closed()


class Published:
    """The ports of all live jobs of this worker, by the job's id, which is a secret of who posted it.

    `traffic`: what has passed.
    """

    def __init__(self) -> None:
        """None, so far."""
        self._jobs: dict[str, Ports] = {}
        self.traffic = Traffic()
        self._dialling = asyncio.Semaphore(_DIALS)

    @property
    def connections(self) -> int:
        """How many there are, to all of them."""
        return sum(ports.connections for ports in self._jobs.values())

    @asynccontextmanager
    async def publish(self, job: str, dials: Mapping[int, Dial]) -> AsyncIterator[None]:
        """Let callers reach these ports of a job that lives; at the end every connection is closed."""
        ports = self._jobs[job] = Ports(dials, self.traffic, self._dialling)
        try:
            yield
        finally:
            del self._jobs[job]
            await ports.end()

    async def connect(self, job: str, port: int) -> Connection:
        """A connection to a port of a job, to be closed by who has it.

        Raises NotPublishedError, BusyError, TimeoutError, OSError.
        """
        ports = self._jobs.get(job)
        if ports is None:
            raise NotPublishedError
        if self.connections >= CONNECTIONS:
            raise BusyError(job=False)
        return await ports.connect(port)
