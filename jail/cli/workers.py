"""The workers of a service, and their parent, which serves nothing itself.

Each worker is a whole service, with an engine, a keeper and a supervisor of its own; they share the address
and the numbers of /metrics, and nothing else. So one Python process is not what bounds a host's jobs.

The parent passes on the signals to stop, and waits. When a worker ends that was not told to, the others are
told, and the service has failed: a service manager starts it anew, whole. When the parent ends, the kernel
tells the workers.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog

from jail.errors import HostError

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1


class Workers:
    """Those of this process, which has one thread and no event loop."""

    def __init__(self) -> None:
        """None so far."""
        self._numbers: dict[int, int] = {}
        self._descriptors: tuple[int, ...] = ()
        self._told = False
        # Ignored, as whoever started us may have left it, it would keep the ends of workers from us.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def start(self, number: int, work: Callable[[Callable[[], None]], None]) -> bool:
        """Start one that does `work(ready)` and then exits; come back when it has called `ready`.

        Returns False when it ended instead: wait() tells how.
        """
        parent = os.getpid()
        hearing, telling = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(hearing)
            _stop_with(parent)
            work(partial(_say, telling))
            sys.exit()
        self._numbers[pid] = number
        os.close(telling)
        with open(hearing, "rb") as pipe:
            return bool(pipe.read())

    def pass_on_signals(self) -> None:
        """From now on, SIGTERM and SIGINT are passed on. All workers have been started."""
        self._descriptors = tuple(os.pidfd_open(pid) for pid in self._numbers)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _frame: self._tell(number))

    def wait(self) -> None:
        """Come back when all have ended. Raises HostError if one was not told to, or failed."""
        failure = None
        while self._numbers:
            pid, status = os.wait()
            # As the first process of a container we are parent to orphans too.
            if pid not in self._numbers:
                continue
            number, code = self._numbers.pop(pid), os.waitstatus_to_exitcode(status)
            if failure is None and (code or not self._told):
                failure = _explain(number, code)
                if not self._told:
                    structlog.get_logger().error("worker lost", worker=number, status=code)
                self._tell(signal.SIGTERM)
        if failure is not None:
            raise failure

    def _tell(self, number: int) -> None:
        self._told = True
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


def _say(telling: int) -> None:
    with open(telling, "wb") as pipe:
        pipe.write(b"\0")


def _explain(number: int, code: int) -> HostError:
    end = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
    cure = "Start the service again, as a service manager does (Restart=on-failure)."
    return HostError(
        f"Worker {number} {end}, and the service with it.",
        "What it said before tells why." if code > 0 else cure,
    )
