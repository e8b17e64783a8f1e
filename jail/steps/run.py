"""A job in steps on its way: one step after the other, then its tests, side by side where there is room."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack

from jail.errors import SandboxError
from jail.judging.verdict import counting, ends_job
from jail.outcome import Failure, Verdict
from jail.process import Means
from jail.result import Timing, timing
from jail.steps.bench import Bench
from jail.steps.decision import Ran, as_step, as_test, decide
from jail.steps.lanes import AT_ONCE, Lane, Lanes
from jail.steps.result import StepsResult
from jail.steps.spec import Step, StepsSpec
from jail.steps.testing import Tested, Tester


class StepsRun:
    """One job in steps; as jail.run.Run, but its task ends with a StepsResult."""

    published = None

    def __init__(self, means: Means, spec: StepsSpec) -> None:
        """Start it on its way."""
        self.id = secrets.token_hex(16)
        self._means = means
        self._spec = spec
        self._bench = Bench(means)
        self._waits = False
        self._lost: str | None = None
        self._steps: dict[str, Ran] = {}
        self._tests: list[Tested | None] = [None] * len(spec.tests)
        self._seen = [as_test(test, None) for test in spec.tests]
        self._untried = len(spec.tests)
        self.marks = {"submitted": time.monotonic_ns()}
        self.task = asyncio.create_task(self._run(), name=f"run {self.id}")

    @property
    def failure(self) -> Failure | None:
        """Where set-up failed, once it has."""
        return self._bench.failure

    def cancel(self) -> None:
        """End it, at whatever stage it is."""
        self._bench.cancel()
        if self._waits:
            self.task.cancel()

    async def _run(self) -> StepsResult:
        try:
            with ExitStack() as kept:
                await self._hold_files(kept)
                if not self._bench.cancelled:
                    await self._have_its_turn()
        except SandboxError as error:
            self._lost = str(error)
        return self._answer()

    async def _hold_files(self, kept: ExitStack) -> None:
        """None of its stored files is evicted before it has ended. Raises SandboxError: one is no more."""
        if wanted := self._spec.stored:
            lent = await self._means.files.hold(wanted, self._spec.owner)
            kept.callback(self._means.files.give_back, lent)

    async def _have_its_turn(self) -> None:
        scheduler, spec = self._means.scheduler, self._spec
        generous = spec.memory_bytes + spec.test_bytes
        at_once = AT_ONCE if generous <= scheduler.memory_bytes else 1
        self._waits = True
        try:
            async with scheduler.reserve(generous if at_once > 1 else spec.memory_bytes) as reservation:
                self._waits = False
                self.marks["reserved"] = time.monotonic_ns()
                lane = Lane(reservation, 1)
                try:
                    await self._execute(lane, at_once)
                finally:
                    if self._bench.box is not None:
                        lane.give_back(spec.kept_bytes, self._bench.box.close())
                    lane.end()
        except asyncio.CancelledError:
            if not (self._waits and self._bench.cancelled):
                raise

    async def _execute(self, lane: Lane, at_once: int) -> None:
        steps = self._spec.steps
        for step in steps[:-1] if self._spec.tests else steps:
            if not await self._step(step, lane):
                return
        if self._spec.tests:
            lane.at_once = at_once
            await self._test_all(lane)

    async def _step(self, step: Step, lane: Lane) -> bool:
        """Run one; whether there is to be a next."""
        process = await self._bench.begin(step.process, lane, self._bench.box)
        try:
            await self._bench.run(process)
            if ends_job(as_step(step, process.verdict)) or step is self._spec.steps[-1]:
                return False
            box = await process.keep_box()
            if box is None:
                return False
            if self._bench.box is not None:
                self._bench.box.close()
            self._bench.box = box
            return True
        finally:
            try:
                if process.verdict is not None:
                    self._steps[step.process.name] = process.verdict, process.result()
            finally:
                self._bench.close(process)

    async def _test_all(self, lane: Lane) -> None:
        """In this lane, and in as many more as nobody else has a use for."""
        tester = Tester(self._bench, self._spec)
        lanes = Lanes(self._means.scheduler, self._spec.test_bytes)
        order = self._order()
        hired: list[asyncio.Task[None]] = []

        def hire() -> None:
            while sum(not task.done() for task in hired) < self._untried and (more := lanes.more()):
                hired.append(asyncio.create_task(help_out(more)))

        async def help_out(more: Lane) -> None:
            try:
                while not lanes.wanted and (index := next(order, None)) is not None:
                    self._note(index, await tester.test(self._spec.tests[index], more))
            finally:
                more.end()
                more.reservation.close()

        try:
            while (index := next(order, None)) is not None:
                hire()
                self._note(index, await tester.test(self._spec.tests[index], lane))
        finally:
            if hired:
                for error in filter(None, await asyncio.gather(*hired, return_exceptions=True)):
                    raise error

    def _order(self) -> Iterator[int]:
        """The tests that are to be run, as far as it is known by then."""
        for index in range(len(self._tests)):
            self._untried = len(self._tests) - index - 1
            if self._bench.cancelled:
                return
            if self._counts(index):
                yield index

    def _counts(self, index: int) -> bool:
        if self._spec.fail_fast == "never":
            return True
        return counting(self._seen[: index + 1], self._spec.fail_fast)[index]

    def _note(self, index: int, tested: Tested) -> None:
        self._tests[index] = tested
        self._seen[index] = as_test(tested.test, tested)

    def _answer(self) -> StepsResult:
        self.marks["answered"] = time.monotonic_ns()
        stopped = None
        if self._lost is not None:
            stopped = Verdict("sandbox_error", detail=self._lost)
        elif self._bench.cancelled:
            stopped = Verdict("cancelled")
        return decide(self._spec, self.id, self._steps, self._tests, stopped, self._timing())

    def _timing(self) -> Timing:
        answered = self.marks["answered"]
        # What was not reached took no time.
        sent = self._bench.sent_ns or answered
        heard = self._bench.heard_ns or answered
        return timing(self.marks["submitted"], self.marks.get("reserved", answered), sent, heard, answered)
