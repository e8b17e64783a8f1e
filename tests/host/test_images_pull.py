"""Pulling from registries: a real one, one behind a broken line, and ones that lie."""

import base64
import ctypes
import ctypes.util
import gzip
import hashlib
import io
import json
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from unittest.mock import ANY
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from registry import Registry, needed

from jail.errors import ImageError, StoreFullError
from jail.images import credentials, oci, pull, registry
from jail.images.credentials import Credentials
from jail.images.oci import Index, Manifest, Platform, RootFs
from jail.images.reference import parse
from jail.images.registry import Repository
from jail.images.store import Store

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
USER = Credentials("tester", "pass:word")
LAYER_BYTES = 3 << 20
DEADLINE_S = 60


# Images


def tar_of(name, content):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        about = tarfile.TarInfo(name)
        about.size = len(content)
        archive.addfile(about, io.BytesIO(content))
    return made.getvalue()


def digest(raw):
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


class Made:
    """An image as a registry has it: `blobs` by digest, `manifest` its bytes."""

    def __init__(self, *contents, platform=None):
        platform = platform or oci.host_platform()
        tars = [tar_of(f"file{len(content)}", content) for content in contents]
        layers = [gzip.compress(raw, 1, mtime=0) for raw in tars]
        self.config = oci.encode(
            oci.Config(
                architecture=platform.architecture,
                os=platform.os,
                rootfs=RootFs(diff_ids=tuple(digest(raw) for raw in tars)),
            )
        )
        self.blobs = {digest(raw): raw for raw in (self.config, *layers)}
        self.layers = [digest(raw) for raw in layers]
        self.platform = platform
        self.manifest = oci.encode(
            Manifest(
                media_type=MANIFEST,
                config=oci.describe(self.config, oci.CONFIG_TYPE),
                layers=tuple(oci.describe(raw, f"{oci.LAYER_TYPE}+gzip") for raw in layers),
            )
        )
        self.digest = digest(self.manifest)

    def descriptor(self, name=None):
        found = oci.describe(self.manifest, MANIFEST)
        notes = {oci.REFERENCE_NAME: name} if name else None
        return msgspec.structs.replace(found, annotations=notes, platform=self.platform)


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="module")
def image():
    return Made(noise(LAYER_BYTES), noise(1000, 1), noise(70_000, 2), noise(1000, 1))


def write_layout(directory, images, entries):
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (directory / "oci-layout").write_bytes(oci.LAYOUT)
    for made in images:
        for name, raw in (*made.blobs.items(), (made.digest, made.manifest)):
            (blobs / name.partition(":")[2]).write_bytes(raw)
    (directory / "index.json").write_bytes(oci.encode(Index(manifests=tuple(entries))))


# The registry


@pytest.fixture(scope="module")
def real(tmp_path_factory, image):
    directory = tmp_path_factory.mktemp("registry")
    found = Registry(directory)
    try:
        layout = directory / "layout"
        write_layout(layout, [image], [image.descriptor("13")])
        found.fill(layout, "13", "tools/gcc:13")
        yield found
    finally:
        found.close()


# Servers of the test


class Seen(NamedTuple):
    path: str
    headers: Message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # A handler is its connection's, and the next request's as well.
        self.server.seen.append(Seen(self.path, self.headers))
        try:
            self.server.answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_POST = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_):
        pass

    def reply(self, status=200, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def cut(self):
        """End the connection without another word."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def until_gone(self):
        """Wait until the other side is."""
        self.connection.settimeout(DEADLINE_S)
        while self.connection.recv(4096):
            pass
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Answers each request with `answer`, and remembers it in `seen`."""

    daemon_threads = False

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.seen = []
        self.port = self.server_address[1]
        self.authority = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def handle_error(self, *_):
        """Clients that go away are what these tests are about."""

    def paths(self, part=""):
        return [each.path for each in self.seen if part in each.path]

    def close(self):
        self.shutdown()
        self._thread.join()
        self.server_close()


@pytest.fixture
def serve_answers():
    with ExitStack() as stack:

        def start(answer):
            server = Server(answer)
            stack.callback(server.close)
            return server

        yield start


def passing_on(upstream):
    """An answer that is another registry's."""

    def answer(handler):
        headers = {
            name: handler.headers[name]
            for name in ("Range", "Accept", "Accept-Encoding")
            if name in handler.headers
        }
        request = urllib.request.Request(f"http://{upstream}{handler.path}", headers=headers)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            kept = ("Content-Type", "Content-Range", "Docker-Content-Digest")
            told = {name: response.headers[name] for name in kept if name in response.headers}
            handler.reply(response.status, response.read(), **told)

    return answer


def keeping(image, changes=None):
    """An answer of a registry that has one image; `changes`: other answers, by the end of the path."""

    def answer(handler):
        wanted = handler.path.rpartition("/")[2]
        if (changes or {}).get(wanted):
            return changes[wanted](handler)
        if "/manifests/" in handler.path:
            return handler.reply(200, image.manifest, Content_Type=MANIFEST)
        return handler.reply(200, image.blobs[wanted])

    return answer


# Pulling


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "images") as found:
        yield found


@pytest.fixture
def pulled(store):
    """Fetch from a server into the store."""

    def fetch(server, rest="tools/gcc:13", platform=None, into=None, **options):
        options = {"insecure": True, "pause_s": 0.001, **options}
        with Repository(parse(f"{server.authority}/{rest}"), **options) as repository:
            return pull.fetch(into or store, repository, platform or oci.host_platform())

    return fetch


def read(store, descriptor):
    with open(store.blobs.open(descriptor), "rb") as file:
        return file.read()


def assert_whole(store, found, image):
    assert found.digest == image.digest
    manifest = oci.parse_manifest(read(store, found))
    for blob in (manifest.config, *manifest.layers):
        assert read(store, blob) == image.blobs[blob.digest]


