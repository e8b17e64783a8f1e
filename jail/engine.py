"""The engine: a job specification in, a result out.

`jail serve` and `jail run` are two ways to reach the same engine.
"""

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path

from jail import cgroup, egress, filters, host, rlimits
from jail.destinations import parse_exception, parse_offer
from jail.errors import HostError, SandboxError
from jail.files import Bounds, Desk, Files
from jail.images.protocol import Offer
from jail.network.offered import bounds, offered
from jail.pool import Size
from jail.process import Means
from jail.processors import Processors
from jail.published import Published
from jail.run import Run
from jail.sandbox import Sandboxes, explained
from jail.scheduler import Scheduler
from jail.settings import Settings
from jail.spec import JobSpec, Request, Rules, validate
from jail.steps.run import StepsRun
from jail.steps.spec import StepsSpec
from jail.supervisor import PROCESSORS_MAX

FILES_SWEEP_SECONDS = 600
"""How often stored files are looked for that are too old. Before, nobody finds them any more either."""


class Engine:
    """Runs jobs. An async context manager; raises HostError and PolicyError on entry.

    Attributes: `scheduler`; `sandboxes`; `published`, ports of jobs; `runs`, those under way; `draining`,
    whether its service takes no more; `drained`, set when it waits for none any longer; `stores`, whether
    files can be stored; once entered, `means`, what runs share.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the settings; nothing happens before entry."""
        self.settings = settings
        self.scheduler = Scheduler(settings.slots, settings.memory_bytes, settings.queue)
        ready = Size(settings.ready_min, settings.ready_max, settings.ready_memory_bytes)
        limits = settings.defaults
        usual = cgroup.Limits(limits.memory_bytes, limits.pids, limits.cpus)
        self._egress_private = tuple(map(parse_exception, settings.egress_private))
        self.sandboxes = Sandboxes(settings.state, settings.images, settings.slots, ready, usual)
        self.sandboxes.volumes = settings.volumes
        self.published = Published()
        self.runs: set[Run | StepsRun] = set()
        self.draining = False
        self.drained = asyncio.Event()
        # A service under Landlock's first ABI, of before Linux 5.19, links no file to another directory.
        self.stores = host.landlock_abi() != 1

    async def __aenter__(self) -> "Engine":
        """Prepare the host and start the supervisor."""
        rlimits.check_host(self.settings.ceilings)
        rlimits.raise_open_files(self.settings.slots, self.settings.ready_max)
        degraded = accepted_weaknesses(self.settings)
        self._networks = offered(self.settings)
        self.sandboxes.bounds = bounds(self.settings)
        self.sandboxes.offer = _offer(self.settings, "landlock" not in degraded)
        with ExitStack() as undo:
            compiled = filters.compile_all(self.settings.policies, undo, self.settings.pin)
            desk = Desk(_open_files(self.settings))
            undo.callback(desk.close)
            self.sandboxes.lent = (str(desk.files.lent),)
            await self.sandboxes.__aenter__()
            self._undo = undo.pop_all()
        self.means = Means(
            scheduler=self.scheduler,
            sandboxes=self.sandboxes,
            published=self.published,
            files=desk,
            processors=Processors(self._pinned()),
            processor_count=os.cpu_count() or 1,
            filters=compiled,
            hard_limits=rlimits.hard_limits(),
            degraded=degraded,
        )
        try:
            await self._try_host()
            await self._fill()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        """End every job, and leave nothing behind."""
        self.cancel_all()
        while self.runs:
            await asyncio.wait([run.task for run in self.runs])
        await self.sandboxes.__aexit__(*exception)
        self._undo.close()

    def _pinned(self) -> list[int]:
        """The processors that jobs are pinned to, if they are."""
        return [number for number in host.processors() if self.settings.pin and number < PROCESSORS_MAX]

    async def _fill(self) -> None:
        """Have as many sandboxes ready as there are to be at least. Raises HostError."""
        try:
            await self.sandboxes.stock.fill()
        except (SandboxError, OSError) as error:
            raise HostError(
                f"Not all of {self.settings.ready_min} sandboxes can be made ahead of time: {error}.",
                "Lower `ready_min`, or give this user more: `jail doctor` tells what of.",
            ) from error

    async def _try_host(self) -> None:
        """Run one job: what this host cannot give shows now, not when a caller waits. Raises HostError."""
        job = validate(Request(argv=["true"], policy=next(iter(self.means.filters))), self.rules)
        run = self.submit(job)
        result = await run.task
        if result.status == "sandbox_error":
            failure = run.failure
            raise HostError(
                f"A sandbox cannot be set up on this host: {result.detail}.",
                "Run `jail doctor` as this user: it names the cause and the cure.",
            ) from (SandboxError(failure.stage, failure.error, failure.index) if failure else None)

    @property
    def rules(self) -> Rules:
        """What a caller may ask for here."""
        return Rules(
            defaults=self.settings.defaults,
            ceilings=self.settings.ceilings,
            images=self.sandboxes.images,
            files=self.means.files.files if self.stores else None,
            volumes=self.settings.volumes,
            policies=self.means.filters,
            networks=self._networks,
            egress=tuple(map(parse_offer, self.settings.egress)),
            egress_private=self._egress_private,
            processes=self.settings.processes,
            memory_bytes=self.settings.memory_bytes,
            workers=self.settings.workers,
            # The job is known to one of them, and its callers' requests come to any.
            publishes=self.settings.workers == 1,
        )

    async def pin(self, spec: JobSpec | StepsSpec) -> JobSpec | StepsSpec:
        """The same job with the addresses of the hosts that it may reach. Raises SpecError for one."""
        if isinstance(spec, StepsSpec) or not spec.destinations:
            return spec
        try:
            return await egress.pin(spec, self.sandboxes.networks.resolve, self._egress_private)
        except SandboxError:
            # It will have no network either, and answers so.
            return spec

    async def keep_files(self) -> None:
        """For as long as the service lives, remove stored files that nobody uses. Never comes back."""
        while True:
            await self.means.files.do(self.means.files.files.sweep)
            await asyncio.sleep(FILES_SWEEP_SECONDS)

    def submit(self, spec: JobSpec | StepsSpec) -> Run | StepsRun:
        """Take a job in. Its `task` ends with what that of its kind says, or raises QueueFullError."""
        run = StepsRun(self.means, spec) if isinstance(spec, StepsSpec) else Run(self.means, spec)
        self.runs.add(run)
        run.task.add_done_callback(lambda _: self.runs.discard(run))
        return run

    def drain(self, grace_s: float) -> None:
        """Take no more jobs; those under way may go on for that long, and are cancelled then."""
        if not self.draining:
            self.draining = True
            asyncio.get_running_loop().call_later(grace_s, self._end_drain)

    def _end_drain(self) -> None:
        self.drained.set()
        self.cancel_all()

    def cancel_all(self) -> None:
        """Cancel every job, waiting or running."""
        for run in tuple(self.runs):
            run.cancel()


