"""Jobs of several processes over HTTP, and every example of docs/processes.md and docs/networks.md."""

import asyncio

import httpx
import pages
import pytest

EXAMPLES = pages.examples("processes.md", "networks.md")
SLEEPER = ["sleep", "1000"]


def run(client, *processes):
    response = client.post("/v1/run", json={"processes": processes})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(("body", "shown"), EXAMPLES)
def test_an_example_has_the_answer_of_the_page(client, body, shown):
    response = client.post("/v1/run", json=body)
    assert pages.is_part(shown, response.json()), response.text


def test_there_are_examples():
    assert len(EXAMPLES) == 5
    assert not pages.is_part({"a": [{"b": 1}]}, {"a": [{"b": 2}]})


def test_a_job_of_several_processes_is_counted_once_and_leaves_one_line(client, service, counted):
    def numbers():
        found = counted(client)
        names = ['jail_jobs_total{status="nonzero_exit"}', 'jail_phase_seconds_count{phase="run"}']
        return [found[name] for name in (*names, "jail_slots_free")]

    before = numbers()
    result = run(
        client, {"name": "a", "argv": ["false"]}, {"name": "b", "argv": ["sleep", "0.1"], "background": True}
    )
    assert [after - n for after, n in zip(numbers(), before, strict=True)] == [1, 1, 0]
    (line,) = service.logged(result["id"])
    used_ms = sum(told["usage"]["cpu_ms"] for told in result["processes"].values())
    assert (line["status"], line["limit"], line["cpu_ms"]) == ("nonzero_exit", None, pytest.approx(used_ms))


def test_the_limit_that_decided_is_in_the_log(client, service):
    result = run(
        client,
        {"name": "a", "argv": ["true"]},
        {"name": "b", "argv": ["yes"], "limits": {"stdout_bytes": 9}},
    )
    (line,) = service.logged(result["id"])
    assert (result["status"], line["status"], line["limit"]) == (
        "output_limit",
        "output_limit",
        "stdout_bytes",
    )


def test_a_client_that_goes_away_ends_all(service, client, jail, executing, processes, counted, eventually):
    body = {"processes": [{"name": "a", "argv": SLEEPER, "background": True}, {"name": "b", "argv": SLEEPER}]}

    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as leaving:
            post = asyncio.create_task(leaving.post("/v1/run", json=body))
            jobs = await executing(service.supervisor, "sleep", 2)
            assert counted(client)["jail_slots_free"] == 0
            post.cancel()
            await asyncio.wait([post])
        return jobs

    name = 'jail_jobs_total{status="cancelled"}'
    before = counted(client)[name]
    processes.wait_for_end(jail.do(scene()))
    eventually(lambda: counted(client)[name] == before + 1)
    assert eventually(lambda: counted(client)["jail_slots_free"] == 2)


def test_a_service_that_stops_answers_for_each_of_them(serve, jail, executing):
    service = serve(JAIL_SLOTS="2", JAIL_DRAIN_MS="100")
    body = {"processes": [{"name": "a", "argv": SLEEPER}, {"name": "b", "argv": SLEEPER, "background": True}]}

    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            post = asyncio.create_task(client.post("/v1/run", json=body))
            await executing(service.supervisor, "sleep", 2)
            service.signal(15)
            return (await post).json()

    result = jail.do(scene())
    assert result["status"] == "cancelled"
    assert [told["detail"] for told in result["processes"].values()] == [None, None]
    assert service.wait() == 0


def test_more_processes_than_slots_are_refused_and_the_maximum_is_told(client):
    most = client.get("/v1/capabilities").json()["processes"]
    assert most == 2
    processes = [{"name": f"p{number}", "argv": ["true"]} for number in range(most + 1)]
    assert run(client, *processes[:most])["status"] == "ok"
    problem = client.post("/v1/run", json={"processes": processes})
    assert (problem.status_code, problem.json()["field"]) == (422, "processes")
    assert problem.json()["detail"] == f"{most + 1} of them; the maximum is {most}"
    described = client.get("/openapi.json").json()["components"]["schemas"]["GroupRequest"]["properties"]
    assert described["processes"]["maxItems"] == most


def test_more_memory_than_there_is_is_refused_and_the_maximum_is_told(serve):
    service = serve(JAIL_SLOTS="2", JAIL_MEMORY_BYTES=str(32 << 20))

    def post(one_bytes, other_bytes):
        limits = {"a": one_bytes, "b": other_bytes}
        processes = [
            {"name": name, "argv": ["true"], "limits": {"memory_bytes": n}} for name, n in limits.items()
        ]
        return httpx.post(f"{service.url}/v1/run", json={"processes": processes}, timeout=60)

    assert post(24 << 20, 8 << 20).json()["status"] == "ok"
    problem = post(24 << 20, 16 << 20)
    assert (problem.status_code, problem.json()["field"]) == (422, "processes")
    assert f"are {40 << 20}; the maximum is {32 << 20}" in problem.json()["detail"]


def test_two_workers_take_jobs_of_as_many_processes_as_the_smaller_has_slots(serve):
    service = serve(JAIL_SLOTS="5", JAIL_WORKERS="2", JAIL_DEFAULTS_MEMORY_BYTES=str(16 << 20))
    with httpx.Client(base_url=service.url, timeout=60) as client:
        assert client.get("/v1/capabilities").json()["processes"] == 2
        processes = [{"name": f"p{number}", "argv": ["true"]} for number in range(3)]
        for _ in range(8):
            # On a connection of its own: whichever worker takes it.
            body = {"processes": processes}
            assert httpx.post(f"{service.url}/v1/run", json=body, timeout=60).status_code == 422
        assert run(client, *processes[:2])["status"] == "ok"
