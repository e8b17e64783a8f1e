"""The program of images, with the argument OFFER, in JSON, that of jail.images.protocol.

The keeper starts it for each request, by the command of jail.keeper.module_command(): with a socket of its
client as stdin and the outer user namespace as stdout, as the service's user. What it does, and what a
registry or an archive says, it does and hears after it has shed what it does not need (`jail.shed`): it keeps
the store's directory, what Python reads of its own, and, to pull, the network and what finds addresses in it.
What starts unpackers, which need more, is left behind before (`jail.images.starter`).

When its client closes the socket it cleans up after itself and ends; it is made to, if that takes too long.
"""

import fcntl
import io
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from jail import shed
from jail.errors import (
    ExplainedError,
    HostError,
    ImageError,
    ImageInUseError,
    ImageNotFoundError,
    StoreFullError,
)
from jail.images import archive
from jail.images.credentials import Credentials
from jail.images.oci import Descriptor
from jail.images.protocol import (
    PACKET_BYTES,
    Answer,
    Begun,
    Done,
    Export,
    Failed,
    Image,
    Import,
    Kind,
    Offer,
    Progress,
    Prune,
    Pull,
    Remove,
    Request,
    Whole,
)
from jail.images.starter import Starter
from jail.images.store import PATIENCE_S, Brought, Store
from jail.images.unpacker import Unpacker, run

END_SECONDS = 10
"""For what is left to do when the client has gone."""

TELL_SECONDS = 0.1
"""No more is told of one blob in less time, unless it is the last of it."""

_KINDS: tuple[tuple[type[ExplainedError], Kind], ...] = (
    (ImageNotFoundError, "not_found"),
    (ImageInUseError, "in_use"),
    (StoreFullError, "full"),
    (ImageError, "image"),
    (HostError, "host"),
)
_DEFECT = "This is a defect: please report it."

# <linux/fcntl.h>
_F_SETOWN_EX, _F_OWNER_TID = 15, 0


class _GoneError(BaseException):
    """The client has gone. Nothing but the program's end catches it."""


