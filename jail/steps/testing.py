"""One test: the last step with the test's input, and what is made of its output."""

import os
from contextlib import ExitStack

import msgspec
from msgspec import structs

from jail.capture import Captured
from jail.errors import SandboxError
from jail.judging.checker import judge
from jail.judging.comparison import Comparison
from jail.judging.shapes import Difference, Judged, Judgement
from jail.judging.verdict import judge_test
from jail.outcome import Verdict
from jail.result import ProcessResult, stream
from jail.spec import StoredFile
from jail.steps import checking
from jail.steps.bench import Bench
from jail.steps.lanes import Lane
from jail.steps.spec import KEPT_BYTES, StepsSpec, Test


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """A test, what became of its program, and what was made of its output, if that was looked at."""

    test: Test
    status: Judged
    program: ProcessResult | None = None
    difference: Difference | None = None
    judgement: Judgement | None = None
    detail: str | None = None


class Output:
    """What a program writes, on its way past what is expected; `is_stored`: past a stored file."""

    def __init__(self, test: Test, expected: bytes | int) -> None:
        """expected: bytes, or a descriptor that stays the caller's."""
        self.is_stored = isinstance(expected, int)
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
            try:
                output = await self._expect(test, kept)
            except (SandboxError, OSError) as error:
                return Tested(
                    test=test, status="sandbox_error", detail=f"what is expected cannot be read: {error}"
                )
            process = await self._bench.begin(test.process, lane, self._bench.box)
            try:
                process.kept_bytes = None if self._spec.checker else KEPT_BYTES
                await self._bench.run(process, output.feed if output else None)
                verdict, program, written = process.verdict, process.result(), process.stdout
            finally:
                self._bench.close(process)
            if self._spec.checker and verdict.status == "ok":
                return await self._check(test, _shortened(program, written), written.content, lane)
            return await self._compare(test, verdict, _shortened(program, written), output)

    async def _expect(self, test: Test, kept: ExitStack) -> Output | None:
        if self._spec.checker or test.expected is None:
            return None
        expected = test.expected
        if isinstance(expected, StoredFile):
            expected = await self._bench.means.files.open(expected.digest, test.process.owner)
            kept.callback(os.close, expected)
        return Output(test, expected)

    async def _compare(
        self, test: Test, verdict: Verdict, program: ProcessResult, output: Output | None
    ) -> Tested:
        try:
            difference = await self._difference(output) if output and verdict.status == "ok" else None
        except OSError as error:
            detail = f"what is expected cannot be read: {error.strerror}"
            return Tested(test=test, status="sandbox_error", program=program, detail=detail)
        status = judge_test(verdict, difference)
        return Tested(test=test, status=status, program=program, difference=difference)

    async def _difference(self, output: Output) -> Difference | None:
        """In a thread where a file may have to be read to its end."""
        return await self._bench.means.files.do(output.finish) if output.is_stored else output.finish()

    async def _check(self, test: Test, program: ProcessResult, written: bytes, lane: Lane) -> Tested:
        checker = self._spec.checker
        spec = checking.compose(checker, test, written)
        process = await self._bench.begin(spec, lane)
        try:
            await self._bench.run(process)
            found = checking.facts(process.verdict, process.result())
        finally:
            self._bench.close(process)
        judgement = judge(checker.convention, found)
        status = judge_test(_WELL, judgement)
        return Tested(test=test, status=status, program=program, judgement=judgement)


_WELL = Verdict("ok")


def _shortened(program: ProcessResult, written: Captured) -> ProcessResult:
    """What a checker was given need not be kept."""
    return structs.replace(
        program, stdout=stream(Captured(written.content[:KEPT_BYTES], written.written_bytes))
    )
