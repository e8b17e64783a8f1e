"""The unpacker's program: the socket of its client is stdin, the outer user namespace stdout.

It becomes root of that namespace, and works in the directory of the layers, in which it is started. It reads
no archive itself: for each it forks a child, which is confined first (`confinement`), and passes on what that
says; when the child fails, it removes what there is of the layer. The end of the socket ends both.
"""

import errno
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

import msgspec

from jail import shed
from jail.errors import HostError
from jail.images.unpack import confinement
from jail.images.unpack.layer import TELL_SECONDS, Layer, disk_full
from jail.images.unpack.messages import (
    PACKET_BYTES,
    WORK,
    Answer,
    Progress,
    Refused,
    Remove,
    Removed,
    Request,
    Unpack,
    Unpacked,
)
from jail.images.unpack.removal import remove
from jail.images.unpack.stream import CURE
from jail.privileges import die_with

_DEFECT = "This is a defect: please report it."
_HOST = "`jail doctor` says what this host lacks."


def main() -> None:
    """Serve until the client closes its end. Raises what is a defect."""
    client = socket.socket(fileno=os.dup(0))
    namespace = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    try:
        # While the policies and the maps can be read.
        shed.prepare(shed.UNPACKER)
        confinement.enter_outer(namespace)
        os.close(namespace)
        lengths = confinement.range_lengths()
        confinement.leave_host()
        Unpacking(client, lengths).serve()
    except (OSError, HostError) as error:
        _send(client, refusal(error))


class Unpacking:
    """What is asked, one request after the other."""

    def __init__(self, client: socket.socket, lengths: tuple[int, int]) -> None:
        """Serve this client; lengths: of the delegated ranges."""
        self._client = client
        self._lengths = lengths
        self._layers = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._told = 0.0

    def serve(self) -> None:
        """Carry out what is asked until the end of the socket."""
        while True:
            packet, descriptors, _, _ = socket.recv_fds(
                self._client, PACKET_BYTES, 2, socket.MSG_CMSG_CLOEXEC
            )
            if not packet:
                return
            try:
                answer = self._carry_out(msgspec.json.decode(packet, type=Request), descriptors)
            except OSError as error:
                answer = refusal(error)
            for descriptor in descriptors:
                os.close(descriptor)
            _send(self._client, answer)

    def _carry_out(self, request: Request, descriptors: list[int]) -> Answer:
        if isinstance(request, Remove):
            self._remove(*request.names)
            return Removed()
        answer: Answer | None = None
        try:
            confinement.begin_layer(request.parents, request.into)
            answer = self._unpack(request, descriptors)
            return answer
        finally:
            whole = isinstance(answer, Unpacked)
            self._remove(request.into + WORK, *([] if whole else [request.into]))

    def _remove(self, *names: str) -> None:
        for name in names:
            os.fchdir(self._layers)
            with suppress(FileNotFoundError):
                remove(name.encode(), self._tick)
        os.fchdir(self._layers)

    def _tick(self) -> None:
        """Tell now and then that it goes on."""
        now = time.monotonic()
        if now - self._told > TELL_SECONDS:
            self._told = now
            _send(self._client, Progress(0))

    def _unpack(self, request: Unpack, descriptors: Sequence[int]) -> Answer:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        child = os.fork()
        if not child:
            _be_child(parent, request, descriptors, theirs, self._lengths)
        theirs.close()
        try:
            with ours:
                answer = self._pass_on(ours)
        except BaseException:
            # What is removed next must not change meanwhile.
            _kill(child)
            raise
        finally:
            _, status = os.waitpid(child, 0)
        return answer or _explain(os.waitstatus_to_exitcode(status))

    def _pass_on(self, child: socket.socket) -> Answer | None:
        """Tell the client how it goes on, until the child has its last word, or ended without."""
        watched = select.poll()
        watched.register(child, select.POLLIN)
        watched.register(self._client, select.POLLIN)
        while True:
            if any(ready == self._client.fileno() for ready, _ in watched.poll()):
                # It says nothing until it has an answer: it is gone. Whoever comes after it sweeps.
                os._exit(1)
            packet = child.recv(PACKET_BYTES)
            if not packet:
                return None
            answer = msgspec.json.decode(packet, type=Answer)
            if not isinstance(answer, Progress):
                return answer
            _send(self._client, answer)


def refusal(error: OSError | HostError) -> Refused:
    """The words for what is not the archive's fault."""
    if isinstance(error, HostError):
        return Refused(error.cause, error.cure, "host")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(error)
    what = f" ({error.filename})" if error.filename else ""
    return Refused(f"A layer cannot be unpacked or removed: {error.strerror}{what}.", _HOST, "host")


def _be_child(
    parent: int, request: Unpack, descriptors: Sequence[int], control: socket.socket, lengths: tuple[int, int]
) -> NoReturn:
    """Unpack, confined; end with status 0 when something was said."""
    status = 1
    try:
        die_with(parent)
        # It may be a terminal, which is no thing to have.
        os.dup2(0, 2)
        try:
            if any(stat.S_ISDIR(os.fstat(descriptor).st_mode) for descriptor in descriptors):
                raise ValueError("a directory leads out of the tree")
            upper = confinement.make_layer(request.parents, request.into)
            # The lock, if there is one: somebody waits for our end.
            kept = [*descriptors, control.fileno(), *([] if upper is None else [upper])]
            confinement.give_up(kept, request.bounds)
            answer = Layer(request, descriptors[0], upper, lengths, partial(_send, control)).unpack()
        except (OSError, HostError) as error:
            answer = refusal(error)
        _send(control, answer)
        status = 0
    except Exception as error:
        _send(control, Refused(f"The unpacker failed: {error!r}.", _DEFECT, "host"))
    finally:
        os._exit(status)


def _kill(child: int) -> None:
    descriptor = os.pidfd_open(child)
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    os.close(descriptor)


def _explain(status: int) -> Refused:
    if status == -signal.SIGXCPU:
        return Refused("The layer takes more processor time than a layer may.", CURE)
    if status == -signal.SIGKILL:
        return Refused(
            "The process that unpacks was killed.", "See whether the host had no memory left.", "host"
        )
    return Refused(f"The process that unpacks ended with status {status}.", _DEFECT)


def _send(control: socket.socket, answer: Answer) -> None:
    # Not send(), a call that the child may not make.
    os.write(control.fileno(), msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
