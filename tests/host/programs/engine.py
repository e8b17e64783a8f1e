"""An engine for whoever writes bodies of jobs, a line each, and reads their results.

With JAIL_* variables. What is refused is told by its field; the first line says that it is ready.
"""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import msgspec
import uvloop

from jail import delegation, settings, spec
from jail.engine import Engine


def tell(answer: bytes) -> None:
    sys.stdout.buffer.write(answer + b"\n")
    sys.stdout.buffer.flush()


async def run(engine: Engine, body: bytes) -> bytes:
    try:
        job = await engine.pin(spec.parse(body, engine.rules))
    except spec.SpecError as error:
        return json.dumps({"refused": error.field, "detail": error.detail}).encode()
    return msgspec.json.encode(await engine.submit(job).task)


async def serve() -> None:
    async with Engine(settings.load()) as engine:
        tell(b'"ready"')
        with ThreadPoolExecutor(1) as reader:
            lines = asyncio.get_running_loop()
            while line := await lines.run_in_executor(reader, sys.stdin.buffer.readline):
                tell(await run(engine, line))


delegation.become_ready(None)
uvloop.run(serve())
