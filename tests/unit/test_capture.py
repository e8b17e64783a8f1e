"""Capturing a stream: real pipes, a real event loop."""

import asyncio
import os

import pytest

from jail.capture import Capture, Captured

pytestmark = pytest.mark.usefixtures("leaks_nothing")


class Excess:
    """Counts how often it was called, and can be waited for."""

    def __init__(self):
        self.calls = 0
        self.called = asyncio.Event()

    def __call__(self):
        self.calls += 1
        self.called.set()


def write_all(descriptor, content):
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


async def capture_whole(cap_bytes, *chunks):
    excess = Excess()
    capture = Capture(cap_bytes, excess)
    for chunk in chunks:
        await asyncio.to_thread(write_all, capture.writing, chunk)
    capture.hand_over()
    return capture.finish(), excess.calls


@pytest.mark.parametrize(
    ("cap_bytes", "chunks", "kept", "written_bytes", "calls"),
    [
        (4, [], b"", 0, 0),
        (4, [b"abc"], b"abc", 3, 0),
        (4, [b"ab", b"cd"], b"abcd", 4, 0),
        (4, [b"abcde"], b"abcd", 5, 1),
        (4, [b"abcd", b"e"], b"abcd", 5, 1),
        (4, [b"abc", b"defgh", b"i", b"j"], b"abcd", 10, 1),
        (1, [b"x" * 1_000_000], b"x", 1_000_000, 1),
        (1_000_000, [b"x" * 1_000_000], b"x" * 1_000_000, 1_000_000, 0),
    ],
    ids=["nothing", "below", "exactly", "above", "above later", "often above", "far above", "much"],
)
def test_a_stream_is_counted_in_full_and_kept_up_to_the_cap(cap_bytes, chunks, kept, written_bytes, calls):
    found = asyncio.run(capture_whole(cap_bytes, *chunks))
    assert found == (Captured(kept, written_bytes), calls)


def test_excess_is_told_while_the_program_still_writes():
    async def capture():
        excess = Excess()
        capture = Capture(2, excess)
        os.write(capture.writing, b"abc")
        await asyncio.wait_for(excess.called.wait(), 5)
        os.write(capture.writing, b"def")
        capture.hand_over()
        return capture.finish(), excess.calls

    assert asyncio.run(capture()) == (Captured(b"ab", 6), 1)


def test_a_program_that_closes_its_stream_early_is_not_read_again():
    async def capture():
        excess = Excess()
        capture = Capture(10, excess)
        os.write(capture.writing, b"abc")
        capture.hand_over()
        ended = asyncio.get_running_loop().create_future()
        # Once the loop has seen the end of the file, only this is left to do.
        asyncio.get_running_loop().call_soon(ended.set_result, None)
        await ended
        return capture.finish()

    assert asyncio.run(capture()) == Captured(b"abc", 3)


def test_what_is_left_in_the_pipe_is_read_although_somebody_holds_it_open():
    async def capture():
        capture = Capture(10, Excess())
        held = os.dup(capture.writing)
        os.write(held, b"abc")
        capture.hand_over()
        found = capture.finish()
        os.close(held)
        return found

    assert asyncio.run(capture()) == Captured(b"abc", 3)


def test_neither_end_is_inherited():
    async def capture():
        capture = Capture(10, Excess())
        inherited = os.get_inheritable(capture.writing)
        capture.close()
        return inherited

    assert asyncio.run(capture()) is False


@pytest.mark.parametrize("handed_over", [False, True])
def test_closing_twice_is_closing_once(handed_over):
    async def capture():
        capture = Capture(10, Excess())
        if handed_over:
            capture.hand_over()
        capture.close()
        capture.close()

    asyncio.run(capture())


@pytest.mark.parametrize(("content", "written", "truncated"), [(b"a", 1, False), (b"a", 2, True)])
def test_truncated_means_that_something_is_missing(content, written, truncated):
    assert Captured(content, written).truncated is truncated
