"""Published ports, before programs that do what they like: each is a server here, on loopback.

The application is that of the session's engine, served as `jail serve` serves it. tests/api/test_publish.py
has programs in sandboxes.
"""

import asyncio
import base64
import hashlib
import os
import secrets
import socket
import struct
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import msgspec
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from jail import published
from jail.cli import websocket
from jail.cli.serve import configure
from jail.http import Metrics, Table, build
from jail.http.forward import Forward

PORT = 8080
KEY = "correct horse battery staple"
MIB = 1 << 20
# Of the kernel, between service and program.
BUFFER_BYTES = 65_536
# What the kernel may hold of a stream on its way through four sockets, with room to spare.
HELD_BYTES = 48 * MIB


class Server(uvicorn.Server):
    """Takes no signals."""

    def install_signal_handlers(self):
        pass


class Place:
    """A job's published port, and how to reach it through the service."""

    def __init__(self, url, job, forward):
        self.url = url
        self.job = job
        self.forward = forward

    def path(self, target="/", port=PORT):
        return f"/v1/jobs/{self.job}/ports/{port}{target}"

    async def ask(self, method="GET", target="/", **options):
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            return await client.request(method, self.path(target), **options)

    def open(self, target="/", **options):
        url = self.url.replace("http:", "ws:")
        return connect(f"{url}{self.path(target)}", proxy=None, compression=None, **options)

    async def connect(self, request=b""):
        """A connection to the service, on which a request for this port has been sent."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request.replace(b"@", self.path().encode()))
        return reader, writer


@pytest.fixture
def scene(jail, until):
    """Run `act(place)` before a program: `serve(reader, writer)`, called for each connection."""

    async def run(act, serve, *, wait_s=60, idle_s=60, ping_s=20):
        engine = jail.engine
        application = build(engine, engine.settings, Metrics(engine, Table(1), 0))
        (forward,) = (route for route in application.routes if isinstance(route, Forward))
        forward.wait_s, forward.idle_s = wait_s, idle_s
        async with _served(application, ping_s, until) as url, _program(serve) as dial:
            job = secrets.token_hex(16)
            async with engine.published.publish(job, {PORT: dial}):
                await act(Place(url, job, forward))
            assert engine.published.connections == 0

    return lambda act, serve, **options: jail.do(run(act, serve, **options))


@asynccontextmanager
async def _served(application, ping_s, until):
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(
        configure(application, ws_ping_interval=ping_s, ws_ping_timeout=ping_s, timeout_graceful_shutdown=2)
    )
    with listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield "http://{}:{}".format(*listener.getsockname())
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def _program(serve):
    """What dials it. A connection is closed when `serve` is done with it, at the end at the latest."""
    tasks = set()

    async def handle(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    # What it accepts has as small a buffer.
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    address = server.sockets[0].getsockname()

    async def dial():
        end = socket.socket()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        try:
            end.setblocking(False)
            await asyncio.get_running_loop().sock_connect(end, address)
        except BaseException:
            end.close()
            raise
        return end

    try:
        yield dial
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def says(answer):
    """A program that reads a head, says this, and closes."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    return serve


def abort(writer):
    """Close by a reset."""
    end = writer.get_extra_info("socket")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def gone(reader):
    """Read until the other side is gone."""
    while await reader.read(65_536):
        pass


HTTP = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HTTP + b"Transfer-Encoding: chunked\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


def test_a_request_reaches_the_program_as_it_was_sent(scene):
    seen = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append((head, await reader.readexactly(5)))
        writer.write(HTTP + b"Content-Length: 0\r\n\r\n")

    async def act(place):
        reader, writer = await place.connect(
            b"PATCH @a%2Fb/../c//;d?x=%20&y HTTP/1.1\r\nHost: service\r\n"
            b"X-Own: 1\r\nContent-Length: 5\r\n\r\nhello"
        )
        assert await reader.readline() == HTTP
        writer.close()

    scene(act, serve)
    ((head, body),) = seen
    assert head.split(b"\r\n") == [
        *(b"PATCH /a%2Fb/../c//;d?x=%20&y HTTP/1.1", b"host: localhost:8080", b"x-own: 1"),
        *(b"content-length: 5", b"connection: close", b"", b""),
    ]
    assert body == b"hello"


