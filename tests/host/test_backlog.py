"""Networks that the kernel has yet to take down are bounded: jobs wait for it, and none fails."""

import asyncio
import errno

import msgspec
import uvloop

from jail import sandbox, settings, spec
from jail.engine import Engine
from jail.errors import SandboxError

JOBS, SLOTS, READY_MAX = 12, 4, 2


def test_jobs_that_come_faster_than_networks_go_wait_and_do_not_fail(monkeypatch, state):
    refused = []
    make_at_once = sandbox.Sandboxes._make_at_once

    async def make_or_note(self, image):
        try:
            return await make_at_once(self, image)
        except SandboxError as error:
            refused.append((error.stage, error.error))
            raise

    async def flood():
        ready = {"JAIL_READY_MIN": "0", "JAIL_READY_MAX": str(READY_MAX)}
        found = settings.load({"JAIL_STATE": str(state)} | ready)
        async with Engine(msgspec.structs.replace(found, slots=SLOTS)) as engine:
            job = spec.parse(b'{"argv": ["true"]}', engine.rules)
            runs = [engine.submit(job).task for _ in range(JOBS)]
            return [(await run).status for run in runs]

    # One beside the supervisor's own: who comes while another lives, or has yet to go, is refused.
    monkeypatch.setattr(sandbox, "BACKLOG", 2 - sandbox.most_at_once(SLOTS, READY_MAX))
    monkeypatch.setattr(sandbox.Sandboxes, "_make_at_once", make_or_note)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(flood()) == ["ok"] * JOBS
    assert set(refused) == {("namespaces", errno.ENOSPC)}
