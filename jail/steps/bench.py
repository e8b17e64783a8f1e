"""The processes of one job in steps: each begun and ended here, in a lane that it has to itself meanwhile."""

from collections.abc import Callable

from jail.boxes import Box
from jail.outcome import Ended, Failure
from jail.process import Means, Process
from jail.spec import ProcessSpec
from jail.steps.lanes import Lane


class Bench:
    """What is under way of a job.

    box: what its processes find in /box, as the last step left it. failure: where set-up failed first, if it
    did. cancelled: whether the job was. sent_ns, heard_ns: when the first process was started and the last
    was heard of, by CLOCK_MONOTONIC; 0 before.
    """

    def __init__(self, means: Means) -> None:
        """Nothing is."""
        self.means = means
        self.box: Box | None = None
        self.failure: Failure | None = None
        self.cancelled = False
        self.sent_ns = 0
        self.heard_ns = 0
        self._live: set[Process] = set()

    def cancel(self) -> None:
        """End what is under way; whatever is begun from now on ends at once."""
        self.cancelled = True
        for process in self._live:
            process.end(Ended.CANCELLED)

    async def begin(self, spec: ProcessSpec, lane: Lane, box: Box | None = None) -> Process:
        """A process with a sandbox, or a verdict; to be run, and in any case to be closed here."""
        process = Process(self.means, spec)
        self._live.add(process)
        try:
            await lane.room()
            process.box = box
            if spec.borrows:
                await process.borrow()
            if self.cancelled:
                process.end(Ended.CANCELLED)
            if process.verdict is None:
                await process.take(lane)
        except BaseException:
            self.close(process)
            raise
        return process

    async def run(self, process: Process, on_stdout: Callable[[bytes], None] | None = None) -> None:
        """See it to its end. on_stdout: what its output goes to besides."""
        process.on_stdout = on_stdout
        process.prepare()
        await process.run(lambda: None)

    def close(self, process: Process) -> None:
        """Leave nothing of it."""
        self.failure = self.failure or process.failure
        self.sent_ns = self.sent_ns or process.moments.get("sent", 0)
        self.heard_ns = max(self.heard_ns, process.moments.get("heard", 0))
        self._live.discard(process)
        process.close()