def test_what_is_not_for_the_program_does_not_reach_it(scene):
    seen = []

    async def serve(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HTTP + b"Content-Length: 0\r\n\r\n")

    dropped = {
        "Authorization": "Bearer key",
        "Cookie": "session=1",
        "Proxy-Authorization": "Basic x",
        "Forwarded": "for=1.2.3.4",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Anything": "x",
        "X-Real-IP": "1.2.3.4",
        "Via": "1.1 x",
        "Connection": "X-Hop, close",
        "X-Hop": "x",
        "TE": "trailers",
        "Keep-Alive": "timeout=5",
        "Expect": "100-continue",
        "Trailer": "x",
    }

    async def act(place):
        answer = await place.ask(headers={**dropped, "X-Kept": "yes"})
        assert answer.status_code == 200

    scene(act, serve)
    names = {line.split(b":")[0].decode().lower() for line in seen[0].split(b"\r\n")[1:-2]}
    assert names == {"host", "x-kept", "connection", "accept", "accept-encoding", "user-agent"}
    assert b"connection: close" in seen[0]


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_pass_both_ways(scene, chunked):
    sent = os.urandom(3 * MIB)

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert (b"transfer-encoding: chunked" in head) == chunked
        body = await _chunks(reader) if chunked else await reader.readexactly(len(sent))
        writer.write(HTTP + b"Content-Length: %d\r\n\r\n" % len(body) + body[::-1])

    async def pieces():
        for start in range(0, len(sent), 10_000):
            yield sent[start : start + 10_000]

    async def act(place):
        answer = await place.ask("POST", content=pieces() if chunked else sent)
        assert answer.headers["content-length"] == str(len(sent))
        assert answer.content == sent[::-1]

    scene(act, serve)


async def _chunks(reader):
    whole = b""
    while size := int(await reader.readline(), 16):
        whole += await reader.readexactly(size)
        await reader.readline()
    return whole


def test_an_answer_passes_with_the_headers_that_may(scene):
    passing = {"content-type": "text/html", "etag": '"1"', "cache-control": "no-store", "vary": "accept"}
    dropped = {
        "set-cookie": "session=1",
        "service-worker-allowed": "/",
        "strict-transport-security": "max-age=9",
        "clear-site-data": '"*"',
        "alt-svc": 'h3=":1"',
        "x-accel-redirect": "/secret",
        "x-sendfile": "/etc",
        "www-authenticate": "Basic",
        "refresh": "0; url=/",
        "report-to": "{}",
        "nel": "{}",
        "x-own": "x",
        "access-control-allow-credentials": "true",
        "keep-alive": "timeout=9",
        "date": "never",
        "connection": "x-hop, content-length",
        "x-hop": "1",
        "location": "/v1/run",
        "server": "x",
    }
    told = {**passing, **dropped, "content-security-policy": "default-src 'none'", "content-length": "2"}
    head = b"".join(f"{name}: {value}\r\n".encode() for name, value in told.items())

    async def act(place):
        answer = await place.ask(target="/a/b")
        assert (answer.status_code, answer.content) == (418, b"ok")
        dates = answer.headers.get_list("date")
        assert len(dates) == 1
        assert dates != ["never"]
        del answer.headers["date"]
        assert sorted(answer.headers.multi_items()) == sorted(
            {
                **passing,
                "content-length": "2",
                "location": f"{place.path()}v1/run",
                "x-content-type-options": "nosniff",
                "referrer-policy": "no-referrer",
            }.items()
            | {
                ("content-security-policy", "default-src 'none'"),
                ("content-security-policy", "sandbox allow-scripts allow-forms"),
            }
        )

    scene(act, says(b"HTTP/1.1 418 Short\r\n" + head + b"\r\nok"))


