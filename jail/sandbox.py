"""One sandbox, from nothing to nothing: ids, cgroup, namespaces, /box; used for one job."""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from jail import cgroup, host
from jail.boxes import Box, Boxes
from jail.catalogue import Catalogue
from jail.cgroup import Cgroup, Counters
from jail.errors import HostError, SandboxError
from jail.ids import IdBlocks
from jail.images.protocol import Offer
from jail.images.store import Store
from jail.instance import Instance
from jail.keeper import Keeper, module_command
from jail.namespace import OuterNamespace
from jail.network.networks import Networks
from jail.network.protocol import Bounds
from jail.pool import AT_ONCE, Size
from jail.stock import Shelf, Stock
from jail.supervisor import MOUNT_PLACE, SETUP_SECONDS, SLOTS_MAX, Report, Start, Supervisor

BACKLOG = 256
"""How many network namespaces of sandboxes that are gone the kernel may have yet to take down.

It does that one after the other, 0.1 to 0.2 MB each, and falls behind when jobs come fast.
"""

_BACKLOG_WAIT_SECONDS = 0.02

MAKERS_PER_PROCESSOR = 4
"""So many are made at once. More would wait for each other, and for longer than SETUP_SECONDS in the end."""

HUB = "jail.network"
"""The program that joins sandboxes to networks. Its argument: how many slots there are."""

IMAGES = "jail.images"
"""The program that administers images. Its argument: an Offer."""

Place = tuple[int, tuple[int, int]]
"""A slot of the supervisor, and the ids that the sandbox in it has."""


class Sandbox:
    """A sandbox that is ready, has never run anything, and will run one job.

    `memory_bytes`: what was charged to it when it was ready. `network`: a descriptor of its network
    namespace, its own, until it is closed. `slot`: its number, which no other has until then.
    """

    def __init__(
        self,
        slot: int,
        group: Cgroup,
        supervisor: Supervisor,
        report: Report,
        boxes: Boxes,
        bury: Callable[[], asyncio.Task[None]],
    ) -> None:
        """Take over what Sandboxes made, which `bury` gives back, the rest of it in the background.

        `report`: that it is ready. Raises OSError.
        """
        self.slot = slot
        self._group = group
        self._supervisor = supervisor
        self._ended = report.ended
        self.network = report.descriptor
        self._boxes = boxes
        self._bury = bury
        self._closed = False
        self.memory_bytes = group.begin()

    @property
    def alive(self) -> bool:
        """Whether it still waits for its job, or for the end of it."""
        return not (self._ended.done() or self._supervisor.lost.is_set())

    def limit(self, limits: cgroup.Limits) -> None:
        """Set the limits of its cgroup. Raises OSError."""
        self._group.limit(limits)

    def start(self, start: Start) -> None:
        """Start its one job. Raises OSError."""
        self._supervisor.start(self.slot, start)

    async def ended(self) -> Report:
        """Wait until nothing of its job lives; not to be cancelled. Raises SandboxError: supervisor lost."""
        return await self._ended

    def kill(self) -> None:
        """End everything in it. Never too late: then nothing happens."""
        if not self._closed:
            self._supervisor.kill(self.slot)

    def count(self) -> Counters:
        """What its cgroup counted, once nothing of its job lives. Raises OSError."""
        return self._group.count()

    async def open(self, path: str) -> int:
        """A descriptor of a regular file beneath /box, once nothing of its job lives. Raises OSError."""
        return await self._supervisor.open(self.slot, path)

    async def keep_box(self) -> Box:
        """Keep /box for others, once nothing of its job lives; then it is not here any more.

        Raises OSError: ELOOP, directories in it are too deep; SandboxError: supervisor lost.
        """
        return await self._boxes.keep(self._supervisor, self.slot)

    def check_box(self, box: Box) -> None:
        """Raise SandboxError if that cannot be copied to this sandbox."""
        box.check(self._supervisor)

    def close(self) -> asyncio.Task[None]:
        """Leave nothing of it, whether it ran or not. Nobody has to wait for the task that does it."""
        self._closed = True
        return self._bury()


def most_at_once(slots: int, ready_max: int) -> int:
    """How many there can be. As many as run may be dying: what the kernel takes for that is bounded by it."""
    return 2 * slots + ready_max