def _open_files(settings: Settings) -> Files:
    """Raises HostError."""
    directory = Path(settings.files)
    with explained("files", directory):
        return Files(directory, Bounds(settings.files_bytes, settings.file_bytes, settings.files_age_s))


def _offer(settings: Settings, landlock: bool) -> Offer | None:
    """What images are administered within, if anybody may."""
    if not settings.admin_keys_sha256:
        return None
    bounds = settings.images_bytes, settings.image_bytes, settings.image_entries
    return Offer(settings.images, *bounds, landlock)


def weaknesses() -> dict[str, HostError]:
    """What this host cannot give, of settings.DEGRADABLE, each with its cause and cure."""
    found = {}
    if not host.landlock_abi():
        found["landlock"] = HostError(
            "The kernel has no Landlock, or it is switched off.",
            "Boot with landlock in lsm= (CONFIG_SECURITY_LANDLOCK).",
        )
    if host.swap_bytes() and not host.counts_swap():
        found["swap"] = HostError(
            "cgroup v1 does not count swap here, and the host has some: memory limits do not hold.",
            "Boot with swapaccount=1, switch swap off, or use cgroup v2.",
        )
    return found


def accepted_weaknesses(settings: Settings) -> tuple[str, ...]:
    """The weaknesses that this host has and its operator accepts. Raises HostError for any other."""
    found = weaknesses()
    for name, error in found.items():
        if name not in settings.allow_degraded:
            cure = f"{error.cure} To do without: allow_degraded = [{name!r}]."
            raise HostError(error.cause, cure)
    return tuple(found)
