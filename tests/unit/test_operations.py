"""Answers of operations to callers who take nothing any more."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from jail.http import operations
from jail.http.operations import Download, Result
from jail.images.protocol import Begun, Done, Export, Remove


class Running:
    """An operation that says this, and has this of an archive."""

    def __init__(self, answers, pieces):
        self._answers, self._pieces = iter(answers), iter(pieces)

    async def answer(self):
        return next(self._answers)

    async def read(self):
        return next(self._pieces)


class Operations:
    """One of them, and whether it is still under way."""

    def __init__(self, running):
        self._running = running
        self.under_way = 0

    @asynccontextmanager
    async def begin(self, _asked):
        self.under_way += 1
        try:
            yield self._running
        finally:
            self.under_way -= 1

    async def stopped(self):
        await asyncio.Event().wait()

    def record(self, asked, answer):
        pass


@pytest.mark.parametrize("taken", [0, 1, 2])
@pytest.mark.parametrize(
    ("kind", "asked", "running"),
    [
        (Result, Remove("name"), lambda: Running([Done()], [])),
        (Download, Export("name"), lambda: Running([Begun("digest"), Done()], [b"archive", b""])),
    ],
)
def test_whoever_takes_nothing_any_more_is_cut(monkeypatch, kind, asked, running, taken):
    monkeypatch.setattr(operations, "IDLE_SECONDS", 0.01)
    sent = []

    async def send(message):
        if len(sent) == taken:
            await asyncio.Event().wait()
        sent.append(message)

    async def call():
        under_way = Operations(running())
        await asyncio.wait_for(kind(under_way, asked)({}, asyncio.Event().wait, send), 60)
        assert under_way.under_way == 0

    asyncio.run(call())
    assert len(sent) == min(taken, 2)
