"""Jobs that publish ports, and who reaches them while they live: sandboxes, by `jail serve`."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

PORT = 8080
# While the program has yet to listen.
NOT_YET = (502, 504)

# Answers what it was asked for, and what it got; /end ends it.
WEB = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        got = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        said = f"{self.command} {self.path} {self.headers['Host']} ".encode() + got
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.send_header("Content-Type", "text/plain")
        self.send_header("Set-Cookie", "session=1")
        self.end_headers()
        self.wfile.write(said)
        if self.path == "/end":
            self.wfile.flush()
            os._exit(0)

    do_GET = do_POST = do_PUT = answer

server = http.server.ThreadingHTTPServer((sys.argv[1], 8080), Handler)
server.serve_forever()
"""

# Sends back what it gets, until that is "end".
ECHO = """
import socket, sys
server = socket.create_server(("", 8080))
while True:
    end, _ = server.accept()
    with end:
        while data := end.recv(65536):
            if data == b"end":
                sys.exit(7)
            end.sendall(data)
"""


def job(script, *arguments, **limits):
    return {
        "argv": ["python3", "-ISc", script, *arguments],
        "network": {"mode": "isolated", "publish": [{"port": PORT}]},
        "limits": {"wall_ms": 30_000, **limits},
    }


class Job:
    """A job that lives and publishes."""

    def __init__(self, client, response):
        self._client = client
        self._response = response
        self.location = response.headers["location"]
        self.id = response.headers["jail-job"]

    def path(self, target="/", port=PORT):
        return f"{self.location}/ports/{port}{target}"

    async def ask(self, method="GET", target="/", **options):
        """The answer of its program, as soon as it listens."""
        while True:
            answer = await self._client.request(method, self.path(target), **options)
            if answer.status_code not in NOT_YET:
                return answer

    async def open(self):
        """A WebSocket to its program, once that listens."""
        while True:
            try:
                url = f"{self._client.base_url}".replace("http:", "ws:").rstrip("/")
                return await connect(url + self.path(), proxy=None, compression=None)
            except InvalidStatus as error:
                if error.response.status_code not in NOT_YET:
                    raise

    async def end(self):
        """What POST /v1/run answers in the end."""
        return json.loads(await self._response.aread())


@asynccontextmanager
async def posted(service, body):
    async with (
        httpx.AsyncClient(base_url=service.url, timeout=60) as client,
        client.stream("POST", "/v1/run", json=body) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield Job(client, response)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "::1", "::"])
def test_a_web_server_in_a_sandbox_is_reached_while_its_job_lives(service, jail, address):
    script = WEB
    if ":" in address:
        script = "import socket, http.server; http.server.ThreadingHTTPServer.address_family = 10" + WEB

    async def scene():
        async with posted(service, job(script, address)) as live:
            assert live.location == f"/v1/jobs/{live.id}"
            answer = await live.ask("PUT", "/a%2Fb?c=d", content=b"body")
            assert answer.text == "PUT /a%2Fb?c=d localhost:8080 body"
            assert "set-cookie" not in answer.headers
            assert (await live.ask(target="/end")).text == "GET /end localhost:8080 "
            result = await live.end()
            assert (result["id"], result["status"]) == (live.id, "ok"), result
            gone = await live._client.get(live.path())
            assert gone.status_code == 404
            return result

    jail.do(scene())


def test_raw_bytes_reach_a_program_in_a_sandbox(service, jail):
    sent = os.urandom(1 << 20)

    async def scene():
        async with posted(service, job(ECHO)) as live:
            connection = await live.open()

            async def send():
                for start in range(0, len(sent), 1 << 17):
                    await connection.send(sent[start : start + (1 << 17)])

            sending, got = asyncio.create_task(send()), b""
            while len(got) < len(sent):
                got += await connection.recv()
            await sending
            assert got == sent
            await connection.send(b"end")
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            assert closed.value.rcvd.code in (1000, 1001)
            assert (await live.end())["exit_code"] == 7

    jail.do(scene())


def test_a_process_is_reached_by_the_port_that_it_publishes(service, jail):
    body = {
        "processes": [
            {"name": "server", "argv": ["python3", "-ISc", WEB, ""], "background": True},
            {"name": "sleeper", "argv": ["sleep", "30"]},
        ],
        "network": {
            "mode": "isolated",
            "publish": [{"process": "server", "port": PORT}, {"process": "sleeper", "port": 81}],
        },
    }

    async def scene():
        async with posted(service, body) as live:
            assert (await live.ask()).text == "GET / localhost:8080 "
            refused = await live._client.get(live.path(port=81))
            assert refused.status_code == 502
            assert refused.json()["detail"] == "No connection to port 81 of the program: Connection refused."

    jail.do(scene())


def test_the_end_of_a_job_ends_what_is_connected_and_the_answer_is_as_ever(service, jail, client):
    async def scene():
        async with posted(service, job(ECHO, wall_ms=1500)) as live:
            connection = await live.open()
            for _ in range(100):
                await connection.send(b"x" * 1000)
                await connection.recv()
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            assert closed.value.rcvd.code in (1000, 1001)
            return await live.end(), live._response.headers

    told, headers = jail.do(scene())
    plain = client.post("/v1/run", json={"argv": ["true"]})
    assert (told["status"], told["limit"]) == ("wall_limit", "wall_ms")
    assert told.keys() == plain.json().keys()
    assert headers["content-type"] == plain.headers["content-type"]
    # What callers send is no traffic of the job's own network, on which it announces itself.
    assert all(count < 1000 for count in told["usage"]["network"].values())