def test_an_image_comes_from_a_registry_byte_for_byte(real, pulled, store, image):
    assert_whole(store, pulled(real), image)


@pytest.mark.parametrize("form", ["tools/gcc@{}", "tools/gcc:13@{}", "tools/gcc:wrong@{}"])
def test_an_image_comes_by_digest(real, pulled, store, image, form):
    assert_whole(store, pulled(real, form.format(image.digest)), image)


def test_a_layer_that_is_there_twice_is_asked_for_once(real, pulled, store, image, serve_answers):
    front = serve_answers(passing_on(real.authority))
    assert_whole(store, pulled(front), image)
    assert len(front.paths("/blobs/")) == len(set(front.paths("/blobs/"))) == len(image.blobs)


def test_what_is_there_is_not_asked_for_again(real, pulled, store, image, serve_answers):
    pulled(real)
    front = serve_answers(passing_on(real.authority))
    assert_whole(store, pulled(front), image)
    assert front.paths("/blobs/") == []


@pytest.mark.parametrize("rest", ["tools/gcc:14", "tools/other:13", f"tools/gcc@sha256:{'0' * 64}"])
def test_what_a_registry_does_not_have_is_told(real, pulled, rest):
    with pytest.raises(ImageError, match=f"does not have {real.authority}/{rest}"):
        pulled(real, rest)


@pytest.fixture(scope="module")
def platforms(real, tmp_path_factory):
    """An index of the registry's: images by the platform that each is for."""
    host = oci.host_platform()
    wanted = {
        "other": Platform("s390x", "linux"),
        "newer": Platform(host.architecture, "linux", "v9"),
        "host": host,
    }
    images = {name: Made(name.encode(), platform=platform) for name, platform in wanted.items()}
    index = oci.encode(Index(manifests=tuple(made.descriptor() for made in images.values())))
    layout = tmp_path_factory.mktemp("platforms") / "layout"
    write_layout(layout, images.values(), [oci.describe(index, INDEX)])
    (layout / "blobs" / "sha256" / digest(index).partition(":")[2]).write_bytes(index)
    named = msgspec.structs.replace(oci.describe(index, INDEX), annotations={oci.REFERENCE_NAME: "all"})
    (layout / "index.json").write_bytes(oci.encode(Index(manifests=(named,))))
    real.fill(layout, "all", "many:1", "--all")
    return images, digest(index)


@pytest.mark.parametrize("by_digest", [False, True])
def test_of_an_index_the_manifest_for_this_host_comes(real, platforms, pulled, store, by_digest):
    images, index = platforms
    assert_whole(store, pulled(real, f"many@{index}" if by_digest else "many:1"), images["host"])


def test_of_an_index_the_variant_that_is_named_comes(real, platforms, pulled, store):
    images, _ = platforms
    wanted = pull.parse_platform(f"linux/{oci.host_platform().architecture}/v9")
    assert_whole(store, pulled(real, "many:1", wanted), images["newer"])


def test_a_platform_that_is_not_there_is_told_with_those_that_are(real, platforms, pulled):
    with pytest.raises(
        ImageError, match=r"No image of the index is for plan9/mips; there are: .*linux/s390x"
    ):
        pulled(real, "many:1", pull.parse_platform("plan9/mips"))


def test_another_host_s_image_is_refused_before_its_layers_come(real, platforms, pulled, serve_answers):
    front = serve_answers(passing_on(real.authority))
    with pytest.raises(ImageError, match="The image is for linux/s390x, and this host is"):
        pulled(front, "many:1", pull.parse_platform("linux/s390x"))
    assert len(front.paths("/blobs/")) == 1


# Logging in


def bcrypt(password):
    """As htpasswd(1) has it: crypt(5)."""
    name = ctypes.util.find_library("crypt")
    if name is None:
        pytest.skip("the host has no libcrypt")
    crypt = ctypes.CDLL(name).crypt
    crypt.restype = ctypes.c_char_p
    return crypt(password.encode(), b"$2b$05$abcdefghijklmnopqrstuu").decode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, image):
    """A registry that wants basic authentication."""
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "htpasswd").write_text(f"{USER.user}:{bcrypt(USER.password)}\n")
    found = Registry(directory, f"auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}\n")
    try:
        write_layout(directory / "layout", [image], [image.descriptor("13")])
        found.fill(directory / "layout", "13", "tools/gcc:13", "--dest-creds", f"{USER.user}:{USER.password}")
        yield found
    finally:
        found.close()


def test_a_registry_that_wants_to_know_who_asks_is_told(guarded, pulled, store, image):
    assert_whole(store, pulled(guarded, credentials=USER), image)


@pytest.mark.parametrize("own", [None, Credentials("tester", "wrong"), Credentials("nobody", "pass:word")])
def test_who_is_not_known_is_denied(guarded, pulled, own):
    with pytest.raises(ImageError, match=r"denies .*tools/gcc:13.*--login or --credentials"):
        pulled(guarded, credentials=own)


def test_credentials_come_from_a_file_of_docker_s(guarded, pulled, store, image, tmp_path):
    file = tmp_path / "config.json"
    pair = base64.b64encode(f"{USER.user}:{USER.password}".encode()).decode()
    file.write_text(
        json.dumps({"auths": {"other.example": {"auth": "eDp5"}, guarded.authority: {"auth": pair}}})
    )
    found = credentials.read(file, guarded.authority, "tools/gcc")
    assert found == USER
    assert_whole(store, pulled(guarded, credentials=found), image)