@pytest.mark.parametrize(
    ("method", "answer", "told"),
    [
        ("HEAD", HTTP + b"Content-Length: 5\r\n\r\n", (200, b"", "5")),
        ("GET", b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello", (204, b"", None)),
        ("GET", b"HTTP/1.1 304 Old\r\nContent-Length: 5\r\n\r\n", (304, b"", None)),
        ("GET", HTTP + b"\r\nto the end", (200, b"to the end", None)),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\nold", (200, b"old", None)),
        ("GET", HTTP + b"Content-Length: 2, 2\r\n\r\nok", (200, b"ok", "2")),
        ("GET", CHUNKED + b"2;x=y\r\nok\r\n0\r\nX: y\r\n\r\n", (200, b"ok", None)),
        # RFC 9112, section 6.3: it is chunked.
        ("GET", CHUNKED[:-2] + b"Content-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n", (200, b"ok", None)),
        ("GET", EARLY * 8 + HTTP + b"Content-Length: 2\r\n\r\nok", (200, b"ok", "2")),
    ],
)  # fmt: skip
def test_answers_that_are_allowed_to_be_like_that(scene, method, answer, told):
    async def act(place):
        found = await place.ask(method)
        assert (found.status_code, found.content, found.headers.get("content-length")) == told

    scene(act, says(answer))


NO_ANSWERS = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "half a head": HTTP + b"Content-Le",
    "a line without a colon": HTTP + b"nonsense\r\n\r\n",
    "a blank before the colon": HTTP + b"Content-Length : 0\r\n\r\n",
    "a NUL in a value": HTTP + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a bare CR in a value": HTTP + b"X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "a control in a value that would pass": HTTP + b"ETag: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "an escape in a value": HTTP + b"ETag: a\x1b[2Jb\r\nContent-Length: 0\r\n\r\n",
    "no name": HTTP + b": x\r\n\r\n",
    "two lengths": HTTP + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "a negative length": HTTP + b"Content-Length: -2\r\n\r\nok",
    "a length that is none": HTTP + b"Content-Length: 0x2\r\n\r\nok",
    "a length of many digits": HTTP + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nok",
    "another encoding": HTTP + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "a status above": b"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "too many headers": HTTP + b"".join(b"X: %d\r\n" % n for n in range(101)) + b"\r\n",
    "too large a head": HTTP + b"X: " + b"x" * 40_000 + b"\r\n\r\n",
    "a head without an end": HTTP + b"X: y\r\n" * 40_000,
    "too many interim answers": EARLY * 9 + HTTP + b"\r\n",
    "a flood of interim answers": EARLY * 100_000,
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_is_a_bad_gateway(scene, name):
    async def act(place):
        answer = await place.ask()
        assert (answer.status_code, answer.headers["content-type"]) == (502, "application/problem+json")
        assert "set-cookie" not in answer.headers

    scene(act, says(NO_ANSWERS[name]))


CUT = {
    "a length that lies": HTTP + b"Content-Length: 9\r\n\r\nok",
    "a chunk that lies": HTTP + b"Transfer-Encoding: chunked\r\n\r\n9\r\nok",
    "a chunk that is none": HTTP + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nok\r\n0\r\n\r\n",
    "a chunk larger than it says": HTTP + b"Transfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n",
    "a chunk of too many digits": CHUNKED + b"f" * 30 + b"\r\n",
    "no last chunk": HTTP + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    "an endless size of a chunk": CHUNKED + b"1;" + b"x" * 100_000,
    "endless trailers": HTTP + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 40_000,
}


@pytest.mark.parametrize("name", CUT)
def test_an_answer_that_goes_wrong_is_cut(scene, name):
    async def act(place):
        with pytest.raises(httpx.RemoteProtocolError):
            await place.ask()

    scene(act, says(CUT[name]))


def test_an_answer_whose_program_resets_the_connection_is_cut(scene):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HTTP + b"\r\nbegun")
        await writer.drain()
        await reader.readexactly(1)
        abort(writer)

    async def act(place):
        reader, writer = await place.connect(b"POST @ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        await reader.readuntil(b"begun")
        writer.write(b"!")
        rest = await reader.read()
        assert not rest.endswith(b"0\r\n\r\n")
        writer.close()

    scene(act, serve)


def test_what_follows_an_answer_is_not_taken_for_the_next(scene):
    smuggled = HTTP + b"Content-Length: 8\r\n\r\nsmuggled"

    async def act(place):
        async with httpx.AsyncClient(base_url=place.url) as client:
            for _ in range(2):
                assert (await client.get(place.path())).content == b"ok"
            assert (await client.get("/healthz")).json() == {"status": "ok"}

    scene(act, says(HTTP + b"Content-Length: 2\r\n\r\nok" + smuggled))


@pytest.mark.parametrize("drips", [False, True])
def test_a_program_that_gives_no_head_is_not_waited_for(scene, drips):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HTTP)
        while drips and not reader.at_eof():
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)
        await gone(reader)

    async def act(place):
        answer = await place.ask()
        assert (answer.status_code, answer.headers["content-type"]) == (504, "application/problem+json")

    scene(act, serve, wait_s=0.3)


