"""The client of the program of images, on the event loop: one operation is one program.

    operation = Operation(keeper.start_images, Pull("registry.example/tools/gcc"))
    while not isinstance(answer := await operation.answer(), (Done, Failed)):
        ...
    await operation.close()

An archive that is brought in is written to the operation, one that goes out is read from it. Closing it ends
it, whatever it is doing, and then nothing of it stays.
"""

import asyncio
import errno
import socket
from collections.abc import Callable

import msgspec

from jail.errors import SandboxError
from jail.images.protocol import PACKET_BYTES, Answer, Export, Import, Request, Whole
from jail.keeper import Kept

STAGE = "images"
"""The stage of every SandboxError from here."""

END_SECONDS = 20
"""How long a program may take to leave nothing behind: it has ended itself before."""

PIECE_BYTES = 1 << 18
"""The most of an archive that is read at once."""


class Operation:
    """One that is under way, until it is closed."""

    def __init__(self, start: Callable[[socket.socket], Kept], request: Request) -> None:
        """Have `start` start the program with a socket, which it must not keep, and ask it.

        From the event loop's thread. Raises SandboxError, OSError.
        """
        self._loop = asyncio.get_running_loop()
        self._socket, control = _pair(socket.SOCK_SEQPACKET)
        self._archive, theirs = _pair(socket.SOCK_STREAM)
        with control, theirs:
            self._kept = start(control)
            handed = [theirs.fileno()] if isinstance(request, (Import, Export)) else []
            self._say(request, handed)

    async def answer(self) -> Answer:
        """What it says next. Raises SandboxError when it has ended without."""
        try:
            packet = await self._loop.sock_recv(self._socket, PACKET_BYTES)
            return msgspec.json.decode(packet, type=Answer)
        except OSError as error:
            raise SandboxError(STAGE, error.errno or 0) from None
        except msgspec.DecodeError:
            # Among them is its end.
            raise SandboxError(STAGE, errno.EPROTO) from None

    async def write(self, piece: bytes) -> None:
        """Hand over a piece of the archive, and wait until it is taken. Raises SandboxError: none is."""
        try:
            await self._loop.sock_sendall(self._archive, piece)
        except OSError as error:
            raise SandboxError(STAGE, error.errno or 0) from None

    def finish(self) -> None:
        """There is no more of it: it is whole. Raises SandboxError."""
        self._archive.close()
        self._say(Whole())

    async def read(self) -> bytes:
        """The next piece of the archive; empty, at its end. Raises SandboxError."""
        try:
            return await self._loop.sock_recv(self._archive, PIECE_BYTES)
        except OSError as error:
            raise SandboxError(STAGE, error.errno or 0) from None

    async def close(self) -> None:
        """End it, and come back when it has ended, or after END_SECONDS. Nobody waits for it elsewhere."""
        # First: else an archive that was cut would seem to have ended.
        self._socket.close()
        self._archive.close()
        await asyncio.wait([self._kept.ended], timeout=END_SECONDS)

    def _say(self, message: Request | Whole, descriptors: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._socket, [msgspec.json.encode(message)], descriptors or [])
        except OSError as error:
            raise SandboxError(STAGE, error.errno or 0) from None


def _pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """Ours, which does not block, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    return ours, theirs
