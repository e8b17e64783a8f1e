"""What the service tells about itself."""


def test_health_and_readiness(client):
    for path in ("/healthz", "/readyz"):
        response = client.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_limits_have_a_default_within_their_range(client):
    limits = client.get("/v1/limits").json()
    assert len(limits) == 12
    for about in limits.values():
        assert about["minimum"] <= about["default"] <= about["maximum"]


def test_the_least_and_the_most_of_every_limit_is_taken(client):
    limits = client.get("/v1/limits").json()
    for name, about in limits.items():
        for bound in ("minimum", "maximum"):
            body = {"argv": ["true"], "limits": {name: about[bound]}}
            response = client.post("/v1/run", json=body)
            assert response.status_code == 200, (name, bound, response.text)
            assert response.json()["status"] != "sandbox_error", (name, bound, response.text)


def test_capabilities_tell_what_there_is(client):
    found = client.get("/v1/capabilities").json()
    assert found["images"][0] == "host"
    assert "default" in found["policies"]
    assert found["networks"] in (["none"], ["isolated", "none"])
    assert found["cgroup"] in ("v1", "v2")
    assert found["slots"] == 2
    assert found["memory_bytes"] > 0
    assert isinstance(found["degraded"], list)


def test_metrics_count_what_was_answered(client, counted):
    name = 'jail_jobs_total{status="nonzero_exit"}'
    before = counted(client)
    client.post("/v1/run", json={"argv": ["false"]})
    after = counted(client)
    assert after[name] == before.get(name, 0) + 1
    assert after["jail_running"] == after["jail_queued"] == 0
    run = 'jail_phase_seconds_count{phase="run"}'
    assert after[run] == before[run] + 1


def test_metrics_count_the_sandboxes_that_are_ready(service, client, counted, ready):
    client.post("/v1/run", json={"argv": ["true"]})
    service.settle()
    seen = counted(client)
    assert [seen[f"jail_{name}"] for name in ("ready", "making", "dying")] == [ready, 0, 0]


def test_every_job_leaves_one_line_in_the_log(client, service):
    result = client.post("/v1/run", json={"argv": ["echo", 'a"\n{"event": "ready"}']}).json()
    client.get("/healthz")
    assert len(service.logged(result["id"])) == 1