def test_a_body_that_stops_is_cut_and_one_that_goes_on_is_not(scene):
    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(HTTP + b"\r\n")
        # Longer in all than is waited for.
        for _ in range(8):
            writer.write(b"piece")
            await asyncio.sleep(0.1)
        if b"/stops" in head:
            await gone(reader)

    async def act(place):
        assert (await place.ask(target="/goes/on")).content == b"piece" * 8
        with pytest.raises(httpx.RemoteProtocolError):
            await place.ask(target="/stops")

    scene(act, serve, wait_s=0.4)


class Flood:
    """Sends one thing after the other without end, and counts the bytes until nobody takes them any more."""

    def __init__(self, head, piece):
        self.head = head
        self.piece = piece
        self.bytes = 0
        self.ended = asyncio.Event()

    async def __call__(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self.head)
        try:
            while True:
                writer.write(self.piece)
                await writer.drain()
                self.bytes += len(self.piece)
        except ConnectionError:
            self.ended.set()


def test_a_caller_that_does_not_read_holds_the_program_up_and_is_cut(scene):
    flood = Flood(HTTP + b"\r\n", b"x" * MIB)

    async def act(place):
        reader, writer = await place.connect(b"GET @ HTTP/1.1\r\nHost: x\r\n\r\n")
        reader._transport.pause_reading()
        await asyncio.wait_for(flood.ended.wait(), 30)
        assert flood.bytes < HELD_BYTES
        writer.transport.abort()

    scene(act, flood, wait_s=0.5)


