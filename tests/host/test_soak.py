"""Many jobs of all kinds in a row leave nothing behind. JAIL_SOAK_JOBS says how many, 300 by default."""

import gc
import os
import sys
from pathlib import Path

JOBS = int(os.environ.get("JAIL_SOAK_JOBS", "300"))
WARM_UP = 60
# A Python heap breathes; a leak of half a kilobyte a job would be seen in the long run.
SLACK_BYTES = 2 << 20
SLACK_PER_JOB_BYTES = 512


def kinds(program):
    spin = {"files": {"spin": program("spin")}, "argv": ["./spin", "2"]}
    bomb = {"files": {"bomb": program("bomb")}, "argv": ["./bomb"]}
    daemon = {"files": {"daemon": program("daemon")}, "argv": ["./daemon"]}
    return [
        ({"argv": ["true"]}, "ok"),
        ({"argv": ["sh", "-c", "cat; exit 3"], "stdin": "x" * 10_000}, "nonzero_exit"),
        ({"argv": ["sh", "-c", "kill -9 $$"]}, "signaled"),
        ({"argv": ["no-such-program"]}, "start_failed"),
        ({"argv": ["sleep", "1000"], "limits": {"wall_ms": 20}}, "wall_limit"),
        ({**spin, "limits": {"cpu_ms": 20}}, "cpu_limit"),
        ({**bomb, "limits": {"cpu_ms": 20, "pids": 16}}, "cpu_limit"),
        (daemon, "ok"),
        ({"argv": ["yes"], "limits": {"stdout_bytes": 1000}}, "output_limit"),
        (
            {
                "argv": ["sh", "-c", "head -c 32M /dev/zero > /tmp/x"],
                "limits": {"memory_bytes": 16 << 20},
            },
            "memory_limit",
        ),
        (
            {
                "argv": ["sh", "-c", "mkdir -p a/b/c; chmod 0 a; cp in out; ln -s /etc l"],
                "files": {"in": "content", "deep/er/in": "more"},
                "outputs": ["out", "l", "missing?"],
            },
            "ok",
        ),
    ]


def mounts():
    return Path("/proc/self/mountinfo").read_text()


def test_many_jobs_in_a_row_leave_nothing_behind(jail, program, processes, capsys):
    bodies = kinds(program)

    def observe():
        jail.settle()
        gc.collect()
        return {
            "own bytes": processes.memory_bytes(os.getpid()),
            "supervisor bytes": processes.memory_bytes(supervisor),
            "descriptors": len(processes.descriptors("self")),
            "supervisor descriptors": len(processes.descriptors(supervisor)),
            "children": processes.children(os.getpid()),
            "below": len(processes.descendants(supervisor)),
            "mounts": mounts(),
            "cgroups": len(jail.cgroups),
            "files": sorted(jail.instance.rglob("*")),
        }

    def run(count):
        for number in range(count):
            body, status = bodies[number % len(bodies)]
            result = jail.run(body)
            assert result["status"] == status, (number, result)

    supervisor = jail.supervisor
    run(WARM_UP)
    before = observe()
    run(JOBS)
    after = observe()

    assert jail.supervisor == supervisor
    slack_bytes = SLACK_BYTES + SLACK_PER_JOB_BYTES * JOBS
    with capsys.disabled():
        for name in ("own bytes", "supervisor bytes"):
            old, new = before.pop(name), after.pop(name)
            sys.stdout.write(f"\n{JOBS} jobs: {name} {old:,} -> {new:,}")
            assert new - old < slack_bytes
    assert after == before
