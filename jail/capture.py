"""A job's stdout or stderr: read as it comes, counted in full, kept up to a cap."""

import asyncio
import os
from collections.abc import Callable

import msgspec

_CHUNK = 65_536


class Captured(msgspec.Struct, frozen=True):
    """`content`: what was kept. `written_bytes`: what the program wrote, kept or not."""

    content: bytes
    written_bytes: int

    @property
    def truncated(self) -> bool:
        """Whether something is missing."""
        return self.written_bytes > len(self.content)


class Capture:
    """The reading end of a pipe. Call `finish()` once nothing of the job lives."""

    def __init__(
        self,
        cap_bytes: int,
        on_excess: Callable[[], None],
        kept_bytes: int | None = None,
        on_chunk: Callable[[bytes], None] | None = None,
    ) -> None:
        """Make the pipe; `on_excess` is called once, when more than the cap was written.

        kept_bytes: if less than that is to be kept. on_chunk: called with whatever came, up to the cap.
        """
        self._loop = asyncio.get_running_loop()
        self._cap = cap_bytes
        self._kept_bytes = cap_bytes if kept_bytes is None else min(cap_bytes, kept_bytes)
        self._on_chunk = on_chunk
        self._on_excess = on_excess
        self._kept = bytearray()
        self._written = 0
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reading, False)
        # We own the pipe: without this `echo >/dev/stderr` fails in the job, which opens it anew.
        os.fchmod(self.writing, 0o622)
        self._loop.add_reader(self._reading, self._read_once)

    def hand_over(self) -> None:
        """Close our copy of the writing end, which the job has now."""
        os.close(self.writing)
        self.writing = -1

    def finish(self) -> Captured:
        """Read what is left in the pipe, close it, and say what was captured."""
        while self._read_once():
            pass
        self.close()
        return Captured(bytes(self._kept), self._written)

    def close(self) -> None:
        """Close both ends, if they are not yet."""
        if self._reading >= 0:
            self._loop.remove_reader(self._reading)
            os.close(self._reading)
        if self.writing >= 0:
            os.close(self.writing)
        self._reading = self.writing = -1

    def _read_once(self) -> bool:
        """Whether there may be more at once."""
        try:
            chunk = os.read(self._reading, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._loop.remove_reader(self._reading)
            return False
        within = self._written <= self._cap
        if self._on_chunk and self._written < self._cap:
            self._on_chunk(chunk[: self._cap - self._written])
        self._kept += chunk[: max(0, self._kept_bytes - self._written)]
        self._written += len(chunk)
        if within and self._written > self._cap:
            self._on_excess()
        return True
