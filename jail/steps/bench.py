"""The processes of one job in steps: each begun and ended here, in a lane that it has to itself meanwhile."""

from collections.abc import Callable
from contextlib import ExitStack

from jail.errors import SandboxError
from jail.outcome import Ended, Failure
from jail.process import Means, Process
from jail.spec import ProcessSpec
from jail.steps.lanes import Lane


class Bench:
    """What is under way of a job.

    layers: what its processes find in /box, of steps that have ended, the topmost first. failure: where set-up
    failed first, if it did. cancelled: whether the job was.
    """

    def __init__(self, means: Means) -> None:
        """Nothing is."""
        self.means = means
        self.layers: tuple[str, ...] = ()
        self.failure: Failure | None = None
        self.cancelled = False
        self._live: set[Process] = set()

    def cancel(self) -> None:
        """End what is under way; whatever is begun from now on ends at once."""
        self.cancelled = True
        for process in self._live:
            process.end(Ended.CANCELLED)

    async def begin(
        self, spec: ProcessSpec, lane: Lane, kept: ExitStack, layers: tuple[str, ...] | None = None
    ) -> Process:
        """A process with a sandbox, or a verdict; to be prepared and run, and in any case to be closed here.

        kept: gives back its stored files, no sooner. layers: in place of the job's.
        """
        process = Process(self.means, spec)
        self._live.add(process)
        try:
            await lane.room()
            await self._lay(process, kept, self.layers if layers is None else layers)
            if self.cancelled:
                process.end(Ended.CANCELLED)
            if process.verdict is None:
                await process.take(lane)
        except (SandboxError, OSError) as error:
            process.fail(error)
        except BaseException:
            self.close(process)
            raise
        return process

    async def _lay(self, process: Process, kept: ExitStack, layers: tuple[str, ...]) -> None:
        if process.spec.borrows:
            lent = await self.means.files.lend(process.spec)
            kept.callback(self.means.files.give_back, lent)
            process.stdin_layer = lent.stdin_layer
            layers = (*lent.layers, *layers)
        process.layers = layers

    async def run(self, process: Process, on_stdout: Callable[[bytes], None] | None = None) -> None:
        """See it to its end. on_stdout: what its output goes to besides."""
        process.on_stdout = on_stdout
        process.prepare()
        await process.run(lambda: None)

    def close(self, process: Process) -> None:
        """Leave nothing of it."""
        self.failure = self.failure or process.failure
        self._live.discard(process)
        process.close()