class Sandboxes:
    """Makes sandboxes on this host; an async context manager that raises HostError on entry.

    Attributes, once entered: `hierarchy`, of cgroups; `images`, that are offered; `store`, of images;
    `landlock_abi`, 0 for none; `keeper`, of supervisors, hubs and programs of images; `networks`, of
    sandboxes; `supervisor`, the running one; `stock`, of ready sandboxes; `dying`, the tasks in which
    sandboxes come to nothing. To be set before: `bounds`, of egress, where networks may have a way out;
    `offer`, where images may be administered; `volumes`, directories by name; `lent`, the directory of what
    jobs have of the files that are stored, if any are.
    """

    def __init__(self, state: str, images: str, count: int, ready: Size, limits: cgroup.Limits) -> None:
        """Take the directories for what lives as long as the service, and of images; how many jobs at once.

        ready: how many more are made ahead of time; limits: those of the cgroups, until a job's own.
        """
        self._state = Path(state)
        self._images_directory = Path(images)
        self._size = ready
        self._limits = limits
        self._count = most_at_once(count, ready.maximum)
        self._networks = self._count + BACKLOG
        self.bounds: Bounds | None = None
        self.offer: Offer | None = None
        self.volumes: Mapping[str, str] = {}
        self.lent: tuple[str, ...] = ()
        self._makers = asyncio.Semaphore(max(AT_ONCE, MAKERS_PER_PROCESSOR * host.cpus()))
        self._made = 0
        # Last in, first out: the supervisor touches no more of its table than is in use at once.
        self._places: list[Place] = []
        self.dying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Sandboxes":
        """Find what the host gives and start the supervisor."""
        if self._count > SLOTS_MAX:
            raise HostError(
                f"2 x slots + ready_max is {self._count}; one supervisor looks after {SLOTS_MAX} sandboxes.",
                "Lower `slots` or `ready_max`.",
            )
        with ExitStack() as undo:
            self.hierarchy = cgroup.find()
            self._namespace = OuterNamespace(self._networks)
            undo.callback(self._namespace.close)
            with explained("state", self._state):
                # Before the sweep: who had these ids is dead, and what it left ends in the sweep.
                blocks = IdBlocks(self._state / "ids", self._namespace.slots, self._count + 1)
                undo.callback(blocks.close)
                self._instance = Instance(self._state, self.hierarchy)
                undo.callback(self._instance.close)
            for slot, pair in enumerate(blocks.slots[: self._count]):
                self._places.append((slot, self._namespace.ids(pair)))
            directory = self._instance.directory
            (directory / MOUNT_PLACE).mkdir()
            self._boxes = Boxes(directory, self._namespace.frozen)
            with explained("images", self._images_directory):
                self.store = Store(self._images_directory)
                self.images = Catalogue(directory, self.store, self.volumes)
            self.landlock_abi = host.landlock_abi()
            view = MOUNT_PLACE, *self.images.directories, *self.lent
            # Fixed here, before a job is taken.
            identity, _ = self._namespace.ids(blocks.slots[self._count])
            hub = module_command(HUB, str(self._count), str(identity), *self._bounds())
            images = module_command(IMAGES, _json(self.offer)) if self.offer else ()
            self.keeper = Keeper(self._namespace, directory, view, hub, images)
            undo.callback(self.keeper.close)
            self.networks = Networks(self.keeper.start_hub)
            self.supervisor = Supervisor(self.keeper)
            self._undo = undo.pop_all()
        self.stock: Stock[Sandbox] = Stock(self.images, self._make, self._size)
        return self

    def _bounds(self) -> list[str]:
        return [_json(self.bounds)] if self.bounds else []

    async def __aexit__(self, *_exception: object) -> None:
        """End the supervisor and give everything back; every Sandbox has been closed."""
        await self.stock.close()
        while going := self.dying | self._boxes.going:
            await asyncio.wait(going)
        await self.networks.close()
        await self.supervisor.close()
        self._undo.close()

    async def settle(self) -> None:
        """Wait until nothing dies and all are ready that are to be, as far as they can be made."""
        while busy := self.dying | self.stock.making | self.stock.tasks | self._boxes.going:
            await asyncio.wait(busy)
        with suppress(SandboxError, OSError):
            await self.stock.fill()

    async def _make(self, shelf: Shelf) -> Sandbox:
        """Make one, as soon as the kernel's backlog allows it. Raises SandboxError, OSError."""
        deadline = time.monotonic() + SETUP_SECONDS
        while True:
            try:
                return await self._make_at_once(shelf)
            except SandboxError as error:
                is_backlog = (error.stage, error.error) == ("namespaces", errno.ENOSPC)
                if not is_backlog or self._made < self._networks or time.monotonic() > deadline:
                    raise
            # The kernel has no event for that.
            await asyncio.sleep(_BACKLOG_WAIT_SECONDS)

    async def _make_at_once(self, shelf: Shelf) -> Sandbox:
        """Make one. Raises SandboxError, OSError."""
        async with self._makers:
            return await self._make_now(shelf)

    async def _make_now(self, shelf: Shelf) -> Sandbox:
        self._made += 1
        supervisor = await self.running_supervisor()
        place = slot, ids = await self._free_place()
        with ExitStack() as undo:
            undo.callback(self._places.append, place)
            group = self.hierarchy.make(str(slot))
            undo.callback(group.remove)
            group.limit(self._limits)
            asked = supervisor.make(slot, group, shelf.made.image, (*ids, self._namespace.frozen))
            undo.pop_all()
        shelf.enter()
        network = -1
        try:
            report = await asked
            network = report.descriptor
            if report.ended is None:
                raise report.error()
            # None came along: this process may open no more.
            if network < 0:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            bury = partial(self._bury, shelf, place, group, supervisor, network)
            return Sandbox(slot, group, supervisor, report, self._boxes, bury)
        except (OSError, SandboxError):
            self._bury(shelf, place, group, supervisor, network)
            raise

    async def running_supervisor(self) -> Supervisor:
        """The supervisor; a new one when the last was lost. Raises SandboxError when there can be none."""
        if self.supervisor.lost.is_set():
            lost = self.supervisor
            self.supervisor = Supervisor(self.keeper)
            await lost.close()
        await self.supervisor.started()
        return self.supervisor

    async def _free_place(self) -> Place:
        """The next that is free. Raises SandboxError when none ever will be.

        There are more than jobs at once; but one whose sandbox could not be removed never comes back.
        """
        while not self._places:
            if not self.dying:
                raise SandboxError("slots")
            await asyncio.wait(self.dying, return_when=asyncio.FIRST_COMPLETED)
        return self._places.pop()

    def _bury(
        self, shelf: Shelf, place: Place, group: Cgroup, supervisor: Supervisor, network: int
    ) -> asyncio.Task[None]:
        """In the background, let go of a sandbox whose job has been told to end; of its network at once.

        What is open of a network keeps it: a place that is free would have one more than are counted.
        """
        if network >= 0:
            os.close(network)
        task = asyncio.create_task(self._let_go(place, group, supervisor))
        self.dying.add(task)
        # What it raises is logged, by asyncio; its place is not used again.
        task.add_done_callback(self.dying.discard)
        task.add_done_callback(lambda _: shelf.leave())
        return task

    async def _let_go(self, place: Place, group: Cgroup, supervisor: Supervisor) -> None:
        """Give up a slot, and remove a cgroup; then, and only then, its ids can be someone else's.

        A lost supervisor's sandboxes may still be dying: wait until they have. Raises OSError.
        """
        with suppress(SandboxError):
            await supervisor.release(place[0])
        try:
            group.remove()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self.hierarchy.destroy, str(place[0]))
        self._places.append(place)


def _json(argument: msgspec.Struct) -> str:
    return msgspec.json.encode(argument).decode()


@contextmanager
def explained(setting: str, directory: Path) -> Iterator[None]:
    """Whatever is wrong with the directory of a setting is the operator's to mend. Raises HostError."""
    try:
        yield
    except OSError as error:
        raise HostError(
            f"{error.filename or directory} cannot be used: {error.strerror}.",
            f"Set `{setting}` (JAIL_{setting.upper()}) to a directory of this user's own, or mend that one.",
        ) from None