class TokenService:
    """Answers of a registry that takes tokens, in front of another's, and of what makes them.

    expires_after: so many requests end the tokens that there are.
    """

    def __init__(self, upstream, expires_after=1000):
        self._answer = passing_on(upstream)
        self._left = expires_after
        self._lock = threading.Lock()
        self.realm = None
        self.tokens = set()
        self.asked = []

    def __call__(self, handler):
        if handler.path.startswith("/token"):
            return self.make(handler)
        with self._lock:
            scheme, _, token = handler.headers.get("Authorization", "").partition(" ")
            is_known = scheme == "Bearer" and token in self.tokens
            self._left -= is_known
            if is_known and not self._left:
                self.tokens.clear()
                self._left = 1000
        if is_known:
            return self._answer(handler)
        realm = self.realm or f"http://{handler.headers['Host']}/token?x=1"
        wanted = f'Bearer realm="{realm}",service="the \\"service\\"",scope="repository:*:push,pull"'
        return handler.reply(401, b"{}", WWW_Authenticate=wanted)

    def make(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0))).decode()
        asked = parse_qs(body or urlsplit(handler.path).query)
        self.asked.append((handler.command, handler.headers.get("Authorization"), asked))
        known = handler.headers.get("Authorization") == USER.basic or asked.get("refresh_token") == [
            "lasting"
        ]
        if not known:
            return handler.reply(401, b"{}")
        with self._lock:
            token = f"token-{len(self.asked)}"
            if self._left:
                self.tokens.add(token)
        return handler.reply(200, json.dumps({"token": token, "expires_in": 60}).encode())


SCOPE = {"service": ['the "service"'], "scope": ["repository:tools/gcc:pull"]}


def test_a_token_is_had_once_for_all_blobs_and_for_this_repository_alone(
    real, pulled, store, image, serve_answers
):
    service = TokenService(real.authority)
    assert_whole(store, pulled(serve_answers(service), credentials=USER), image)
    assert service.asked == [("GET", USER.basic, {"x": ["1"], **SCOPE})]


def test_a_token_that_has_expired_is_renewed(real, pulled, store, image, serve_answers):
    service = TokenService(real.authority, expires_after=2)
    assert_whole(store, pulled(serve_answers(service), credentials=USER), image)
    assert len(service.asked) == 2


def test_a_lasting_token_is_traded_for_one_of_the_registry(real, pulled, store, image, serve_answers):
    service = TokenService(real.authority)
    assert_whole(store, pulled(serve_answers(service), credentials=Credentials(identity="lasting")), image)
    grant = {"grant_type": ["refresh_token"], "refresh_token": ["lasting"], "client_id": ["jail"]}
    assert service.asked == [("POST", None, {"x": ["1"], **grant, **SCOPE})] or service.asked == [
        ("POST", None, {**grant, **SCOPE})
    ]


def test_a_token_that_is_given_is_used_as_it_is(real, pulled, store, image, serve_answers):
    service = TokenService(real.authority)
    service.tokens.add("given")
    assert_whole(store, pulled(serve_answers(service), credentials=Credentials(token="given")), image)
    assert service.asked == []


def test_who_gets_no_token_is_denied(real, pulled, serve_answers):
    with pytest.raises(ImageError, match=r"denies .*no token, 401"):
        pulled(serve_answers(TokenService(real.authority)))


def test_a_token_that_is_never_enough_is_no_endless_loop(real, pulled, serve_answers):
    service = TokenService(real.authority, expires_after=0)
    with pytest.raises(ImageError, match="denies"):
        pulled(serve_answers(service), credentials=USER)
    assert len(service.asked) <= 2


def test_credentials_do_not_go_to_another_host_over_plain_http(real, pulled, serve_answers):
    service = TokenService(real.authority)
    elsewhere = serve_answers(service)
    service.realm = f"http://localhost:{elsewhere.port}/token"
    with pytest.raises(ImageError, match="leads to http://localhost, which is not safe"):
        pulled(serve_answers(service), credentials=USER)
    assert elsewhere.seen == []


@pytest.mark.parametrize("token", ["a b", "a\nX-Other: 1", "ä", "", "t" * (1 << 20)])
def test_a_token_that_no_header_can_have_is_refused(pulled, serve_answers, token):
    def answer(handler):
        if handler.path.startswith("/token"):
            return handler.reply(200, json.dumps({"token": token}).encode())
        realm = f'Bearer realm="http://{handler.headers["Host"]}/token"'
        return handler.reply(401, WWW_Authenticate=realm)

    with pytest.raises(ImageError, match=r"token is not one that a header can have|is longer than"):
        pulled(serve_answers(answer))


# Lines that break