def test_a_caller_that_goes_away_ends_its_job_for_everybody(service, jail, until, counted, client):
    async def scene():
        async with posted(service, job(ECHO)) as live:
            connection = await live.open()
            await connection.send(b"one")
            assert await connection.recv() == b"one"
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd.code in (1000, 1001)

    cancelled = 'jail_jobs_total{status="cancelled"}'
    before = counted(client)[cancelled]
    jail.do(scene())
    jail.do(until(lambda: counted(client)[cancelled] == before + 1))


def test_a_service_that_stops_lets_published_jobs_go_on_for_its_grace_and_no_longer(serve, jail):
    service = serve(JAIL_DRAIN_MS="1500")

    async def scene():
        async with posted(service, job(ECHO)) as live:
            connection = await live.open()
            service.signal(signal.SIGTERM)
            for part in (b"one", b"two"):
                await connection.send(part)
                assert await connection.recv() == part
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            assert closed.value.rcvd.code in (1000, 1001)
            assert (await live.end())["status"] == "cancelled"

    jail.do(scene())
    assert service.wait() == 0
    assert "Traceback" not in "".join(service.log)


def test_a_program_that_takes_no_connection_holds_up_nobody_else(service, jail, until, counted, client):
    full = "import socket, time; server = socket.create_server(('', 8080), backlog=0); time.sleep(30)"

    async def scene():
        async with posted(service, job(full)) as hostile, posted(service, job(WEB, "")) as other:
            await other.ask()
            hanging = [asyncio.create_task(hostile.ask()) for _ in range(20)]
            await until(lambda: counted(client)["jail_forwarded_connections"] == len(hanging))
            for _ in range(5):
                assert (await other.ask()).status_code == 200
            assert not any(task.done() for task in hanging)
            for task in hanging:
                task.cancel()
            await asyncio.wait(hanging)

    jail.do(scene())


def test_what_is_forwarded_is_counted(service, jail, client, counted):
    name = "jail_forwarded_bytes_total"
    before = counted(client)

    async def scene():
        async with posted(service, job(WEB, "")) as live:
            connection = await live.open()
            assert counted(client)["jail_forwarded_connections"] == 1
            await connection.close()
            await live.ask("POST", content=b"x" * 10_000)

    jail.do(scene())
    after = counted(client)
    told = [
        after[key] - before[key] for key in (f'{name}{{direction="{way}_job"}}' for way in ("to", "from"))
    ]
    assert all(10_000 < count < 11_000 for count in told), told
    assert after["jail_forwarded_connections"] == 0


def test_without_the_hub_a_published_job_ends_and_another_can_be_reached(serve, jail):
    service = serve()

    async def scene():
        async with posted(service, job(ECHO)) as live:
            connection = await live.open()
            os.kill(service.hub, signal.SIGKILL)
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            assert closed.value.rcvd.code in (1000, 1001)
            assert (await live.end())["status"] == "sandbox_error"
        async with posted(service, job(WEB, "")) as live:
            assert (await live.ask()).status_code == 200

    jail.do(scene())


TWO = [{"name": "a", "argv": ["true"]}, {"name": "b", "argv": ["true"]}]


@pytest.mark.parametrize(
    ("field", "publish", "more"),
    [
        ("network.publish[0].port", [{"port": 0}], {}),
        ("network.publish[0].port", [{"port": 65_536}], {}),
        ("network.publish[0].port", [{"port": "80"}], {}),
        ("network.publish[0].port", [{}], {}),
        ("network.publish[0].host", [{"port": 80, "host": "x"}], {}),
        ("network.publish[1].port", [{"port": 80}, {"port": 80}], {}),
        ("network.publish", [{"port": port} for port in range(1, 18)], {}),
        ("network.publish[0].process", [{"port": 80, "process": "a"}], {}),
        ("network.publish[0].process", [{"port": 80}], {"processes": TWO}),
        ("network.publish[0].process", [{"port": 80, "process": "c"}], {"processes": TWO}),
        (
            "network.publish[1].port",
            [{"port": 80, "process": "a"}, {"port": 80, "process": "b"}],
            {"processes": TWO},
        ),
        ("argv[0]", [{"port": 80}], {"argv": [""]}),
        ("network.publish", [{"port": 80}], {"network": {"mode": "none", "publish": [{"port": 80}]}}),
    ],
)
def test_what_cannot_be_published_is_refused_before_anything_starts(client, field, publish, more):
    program = {} if "processes" in more else {"argv": ["true"]}
    body = {**program, "network": {"mode": "isolated", "publish": publish}, **more}
    answer = client.post("/v1/run", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "location" not in answer.headers


def test_sixteen_ports_can_be_published(client):
    ports = [{"port": port} for port in (1, *range(65_521, 65_536))]
    body = {"argv": ["true"], "network": {"mode": "isolated", "publish": ports}}
    assert client.post("/v1/run", json=body).json()["status"] == "ok"


def test_a_full_service_says_so_as_ever(serve, jail):
    service = serve(JAIL_SLOTS="1", JAIL_QUEUE="0")

    async def scene():
        async with posted(service, job(ECHO)) as live:
            answer = await live._client.post("/v1/run", json=job(ECHO))
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")

    jail.do(scene())


def test_several_workers_do_not_offer_it(serve):
    service = serve(JAIL_WORKERS="2")
    answer = httpx.post(f"{service.url}/v1/run", json=job(ECHO))
    assert (answer.status_code, answer.json()["field"]) == (422, "network.publish")
    assert httpx.get(f"{service.url}/v1/capabilities").json()["publishes"] is False


def test_the_example_prints_what_the_page_says(service):
    page = (Path(__file__).parents[2] / "docs" / "publish.md").read_text()
    script, told = re.search(r"```python\n(.*?)```\n```\n(.*?)```", page, re.DOTALL).groups()
    command = [sys.executable, "-c", script, service.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == (told, "")
