"""The store for an event loop, which must not wait for a disk: threads of its own do."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TypeVar

from jail.errors import FileNotStoredError, SandboxError
from jail.files.lent import BOX, Lent
from jail.files.store import Files
from jail.spec import ProcessSpec

THREADS = 4

PIECE_BYTES = 1 << 20
"""What is read or written at once."""

T = TypeVar("T")


class Desk:
    """Attribute: `files`, the store. No thread is there before the first of them is needed."""

    def __init__(self, files: Files) -> None:
        """Take over an open store."""
        self.files = files
        self._threads = ThreadPoolExecutor(THREADS, "files")

    def close(self) -> None:
        """Wait for what is under way, and close the store. Raises OSError."""
        self._threads.shutdown()
        self.files.close()

    def begin(self, call: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Have something done, whether or not anybody waits for it."""
        return asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *arguments))

    async def do(self, call: Callable[..., T], *arguments: object) -> T:
        """What a call returns or raises."""
        return await asyncio.shield(self.begin(call, *arguments))

    async def have(self, close: Callable[[T], object], call: Callable[..., T], *arguments: object) -> T:
        """The same of a call that returns what has to be closed: so it is when nobody waits any more."""
        having = self.begin(call, *arguments)
        try:
            return await asyncio.shield(having)
        except asyncio.CancelledError:
            having.add_done_callback(lambda done: done.exception() or self.begin(close, done.result()))
            raise

    async def lend(self, spec: ProcessSpec) -> Lent:
        """What a process has of the store, to be given back. Raises SandboxError: it has gone; OSError."""
        stdin = spec.stored_stdin.digest if spec.stored_stdin else None
        stored = {file.path: file.digest for file in spec.stored}
        try:
            return await self.have(Lent.close, self.files.lend, stored, stdin, spec.owner)
        except FileNotStoredError:
            raise SandboxError("stored", errno.ENOENT) from None

    async def hold(self, digests: Collection[str], owner: str) -> Lent:
        """None of these goes until it is given back. Raises SandboxError: one has gone; OSError."""
        names = {digest.rpartition(":")[2]: digest for digest in digests}
        try:
            return await self.have(Lent.close, self.files.lend, names, None, owner)
        except FileNotStoredError:
            raise SandboxError("stored", errno.ENOENT) from None

    async def open(self, digest: str, owner: str) -> int:
        """A descriptor to read one with. Raises SandboxError: it has gone; OSError."""
        try:
            return await self.have(os.close, self.files.open, digest, owner)
        except FileNotStoredError:
            raise SandboxError("stored", errno.ENOENT) from None

    @asynccontextmanager
    async def reading(self, digest: str, owner: str) -> AsyncIterator[int]:
        """A descriptor to read one with, which stays meanwhile. Raises FileNotStoredError, OSError."""
        lent = await self.have(Lent.close, self.files.lend, {digest: digest}, None, owner)
        try:
            descriptor = os.open(lent.directory / BOX / digest, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
        finally:
            await self.do(lent.close)

    def give_back(self, lent: Lent) -> None:
        """Have it closed; nobody waits for that."""
        self.begin(lent.close)

    async def store(self, owner: str, descriptor: int) -> tuple[str, int]:
        """Keep what a descriptor reads: its digest and size. Raises StoredFileError, OSError."""
        return await self.begin(self._store, owner, descriptor)

    def _store(self, owner: str, descriptor: int) -> tuple[str, int]:
        with closing(self.files.begin(owner, os.fstat(descriptor).st_size)) as incoming:
            # To be hashed it has to be read: so what is hashed is also what is written.
            piece = memoryview(bytearray(PIECE_BYTES))
            while size := os.readv(descriptor, [piece]):
                incoming.write(piece[:size])
            kept = incoming.keep()
            return kept.digest, kept.bytes
