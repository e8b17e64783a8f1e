"""One sandbox, from nothing to nothing: ids, cgroup, namespaces, /box; used for one job."""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path

from jail import cgroup, host
from jail.cgroup import Cgroup, Counters
from jail.errors import HostError, SandboxError
from jail.ids import IdBlocks
from jail.image import build_host
from jail.instance import Instance
from jail.keeper import Keeper
from jail.namespace import OuterNamespace
from jail.supervisor import MOUNT_PLACE, SLOTS_MAX, Report, Start, Supervisor


class Sandbox:
    """A sandbox that is ready, has never run anything, and will run one job.

    What it holds is given back, last first, by `close()`.
    """

    def __init__(
        self,
        slot: int,
        group: Cgroup,
        supervisor: Supervisor,
        ended: asyncio.Future[Report],
        held: AsyncExitStack,
    ) -> None:
        """Take over what Sandboxes.make() made; `ended` is answered when nothing of it lives."""
        self._slot = slot
        self._group = group
        self._supervisor = supervisor
        self._ended = ended
        self._held = held
        self._closed = False

    def limit(self, limits: cgroup.Limits) -> None:
        """Set the limits of its cgroup. Raises OSError."""
        self._group.limit(limits)

    def start(self, start: Start) -> None:
        """Start its one job."""
        self._supervisor.start(self._slot, start)

    async def ended(self) -> Report:
        """Wait until nothing of it lives. Raises SandboxError when the supervisor was lost."""
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        """End everything in it. Never too late: then nothing happens."""
        if not self._closed:
            self._supervisor.kill(self._slot)

    def count(self) -> Counters:
        """What its cgroup counted, once nothing lives in it. Raises OSError."""
        return self._group.count()

    async def open(self, path: str) -> int:
        """A descriptor of a regular file beneath /box, once nothing lives in it. Raises OSError."""
        return await self._supervisor.open(self._slot, path)

    async def close(self) -> None:
        """Leave nothing of it, whether it ran or not. Raises OSError."""
        if not self._ended.done():
            self.kill()
        with suppress(SandboxError):
            await asyncio.shield(self._ended)
        # From here on the slot may be someone else's.
        self._closed = True
        await self._held.aclose()


class Sandboxes:
    """Makes sandboxes on this host; an async context manager that raises HostError on entry.

    Attributes, once entered: `hierarchy`, of cgroups; `images` by name; `landlock_abi`, 0 for none;
    `keeper`, of supervisors; `supervisor`, the running one.
    """

    def __init__(self, state: str, count: int) -> None:
        """Take the directory for what lives as long as the service, and how many are alive at once."""
        self._state = Path(state)
        self._count = count
        # Last in, first out: the supervisor touches no more of its table than is in use at once.
        self._slots: list[tuple[int, tuple[int, int]]] = []

    async def __aenter__(self) -> "Sandboxes":
        """Find what the host gives and start the supervisor."""
        with ExitStack() as undo:
            self.hierarchy = cgroup.find()
            self._namespace = OuterNamespace()
            undo.callback(self._namespace.close)
            with _explained(self._state):
                # Before the sweep: who had these ids is dead, and what it left ends in the sweep.
                blocks = IdBlocks(self._state / "ids", self._namespace.slots, self._count)
                undo.callback(blocks.close)
                self._instance = Instance(self._state, self.hierarchy)
                undo.callback(self._instance.close)
            for slot, pair in enumerate(blocks.slots[:SLOTS_MAX]):
                self._slots.append((slot, self._namespace.ids(pair)))
            directory = self._instance.directory
            (directory / MOUNT_PLACE).mkdir()
            self.images = {"host": build_host(directory, "host")}
            self.landlock_abi = host.landlock_abi()
            self.keeper = Keeper(self._namespace, directory)
            undo.callback(self.keeper.close)
            self.supervisor = Supervisor(self.keeper)
            self._undo = undo.pop_all()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """End the supervisor and give everything back; every Sandbox has been closed."""
        await self.supervisor.close()
        self._undo.close()

    async def make(self, image: str) -> Sandbox:
        """A sandbox of the image of that name, ready for a job. Raises SandboxError, OSError."""
        async with AsyncExitStack() as stack:
            supervisor = await self._running_supervisor()
            # There are more than jobs at once; but one whose sandbox could not be removed never comes back.
            if not self._slots:
                raise SandboxError("slots")
            place = slot, ids = self._slots.pop()
            try:
                group = self.hierarchy.make(str(slot))
            except OSError:
                self._slots.append(place)
                raise
            stack.push_async_callback(self._give_back, place, group)
            ended = await supervisor.make(slot, group, self.images[image], ids)
            stack.callback(supervisor.release, slot)
            return Sandbox(slot, group, supervisor, ended, stack.pop_all())

    async def _running_supervisor(self) -> Supervisor:
        """The supervisor; a new one when the last was lost."""
        if self.supervisor.lost.is_set():
            lost = self.supervisor
            self.supervisor = Supervisor(self.keeper)
            await lost.close()
        await self.supervisor.started()
        return self.supervisor

    async def _give_back(self, place: tuple[int, tuple[int, int]], group: Cgroup) -> None:
        """Remove a cgroup; then, and only then, its slot and ids can be someone else's. Raises OSError.

        A lost supervisor's sandboxes may still be dying: wait until they have.
        """
        try:
            group.remove()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self.hierarchy.destroy, str(place[0]))
        self._slots.append(place)


@contextmanager
def _explained(state: Path) -> Iterator[None]:
    """Whatever is wrong with the state directory is the operator's to mend. Raises HostError."""
    try:
        yield
    except OSError as error:
        raise HostError(
            f"{error.filename or state} cannot be used: {error.strerror}.",
            "Set `state` (JAIL_STATE) to a directory of this user's own, or mend that one.",
        ) from None
