"""The workers of a service, and their parent, which serves nothing itself.

Each worker is a whole service, with an engine, a keeper and a supervisor of its own; they share the address
and the numbers of /metrics, and nothing else. So one Python process is not what bounds a host's jobs.

The parent passes on the signals to stop, and waits. When a worker ends that was not told to, the others are
told, and the service has failed: a service manager starts it anew, whole. When the parent ends, the kernel
tells the workers.

Only the parent speaks to the service manager: for a sign of life it waits until every worker has given one.
"""

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

import structlog

from jail.cli.systemd import Notices
from jail.errors import HostError

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1

_TO_STOP = {signal.SIGTERM, signal.SIGINT}

# More than are ever said before they are heard; and of signals, that one came is enough.
_SAID_BYTES = 512


class Voice(Protocol):
    """How one that serves is heard, by the service manager or by the parent of workers.

    `sign_of_life_s`: how often it is to be, in seconds; None, not at all.
    """

    sign_of_life_s: float | None

    def alive(self) -> None:
        """Its event loop turns."""

    def stopping(self, grace_s: float) -> None:
        """It takes no more jobs, and ends within that time, in seconds."""


class Workers:
    """Those of this process, which has one thread and no event loop."""

    def __init__(self, notices: Notices, grace_s: float) -> None:
        """None so far. grace_s: how long they take to stop, for `notices` to tell."""
        self._notices = notices
        self._grace_s = grace_s
        self._numbers: dict[int, int] = {}
        self._descriptors: tuple[int, ...] = ()
        self._told = False
        self._hearing: set[int] = set()
        self._heard: set[int] = set()
        self._poll = select.poll()
        # As any handler, and unlike none, it lets a signal end a wait: see _hear().
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Until they can be passed on: if this one ended at once, a service manager would kill those that
        # serve already.
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_STOP)
        self._signals, noting = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(noting, warn_on_full_buffer=False)
        self._poll.register(self._signals, select.POLLIN)

    def start(self, number: int, work: Callable[[Callable[[], None], Voice], None]) -> bool:
        """Start one that does `work(ready, voice)` and then exits; come back when it has called `ready`.

        Returns False when it ended instead: wait() tells how; and when there is a signal to stop.
        """
        if signal.sigpending() & _TO_STOP:
            return False
        parent = os.getpid()
        hearing, telling = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(hearing)
            self._leave()
            _stop_with(parent)
            voice = _Pipe(telling, self._notices.sign_of_life_s)
            work(voice.alive, voice)
            sys.exit()
        self._numbers[pid] = number
        os.close(telling)
        self._hearing.add(hearing)
        self._poll.register(hearing, select.POLLIN)
        return bool(os.read(hearing, 1))

    def _leave(self) -> None:
        """In a worker: keep nothing that is the parent's to hear, or to tell."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_STOP)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (signal.set_wakeup_fd(-1), self._signals, *self._hearing):
            os.close(descriptor)
        self._notices.close()

    def pass_on_signals(self) -> None:
        """From now on, SIGTERM and SIGINT are passed on. All workers have been started."""
        self._descriptors = tuple(os.pidfd_open(pid) for pid in self._numbers)
        for number in _TO_STOP:
            signal.signal(number, lambda number, _frame: self._tell(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_STOP)

    def wait(self) -> None:
        """Come back when all have ended. Raises HostError if one was not told to, or failed."""
        failure = None
        while self._numbers:
            self._hear()
            for number, code in self._ended():
                if failure is None and (code or not self._told):
                    failure = _explain(number, code)
                    if not self._told:
                        structlog.get_logger().error("worker lost", worker=number, status=code)
                    self._tell(signal.SIGTERM)
        if failure is not None:
            raise failure

    def _hear(self) -> None:
        """Wait for a worker's sign of life, or its end, or a signal; when all have given one, pass it on."""
        for descriptor, _ in self._poll.poll():
            said = os.read(descriptor, _SAID_BYTES)
            if not said:
                # It has ended, or is about to.
                self._poll.unregister(descriptor)
            elif descriptor in self._hearing:
                self._heard.add(descriptor)
        if self._heard == self._hearing:
            self._heard.clear()
            self._notices.alive()

    def _ended(self) -> Iterator[tuple[int, int]]:
        """Number and exit code of workers that have ended since."""
        # Without children that live, there may be some yet to hear of.
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                # As the first process of a container we are parent to orphans too.
                if ended[0] in self._numbers:
                    yield self._numbers.pop(ended[0]), os.waitstatus_to_exitcode(ended[1])

    def _tell(self, number: int) -> None:
        if not self._told:
            self._told = True
            self._notices.stopping(self._grace_s)
        for descriptor in self._descriptors:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)


def _stop_with(parent: int) -> None:
    """In a worker: be told to stop when the parent is gone, and by nobody's terminal."""
    os.setsid()
    # In force for as long as we change no id. It is the parent's one thread that it follows.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise HostError(f"prctl: {os.strerror(ctypes.get_errno())}.", "This is a defect: please report it.")
    if os.getppid() != parent:
        sys.exit(1)


class _Pipe:
    """The voice of a worker. The first time it says that it is ready."""

    def __init__(self, descriptor: int, sign_of_life_s: float | None) -> None:
        # A parent that hears nothing must not hold us up.
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self.sign_of_life_s = sign_of_life_s

    def alive(self) -> None:
        # Without a parent we have been told to stop.
        with suppress(BrokenPipeError, BlockingIOError):
            os.write(self._descriptor, b"\0")

    def stopping(self, grace_s: float) -> None:
        """Nothing: the parent has told."""


def _explain(number: int, code: int) -> HostError:
    end = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
    cure = "Start the service again, as a service manager does (Restart=on-failure)."
    return HostError(
        f"Worker {number} {end}, and the service with it.",
        "What it said before tells why." if code > 0 else cure,
    )
