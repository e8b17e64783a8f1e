"""Starting and stopping the service."""

import asyncio
import hashlib
import os
import resource
import signal
import time

import httpx
import pytest

KEY = "correct horse battery staple"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


def is_refused(service):
    """A new job is refused: by a problem, or since nobody listens any more."""
    try:
        response = httpx.post(f"{service.url}/v1/run", json={"argv": ["true"]})
    except httpx.TransportError:
        return True
    assert response.status_code in (200, 503)
    return response.status_code == 503


def test_a_running_job_is_answered_while_new_ones_are_refused(serve, jail, executing, until):
    service = serve(JAIL_SLOTS="2", JAIL_DRAIN_MS="20000")
    # It ends when the test has seen that new ones are refused, which it cannot be told: so, a while.
    body = {"argv": ["sh", "-c", "sleep 2; echo finished"]}

    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            post = asyncio.create_task(client.post("/v1/run", json=body))
            await executing(service.supervisor, "sleep")
            service.signal(signal.SIGTERM)
            await until(lambda: is_refused(service))
            assert not post.done()
            return await post

    response = jail.do(scene())
    assert response.json()["stdout"]["text"] == "finished\n"
    assert service.wait() == 0


def refused(response):
    return response if response.status_code != 200 else None


def test_a_service_that_can_have_no_supervisor_is_not_ready_until_it_can(serve, eventually):
    service = serve(JAIL_READY_MIN="0")
    keeper, supervisor = service.keeper, service.supervisor
    limits = resource.prlimit(keeper, resource.RLIMIT_NPROC)
    with httpx.Client(base_url=service.url) as client:
        assert client.get("/readyz").status_code == 200
        resource.prlimit(keeper, resource.RLIMIT_NPROC, (0, limits[1]))
        os.kill(supervisor, signal.SIGKILL)
        answer = eventually(lambda: refused(client.get("/readyz")))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "No sandbox can be made now: stage supervisor" in answer.json()["detail"]
        assert client.get("/healthz").status_code == 200
        resource.prlimit(keeper, resource.RLIMIT_NPROC, limits)
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/run", json={"argv": ["true"]}).json()["status"] == "ok"


def test_a_long_job_is_cancelled_after_the_grace_time(serve, jail, executing):
    service = serve(JAIL_DRAIN_MS="300")

    async def scene():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            post = asyncio.create_task(client.post("/v1/run", json={"argv": ["sleep", "1000"]}))
            await executing(service.supervisor, "sleep")
            begun = time.monotonic()
            service.signal(signal.SIGTERM)
            return await post, time.monotonic() - begun

    response, seconds = jail.do(scene())
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    assert 0.3 <= seconds < 5
    service.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_told_to_stop_leaves_nothing_behind(serve, state, processes, cgroups_named, number):
    service = serve(JAIL_STATE=str(state))
    httpx.post(f"{service.url}/v1/run", json={"argv": ["true"]})
    (instance,) = (state / "instances").iterdir()
    family = [service.supervisor]
    assert cgroups_named(instance.name)

    service.signal(number)
    service.wait()

    processes.wait_for_end(family)
    assert not instance.exists()
    assert not cgroups_named(instance.name)


def test_two_services_with_states_of_their_own_do_not_meet(serve, state, jail, executing):
    first = serve()

    async def scene():
        async with httpx.AsyncClient(base_url=first.url, timeout=60) as client:
            body = {"argv": ["sleep", "1000"], "limits": {"wall_ms": 1500}}
            post = asyncio.create_task(client.post("/v1/run", json=body))
            await executing(first.supervisor, "sleep")
            serve(JAIL_STATE=str(state))
            return (await post).json()

    assert jail.do(scene())["status"] == "wall_limit"


def test_a_state_directory_that_is_closed_to_others_is_no_hindrance(serve, tmp_path):
    tmp_path.chmod(0o700)
    service = serve(JAIL_STATE=str(tmp_path / "state"))
    result = httpx.post(f"{service.url}/v1/run", json={"argv": ["true"]}).json()
    assert result["status"] == "ok", result


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_an_open_address_without_a_key_is_refused(serve, address):
    with pytest.raises(RuntimeError, match="no key is configured") as refused:
        serve(JAIL_ADDRESS=address)
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JAIL_SLOT", "1"),
        ("JAIL_SLOTS", "many"),
        ("JAIL_QUEUE", "-1"),
        ("JAIL_ADDRESS", "localhost"),
        ("JAIL_DEFAULTS_CPU_MS", "0"),
        ("JAIL_DEFAULTS_MEMORY_BYTES", str(1 << 60)),
        ("JAIL_CONFIG", "/no/such/file"),
        ("JAIL_ALLOW_DEGRADED", "everything"),
        ("JAIL_POLICIES", "/no/such/directory"),
    ],
)
def test_a_setting_that_is_wrong_is_named_and_nothing_starts(serve, variable, value):
    with pytest.raises(RuntimeError) as refused:
        serve(**{variable: value})
    assert "Traceback" not in str(refused.value)
    assert len(str(refused.value)) > len("jail serve ended: ")


@pytest.fixture
def locked(serve):
    return serve(JAIL_KEYS_SHA256=DIGEST)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {DIGEST}"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
def test_without_the_key_nothing_is_answered_but_health(locked, headers):
    with httpx.Client(base_url=locked.url, headers=headers) as client:
        responses = [
            client.post("/v1/run", json={"argv": ["true"]}),
            client.get("/v1/limits"),
            client.get("/v1/capabilities"),
            client.get("/metrics"),
        ]
        for response in responses:
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.headers["content-type"] == "application/problem+json"
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200


def test_with_the_key_a_job_runs(locked):
    headers = {"Authorization": f"Bearer {KEY}"}
    response = httpx.post(f"{locked.url}/v1/run", json={"argv": ["true"]}, headers=headers)
    assert (response.status_code, response.json()["status"]) == (200, "ok")


def test_with_a_key_the_service_listens_anywhere(serve):
    service = serve(JAIL_ADDRESS="0.0.0.0:0", JAIL_KEYS_SHA256=DIGEST)
    assert httpx.get(f"http://127.0.0.1:{service.url.rpartition(':')[2]}/healthz").status_code == 200