def test_an_endless_body_ends_with_its_caller(scene):
    flood = Flood(HTTP + b"\r\n", b"x" * 65_536)

    async def act(place):
        reader, writer = await place.connect(b"GET @ HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(1000):
            await reader.readexactly(65_536)
        writer.close()
        await asyncio.wait_for(flood.ended.wait(), 30)

    scene(act, flood)


def test_a_caller_that_goes_before_an_answer_closes_the_connection(scene):
    came, went = asyncio.Event(), asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        came.set()
        await gone(reader)
        went.set()

    async def act(place):
        _, writer = await place.connect(b"GET @ HTTP/1.1\r\nHost: x\r\n\r\n")
        await came.wait()
        writer.close()
        await asyncio.wait_for(went.wait(), 30)

    scene(act, serve)


def test_a_program_that_does_not_read_holds_its_caller_up(scene):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()
        await asyncio.Event().wait()

    async def act(place):
        reader, writer = await place.connect(
            b"POST @ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 40)
        )
        sent = await _send_all_that_is_taken(writer)
        assert sent < HELD_BYTES
        assert (await reader.readline()).startswith(b"HTTP/1.1 504 ")
        writer.transport.abort()

    scene(act, serve, wait_s=1)


async def _send_all_that_is_taken(writer, data=b"x" * MIB):
    """Send it again and again until nothing is taken for a second; how many bytes that were."""
    count = 0
    with suppress(TimeoutError):
        while True:
            writer.write(data)
            await asyncio.wait_for(writer.drain(), 1)
            count += len(data)
    return count


def test_an_answer_may_come_before_the_body_is_whole(scene):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Large\r\nContent-Length: 3\r\n\r\nno!")

    async def act(place):
        reader, writer = await place.connect(b"POST @ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        await reader.readuntil(b"no!")
        writer.close()

    scene(act, serve)


def test_a_flood_of_tiny_chunks_holds_nobody_else_up(scene):
    flood = Flood(CHUNKED, b"1\r\nx\r\n" * 10_000)

    async def act(place):
        reader, writer = await place.connect(b"GET @ HTTP/1.1\r\nHost: x\r\n\r\n")
        reading = asyncio.create_task(gone(reader))
        loop, took = asyncio.get_running_loop(), []
        async with httpx.AsyncClient(base_url=place.url) as client:
            for _ in range(20):
                begun = loop.time()
                await client.get("/healthz")
                took.append(loop.time() - begun)
        # A read of them at once would take some 50 ms, and there is always another.
        assert sorted(took)[10] < 0.5
        writer.transport.abort()
        await asyncio.wait([reading])

    scene(act, flood)


def test_nobody_learns_which_jobs_there_are(scene, jail):
    async def act(place):
        other = secrets.token_hex(16)
        async with jail.engine.published.publish(other, {PORT: None}):
            pass
        asked = [
            *(place.path(port=81), place.path().replace(place.job, other)),
            *(place.path().replace(place.job, secrets.token_hex(16)), place.path(port=65_536)),
        ]
        async with httpx.AsyncClient(base_url=place.url) as client:
            answers = [await client.get(path) for path in asked]
        assert [answer.status_code for answer in answers] == [404] * len(asked)
        assert len({answer.content for answer in answers}) == 1

    scene(act, says(b""))


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/jobs/@/ports/8080", "/v1/jobs/@/ports/08080/", "/v1/jobs/@/ports/-1/", "/v1/jobs/@/ports//"),
        *("/v1/jobs//ports/8080/", "/v1/jobs/%40/ports/8080/", "/v1/jobs/x/../@/ports/8080/"),
        *("/v1/%6Aobs/@/ports/8080/", "/v1/jobs/@%2Fports/8080/", "/v1/jobs/@/ports/8080%2F"),
        *("//v1/jobs/@/ports/8080/", "/v1/jobs/@/port/8080/"),
    ],
)  # fmt: skip
def test_a_path_is_right_or_it_is_not(scene, path):
    async def act(place):
        reader, writer = await place.connect(
            b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.replace("@", place.job).encode()
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        writer.close()

    scene(act, says(HTTP + b"\r\n"))


def test_without_the_key_nobody_learns_anything(scene, jail, monkeypatch):
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    settings = msgspec.structs.replace(jail.engine.settings, keys_sha256=(digest,))
    monkeypatch.setattr(jail.engine, "settings", settings)

    async def act(place):
        assert (await place.ask()).status_code == 401
        assert (await place.ask(headers={"Authorization": f"Bearer {KEY}"})).content == b"ok"
        with pytest.raises(InvalidStatus) as refused:
            await place.open()
        assert refused.value.response.status_code == 401

    scene(act, says(HTTP + b"\r\nok"))


def test_connections_to_a_job_are_limited(scene, monkeypatch):
    monkeypatch.setattr(published, "JOB_CONNECTIONS", 3)

    async def serve(reader, writer):
        await gone(reader)

    async def act(place):
        opened = [await place.open() for _ in range(3)]
        answer = await place.ask()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        with pytest.raises(InvalidStatus) as refused:
            await place.open()
        assert refused.value.response.status_code == 429
        for connection in opened:
            await connection.close()
        async with place.open():
            pass

    scene(act, serve)


def test_connections_to_all_jobs_are_limited(scene, monkeypatch):
    monkeypatch.setattr(published, "CONNECTIONS", 1)

    async def serve(reader, writer):
        await gone(reader)

    async def act(place):
        async with place.open():
            answer = await place.ask()
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")

    scene(act, serve)


def test_when_nobody_listens_both_ways_in_say_so(scene, jail):
    async def refuse():
        raise ConnectionRefusedError(111, "Connection refused")

    async def act(place):
        place.job = secrets.token_hex(16)
        async with jail.engine.published.publish(place.job, {PORT: refuse}):
            answer = await place.ask()
            assert answer.status_code == 502
            assert answer.json()["detail"] == "No connection to port 8080 of the program: Connection refused."
            with pytest.raises(InvalidStatus) as refused:
                await place.open()
            response = refused.value.response
            assert (response.status_code, response.headers["content-type"]) == (
                502,
                "application/problem+json",
            )
            assert response.body == answer.content

    scene(act, says(b""))


def test_a_connection_that_is_not_made_is_not_waited_for(scene, jail, monkeypatch):
    monkeypatch.setattr(published, "CONNECT_SECONDS", 0.2)
    cancelled = []

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async def act(place):
        place.job = secrets.token_hex(16)
        async with jail.engine.published.publish(place.job, {PORT: hang}):
            assert (await place.ask()).status_code == 504
        assert cancelled == [True]

    scene(act, says(b""))


def test_the_end_of_a_job_ends_every_connection_before_it_goes_on(scene, jail, until):
    numbers = []

    async def serve(reader, writer):
        numbers.append(writer)
        if (await reader.read(4)) == b"GET ":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HTTP + b"Content-Length: 9\r\n\r\nok")
        await gone(reader)
        numbers.remove(writer)

    async def act(place):
        dial = jail.engine.published._jobs[place.job]._dials[PORT]
        place.job = secrets.token_hex(16)
        hangs = asyncio.Event()
        async with AsyncExitStack() as job:
            ports = {PORT: dial, 81: hangs.wait}
            await job.enter_async_context(jail.engine.published.publish(place.job, ports))
            raw = await place.open()
            asking = asyncio.create_task(place.ask())
            async with httpx.AsyncClient(base_url=place.url) as client:
                hanging = asyncio.create_task(client.get(place.path(port=81)))
                await until(lambda: len(numbers) == 2 and jail.engine.published.connections == 3)
                ports = jail.engine.published._jobs[place.job]
                ends = [c._writer.transport for c in ports.open]
                await job.aclose()
                # The descriptors are closed, not only about to be.
                assert [end.get_extra_info("socket") for end in ends] == [None, None]
                assert (await hanging).status_code == 404
        with pytest.raises(httpx.RemoteProtocolError):
            await asking
        with pytest.raises(ConnectionClosed) as closed:
            await raw.recv()
        assert closed.value.rcvd.code == 1001
        await until(lambda: not numbers)

    scene(act, serve)


