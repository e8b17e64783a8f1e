"""POST /v1/run: one job and its result."""

import base64
import concurrent.futures

import httpx
import pytest

RESULT = {
    "id", "status", "exit_code", "signal", "limit", "detail", "stdout", "stderr", "outputs",
    "output_errors", "denials", "denials_omitted", "usage", "timing", "sandbox",
}  # fmt: skip
USAGE = {
    "cpu_ms", "user_ms", "system_ms", "wall_ms", "memory_peak_bytes", "memory_source", "max_rss_bytes",
    "memory_setup_bytes", "oom_kills", "pids_peak", "pids_limit_hits", "throttled_ms", "io_read_bytes",
    "io_write_bytes", "pressure", "network",
}  # fmt: skip


def run(client, **body):
    response = client.post("/v1/run", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def test_the_example_of_the_design_is_answered_as_it_says(client):
    result = run(
        client,
        argv=["python3", "main.py"],
        image="host",
        policy="default",
        network="none",
        files={"main.py": "open('out.txt', 'w').write('abc'); print(input()[::-1])", "d": {"base64": "AA=="}},
        stdin="olleh",
        env={"LANG": "C.UTF-8"},
        outputs=["out.txt", "maybe.txt?"],
        limits={
            "cpu_ms": 1000, "wall_ms": 3000, "memory_bytes": 67108864, "pids": 32, "cpus": 1.0,
            "disk_bytes": 33554432, "files": 4096, "open_files": 256, "stack_bytes": 8388608,
            "stdout_bytes": 1048576, "stderr_bytes": 65536, "output_bytes": 16777216,
        },
    )  # fmt: skip
    assert set(result) == RESULT
    assert set(result["usage"]) == USAGE
    assert set(result["timing"]) == {"queued_ms", "setup_ms", "run_ms", "collect_ms"}
    assert (result["status"], result["exit_code"], result["signal"], result["limit"]) == ("ok", 0, None, None)
    assert result["stdout"] == {"text": "hello\n", "bytes": 6, "truncated": False}
    assert result["stderr"] == {"text": "", "bytes": 0, "truncated": False}
    content = base64.b64encode(b"abc").decode()
    assert result["outputs"] == {"out.txt": {"base64": content, "bytes": 3, "mode": 0o644}}
    assert result["output_errors"] == []
    assert (result["sandbox"]["image"], result["sandbox"]["policy"]) == ("host", "default")
    usage = result["usage"]
    assert 0 < usage["cpu_ms"] < 1000
    assert usage["user_ms"] + usage["system_ms"] == pytest.approx(usage["cpu_ms"], abs=0.01)
    assert usage["wall_ms"] <= result["timing"]["run_ms"]


@pytest.mark.parametrize(
    ("body", "status", "exit_code", "number", "limit"),
    [
        ({"argv": ["true"]}, "ok", 0, None, None),
        ({"argv": ["false"]}, "nonzero_exit", 1, None, None),
        ({"argv": ["sh", "-c", "kill -15 $$"]}, "signaled", None, 15, None),
        ({"argv": ["none"]}, "start_failed", None, None, None),
        ({"argv": ["sleep", "9"], "limits": {"wall_ms": 50}}, "wall_limit", None, None, "wall_ms"),
        ({"argv": ["yes"], "limits": {"stdout_bytes": 9}}, "output_limit", None, None, "stdout_bytes"),
        (
            {"argv": ["sh", "-c", "while :; do :; done"], "limits": {"cpu_ms": 50}},
            "cpu_limit", None, None, "cpu_ms",
        ),
        (
            {"argv": ["head", "-c", "64M", "/dev/zero"], "limits": {"memory_bytes": 2 << 20}},
            "output_limit", None, None, "stdout_bytes",
        ),
        (
            {"argv": ["sh", "-c", "head -c 64M /dev/zero > /tmp/x"], "limits": {"memory_bytes": 8 << 20}},
            "memory_limit", None, None, "memory_bytes",
        ),
    ],
)  # fmt: skip
def test_each_end_is_told_in_fields_of_its_own(client, body, status, exit_code, number, limit):
    result = run(client, **body)
    assert (result["status"], result["exit_code"], result["signal"], result["limit"]) == (
        status, exit_code, number, limit,
    )  # fmt: skip


def test_denied_calls_are_listed_for_a_job_that_asks(client):
    script = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW)"
    told = run(client, argv=["python3", "-ISc", script], explain=True)
    assert told["denials"] == [{"syscall": "socket", "args": ["0x2", "0x80003", "0x0"], "count": 1}]
    assert told["denials_omitted"] == 0


@pytest.mark.parametrize("policy", ["default", "run", "strict"])
def test_every_policy_runs_a_program(client, policy):
    told = run(client, argv=["python3", "-ISc", "print(6 * 7)"], policy=policy)
    assert (told["status"], told["stdout"]["text"], told["sandbox"]["policy"]) == ("ok", "42\n", policy)


def test_null_for_a_limit_means_the_default(client):
    assert run(client, argv=["true"], limits={"cpu_ms": None})["status"] == "ok"


def test_many_clients_at_once_are_all_answered(service):
    def one(number):
        return httpx.post(f"{service.url}/v1/run", json={"argv": ["echo", str(number)]}, timeout=60).json()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(one, range(48)))
    assert [result["stdout"]["text"] for result in results] == [f"{number}\n" for number in range(48)]
    assert len({result["id"] for result in results}) == 48


def test_the_service_and_its_supervisor_have_no_privilege(service, processes):
    own, supervisor = processes.status(service.pid), processes.status(service.supervisor)
    assert set(own["Uid"].split()) == set(supervisor["Uid"].split())
    assert own["Uid"].split()[0] != "0"
    assert int(own["CapEff"], 16) == int(own["CapPrm"], 16) == 0
