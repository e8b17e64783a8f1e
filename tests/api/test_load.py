"""A full host, and clients that go away."""

import asyncio

import httpx

SLEEPER = {"argv": ["sleep", "1000"]}


def test_a_full_queue_is_answered_503_with_retry_after(serve, jail, counted, until):
    service = serve(JAIL_SLOTS="1", JAIL_QUEUE="1")

    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            posts = [asyncio.create_task(client.post("/v1/run", json=SLEEPER)) for _ in range(2)]
            with httpx.Client(base_url=service.url) as other:
                await until(lambda: counted(other)["jail_queued"] == 1)
                refused = await client.post("/v1/run", json=SLEEPER)
                alive = await client.get("/healthz")
            for post in posts:
                post.cancel()
            await asyncio.wait(posts)
            return refused, alive

    refused, alive = jail.do(scene())
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"
    assert alive.status_code == 200


def test_memory_is_reserved_before_a_job_starts(serve, jail, counted, until):
    service = serve(
        JAIL_SLOTS="4", JAIL_MEMORY_BYTES=str(128 << 20), JAIL_DEFAULTS_MEMORY_BYTES=str(96 << 20)
    )

    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            posts = [asyncio.create_task(client.post("/v1/run", json=SLEEPER)) for _ in range(2)]
            with httpx.Client(base_url=service.url) as other:
                seen = await until(lambda: (n := counted(other))["jail_queued"] == 1 and n)
            for post in posts:
                post.cancel()
            await asyncio.wait(posts)
            return seen

    seen = jail.do(scene())
    assert seen["jail_running"] == 1
    assert seen["jail_memory_free_bytes"] == 32 << 20


def test_a_client_that_goes_away_has_its_job_killed(service, client, jail, executing, processes, counted):
    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as leaving:
            post = asyncio.create_task(leaving.post("/v1/run", json=SLEEPER))
            jobs = await executing(service.supervisor, "sleep")
            post.cancel()
            await asyncio.wait([post])
        return jobs

    before = counted(client).get('jail_jobs_total{status="cancelled"}', 0)
    processes.wait_for_end(jail.do(scene()))
    seen = counted(client)
    while not seen.get('jail_jobs_total{status="cancelled"}', 0) > before:
        seen = counted(client)
    assert seen["jail_running"] in (0, 1)


def test_a_client_that_goes_away_while_its_job_waits_leaves_the_queue(serve, jail, counted, until):
    service = serve(JAIL_SLOTS="1")

    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            posts = [asyncio.create_task(client.post("/v1/run", json=SLEEPER)) for _ in range(3)]
            with httpx.Client(base_url=service.url) as other:
                await until(lambda: counted(other)["jail_queued"] == 2)
                for post in posts:
                    post.cancel()
                await asyncio.wait(posts)
                await until(lambda: (n := counted(other))["jail_queued"] == n["jail_running"] == 0)
                return (await client.post("/v1/run", json={"argv": ["true"]})).json()

    assert jail.do(scene())["status"] == "ok"
