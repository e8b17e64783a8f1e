"""The keeper's client: asks it for supervisors, network hubs and programs of images.

It is told how each of them ended. The keeper is started before this process sheds what it does not need
(jail.shed), and starts them in its stead: see native/keeper.c. Without it there can be no new supervisor, so
its loss is the end of this service: `lost`.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from jail._protocol import ffi, lib
from jail.errors import HostError, SandboxError
from jail.namespace import OuterNamespace, program


class Kept:
    """A process of the keeper's, as that tells of it.

    Attributes: `stage`, by which it is named where there is none; `started`, answered with its process id, or
    SandboxError when there is none; `ended`, answered when it has ended with its exit status, of a supervisor
    an errno, or with the negative of a signal.
    """

    def __init__(self, stage: str) -> None:
        """Make what is to be answered, from the event loop's thread."""
        loop = asyncio.get_running_loop()
        self.stage = stage
        self.started: asyncio.Future[int] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()

    def fail(self, error: SandboxError) -> None:
        """There is no more to be told of it."""
        if not self.started.done():
            self.started.set_exception(error)
            # It may be that nobody waits for it.
            self.started.exception()
        if not self.ended.done():
            self.ended.set_result(max(0, error.error))


class Keeper:
    """One running keeper process. `lost` is set when it has ended, and was not told to."""

    def __init__(
        self,
        namespace: OuterNamespace,
        directory: Path,
        view: Sequence[str],
        hub: Sequence[str],
        images: Sequence[str] = (),
    ) -> None:
        """Start it in `directory`, where its supervisors work too, from the event loop's thread.

        view: an empty directory in it to mount on, and the directories of the host that images are made of;
        hub, images: the commands of what start_hub() and start_images() start, absolute paths and their
        arguments; without one that must not be called. Raises HostError when one is too long.
        """
        # In the order of their kinds.
        commands = _packed(hub), _packed(images)
        self.lost = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._asked: deque[Kept] = deque()
        self._running: dict[int, Kept] = {}
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _spawn(theirs, namespace.descriptor, directory, view)
        with suppress(OSError):
            # It is gone already, which is told like any other loss.
            for command in commands:
                self._socket.send(command)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._read)

    @property
    def pid(self) -> int:
        """For those who look at it from outside, such as tests."""
        return self._process.pid

    def start(self, control: socket.socket) -> Kept:
        """Start a supervisor that has `control` as its socket; it remains the caller's."""
        return self._start(Kept("supervisor"), lib.KIND_SUPERVISOR, control)

    def start_hub(self, control: socket.socket) -> Kept:
        """Start the network hub's program, with `control` as its stdin; it remains the caller's.

        It is root of the outer user namespace, in the host's network. The end of its stdin tells it to stop;
        the end of the keeper kills it.
        """
        return self._start(Kept("hub"), lib.KIND_HUB, control)

    def start_images(self, control: socket.socket) -> Kept:
        """Start the program of images, with `control` as its stdin; it remains the caller's.

        It is this user, in the host's namespaces; its stdout is the outer user namespace. The end of its
        stdin tells it to stop; the end of the keeper kills it.
        """
        return self._start(Kept("images"), lib.KIND_IMAGES, control)

    def _start(self, kept: Kept, kind: int, control: socket.socket) -> Kept:
        try:
            socket.send_fds(self._socket, [bytes([kind])], [control.fileno()])
            self._asked.append(kept)
        except OSError as error:
            kept.fail(SandboxError("keeper", error.errno or 0))
        return kept

    def close(self) -> None:
        """End it, once nothing of it lives: what does dies with it."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._process.wait()

    def _read(self) -> None:
        """Take in what the keeper has to say; an end of file is its death."""
        for packet, _ in received(self._socket, ffi.sizeof("struct kept")):
            if not packet:
                self._lose()
                return
            told = ffi.from_buffer("struct kept *", packet)[0]
            self._answer(told.pid, told.status, bool(told.ended))

    def _answer(self, pid: int, status: int, ended: bool) -> None:
        if not pid:
            kept = self._asked.popleft()
            kept.fail(SandboxError(kept.stage, status))
        elif ended:
            self._running.pop(pid).ended.set_result(status)
        else:
            kept = self._asked.popleft()
            kept.started.set_result(pid)
            self._running[pid] = kept

    def _lose(self) -> None:
        self._loop.remove_reader(self._socket)
        for kept in (*self._asked, *self._running.values()):
            kept.fail(SandboxError("keeper"))
        self._asked.clear()
        self._running.clear()
        self.lost.set()


def received(source: socket.socket, size: int, descriptors: int = 0) -> Iterator[tuple[bytes, list[int]]]:
    """The packets that have come, of at most `size` bytes, with their descriptors; an empty one ends them."""
    while True:
        try:
            packet, found, _, _ = socket.recv_fds(source, size, descriptors, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            packet, found = b"", []
        yield packet, found
        if not packet:
            return


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module as a program, with this Python, importing from where this process does.

    -I: no variable has a say in that, no working directory, and no packages of whoever is root there.
    """
    path = [place for place in sys.path if place]
    script = f"import runpy, sys; sys.path[:] = {path!r}; runpy.run_module({module!r}, run_name='__main__')"
    return [sys.executable, "-I", "-c", script, *arguments]


def _packed(command: Sequence[str]) -> bytes:
    packed = b"".join(os.fsencode(argument) + b"\0" for argument in command or [""])
    if len(packed) > lib.COMMAND_BYTES_MAX:
        raise HostError(
            f"A command of the keeper's takes {len(packed)} bytes; the most is {lib.COMMAND_BYTES_MAX}.",
            "Shorten sys.path, which is in it: PYTHONPATH, or the directory that jail is installed in.",
        )
    return packed


def _spawn(control: socket.socket, namespace: int, directory: Path, view: Sequence[str]) -> subprocess.Popen:
    """Start the program: its socket as stdin, the namespace as stdout, and nothing of our environment.

    Its arguments are those of init as well, which every job may read: they tell no path that its own mounts
    do not tell.
    """
    arguments = [program().name, "keep", *view]
    return subprocess.Popen(
        arguments, executable=program(), stdin=control, stdout=namespace, env={}, cwd=directory
    )
