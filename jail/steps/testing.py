"""One test: the last step with the test's input, and what is made of its output."""

import os
from contextlib import ExitStack

import msgspec

from jail.judging.comparison import Comparison
from jail.judging.shapes import Difference, Judged, Judgement
from jail.result import ProcessResult, stream
from jail.spec import StoredFile
from jail.steps import checking
from jail.steps.bench import Bench
from jail.steps.lanes import Lane
from jail.steps.spec import StepsSpec, Test


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """A test, what became of its program, and what was made of its output, if that was looked at."""

    test: Test
    status: Judged
    program: ProcessResult
    difference: Difference | None = None
    judgement: Judgement | None = None
    detail: str | None = None


class Output:
    """What a program writes, on its way past what is expected."""

    def __init__(self, test: Test, expected: bytes | int) -> None:
        """expected: bytes, or a descriptor that stays the caller's."""
        self._comparison = Comparison(test.compare, expected)
        self._error: OSError | None = None

    def feed(self, chunk: bytes) -> None:
        """Take what came next."""
        try:
            if self._error is None:
                self._comparison.feed(chunk)
        except OSError as error:
            # Nobody up the stack could make anything of it.
            self._error = error

    def finish(self) -> Difference | None:
        """Where it differs. Raises OSError if what is expected could not be read."""
        if self._error is not None:
            raise self._error
        return self._comparison.finish()


class Tester:
    """Runs the tests of one job."""

    def __init__(self, bench: Bench, spec: StepsSpec) -> None:
        """Where they run, and what is asked of them."""
        self._bench = bench
        self._spec = spec

    async def test(self, test: Test, lane: Lane) -> Tested:
        """Run one in this lane, and its checker after it."""
        with ExitStack() as kept:
            output = await self._expect(test, kept)
            process = await self._bench.begin(test.process, lane, kept)
            try:
                process.kept_bytes = None if self._spec.checker else self._kept_bytes
                await self._bench.run(process, output.feed if output else None)
                program = process.result()
                written = process.stdout
            finally:
                self._bench.close(process)
            if program.status != "ok":
                return self._told(test, program.status, program, detail=program.detail)
            if self._spec.checker:
                return await self._check(test, program, written, lane, kept)
            return self._compare(test, program, output)

    async def _expect(self, test: Test, kept: ExitStack) -> Output | None:
        if self._spec.checker or test.expected is None:
            return None
        expected = test.expected
        if isinstance(expected, StoredFile):
            expected = await self._bench.means.files.open(expected.digest, test.process.owner)
            kept.callback(os.close, expected)
        return Output(test, expected)

    def _compare(self, test: Test, program: ProcessResult, output: Output | None) -> Tested:
        try:
            difference = output.finish() if output else None
        except OSError as error:
            detail = f"what is expected cannot be read: {error.strerror}"
            return self._told(test, "sandbox_error", program, detail=detail)
        status = difference.status if difference else "ok"
        return self._told(test, status, program, difference=difference)
