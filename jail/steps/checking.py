"""What a checker is given, by the convention that it follows: the files of a test, beside its own."""

from base64 import b64decode
from collections.abc import Sequence

from msgspec import structs

from jail.judging.checker import FEEDBACK, Checked
from jail.outcome import Verdict
from jail.result import OutputError, ProcessResult, Stream
from jail.spec import InputFile, Output, ProcessSpec, StoredFile
from jail.steps.spec import PLACE, Checker, Test

_FEEDBACK = f"{PLACE}/feedback"
_INPUT, _OUTPUT, _ANSWER = (f"{PLACE}/{name}" for name in ("input", "output", "answer"))
_PAGE_BYTES = 4096


def compose(checker: Checker, test: Test, written: bytes) -> ProcessSpec:
    """The checker of one test, whose program has written this."""
    own = checker.process
    given: list[tuple[str, bytes | StoredFile]] = [
        (_INPUT, test.process.stored_stdin or test.process.stdin),
        (_ANSWER, b"" if test.expected is None else test.expected),
    ]
    if checker.convention == "testlib":
        arguments = (_INPUT, _OUTPUT, _ANSWER)
        given.append((_OUTPUT, written))
    else:
        arguments = (_INPUT, _ANSWER, f"{_FEEDBACK}/")
        # There has to be such a directory.
        given.append((f"{_FEEDBACK}/.keep", b""))
    files = tuple(InputFile(path, what, 0o644) for path, what in given if isinstance(what, bytes))
    stored = tuple(
        StoredFile(path, what.digest, what.bytes) for path, what in given if isinstance(what, StoredFile)
    )
    return structs.replace(
        own,
        argv=(*own.argv, *arguments, *test.checker_args),
        files=(*own.files, *files),
        stored=(*own.stored, *stored),
        stdin=written if checker.convention == "icpc" else b"",
        stored_stdin=None,
        outputs=tuple(Output(f"{_FEEDBACK}/{name}", optional=True) for name in FEEDBACK)
        if checker.convention == "icpc"
        else (),
        limits=structs.replace(own.limits, disk_bytes=own.limits.disk_bytes + _pages(files)),
    )


def _pages(files: Sequence[InputFile]) -> int:
    """What they take of a tmpfs: not of what the checker may write."""
    return sum(-(-len(file.content) // _PAGE_BYTES) * _PAGE_BYTES for file in files)


def facts(verdict: Verdict, told: ProcessResult) -> Checked:
    """What is known of a checker that has ended."""
    feedback = {
        path.rpartition("/")[2]: b64decode(found.base64)
        for path, found in told.outputs.items()
        if found.base64
    }
    unread: list[OutputError] = [error for error in told.output_errors if error.path.startswith(PLACE)]
    return Checked(
        verdict=verdict,
        stderr=_bytes(told.stderr),
        feedback=feedback,
        unread=tuple(error.path.rpartition("/")[2] for error in unread),
    )


def _bytes(stream: Stream) -> bytes:
    return b64decode(stream.base64) if stream.text is None else stream.text.encode()
