"""The check that counts: a real sandbox, made by the engine, with a program run in it."""

import asyncio

import msgspec
import uvloop

from jail import spec
from jail.destinations import Destination, parse_network
from jail.engine import Engine
from jail.errors import HostError, SandboxError
from jail.outcome import Failure
from jail.policy import PolicyError
from jail.result import Result
from jail.settings import DEGRADABLE, Settings, for_one_job

# In every image that has /usr, and in need of the loader and the C library: it shows that they work.
_ARGV = ["true"]

_NOWHERE = parse_network("192.0.2.0/24")


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """How it went. All None: it went well.

    refused: why the engine did not start, a sentence of cause and one of cure. failure: where the
    set-up of the sandbox failed. problem: what else went wrong, in words. networks, egress: what went
    wrong with others, that have a network or a way out, where there are to be such. setup_ms, run_ms: how
    long it took to make the sandbox, and to run the program in it.
    """

    refused: tuple[str, str] | None = None
    failure: Failure | None = None
    problem: str | None = None
    networks: str | None = None
    egress: str | None = None
    setup_ms: float = 0.0
    run_ms: float = 0.0

    @property
    def went_well(self) -> bool:
        """Whether the program ran and ended as it should."""
        return self.refused is None and self.failure is None and self.problem is None


def try_sandbox(settings: Settings) -> Trial:
    """Start an engine, run one job, stop it. Raises nothing that a host can be the cause of."""
    # Weaknesses have checks of their own; here they would hide what lies behind them.
    tolerant = msgspec.structs.replace(for_one_job(settings), allow_degraded=DEGRADABLE)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_try(tolerant))
    except HostError as error:
        if isinstance(error.__cause__, SandboxError):
            return _failed(error.__cause__)
        return Trial(refused=(error.cause, error.cure))
    except PolicyError as error:
        return Trial(refused=(f"{error}.", "Mend that policy, or leave `policies` unset."))
    except OSError as error:
        return Trial(problem=": ".join(filter(None, (error.strerror, error.filename))))


def _failed(error: SandboxError) -> Trial:
    return Trial(failure=Failure(error.stage, error.error, error.index))


async def _try(settings: Settings) -> Trial:
    async with Engine(settings) as engine:
        job = spec.validate(spec.Request(argv=_ARGV), engine.rules)
        run = engine.submit(job)
        trial = _judge(await run.task, run.failure)
        if not trial.went_well:
            return trial
        told: dict[str, str | None] = {}
        if "isolated" in engine.rules.networks:
            told["networks"] = await _try_network(engine, job, network=spec.Network("isolated"))
        if settings.egress:
            nowhere = Destination(None, _NOWHERE, 9, "tcp")
            outward = {"network": spec.Network("egress"), "destinations": (nowhere,)}
            told["egress"] = await _try_network(engine, job, **outward)
        return msgspec.structs.replace(trial, **told)


async def _try_network(engine: Engine, job: spec.JobSpec, **changed: object) -> str | None:
    """What is wrong with the same job on a network."""
    result = await engine.submit(msgspec.structs.replace(job, **changed)).task
    if result.status == "ok":
        return None
    return engine.sandboxes.networks.words or result.detail or result.status


def _judge(result: Result, failure: Failure | None) -> Trial:
    if failure is not None:
        return Trial(failure=failure)
    if result.status != "ok":
        words = (result.status, result.detail, result.limit, result.stderr.text)
        return Trial(problem=", ".join(word.strip() for word in words if word))
    return Trial(setup_ms=result.timing.setup_ms, run_ms=result.timing.run_ms)
