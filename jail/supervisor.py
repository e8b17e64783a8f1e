"""The supervisor's client: one method a request, one awaitable answer.

With jail.keeper the one door to the cffi module: the layouts are those of native/message.h, which both
sides read. The supervisor gets finished plans, so everything here is bytes and descriptors. A slot
has at most one request under way; what the supervisor tells of it answers whoever waits for it.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

from jail._protocol import ffi, lib
from jail.cgroup import Cgroup
from jail.errors import SandboxError
from jail.image import Image
from jail.keeper import Keeper, received
from jail.outcome import Failure

SLOTS_MAX = lib.SLOTS_MAX
COUNTED_MAX = lib.COUNTED_MAX
PROCESSORS_MAX = lib.PROCESSORS_MAX
HOSTS_BYTES_MAX = lib.HOSTS_BYTES_MAX
DEPTH_MAX = lib.DEPTH_MAX
STRETCHES_MAX = lib.STRETCHES_MAX
INIT_ID = lib.INIT_ID
JOB_ID = lib.JOB_ID

_LATER = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)

MOUNT_PLACE = "root"
"""The directory, in the supervisor's, that every sandbox mounts its root on, unseen by the others."""

SETUP_SECONDS = 10
"""A sandbox that is not set up by then is a failure of ours. Loaded hosts take tens of ms."""

_STAGES = {
    number: name.removeprefix("STAGE_").lower() for number, name in ffi.typeof("enum stage").elements.items()
}

_MOMENTS = [name for name, _ in ffi.typeof("struct moments").fields]

CAUSES = {
    number: name.removeprefix("CAUSE_").lower() for number, name in ffi.typeof("enum cause").elements.items()
}
"""Why the supervisor ended a sandbox: "none", "cpu", "wall", "memory" or "service"."""


class Report:
    """What the supervisor says of a slot: `facts`, a struct report, and `descriptor`, or -1.

    The descriptor, the receiver's to close, is of the network namespace of a sandbox that is ready, or of a
    file that was opened. `ended`, of a sandbox that is ready: the answer to come when nothing of its job
    lives, or the exception SandboxError, if the supervisor is lost before.
    """

    def __init__(self, packet: bytes, descriptors: Sequence[int]) -> None:
        """Take one packet apart."""
        self.facts = ffi.from_buffer("struct report *", packet)[0]
        self.ended: asyncio.Future[Report] | None = None
        self.descriptor = descriptors[0] if descriptors else -1
        self._packet = packet

    @property
    def failure(self) -> Failure | None:
        """Where set-up failed, if it did."""
        failure = self.facts.failure
        if not failure.stage:
            return None
        return Failure(_STAGES[failure.stage], failure.error, failure.index)

    def error(self) -> SandboxError:
        """The failure of a sandbox that ended before it was ready."""
        failure = self.failure
        if failure is None:
            return SandboxError("lost")
        return SandboxError(failure.stage, failure.error, failure.index)

    @property
    def moments(self) -> dict[str, int]:
        """When the job passed from hand to hand: struct moments, in ns of CLOCK_MONOTONIC, where known."""
        told = self.facts.moments
        return {name.removesuffix("_ns"): getattr(told, name) for name in _MOMENTS if getattr(told, name)}

    @property
    def cause(self) -> str:
        """One of CAUSES' words."""
        return CAUSES[self.facts.cause]


