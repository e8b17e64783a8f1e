"""The unpacker's client: layers become directories, and such directories go, in a confined program.

Files of a layer belong to many ids, which only who is root in the outer user namespace can give away or
remove; and an archive is nothing that this process should read. See jail.images.unpack.
"""

import re
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import msgspec

from jail.errors import HostError, ImageError, ImageTooLargeError, StoreFullError
from jail.images.oci import compression
from jail.images.unpack.messages import (
    BOUNDS,
    PACKET_BYTES,
    WORK,
    Answer,
    Bounds,
    Progress,
    Refused,
    Remove,
    Request,
    Unpack,
    Unpacked,
)
from jail.images.unpack.stream import CURE
from jail.keeper import module_command

__all__ = ["BOUNDS", "Bounds", "Unpacked", "Unpacker"]

# Colons and commas would mean something to mount(2). The second: also what is left of an unfinished layer.
_NAME = re.compile("[0-9A-Za-z_-]{1,64}")
_LEFT = re.compile(f"{_NAME.pattern}({re.escape(WORK)})?")

_NAMES_AT_ONCE = 500

_KINDS = {"image": ImageError, "large": ImageTooLargeError, "full": StoreFullError, "host": HostError}


class Program(Protocol):
    """One that runs: as subprocess.Popen has them."""

    def kill(self) -> None:
        """End it."""

    def wait(self) -> object:
        """Come back when it has ended."""


Start = Callable[[socket.socket], Program]
"""Starts the program with that socket, which remains the caller's."""


class Unpacker:
    """One program, for any number of layers, one after the other.

    To be used by one thread at a time, and closed: it is a context, too.
    """

    def __init__(self, namespace: int, layers: Path, start: Start | None = None) -> None:
        """Take the outer user namespace's descriptor, and the directory of the layers.

        The program is started by the first request: by `start`, where this process may start nothing.
        """
        self._start = start or partial(run, namespace, layers)
        self._program: Program | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        """Be closed at the end of the context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def unpack(
        self,
        parents: Sequence[str],
        blob: int,
        media_type: str,
        into: str,
        bounds: Bounds = BOUNDS,
        progress: Callable[[int], None] = lambda _: None,
        lock: int | None = None,
    ) -> Unpacked:
        """Make the layer in the descriptor `blob` the directory `into`, which is empty or not there.

        parents: names of layers that are unpacked, the topmost first, which stay as they are.
        media_type: of the blob, by which it is decompressed; "" for whatever its first bytes say.
        progress: called some ten times a second with the bytes of the blob that are read; what it raises ends
        the unpacking. lock: a descriptor, locked by flock(2), that stays open for as long as anything of this
        may be written, even if this process is killed.
        What is raised leaves nothing: ImageError is the archive's fault, StoreFullError the disk's, HostError
        what this host lacks. When this process is killed there may be `into` and `into`.work, for remove().
        The layer is not flushed to the disk: see os.sync().
        """
        for name in (into, *parents):
            _check(name, _NAME)
        kind = compression(media_type) if media_type else ""
        try:
            descriptors = [blob] if lock is None else [blob, lock]
            request = Unpack(tuple(parents), into, kind, bounds)
            answer = self._ask(request, descriptors, bounds.idle_s, progress)
        except BaseException:
            with suppress(HostError, ImageError):
                self.remove([into])
            raise
        _raise_refusal(answer)
        return answer

    def remove(self, names: Iterable[str]) -> None:
        """Remove these directories of layers, and what is left of unpacking them; none need be there.

        Raises ImageError, HostError.
        """
        wanted = tuple(names)
        for name in wanted:
            _check(name, _LEFT)
        # As many as fit into a packet.
        for first in range(0, max(1, len(wanted)), _NAMES_AT_ONCE):
            some = wanted[first : first + _NAMES_AT_ONCE]
            _raise_refusal(self._ask(Remove(some), [], BOUNDS.idle_s))

    def close(self) -> None:
        """End the program, whatever it is doing."""
        if self._program is not None and self._socket is not None:
            self._socket.close()
            self._program.kill()
            self._program.wait()
            self._program = self._socket = None

    def _ask(
        self,
        request: Request,
        descriptors: list[int],
        idle_s: float,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Answer:
        """Its last answer. Whatever is raised ends the program."""
        try:
            control = self._started()
            control.settimeout(idle_s)
            socket.send_fds(control, [msgspec.json.encode(request)], descriptors)
            while isinstance(answer := _answer(control), Progress):
                progress(answer.read_bytes)
        except TimeoutError:
            self.close()
            raise ImageError(f"Unpacking made no progress for {idle_s} seconds.", CURE) from None
        except BaseException:
            self.close()
            raise
        return answer

    def _started(self) -> socket.socket:
        if self._socket is None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._program = self._start(theirs)
        return self._socket


def run(namespace: int, layers: Path, control: socket.socket) -> "subprocess.Popen[bytes]":
    """Start the program with `control`, which remains the caller's, as its socket. Raises OSError."""
    return subprocess.Popen(
        module_command("jail.images.unpack"),
        stdin=control,
        stdout=namespace,
        env={},
        cwd=layers,
        # Who interrupts this process does not interrupt it.
        start_new_session=True,
    )


def _check(name: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a layer")


def _answer(control: socket.socket) -> Answer:
    packet = control.recv(PACKET_BYTES)
    if not packet:
        raise HostError("The unpacker ended.", "See its last words; `jail doctor` says what this host lacks.")
    return msgspec.json.decode(packet, type=Answer)


def _raise_refusal(answer: Answer) -> None:
    if isinstance(answer, Refused):
        raise _KINDS[answer.kind](_printable(answer.cause), _printable(answer.cure))


def _printable(text: str) -> str:
    """Whoever says it has read an archive, and no terminal is to obey one."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