async def echo(reader, writer):
    """A program that sends back what it gets."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def closing(connection):
    """The code with which the service closes a WebSocket, and what had come until then."""
    parts = []
    try:
        while True:
            parts.append(await connection.recv())
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None, b"".join(parts)


def test_raw_bytes_pass_both_ways_and_nothing_is_added(scene):
    sent = os.urandom(2 * MIB)

    async def act(place):
        async with place.open() as connection:

            async def send():
                for start in range(0, len(sent), 200_000):
                    await connection.send(sent[start : start + 200_000])

            sending, got = asyncio.create_task(send()), b""
            while len(got) < len(sent):
                part = await connection.recv()
                assert isinstance(part, bytes)
                got += part
            await sending
            assert got == sent

    scene(act, echo)


def test_a_part_of_a_message_is_passed_on_before_there_are_others(scene):
    async def act(place):
        async with place.open() as connection:
            answered = asyncio.Event()

            async def parts():
                yield b"one"
                await answered.wait()
                yield b"two"

            sending = asyncio.create_task(connection.send(parts()))
            assert await connection.recv() == b"one"
            answered.set()
            assert await connection.recv() == b"two"
            await sending

    scene(act, echo)


def test_the_end_of_the_programs_stream_closes_normally(scene):
    async def serve(reader, writer):
        writer.write(b"all there is")

    async def act(place):
        async with place.open() as connection:
            assert await closing(connection) == (1000, b"all there is")

    scene(act, serve)


def test_a_reset_is_told_from_an_end(scene):
    async def serve(reader, writer):
        await reader.readexactly(1)
        abort(writer)

    async def act(place):
        async with place.open() as connection:
            await connection.send(b"!")
            assert await closing(connection) == (1011, b"")

    scene(act, serve)


@pytest.mark.parametrize("text", ["text", "", ["te", "xt"]])
def test_text_is_refused(scene, text):
    async def act(place):
        async with place.open() as connection:
            await connection.send(text)
            assert (await closing(connection))[0] == 1003

    scene(act, echo)


def test_a_message_that_is_too_large_is_refused_and_the_largest_passes(scene):
    async def act(place):
        async with place.open() as connection:
            await connection.send(b"x" * websocket.MESSAGE_BYTES)
            got = 0
            while got < websocket.MESSAGE_BYTES:
                got += len(await connection.recv())
            await connection.send(b"x" * (websocket.MESSAGE_BYTES + 1))
            assert await closing(connection) == (1009, b"")

    scene(act, echo)


def test_where_nothing_passes_a_websocket_is_closed(scene):
    async def act(place):
        async with place.open() as connection:
            for _ in range(6):
                await connection.send(b"x")
                await asyncio.sleep(0.1)
            assert (await closing(connection))[0] == 1008

    scene(act, echo, idle_s=0.3)


def test_what_a_caller_sent_reaches_the_program_before_its_end(scene):
    sent = os.urandom(200_000)
    read = []

    async def serve(reader, writer):
        # Not before the caller has gone.
        reader._transport.pause_reading()
        await went.wait()
        reader._transport.resume_reading()
        read.append(await reader.read())
        done.set()

    async def act(place):
        async with place.open() as connection:
            await connection.send(sent)
        went.set()
        await asyncio.wait_for(done.wait(), 30)
        assert read == [sent]

    went, done = asyncio.Event(), asyncio.Event()
    scene(act, serve)


def test_a_caller_that_never_reads_holds_the_program_up_and_is_cut(scene, monkeypatch):
    monkeypatch.setattr(websocket, "STALL_SECONDS", 0.5)
    flood = Flood(b"", b"x" * MIB)

    async def act(place):
        connection = await place.open(max_queue=1)
        await connection.send(b"\r\n\r\n")
        await asyncio.wait_for(flood.ended.wait(), 30)
        assert flood.bytes < HELD_BYTES
        connection.transport.abort()

    scene(act, flood)


UPGRADE = (
    b"GET @ HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


def test_pings_are_not_answered_into_memory(scene, monkeypatch):
    monkeypatch.setattr(websocket, "STALL_SECONDS", 60)
    ping = b"\x89\xfd" + bytes(4) + b"x" * 125

    async def act(place):
        reader, writer = await place.connect(UPGRADE)
        assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
        reader._transport.pause_reading()
        sent = await _send_all_that_is_taken(writer, ping * 8000)
        assert sent < HELD_BYTES
        writer.transport.abort()

    scene(act, echo)


def test_many_tiny_messages_to_a_program_that_does_not_read_are_not_kept(scene):
    tiny = b"\x82\xa0" + bytes(4) + b"x" * 32

    async def serve(reader, writer):
        reader._transport.pause_reading()
        await asyncio.Event().wait()

    async def act(place):
        reader, writer = await place.connect(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        sent = await _send_all_that_is_taken(writer, tiny * 20_000)
        assert sent < HELD_BYTES
        writer.transport.abort()

    scene(act, serve)


def test_a_caller_that_does_not_answer_pings_is_cut(scene, monkeypatch):
    ended = asyncio.Event()

    async def serve(reader, writer):
        await gone(reader)
        ended.set()

    async def act(place):
        _, writer = await place.connect(UPGRADE)
        await asyncio.wait_for(ended.wait(), 30)
        writer.close()

    scene(act, serve, ping_s=0.1)


def test_a_websocket_elsewhere_is_refused(scene):
    async def act(place):
        for path in ("/v1/run", "/healthz", "/v1/jobs/x/ports/1/"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(place.url.replace("http:", "ws:") + path, proxy=None)
            assert refused.value.response.status_code in (403, 404)

    scene(act, echo)
