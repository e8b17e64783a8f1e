"""What operators watch, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from jail.engine import Engine
from jail.result import Result

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_PHASES = ("queued", "setup", "run", "collect")


class Metrics:
    """One registry for one engine."""

    def __init__(self, engine: Engine) -> None:
        """Read the gauges off the engine whenever they are asked for."""
        self._registry = CollectorRegistry()
        # This process: nobody else can look into it (jail.shed).
        ProcessCollector(registry=self._registry)
        self._jobs = Counter("jail_jobs", "Jobs answered, by status.", ["status"], registry=self._registry)
        seconds = Histogram(
            "jail_phase_seconds",
            "Where the time of a job went.",
            ["phase"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._phases = {phase: seconds.labels(phase) for phase in _PHASES}
        scheduler, sandboxes = engine.scheduler, engine.sandboxes
        gauges = {
            "jail_running": ("Jobs that hold a slot.", lambda: scheduler.running),
            "jail_queued": ("Jobs that wait for one.", lambda: scheduler.queued),
            "jail_memory_free_bytes": ("Not reserved.", lambda: scheduler.memory_free_bytes),
            "jail_ready": ("Sandboxes that wait for a job.", lambda: sandboxes.ready),
            "jail_making": ("Sandboxes on their way.", lambda: sandboxes.making),
            "jail_dying": ("Sandboxes whose job has ended.", lambda: len(sandboxes.dying)),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=self._registry).set_function(read)

    def count(self, result: Result) -> None:
        """Take in one finished job."""
        self._jobs.labels(result.status).inc()
        for phase, histogram in self._phases.items():
            histogram.observe(getattr(result.timing, f"{phase}_ms") / 1000)

    def render(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        return generate_latest(self._registry)