def broken_after(size, whole):
    """An answer that ends before its end."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(whole)))
        handler.end_headers()
        handler.wfile.write(whole[:size])
        handler.cut()

    return answer


def big(image):
    return image.layers[0], image.blobs[image.layers[0]]


def once(first, then):
    """One answer, and then others."""
    left = [first]
    return lambda handler: (left.pop() if left else then)(handler)


def ranges(server, name):
    return [each.headers.get("Range") for each in server.seen if each.path.endswith(name)]


def test_a_broken_download_goes_on_where_it_was(real, pulled, store, image, serve_answers):
    name, whole = big(image)
    through = passing_on(real.authority)
    broken = once(broken_after(LAYER_BYTES // 2, whole), through)
    front = serve_answers(lambda handler: (broken if handler.path.endswith(name) else through)(handler))
    assert_whole(store, pulled(front), image)
    first, second = ranges(front, name)
    assert first is None
    # What was sent last may be lost when a connection ends.
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= LAYER_BYTES // 2


def in_pieces(whole, size):
    """An answer that goes on where it is asked to, and breaks off after so many bytes."""

    def piece(handler):
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(whole) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        handler.end_headers()
        handler.wfile.write(whole[start : start + size])
        handler.cut()

    return piece


def test_a_line_that_breaks_all_the_time_brings_all_in_the_end(pulled, store, serve_answers):
    made = Made(noise(12 << 20))
    name, whole = big(made)

    server = serve_answers(keeping(made, {name: in_pieces(whole, 3 << 19)}))
    assert_whole(store, pulled(server), made)
    assert len(ranges(server, name)) > registry.ATTEMPTS


def test_a_line_that_brings_next_to_nothing_is_given_up(pulled, image, serve_answers):
    name, whole = big(image)

    server = serve_answers(keeping(image, {name: in_pieces(whole, 100)}))
    with pytest.raises(ImageError, match=f"failed {registry.ATTEMPTS} times"):
        pulled(server)
    assert len(ranges(server, name)) == registry.ATTEMPTS


def test_a_registry_that_knows_no_ranges_sends_all_again(pulled, store, image, serve_answers):
    name, whole = big(image)
    broken = once(broken_after(LAYER_BYTES // 2, whole), lambda handler: handler.reply(200, whole))
    assert_whole(store, pulled(serve_answers(keeping(image, {name: broken}))), image)


@pytest.mark.parametrize("shift", ["bytes 5-9/10", "bytes {0}-{2}/7", "nonsense", None])
def test_another_range_than_asked_for_is_not_taken(pulled, store, image, serve_answers, shift):
    name, whole = big(image)

    def other(handler):
        start = int(handler.headers["Range"][6:-1])
        told = shift and shift.format(start, 0, len(whole) - 1)
        handler.reply(206, whole[start:], Content_Range=told)

    answers = [lambda handler: handler.reply(200, whole), other, broken_after(LAYER_BYTES // 2, whole)]
    assert_whole(
        store, pulled(serve_answers(keeping(image, {name: lambda handler: answers.pop()(handler)}))), image
    )


def test_what_was_damaged_between_two_pulls_is_fetched_anew(real, pulled, store, image):
    wanted = oci.parse_manifest(image.manifest).layers[0]
    with pytest.raises(ImageError, match="ends after 1000 of"), store.receive(wanted) as incoming:
        incoming.write(bytes(1000))
    assert_whole(store, pulled(real), image)


PULL = """
import sys
from pathlib import Path
from jail.images import oci, pull
from jail.images.reference import parse
from jail.images.registry import Repository
from jail.images.store import Store
with Store(Path(sys.argv[1])) as store, Repository(parse(sys.argv[2]), insecure=True) as repository:
    print(pull.fetch(store, repository, oci.host_platform()).digest)
"""


def test_a_pull_that_was_killed_goes_on_where_it_was(
    real, pulled, tmp_path, image, serve_answers, environment
):
    name, whole = big(image)
    through = passing_on(real.authority)
    reached = threading.Event()

    def stuck(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(whole)))
        handler.end_headers()
        handler.wfile.write(whole[: LAYER_BYTES // 2])
        reached.set()
        handler.until_gone()

    first = once(stuck, through)
    front = serve_answers(lambda handler: (first if handler.path.endswith(name) else through)(handler))
    command = [sys.executable, "-P", "-c", PULL, tmp_path / "own", f"{front.authority}/tools/gcc:13"]
    process = subprocess.Popen(command, env=environment, cwd="/", stdout=subprocess.DEVNULL)
    try:
        assert reached.wait(DEADLINE_S)
        partial = tmp_path / "own" / "incoming" / name.partition(":")[2]
        # Some of what was sent has to arrive before there is anything to go on from.
        wait_until(lambda: partial.exists() and partial.stat().st_size > LAYER_BYTES // 4)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with Store(tmp_path / "own") as store:
        assert_whole(store, pulled(front, into=store), image)
    assert int(ranges(front, name)[1].removeprefix("bytes=").removesuffix("-")) > LAYER_BYTES // 4


def wait_until(holds):
    for _ in range(DEADLINE_S * 100):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError


@pytest.fixture
def start(environment, state):
    """Start a pull whose end does not matter; what comes back is the process."""
    running = []

    def begin(server):
        command = [sys.executable, "-P", "-m", "jail", "image", "pull", "--insecure"]
        process = subprocess.Popen(
            [*command, f"{server.authority}/tools/gcc:13"],
            env={**environment, "JAIL_STATE": str(state)},
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("moment", ["manifest", "configuration", "layer", "last byte"])
def test_a_pull_that_is_killed_leaves_nothing_to_be_found(
    start, command, state, image, serve_answers, moment
):
    reached = threading.Event()
    process = None

    def last(handler):
        answer(handler)
        reached.set()

    def killed(handler):
        reached.set()
        handler.until_gone()

    answer = keeping(image)
    place = {"manifest": "13", "configuration": digest(image.config)}.get(moment, big(image)[0])
    server = serve_answers(keeping(image, {place: last if moment == "last byte" else killed}))
    process = start(server)
    assert reached.wait(DEADLINE_S)
    process.kill()
    process.wait()
    assert json.loads(command("ls", "--json").stdout) in (
        {"images": found, "damaged": []} for found in ([], [ANY])
    )
    server.answer = answer
    assert command("pull", "--insecure", f"{server.authority}/tools/gcc:13").stdout.startswith(image.digest)
    assert len(list((state / "images" / "layers").iterdir())) == len(image.layers)
    assert {path.name for path in (state / "images" / "incoming").iterdir()} == set()


def test_a_pull_that_is_interrupted_ends_at_once(start, image, serve_answers):
    """Not when a registry that has nothing to say would be given up."""
    reached = threading.Event()

    def stuck(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(image.blobs[big(image)[0]])))
        handler.end_headers()
        reached.set()
        handler.until_gone()

    process = start(serve_answers(keeping(image, {big(image)[0]: stuck})))
    assert reached.wait(DEADLINE_S)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=registry.SILENCE_S / 2)
    assert process.returncode == 1
    assert told.decode().strip() == "Aborted!"


FULL = """
import sys
from pathlib import Path
from jail.errors import StoreFullError
from jail.images import oci, pull
from jail.images.reference import parse
from jail.images.registry import Repository
from jail.images.store import Store

