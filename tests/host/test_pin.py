"""With `pin`, a job runs on processors of its own and nowhere else."""

import asyncio
import json
import os

import msgspec
import pytest

from jail import host, settings, spec
from jail.engine import Engine

OWN = "import os; print(*sorted(os.sched_getaffinity(0)), flush=True)"
# Until its wall limit, so that all run at once.
OWN_AND_STAY = OWN + "; import time; time.sleep(60)"
ESCAPE = "import os; os.sched_setaffinity(0, {processors})"


@pytest.fixture
def pinned(state):
    """Run Python scripts at once in an engine that pins; what each printed, and its errors."""

    async def scene(scripts, **body):
        found = msgspec.structs.replace(settings.load({}), pin=True, slots=len(scripts), state=str(state))
        async with Engine(found) as engine:
            requests = [{"argv": ["python3", "-ISc", script], **body} for script in scripts]
            jobs = [spec.parse(json.dumps(request).encode(), engine.rules) for request in requests]
            results = await asyncio.gather(*(engine.submit(job).task for job in jobs))
            return [(result.stdout.text, result.stderr.text) for result in results]

    return lambda *scripts, **body: asyncio.run(scene(scripts, **body))


def processors(printed):
    return [set(map(int, output.split())) for output, _ in printed]


def test_a_pinned_job_has_a_processor_of_its_own(pinned, slowness):
    usable = set(host.processors())
    found = processors(pinned(*[OWN_AND_STAY] * len(usable), limits={"wall_ms": round(500 * slowness)}))
    assert [len(own) for own in found] == [1] * len(usable)
    assert set.union(*found) == usable


def test_init_is_where_its_job_is(executing, processes, state):
    found = msgspec.structs.replace(settings.load({}), pin=True, state=str(state))

    async def scene():
        async with Engine(found) as engine:
            engine.submit(spec.parse(b'{"argv": ["sleep", "60"]}', engine.rules))
            (job,) = await executing(engine.sandboxes.supervisor.pid, "sleep")
            init = int(processes.status(job)["PPid"])
            return [os.sched_getaffinity(process) for process in (job, init)]

    job, init = asyncio.run(scene())
    assert len(job) == 1
    assert init == job


def test_a_job_with_room_for_all_has_all(pinned):
    assert processors(pinned(OWN, limits={"cpus": 64})) == [set(host.processors())]


@pytest.mark.parametrize("policy", ["default", "run", "strict"])
def test_a_pinned_job_stays_there(pinned, policy):
    script = ESCAPE.format(processors=set(host.processors()))
    ((_, errors),) = pinned(script, policy=policy)
    assert "PermissionError" in errors


SPIN = "import time\nwhile time.process_time() < {seconds}: pass\nprint('done')"


def test_a_pinned_job_is_ended_at_its_cpu_limit_and_not_before(pinned, slowness):
    """Near its limit its init is woken again and again, to have the kernel book its time."""
    scripts = [SPIN.format(seconds=seconds * slowness) for seconds in (0.28, 60)]
    assert pinned(*scripts, limits={"cpu_ms": round(300 * slowness)}) == [("done\n", ""), ("", "")]


def test_a_job_that_is_not_pinned_has_all_processors(jail):
    result = jail.python(OWN)
    assert processors([(result["stdout"]["text"], "")]) == [set(host.processors())]