class Start:
    """A struct start and what goes with it, all descriptors. `policy` and `plan` are of sealed bytes.

    counted: number, maximum, and errno from then on, of at most COUNTED_MAX calls. explains: the filter
    hands over the calls that it denies; then there are two more, of what pack_answers() made and of
    DENIALS_BYTES of memory, where unpack_denials() finds them.
    """

    def __init__(
        self,
        stdio: Sequence[int],
        policy: int,
        plan: int,
        counted: Sequence[tuple[int, int, int]] = (),
        explains: Sequence[int] = (),
    ) -> None:
        """Take the descriptors; fill the rest of `message` before it is sent."""
        self.message = ffi.new("struct start *")
        self.message.header.type = lib.TYPE_START
        self.message.setup_ns = SETUP_SECONDS * 10**9
        self.message.explains = bool(explains)
        self.message.listens = bool(counted or explains)
        self.message.counted_calls = len(counted)
        for place, (call, maximum, error) in enumerate(counted):
            self.message.counted[place] = {"call": call, "maximum": maximum, "error": error}
        self.descriptors = (*stdio, policy, plan, *explains)
        self.places: list[bytes] = []

    def keep(self, place: str) -> None:
        """Have what Supervisor.freeze() kept there copied to /box. Before lend()."""
        self.places.append(place.encode() + b"\0")
        self.message.keeps = 1

    def lend(self, directory: str, files: int, stdin: bool) -> None:
        """Let files of that directory be seen: so many of its `box`, as the plan names, and its `stdin`."""
        self.places.append(directory.encode() + b"\0")
        self.message.lends, self.message.lent_files, self.message.lends_stdin = 1, files, stdin

    def pin(self, processors: Iterable[int]) -> None:
        """Let the job run on these alone, each below PROCESSORS_MAX; on any, if there are none."""
        for number in processors:
            self.message.processors[number // 64] |= 1 << number % 64


DENIALS_BYTES = ffi.sizeof("struct denials")


def unpack_denials(content: bytes) -> tuple[list[tuple[int, tuple[int, ...], int]], int]:
    """Number, six arguments and count of each call that was denied; and how many more were not listed."""
    told = ffi.from_buffer("struct denials *", content)[0]
    listed = [(one.call, tuple(one.arguments), one.count) for one in told.listed[0 : told.count]]
    return listed, told.omitted


def pack_answers(answers: Sequence[tuple[int, int]]) -> bytes:
    """By a call's number, the errno that it gets when denied and how many arguments it has."""
    return bytes(ffi.buffer(ffi.new("struct answer[]", list(answers))))


def pack_file(path: bytes, mode: int, content: bytes) -> bytes:
    """One file of a plan: struct file, its path with a NUL, its bytes."""
    header = ffi.new("struct file *", {"bytes": len(content), "mode": mode})
    header.path_bytes = len(path) + 1
    return b"%b%b\0%b" % (bytes(ffi.buffer(header)), path, content)


class Supervisor:
    """One running supervisor process. `lost` is set when it has ended, wanted or not."""

    def __init__(self, keeper: Keeper) -> None:
        """Have it started, from the event loop's thread. Images are relative to the keeper's directory.

        A sandbox's ids may walk in that, if not to it: mode 0711.
        """
        self._time_namespaces = os.path.exists("/proc/self/ns/time")
        self._waiting: dict[int, asyncio.Future[Report]] = {}
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self.lost = asyncio.Event()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._kept = keeper.start(theirs)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._read)

    async def started(self) -> int:
        """Its process id, once it is there. Raises SandboxError when there can be none."""
        return await asyncio.shield(self._kept.started)

    @property
    def pid(self) -> int:
        """The same, of one that is there, for those who look at it from outside, such as tests."""
        return self._kept.started.result()

    def make(
        self, slot: int, cgroup: Cgroup, image: Image, ids: tuple[int, int, int]
    ) -> asyncio.Future[Report]:
        """Make a sandbox in that slot. Raises OSError: then nothing was sent, and the slot is as it was.

        ids: of the outer namespace, for init, for the job, and of what other sandboxes left for it.
        The answer, not to be cancelled, says that it is ready, with a descriptor of its network namespace; or
        ended, if that failed. It is SandboxError when the supervisor was lost.
        """
        texts = [MOUNT_PLACE.encode(), *(text.encode() for pair in image.overlays for text in pair)]
        text = b"".join(part + b"\0" for part in texts)
        message = ffi.new("struct make *")
        message.header.type, message.header.slot = lib.TYPE_MAKE, slot
        message.setup_ns = SETUP_SECONDS * 10**9
        message.joins, message.born = len(cgroup.joins), len(cgroup.born) // 2
        message.cpu_counters, message.oom_event = len(cgroup.cpu_counters), len(cgroup.oom_event)
        message.time_namespace = self._time_namespaces
        message.overlays, message.text_bytes = len(image.overlays), len(text)
        inside = lib.INIT_ID, lib.JOB_ID, lib.FROZEN_ID
        message.id_map = b"".join(b"%d %d 1\n" % pair for pair in zip(inside, ids, strict=True))
        descriptors = (*cgroup.joins, *cgroup.born, *cgroup.cpu_counters, *cgroup.oom_event)
        self._send(bytes(ffi.buffer(message)) + text, descriptors)
        cgroup.hand_over()
        return self._expect(slot)

    def start(self, slot: int, start: Start) -> None:
        """Start a job in a ready sandbox."""
        start.message.header.slot = slot
        places = b"".join(start.places)
        start.message.places_bytes = len(places)
        self._send(bytes(ffi.buffer(start.message)) + places, start.descriptors)

    def kill(self, slot: int) -> None:
        """End what runs in that slot; whoever waits for its end is answered. Never too late."""
        self._send(_ask(lib.TYPE_KILL, slot))

    async def open(self, slot: int, path: str) -> int:
        """A descriptor of a regular file beneath /box of an ended sandbox.

        Raises OSError: ENOENT; ELOOP, a link; EISDIR; EINVAL or ENXIO, another kind; ENOTDIR.
        """
        answer = self._expect(slot)
        self._send(_ask(lib.TYPE_OPEN, slot, path.encode() + b"\0"))
        try:
            # Shielded: the answer must not come when the slot is someone else's.
            report = await asyncio.shield(answer)
        except asyncio.CancelledError:
            with suppress(SandboxError):
                _close((await answer).descriptor)
            raise
        error = report.facts.failure.error
        # None came along: this process may open no more.
        if not error and report.descriptor < 0:
            error = errno.EMFILE
        if error:
            raise OSError(error, os.strerror(error), path)
        return report.descriptor

    async def freeze(self, slot: int, place: str, owner: int) -> None:
        """Keep /box of an ended sandbox at `place`, an empty directory, until that is removed.

        That is relative to the keeper's directory. All in it belongs to `owner` then, an id of the outer
        namespace. Raises OSError: ELOOP, it is deeper than DEPTH_MAX; E2BIG, it is more than
        STRETCHES_MAX; SandboxError: supervisor lost.
        """
        answer = self._expect(slot)
        path = place.encode() + b"\0"
        message = ffi.new("struct ask *", {"path_bytes": len(path), "owner": owner})
        message.header.type, message.header.slot = lib.TYPE_FREEZE, slot
        self._send(bytes(ffi.buffer(message)) + path)
        # Shielded, as for open().
        error = (await asyncio.shield(answer)).facts.failure.error
        if error:
            raise OSError(error, os.strerror(error), place)

    async def release(self, slot: int) -> None:
        """Give up a sandbox with its /box, whatever it does, and wait until it is gone.

        Then the slot can be made again. Raises SandboxError when the supervisor was lost, and the
        sandbox with it.
        """
        under_way = self._waiting.get(slot)
        if under_way is not None:
            self.kill(slot)
            await under_way
        gone = self._expect(slot)
        self._send(_ask(lib.TYPE_RELEASE, slot))
        await gone

    async def close(self) -> None:
        """End it and with it every sandbox; comes back when nothing is left."""
        self._lose()
        await asyncio.shield(self._kept.ended)

    def _expect(self, slot: int) -> asyncio.Future[Report]:
        answer = self._waiting[slot] = self._loop.create_future()
        if self.lost.is_set():
            # Who comes too late is told the same.
            self._kept.ended.add_done_callback(self._fail)
        return answer

    def _send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send at once, or in order once there is room. Raises OSError.

        The descriptors remain the caller's.
        """
        if len(packet) > lib.MESSAGE_BYTES_MAX:
            # It would end the supervisor, and every job with it.
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        if self.lost.is_set():
            return
        if not self._unsent and self._sent(packet, descriptors):
            return
        self._unsent.append((packet, _duplicates(descriptors)))
        if len(self._unsent) == 1:
            self._loop.add_writer(self._socket, self._send_waiting)

    def _sent(self, packet: bytes, descriptors: Sequence[int]) -> bool:
        try:
            socket.send_fds(self._socket, [packet], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            self._lose()
        except OSError as error:
            # Too much is under way, here or in the kernel; later there will be room.
            if error.errno not in _LATER:
                raise
            return False
        return True

    def _send_waiting(self) -> None:
        while self._unsent and self._sent(*self._unsent[0]):
            self._drop_first()
        if not self._unsent and not self.lost.is_set():
            self._loop.remove_writer(self._socket)

    def _drop_first(self) -> None:
        # Losing the supervisor in the middle empties the queue.
        if self._unsent:
            for descriptor in self._unsent.popleft()[1]:
                os.close(descriptor)

    def _read(self) -> None:
        """Take in what the supervisor has to say; an end of file is its death."""
        for packet, descriptors in received(self._socket, ffi.sizeof("struct report"), 1):
            if not packet:
                self._lose()
                return
            self._answer(Report(packet, descriptors))

    def _answer(self, report: Report) -> None:
        slot = report.facts.header.slot
        answer = self._waiting.pop(slot, None)
        if report.facts.header.type == lib.TYPE_READY:
            # At once: its end may be the next packet.
            report.ended = self._expect(slot)
        if answer is not None and not answer.done():
            answer.set_result(report)
        else:
            _close(report.descriptor)

    def _lose(self) -> None:
        if self.lost.is_set():
            return
        self.lost.set()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        while self._unsent:
            self._drop_first()
        # Its end comes right after that of its socket, and says why.
        self._kept.ended.add_done_callback(self._fail)

    def _fail(self, ended: asyncio.Future[int]) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(SandboxError("supervisor", max(0, ended.result())))
                # It may be that nobody waits for it.
                answer.exception()
        self._waiting.clear()


def _duplicates(descriptors: Sequence[int]) -> tuple[int, ...]:
    """Copies of all, or none."""
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))
    except OSError:
        for copy in copies:
            os.close(copy)
        raise
    return tuple(copies)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _ask(kind: int, slot: int, path: bytes = b"") -> bytes:
    message = ffi.new("struct ask *", {"path_bytes": len(path)})
    message.header.type, message.header.slot = kind, slot
    return bytes(ffi.buffer(message)) + path