def fetch():
    with Store(Path(sys.argv[1])) as store, Repository(parse(sys.argv[2]), insecure=True) as repository:
        print(pull.fetch(store, repository, oci.host_platform()).digest)

try:
    fetch()
except StoreFullError as error:
    print(error.cause)
with Store(Path(sys.argv[1])) as store:
    print(store.stored())
Path(sys.argv[1], "../other").unlink()
fetch()
"""


def test_a_disk_that_is_full_is_told_and_no_matter_afterwards(real, image, tmp_path, environment):
    needed("unshare")
    place = tmp_path / "small"
    place.mkdir()
    script = (
        f'mount -t tmpfs -o size=9m none {place} && head -c 7M /dev/zero >{place}/other && exec "$0" "$@"'
    )
    inner = [sys.executable, "-P", "-c", FULL, f"{place}/store", f"{real.authority}/tools/gcc:13"]
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, *inner]
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr
    full, stored, digest = done.stdout.splitlines()
    assert full == "The disk of the store is full: No space left on device."
    assert (stored, digest) == ("[]", image.digest)


def test_two_who_pull_the_same_at_once_share_one_download(real, pulled, tmp_path, image, serve_answers):
    front = serve_answers(passing_on(real.authority))

    def one(_):
        with Store(tmp_path / "shared") as store:
            assert_whole(store, pulled(front, into=store), image)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(2)))
    assert len(front.paths("/blobs/")) == len(image.blobs)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("what", ["13", "layer"])
def test_what_may_pass_is_tried_again(pulled, store, image, serve_answers, status, what):
    name = big(image)[0] if what == "layer" else what
    busy = [lambda handler: handler.reply(status)] * 3

    def answer(handler):
        later = busy and handler.path.endswith(name)
        (busy.pop() if later else keeping(image))(handler)

    assert_whole(store, pulled(serve_answers(answer)), image)


def test_a_registry_that_never_answers_is_given_up(pulled, serve_answers):
    server = serve_answers(lambda handler: handler.reply(503, b'{"errors": [{"message": "so\\u0007rry"}]}'))
    with pytest.raises(ImageError, match=r"failed 6 times: it answers 503, 'sorry'\..*Try again later"):
        pulled(server)
    assert len(server.seen) == registry.ATTEMPTS


def test_a_registry_says_how_long_to_wait_but_not_too_long(serve_answers, monkeypatch, image):
    pauses = []
    with Repository(parse("registry.example/tools/gcc")) as repository:
        monkeypatch.setattr(repository._stopped, "wait", pauses.append)
        answers = [lambda: 1, *(_raiser(registry._PassingError("busy", asked)) for asked in (9e5, 7, 0))]
        assert repository._patiently(lambda: answers.pop()()) == 1
    first, second, third = pauses
    assert 0.3 < first < 0.7
    assert second == 7
    assert third == registry.PAUSE_S_MAX


def _raiser(error):
    def answer():
        raise error

    return answer


def test_nobody_there_is_told(pulled, serve_answers):
    server = serve_answers(None)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server.authority = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ImageError, match=r"failed 6 times: .*refused"):
            pulled(server)


def test_what_comes_too_slowly_is_given_up(pulled, image, serve_answers, monkeypatch):
    monkeypatch.setattr(registry, "PACE_S", 0)
    name, _ = big(image)

    def trickle(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(image.blobs[name])))
        handler.end_headers()
        handler.wfile.write(b"x")
        handler.until_gone()

    with pytest.raises(ImageError, match=r"only 1 bytes came in \d+ seconds"):
        pulled(serve_answers(keeping(image, {name: trickle})))


def test_an_answer_that_never_comes_to_its_end_is_given_up(pulled, image, serve_answers, monkeypatch):
    monkeypatch.setattr(registry, "ANSWER_S", 0.1)

    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        with suppress(OSError):
            for _ in range(DEADLINE_S * 1000):
                handler.wfile.write(b"a: b\r\n")
                threading.Event().wait(0.001)
        handler.close_connection = True

    server = serve_answers(keeping(image, {"13": drip}))
    with pytest.raises(ImageError, match="failed 6 times"):
        pulled(server)
    assert len(server.seen) == registry.ATTEMPTS


def stuck_and_gone(image):
    """Answers of which one never ends, and another, after it, is a refusal."""
    name, whole = big(image)
    began = threading.Event()

    def stuck(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(whole)))
        handler.end_headers()
        handler.wfile.flush()
        began.set()
        handler.until_gone()

    def gone(handler):
        assert began.wait(DEADLINE_S)
        handler.reply(404)

    return keeping(image, {name: stuck, image.layers[1]: gone})


def test_a_blob_that_fails_ends_the_others(pulled, image, serve_answers, monkeypatch):
    """They would not end by themselves."""
    monkeypatch.setattr(registry, "SILENCE_S", 10 * DEADLINE_S)
    begun = time.monotonic()
    with pytest.raises(ImageError, match="does not have"):
        pulled(serve_answers(stuck_and_gone(image)))
    assert time.monotonic() - begun < DEADLINE_S / 2


# Registries that lie


def test_a_manifest_of_another_digest_is_refused(pulled, image, serve_answers):
    other = Made(b"other")
    server = serve_answers(keeping(other))
    with pytest.raises(ImageError, match=f"What should be {image.digest} is {other.digest}"):
        pulled(server, f"tools/gcc@{image.digest}")


def test_a_tag_s_manifest_that_is_not_what_it_says_is_refused(pulled, image, serve_answers):
    def answer(handler):
        handler.reply(200, image.manifest, Content_Type=MANIFEST, Docker_Content_Digest=f"sha256:{'0' * 64}")

    with pytest.raises(ImageError, match="What should be sha256:0000"):
        pulled(serve_answers(answer))


def endless(handler):
    handler.send_response(200)
    handler.send_header("Content-Type", MANIFEST)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    while True:
        handler.wfile.write(chunk)


def test_an_endless_manifest_is_refused(pulled, serve_answers):
    with pytest.raises(ImageError, match="is longer than 4194304 bytes"):
        pulled(serve_answers(endless))


def test_an_endless_blob_ends_at_its_size(pulled, image, serve_answers, store):
    with pytest.raises(ImageError, match=f"is longer than its {len(big(image)[1])} bytes"):
        pulled(serve_answers(keeping(image, {big(image)[0]: endless})))
    assert not blob_path(store, big(image)[0]).exists()


def blob_path(store, name):
    return store.directory / "blobs" / "sha256" / name.partition(":")[2]


@pytest.mark.parametrize("which", ["layer", "config"])
def test_a_blob_of_another_digest_is_not_kept(pulled, image, serve_answers, store, which):
    name = big(image)[0] if which == "layer" else digest(image.config)
    forged = bytes(len(image.blobs[name]))
    server = serve_answers(keeping(image, {name: lambda handler: handler.reply(200, forged)}))
    with pytest.raises(ImageError, match=f"What should be {name} is {digest(forged)}"):
        pulled(server)
    assert not blob_path(store, name).exists()
    assert_whole(store, pulled(serve_answers(keeping(image))), image)


@pytest.mark.parametrize("change", [1, -1])
def test_a_blob_of_another_length_is_refused(pulled, image, serve_answers, change):
    name, whole = big(image)
    other = whole + b"x" if change > 0 else whole[:-1]
    server = serve_answers(keeping(image, {name: lambda handler: handler.reply(200, other)}))
    with pytest.raises(ImageError, match=f"{name} comes with {len(other)} bytes"):
        pulled(server)


def test_a_manifest_that_is_longer_than_the_index_says_is_refused(pulled, image, serve_answers):
    entry = msgspec.structs.replace(image.descriptor(), size=len(image.manifest) - 1)
    index = oci.encode(Index(manifests=(entry,)))
    server = serve_answers(
        keeping(image, {"13": lambda handler: handler.reply(200, index, Content_Type=INDEX)})
    )
    with pytest.raises(ImageError, match=f"and the index of .* says {len(image.manifest) - 1} of"):
        pulled(server)


def test_indexes_that_lead_to_indexes_are_followed_only_so_far(pulled, image, serve_answers):
    chain, entry = {}, image.descriptor()
    for _ in range(pull.DEPTH_MAX + 1):
        raw = oci.encode(Index(manifests=(entry,)))
        chain[digest(raw)] = raw
        entry = msgspec.structs.replace(oci.describe(raw, INDEX), platform=image.platform)
    answers = {
        name: lambda handler, raw=raw: handler.reply(200, raw, Content_Type=INDEX)
        for name, raw in chain.items()
    }
    answers["13"] = answers[entry.digest]
    with pytest.raises(ImageError, match="leads from index to index"):
        pulled(serve_answers(keeping(image, answers)))


@pytest.mark.parametrize(
    "media_type", ["text/html", "application/vnd.docker.distribution.manifest.v1+json", ""]
)
def test_what_is_no_image_is_told_as_such(pulled, serve_answers, image, media_type):
    server = serve_answers(
        lambda handler: handler.reply(200, image.manifest, Content_Type=media_type or None)
    )
    with pytest.raises(
        ImageError, match=re.escape(f"is of the type {media_type!r}, which is not one of images")
    ):
        pulled(server)


def test_what_no_store_may_have_is_refused_before_it_comes(tmp_path, pulled, image, serve_answers):
    server = serve_answers(keeping(image))
    with (
        Store(tmp_path / "small", image_bytes=1000) as small,
        pytest.raises(ImageError, match="The image's archives have"),
    ):
        pulled(server, into=small)
    assert server.paths("/blobs/") == []


def test_a_store_that_has_no_room_says_so(tmp_path, pulled, real):
    with Store(tmp_path / "small", bytes_max=1 << 20) as small, pytest.raises(StoreFullError):
        pulled(real, into=small)


class Chaos:
    """Answers of a registry that goes wrong in every way now and then, the same ways for the same seed."""

    def __init__(self, image, seed):
        self._right = keeping(image)
        self._image = image
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, handler):
        with self._lock:
            way = self._random.choice(self.WAYS)
            share = self._random.random()
        way(self, handler, share)

    def right(self, handler, _):
        self._right(handler)

    def ranged(self, handler, share):
        """What was asked for, from where, as far as it goes."""
        whole = self._whole(handler)
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Type", MANIFEST)
        handler.send_header("Content-Length", str(len(whole) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        handler.end_headers()
        handler.wfile.write(whole[start : start + int(share * 3 * len(whole))])
        handler.cut()

    def silent(self, handler, _):
        handler.cut()

    def busy(self, handler, share):
        handler.reply(429 if share < 0.5 else 502, Retry_After=0)

    def nonsense(self, handler, share):
        handler.wfile.write(random.Random(share).randbytes(int(share * 2000)))
        handler.cut()

    def forged(self, handler, share):
        """Of the right length."""
        whole = bytearray(self._whole(handler))
        if share < 0.25:
            whole[int(share * 4 * len(whole))] ^= 1
        handler.reply(200, bytes(whole), Content_Type=MANIFEST)

    def _whole(self, handler):
        name = handler.path.rpartition("/")[2]
        return self._image.manifest if "/manifests/" in handler.path else self._image.blobs[name]

    WAYS = (right, right, right, ranged, ranged, ranged, silent, busy, nonsense, forged)


def test_whatever_goes_wrong_what_is_kept_is_right(tmp_path, pulled, serve_answers):
    """And in between all comes, now and then."""
    made = Made(noise(200_000), noise(5000, 1), noise(70_000, 2))
    ends = {True: 0, False: 0}
    for seed in range(40):
        server = serve_answers(Chaos(made, seed))
        with Store(tmp_path / str(seed)) as store:
            try:
                assert_whole(store, pulled(server, f"tools/gcc@{made.digest}", into=store), made)
                ends[True] += 1
            except ImageError:
                ends[False] += 1
            for path in (store.directory / "blobs" / "sha256").iterdir():
                assert digest(path.read_bytes()) == f"sha256:{path.name}"
    assert all(ends.values())


# Redirects


def test_blobs_come_from_where_the_registry_redirects_to_without_credentials(
    pulled, store, image, serve_answers
):
    name, whole = big(image)
    # Another port is another origin.
    elsewhere = serve_answers(lambda handler: handler.reply(200, whole))

    def answer(handler):
        if handler.headers.get("Authorization") != USER.basic:
            return handler.reply(401, WWW_Authenticate='Basic realm="x"')
        if handler.path.endswith(name):
            return handler.reply(307, Location=f"http://{elsewhere.authority}/storage?signature=1")
        return keeping(image)(handler)

    assert_whole(store, pulled(serve_answers(answer), credentials=USER), image)
    assert [each.path for each in elsewhere.seen] == ["/storage?signature=1"]
    assert "Authorization" not in elsewhere.seen[0].headers


def test_a_place_elsewhere_that_asks_for_credentials_gets_none(pulled, image, serve_answers):
    elsewhere = serve_answers(lambda handler: handler.reply(401, WWW_Authenticate='Basic realm="x"'))

    def away(handler):
        handler.reply(307, Location=f"http://{elsewhere.authority}/storage")

    with pytest.raises(ImageError, match="denies"):
        pulled(serve_answers(keeping(image, {big(image)[0]: away})), credentials=USER)
    assert [each.headers.get("Authorization") for each in elsewhere.seen] == [None]


def test_redirects_within_the_registry_are_followed(pulled, store, image, serve_answers):
    name, _ = big(image)
    away = {name: lambda handler: handler.reply(302, Location=f"/other/{name}?x")}
    assert_whole(
        store, pulled(serve_answers(lambda h: keeping(image, {} if "?x" in h.path else away)(drop(h)))), image
    )


def drop(handler):
    handler.path = handler.path.partition("?")[0]
    return handler


def test_redirects_that_lead_nowhere_are_given_up(pulled, image, serve_answers):
    server = serve_answers(lambda handler: handler.reply(307, Location=handler.path))
    with pytest.raises(ImageError, match="redirects more than 5 times"):
        pulled(server)
    assert len(server.seen) == registry.REDIRECTS_MAX + 1


@pytest.mark.parametrize(
    "place",
    [
        "http://localhost:{port}/x",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "//user:secret@127.0.0.1:{port}/x",
        "https://",
        "data:,x",
    ],
)
def test_a_redirect_to_what_is_not_safe_is_refused(pulled, image, serve_answers, place):
    elsewhere = serve_answers(lambda handler: handler.reply(200))
    away = {"13": lambda handler: handler.reply(307, Location=place.format(port=elsewhere.port))}
    with pytest.raises(ImageError, match=r"which is not safe|leads to no URL"):
        pulled(serve_answers(keeping(image, away)))
    assert elsewhere.seen == []


# TLS


@pytest.fixture
def secured(serve_answers, image, tmp_path):
    """A registry with TLS, and the file of the authority that says so."""
    needed("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ("-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    command = ["openssl", "req", "-x509", *kind, *subject, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE_S)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = serve_answers(keeping(image))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server, certificate


def test_a_registry_whose_authority_is_unknown_is_not_trusted(secured, pulled):
    with pytest.raises(ImageError, match=r"is not trusted: .*CERTIFICATE_VERIFY_FAILED"):
        pulled(secured[0], insecure=False)
    assert secured[0].seen == []


def test_a_registry_whose_authority_this_host_knows_is_trusted(secured, pulled, store, image, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(secured[1]))
    assert_whole(store, pulled(secured[0], insecure=False), image)


def test_a_blob_that_fails_ends_the_others_over_tls_as_well(secured, pulled, image, monkeypatch):
    monkeypatch.setattr(registry, "SILENCE_S", 10 * DEADLINE_S)
    monkeypatch.setenv("SSL_CERT_FILE", str(secured[1]))
    secured[0].answer = stuck_and_gone(image)
    begun = time.monotonic()
    with pytest.raises(ImageError, match="does not have"):
        pulled(secured[0], insecure=False)
    assert time.monotonic() - begun < DEADLINE_S / 2


def test_plain_http_is_not_spoken_unless_it_is_named(serve_answers, pulled, image):
    server = serve_answers(keeping(image))
    with pytest.raises(ImageError, match=r"does not speak TLS\. .*--insecure"):
        pulled(server, insecure=False)
    assert server.seen == []


# Proxies


def test_proxies_of_the_environment_are_not_used(real, pulled, store, image, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert_whole(store, pulled(real), image)


def test_a_proxy_that_is_named_is_used(real, pulled, store, image, serve_answers):
    def answer(handler):
        place = urlsplit(handler.path)
        handler.path = place.path
        passing_on(place.netloc)(handler)

    proxy = serve_answers(answer)
    assert_whole(store, pulled(real, proxy=f"http://{proxy.authority}"), image)
    assert len(proxy.seen) == 1 + len(image.blobs)


def test_what_is_no_proxy_is_refused():
    with pytest.raises(ImageError, match="'gopher://x' is no proxy"):
        Repository(parse("registry.example/x"), proxy="gopher://x")


# The command


def test_a_pulled_image_is_told_by_the_digest_that_is_stored(real, command, image):
    reference = f"{real.authority}/tools/gcc:13"
    done = command("pull", "--insecure", reference)
    assert done.stdout == f"{image.digest} {reference}\n"
    assert done.stderr == ""
    (listed,) = json.loads(command("ls", "--json").stdout)["images"]
    assert (listed["names"], listed["digest"]) == ([reference], image.digest)


def test_a_pulled_image_can_have_another_name(real, command, image):
    done = command("pull", "--insecure", "--name", "gcc:13", "--json", f"{real.authority}/tools/gcc:13")
    (told,) = json.loads(done.stdout)
    assert (told["names"], told["digest"]) == (["gcc:13"], image.digest)


def test_an_image_pulled_by_digest_alone_has_no_name(real, command, image):
    done = command("pull", "--insecure", f"{real.authority}/tools/gcc@{image.digest}")
    assert done.stdout == f"{image.digest}\n"
    for reference in (done.stdout.strip(), f"{real.authority}/tools/gcc@{image.digest}"):
        assert json.loads(command("inspect", "--json", reference).stdout)["digest"] == image.digest
    command("inspect", f"{real.authority}/tools/gcc@{image.digest[:20]}", status=1)
    command("inspect", f"{real.authority}/tools/gcc@sha256:{'0' * 64}", status=1)


def test_a_digest_means_the_same_image_when_the_tag_means_another(command, image, serve_answers):
    other = Made(b"other")
    server = serve_answers(keeping(image))
    command("pull", "--insecure", reference := f"{server.authority}/tools/gcc:13")
    server.answer = keeping(other)
    command("pull", "--insecure", reference)
    found = {
        each: json.loads(command("inspect", "--json", each).stdout)["digest"]
        for each in (reference, f"{reference}@{image.digest}", f"{reference}@{other.digest}")
    }
    assert list(found.values()) == [other.digest, image.digest, other.digest]


def test_a_name_that_no_image_can_have_is_refused_before_anything_comes(command, serve_answers, image):
    server = serve_answers(keeping(image))
    done = command("pull", "--insecure", "--name", "host", f"{server.authority}/tools/gcc:13", status=1)
    assert "'host' is an image that is always there." in done.stderr
    assert server.seen == []


def test_a_login_is_read_from_stdin(guarded, command, image):
    reference = f"{guarded.authority}/tools/gcc:13"
    done = command("pull", "--insecure", "--login", USER.user, reference, stdin=f"{USER.password}\n")
    assert done.stdout.startswith(image.digest)
    done = command("pull", "--insecure", "--login", USER.user, reference, stdin="wrong\n", status=1)
    assert f"denies {reference}" in done.stderr


def test_what_no_host_can_unpack_is_not_kept(command, serve_answers, state):
    """Its digests match, and one of its layers is no archive."""
    made = Made(b"first", b"second")
    broken = gzip.compress(b"not a tar archive" * 1000, mtime=0)
    layers = oci.parse_manifest(made.manifest).layers
    swapped = oci.describe(broken, layers[1].media_type)
    manifest = msgspec.structs.replace(oci.parse_manifest(made.manifest), layers=(layers[0], swapped))
    made.blobs[swapped.digest] = broken
    made.manifest = oci.encode(manifest)
    server = serve_answers(keeping(made))
    command("prune")
    before = sorted((state / "images").rglob("*"))
    command("pull", "--insecure", f"{server.authority}/tools/gcc:13", status=1)
    assert len(server.paths("/blobs/")) == 3
    assert sorted((state / "images").rglob("*")) == before


def test_what_is_pulled_is_what_other_tools_take(real, command, pulled, store, image, tmp_path):
    command("pull", "--insecure", "--name", "gcc:13", f"{real.authority}/tools/gcc:13")
    command("export", "gcc:13", str(tmp_path / "gcc.tar"))
    target = f"docker://{real.authority}/again:1"
    options = ("--insecure-policy", "copy", "-q", "--dest-tls-verify=false")
    given = f"oci-archive:{tmp_path}/gcc.tar:gcc:13"
    done = subprocess.run(
        ["skopeo", *options, given, target], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr
    assert_whole(store, pulled(real, "again:1"), image)


def test_an_image_in_docker_s_own_form_is_pulled(real, command, image, tmp_path):
    write_layout(tmp_path / "layout", [image], [image.descriptor("13")])
    real.fill(tmp_path / "layout", "13", "tools/docker:13", "--format", "v2s2")
    reference = f"{real.authority}/tools/docker:13"
    command("pull", "--insecure", reference)
    told = json.loads(command("inspect", "--json", reference).stdout)
    assert told["digest"] != image.digest
    assert {layer["media_type"] for layer in told["layers"]} == {
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
    }
    assert [layer["digest"] for layer in told["layers"]] == image.layers


def test_an_image_of_many_layers_is_pulled(command, serve_answers):
    made = Made(*(bytes(number) for number in range(100)))
    server = serve_answers(keeping(made))
    command("pull", "--insecure", f"{server.authority}/tools/gcc:13")
    (listed,) = json.loads(command("ls", "--json").stdout)["images"]
    assert [layer["digest"] for layer in listed["layers"]] == made.layers
    assert len(made.layers) == 100


def test_a_person_sees_a_bar_for_each_blob(real, environment, state, image):
    needed("script")
    inner = f"{sys.executable} -P -m jail image pull --insecure {real.authority}/tools/gcc:13"
    done = subprocess.run(
        ["script", "-qec", inner, "/dev/null"],
        env={**environment, "JAIL_STATE": str(state), "TERM": "xterm", "COLUMNS": "120"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout
    for layer in set(image.layers):
        assert f"receive {layer[:19]}" in done.stdout
    assert "3.1/3.1 MB" in done.stdout
