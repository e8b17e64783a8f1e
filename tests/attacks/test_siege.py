"""The siege: every attack of the session at once, in a loop, and a canary that is answered all the time.

JAIL_SIEGE_SECONDS sets how long, JAIL_SIEGE_ATTACKERS how many attack at once. `scripts/check siege` takes
two minutes.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from jail import host

SECONDS = float(os.environ.get("JAIL_SIEGE_SECONDS", "6"))
# As many hostile jobs at once as a service takes that is set up for this host, and a slot for the canary.
ATTACKERS = int(os.environ.get("JAIL_SIEGE_ATTACKERS", len(host.processors())))
IDLE_CANARIES, CANARIES_ENOUGH = 300, 1000
FACTOR = 5
# An attack that waits for its wall limit would do nothing else.
WALL_MS = 1000


def shortened(body):
    limits = body.get("limits", {})
    return {**body, "limits": {**limits, "wall_ms": min(limits.get("wall_ms") or WALL_MS, WALL_MS)}}


@pytest.fixture
def besieged(serve, target):
    """Siege a service for as long as `scene` takes; returns what that returns, and the answers by status."""
    script = Path(__file__).with_name("attackers.py")
    bodies = [shortened(body) for body in target.bodies]

    def run(url, scene):
        command = [sys.executable, "-P", script, url, str(ATTACKERS)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attackers:
            attackers.stdin.write(json.dumps(bodies) + "\n")
            attackers.stdin.flush()
            found = scene()
            answers, _ = attackers.communicate()
        return found, json.loads(answers)

    return run


def canary_ms(client):
    began = time.perf_counter()
    answer = client.post("/v1/run", json={"argv": ["echo", "canary"]})
    assert answer.json()["stdout"]["text"] == "canary\n", answer.text
    return (time.perf_counter() - began) * 1000


def canaries_ms(client):
    end, times = time.monotonic() + SECONDS, []
    while time.monotonic() < end:
        times.append(canary_ms(client))
    return times


def p99(times):
    return statistics.quantiles(times, n=100)[98]


def test_a_canary_is_answered_all_the_time_while_every_attack_runs(
    target, serve, besieged, processes, ready, record_property
):
    if len(target.bodies) < 50:
        pytest.skip("it uses the attacks of the whole suite, of which a part was selected")
    service = serve(JAIL_SLOTS=str(ATTACKERS + 1))
    with httpx.Client(base_url=service.url, timeout=60) as client:
        idle = [canary_ms(client) for _ in range(IDLE_CANARIES)]
        under_siege, answers = besieged(service.url, lambda: canaries_ms(client))
    told = (
        f"{sum(answers.values())} attacks, {ATTACKERS} at once, "
        f"{len(under_siege)} canaries in {SECONDS:.0f} s: "
        f"p50 {statistics.median(under_siege):.1f} ms (idle {statistics.median(idle):.1f}), "
        f"p99 {p99(under_siege):.1f} ms (idle {p99(idle):.1f}); {answers}"
    )
    record_property("siege", told)
    assert "sandbox_error" not in answers, told
    service.settle()
    assert len(processes.descendants(service.supervisor)) == 2 * ready, told
    # Of fewer the hundredth part is a matter of chance.
    if len(under_siege) >= CANARIES_ENOUGH:
        assert p99(under_siege) < FACTOR * p99(idle), told