class Client:
    """Whoever asks, and is told."""

    def __init__(self, control: socket.socket) -> None:
        """Take the socket."""
        self._socket = control
        self._told: dict[tuple[str, str], float] = {}

    def hear(self, kinds: Any) -> tuple[Any, list[int]]:
        """The next packet, of one of these kinds, and its descriptors."""
        packet, descriptors, _, _ = socket.recv_fds(self._socket, PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            raise _GoneError
        return msgspec.json.decode(packet, type=kinds), descriptors

    def tell(self, answer: Answer) -> None:
        """Say that, and wait until it is heard, if need be."""
        try:
            self._socket.send(msgspec.json.encode(answer))
        except (BrokenPipeError, ConnectionResetError):
            raise _GoneError from None

    def show(self, what: str, blob: Descriptor, done: int) -> None:
        """Progress, from any thread, for whoever listens just now."""
        key, now = (what, blob.digest), time.monotonic()
        if done < blob.size and now - self._told.get(key, 0) < TELL_SECONDS:
            return
        self._told[key] = now
        told = msgspec.json.encode(Progress(what, blob.digest, done, blob.size))
        try:
            self._socket.send(told, socket.MSG_DONTWAIT)
        except OSError:
            # Nobody does, or nobody is there any more, of which a signal tells.
            return

    def watch(self) -> None:
        """From now on have this thread, the main one, raise what ends everything when the client is gone.

        To be called before anything is shed.
        """
        watched = select.poll()
        # An end is always told of.
        watched.register(self._socket, 0)

        def look(*_signal: object) -> None:
            if watched.poll(0):
                signal.signal(signal.SIGIO, signal.SIG_IGN)
                signal.alarm(END_SECONDS)
                raise _GoneError

        signal.signal(signal.SIGIO, look)
        # Not to any thread: the others' calls would be interrupted, and this one's go on.
        owner = struct.pack("@ii", _F_OWNER_TID, threading.get_native_id())
        fcntl.fcntl(self._socket, _F_SETOWN_EX, owner)
        flags = fcntl.fcntl(self._socket, fcntl.F_GETFL)
        fcntl.fcntl(self._socket, fcntl.F_SETFL, flags | os.O_ASYNC)
        look()


class _Archive(io.RawIOBase):
    """What comes of an archive. Its end is one only if the client says so."""

    def __init__(self, descriptor: int, client: Client) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._client = client
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.readv(self._descriptor, [buffer])
        if not count and not self._ended:
            self._client.hear(Whole)
            self._ended = True
        return count


class Program:
    """One request, carried out."""

    def __init__(self, client: Client, offer: Offer, namespace: int) -> None:
        """Take what the operator has set, and the outer namespace."""
        self._client = client
        self._offer = offer
        self._namespace = namespace

    def carry_out(self, request: Request, descriptors: list[int]) -> Done:
        """Do it. Raises ExplainedError, OSError."""
        offer = self._offer
        path = Path(offer.store)
        starter = None if isinstance(request, Export) else self._starter(path / "layers")
        # Before it looks into the store: names and links in it may be of one that was taken over.
        shed.shed_for_images(path, isinstance(request, Pull), offer.landlock)
        with Store(path, offer.bytes_max, offer.image_bytes, offer.image_entries) as store:
            if isinstance(request, Export):
                return self._export(store, request, *descriptors)
            with closing(Unpacker(-1, store.layers, starter and starter.start)) as unpacker:
                return self._change(store, unpacker, request, descriptors)

    def _starter(self, layers: Path) -> Starter:
        """What starts unpackers in this directory, whatever has its name later."""
        directory = os.open(layers, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        needs = self._namespace, directory
        starter = Starter(partial(run, self._namespace, Path(f"/proc/self/fd/{directory}")), needs)
        for descriptor in needs:
            os.close(descriptor)
        return starter

    def _change(self, store: Store, unpacker: Unpacker, request: Request, descriptors: list[int]) -> Done:
        if isinstance(request, Remove):
            return Done(freed_bytes=store.remove(request.reference, unpacker, PATIENCE_S))
        store.sweep(unpacker)
        if isinstance(request, Prune):
            return Done(freed_bytes=store.prune(unpacker, request.nameless))
        if isinstance(request, Pull):
            return _done([self._pull(store, unpacker, request)])
        return _done(self._import(store, unpacker, request, *descriptors))

    def _pull(self, store: Store, unpacker: Unpacker, request: Pull) -> Brought:
        # Only here: it is the longest part of a start.
        from jail.images import pull, reference
        from jail.images.registry import Repository

        credentials = Credentials(request.user, request.password)
        wanted = reference.parse(request.reference)
        platform = pull.parse_platform(request.platform)
        with Repository(wanted, credentials, request.insecure) as repository:
            return pull.pull(store, unpacker, repository, request.name, platform, self._client.show)

    def _import(self, store: Store, unpacker: Unpacker, request: Import, source: int) -> list[Brought]:
        with io.BufferedReader(_Archive(source, self._client), 1 << 18) as file:
            name = request.name or None
            return archive.import_file(store, unpacker, file, name, self._client.show)

    def _export(self, store: Store, request: Export, target: int) -> Done:
        digest = store.find(request.reference).digest
        self._client.tell(Begun(digest))
        try:
            with open(target, "wb", buffering=0) as file:
                archive.export_file(store, request.reference, file)
        except BrokenPipeError:
            raise _GoneError from None
        return Done()


def _done(found: list[Brought]) -> Done:
    images = tuple(Image(each.digest, each.names, each.replaced) for each in found)
    done = Done(images=images)
    if len(msgspec.json.encode(done)) <= PACKET_BYTES:
        return done
    return Done(images=tuple(Image(each.digest, (), {}) for each in found))


def failed(error: Exception) -> Failed:
    """The words for what went wrong."""
    if isinstance(error, ExplainedError):
        kind = next(kind for of, kind in _KINDS if isinstance(error, of))
        return Failed(kind, _text(error.cause), _text(error.cure))
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        cause = f"The store cannot be used: {error.strerror}{where}."
        return Failed("host", _text(cause), "Mend what it lies on.")
    traceback.print_exception(error)
    return Failed("defect", f"The program of images failed: {type(error).__name__}.", _DEFECT)


def _text(words: str) -> str:
    """As JSON can have it, and a packet: names in archives are of any bytes and any length."""
    return words[: PACKET_BYTES // 16].encode(errors="replace").decode()


@contextmanager
def _until_gone() -> Iterator[None]:
    try:
        yield
    except _GoneError:
        # Nobody asks any more.
        os._exit(0)


def main(offer: Offer) -> None:
    """Carry out what the client asks for first, and tell what came of it."""
    control, namespace = socket.socket(fileno=os.dup(0)), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    client = Client(control)
    with _until_gone():
        client.watch()
        try:
            request, descriptors = client.hear(Request)
            answer: Answer = Program(client, offer, namespace).carry_out(request, descriptors)
        except Exception as error:
            answer = failed(error)
        # Whoever has heard that goes, and we end anyway.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        client.tell(answer)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Offer))
