"""Published ports, before programs that do what they like: each is a server here, on loopback, that a test gives.

The application is that of the session's engine, served as `jail serve` serves it. tests/api/test_publish.py has
the same with programs in sandboxes.
"""

import asyncio
import base64
import hashlib
import itertools
import os
import secrets
import socket
import struct
from contextlib import asynccontextmanager

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
def scene(jail):
    """Run `act(place)` before a program: `serve(reader, writer)`, called for each connection."""

    async def run(act, serve, *, wait_s=60, idle_s=60):
        engine = jail.engine
        application = build(engine, engine.settings, Metrics(engine, Table(1), 0))
        (forward,) = (route for route in application.routes if isinstance(route, Forward))
        forward.wait_s, forward.idle_s = wait_s, idle_s
        async with _served(application) as url, _program(serve) as dial:
            job = secrets.token_hex(16)
            async with engine.published.publish(job, {PORT: dial}):
                await act(Place(url, job, forward))
            assert engine.published.connections == 0

    return lambda act, serve, **options: jail.do(run(act, serve, **options))


@asynccontextmanager
async def _served(application):
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(configure(application, timeout_graceful_shutdown=2))
    with listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0)
        try:
            yield "http://{}:{}".format(*listener.getsockname())
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def _program(serve):
    """What dials it. Its connections are closed when `serve` is done with them, or by its return value aborted."""

    async def handle(reader, writer):
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def dial():
        end = socket.socket()
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


def test_a_request_reaches_the_program_as_it_was_sent(scene):
    seen = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append((head, await reader.readexactly(5)))
        writer.write(HTTP + b"Content-Length: 0\r\n\r\n")

    async def act(place):
        reader, writer = await place.connect(
            b"PATCH @a%2Fb/../c//;d?x=%20&y HTTP/1.1\r\nHost: service\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello"
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
        **{"Authorization": "Bearer key", "Cookie": "session=1", "Proxy-Authorization": "Basic x"},
        **{"Forwarded": "for=1.2.3.4", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Anything": "x"},
        **{
            "X-Real-IP": "1.2.3.4",
            "Via": "1.1 x",
            "Connection": "X-Hop, close",
            "X-Hop": "x",
            "TE": "trailers",
        },
        **{"Keep-Alive": "timeout=5", "Expect": "100-continue", "Trailer": "x"},
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
        **{
            "set-cookie": "session=1",
            "service-worker-allowed": "/",
            "strict-transport-security": "max-age=9",
        },
        **{
            "clear-site-data": '"*"',
            "alt-svc": 'h3=":1"',
            "x-accel-redirect": "/secret",
            "x-sendfile": "/etc",
        },
        **{"www-authenticate": "Basic", "refresh": "0; url=/", "report-to": "{}", "nel": "{}", "x-own": "x"},
        **{"access-control-allow-credentials": "true", "keep-alive": "timeout=9", "date": "never"},
        **{"connection": "x-hop, content-length", "x-hop": "1", "location": "/v1/run", "server": "x"},
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
        # RFC 9112, section 6.3: it is chunked.
        ("GET", HTTP + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", (200, b"ok", None)),
        ("GET", HTTP + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX: y\r\n\r\n", (200, b"ok", None)),
        ("GET", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 8 + HTTP + b"Content-Length: 2\r\n\r\nok", (200, b"ok", "2")),
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
    "too many interim answers": b"HTTP/1.1 100 Go\r\n\r\n" * 9 + HTTP + b"\r\n",
    "a flood of interim answers": b"HTTP/1.1 100 Go\r\n\r\n" * 100_000,
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
    "a chunk of too many digits": HTTP + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n",
    "no last chunk": HTTP + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    "an endless size of a chunk": HTTP + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 100_000,
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
