"""Administering images over HTTP: real archives, a real registry, hostile callers, and what they leave."""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest
import zstandard
from registry import Registry
from rootfs import archive, image, programs

from jail.http.operations import AT_ONCE
from jail.http.problems import MEDIA_TYPE

KEY, JOB_KEY, WRONG_KEY = "an administrator's", "a caller's", "nobody's"

TAR = {"Content-Type": "application/x-tar"}
ROUTES = [
    ("GET", "/v1/images"),
    ("POST", "/v1/images"),
    ("POST", "/v1/images/prune"),
    ("GET", "/v1/images/tree"),
    ("DELETE", "/v1/images/tree"),
    ("GET", "/v1/images/tree/archive"),
]
TREE = {"etc": None, "etc/name": b"here\n", "link": "etc/name"}
NOISE = os.urandom(3 << 20)
IMAGE_BYTES = 64 << 20
DEADLINE_S = 60


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def events(response):
    """All that were told of an operation."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def problem(response):
    assert response.headers["content-type"] == MEDIA_TYPE
    return response.json()


class Administered:
    """A service, a client of it who may administer images, and its store's directory."""

    def __init__(self, service, state):
        self.service = service
        self.store = state / "images"
        self.client = httpx.Client(base_url=service.url, timeout=DEADLINE_S, headers=bearer(KEY))

    def add(self, content, name="", **headers):
        path = f"/v1/images?name={name}" if name else "/v1/images"
        return self.client.post(path, content=content, headers=TAR | headers)

    def pull(self, reference, **body):
        return self.client.post("/v1/images", json={"pull": reference, **body})

    @property
    def listed(self):
        return self.client.get("/v1/images").json()["images"]

    @property
    def names(self):
        return sorted(name for each in self.listed for name in each["names"])

    def clear(self):
        for each in self.listed:
            assert self.client.delete(f"/v1/images/{each['digest']}").status_code == 200

    @property
    def on_their_way(self):
        """What incoming/ has, but for what a pull that was cut can go on with."""
        return [path.name for path in (self.store / "incoming").iterdir() if len(path.name) != 64]

    @property
    def files(self):
        """All that is in the store, but for the layers' trees."""
        places = ("blobs/sha256", "chains", "incoming", "layers")
        return sorted(path.name for place in places for path in (self.store / place).iterdir())

    def open(self, head, *pieces):
        """A connection on which that was sent, and no more will be until somebody does."""
        url = httpx.URL(self.service.url)
        made = socket.create_connection((url.host, url.port), timeout=DEADLINE_S)
        lines = [*head, "Host: jail", f"Authorization: Bearer {KEY}"]
        made.sendall("\r\n".join([*lines, "", ""]).encode() + b"".join(pieces))
        return made

    def upload(self, *pieces, length=1 << 30):
        head = ["POST /v1/images?name=cut HTTP/1.1", "Content-Type: application/x-tar"]
        return self.open([*head, f"Content-Length: {length}"], *pieces)

    def close(self):
        self.client.close()
        self.service.close()


@pytest.fixture(scope="module")
def made(service_class) -> Iterator[Administered]:
    with tempfile.TemporaryDirectory(prefix="jail-state-") as directory:
        state = Path(directory)
        state.chmod(0o711)
        settings = {"JAIL_ADMIN_KEYS_SHA256": f"{sha256('another')},{sha256(KEY)}", "JAIL_SLOTS": "2"}
        settings["JAIL_IMAGE_BYTES"] = str(IMAGE_BYTES)
        with closing(Administered(service_class({"JAIL_STATE": directory, **settings}), state)) as found:
            # What is imported late is open from here on.
            events(found.add(archive(TREE), "tree"))
            found.clear()
            yield found


@pytest.fixture
def administered(serve, state):
    """Start services that have one store, for tests in which they end."""

    def start(**settings):
        service = serve(JAIL_STATE=str(state), JAIL_ADMIN_KEYS_SHA256=sha256(KEY), **settings)
        return Administered(service, state)

    return start


@pytest.fixture
def admin(made, counted, eventually) -> Iterator[Administered]:
    """The module's service; in the end nothing of the test's operations is left."""
    eventually(lambda: not made.service.image_programs)
    before = counted(made.client)["process_open_fds"]
    yield made
    eventually(lambda: not made.service.image_programs)
    eventually(lambda: counted(made.client)["process_open_fds"] <= before)
    assert made.on_their_way == []
    made.clear()
    if made.files:
        # What a pull that was cut can go on with.
        made.client.post("/v1/images/prune")
    assert made.files == []
    assert made.client.get("/readyz").status_code == 200
    log = "".join(made.service.log)
    assert "defect" not in log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with closing(Registry(tmp_path_factory.mktemp("registry"))) as found:
        yield found


@pytest.fixture(scope="module")
def filled(registry):
    """The reference of an image of two layers, the second of some size."""
    registry.fill_from(image(archive(TREE), archive({"noise": NOISE})), "tools/noise:1")
    return f"{registry.authority}/tools/noise:1"


# Who may


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_where_nobody_is_set_nobody_may(client, method, path):
    response = client.request(method, path, headers=bearer(KEY))
    assert response.status_code == 403
    assert "admin_keys_sha256" in problem(response)["detail"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers", [{}, bearer(WRONG_KEY), {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer"}]
)
def test_whoever_shows_no_key_of_an_administrator_is_refused(made, method, path, headers):
    response = httpx.request(method, made.service.url + path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_a_key_for_jobs_is_none_for_images_and_the_other_way_round(serve, state):
    keys = {"JAIL_KEYS_SHA256": sha256(JOB_KEY), "JAIL_ADMIN_KEYS_SHA256": sha256(KEY)}
    service = serve(JAIL_STATE=str(state), **keys)
    for method, path in ROUTES:
        assert httpx.request(method, service.url + path, headers=bearer(JOB_KEY)).status_code == 403
        assert httpx.request(method, service.url + path, headers=bearer(WRONG_KEY)).status_code == 401
    assert httpx.get(f"{service.url}/v1/images", headers=bearer(KEY)).status_code == 200
    body = {"argv": ["true"]}
    assert httpx.post(f"{service.url}/v1/run", json=body, headers=bearer(KEY)).status_code == 401


# What comes


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["tar", "gzip", "zstd"])
@pytest.mark.parametrize("kind", ["application/x-tar", "application/octet-stream; x=y"])
def test_a_tree_that_is_uploaded_becomes_an_image(admin, pack, kind):
    told = events(admin.add(pack(archive(TREE)), "a/tree:1", **{"Content-Type": kind}))
    (added,) = told[-1]["images"]
    assert (told[-1]["event"], added["names"]) == ("done", ["a/tree:1"])
    shown = admin.client.get("/v1/images/a/tree:1").json()
    assert (shown["digest"], shown["names"], shown["entries"]) == (added["digest"], ["a/tree:1"], 3)
    assert admin.client.get(f"/v1/images/{added['digest']}").json() == shown
    assert admin.client.get(f"/v1/images/a/tree:1@{added['digest']}").json() == shown
    assert admin.client.get("/v1/images").json() == {"images": [shown], "damaged": []}


def test_whoever_takes_over_a_name_is_told_whose_it_was(admin):
    (first,) = events(admin.add(archive(TREE), "name:1"))[-1]["images"]
    assert first["replaced"] == {}
    (second,) = events(admin.add(archive({"other": b"1"}), "name:1"))[-1]["images"]
    assert second["replaced"] == {"name:1": first["digest"]}


def test_damaged_images_are_listed_and_can_be_removed(admin):
    (added,) = events(admin.add(archive(TREE), "damaged:1"))[-1]["images"]
    (facts,) = (admin.store / "chains").glob("*.json")
    facts.write_text("no record")
    (told,) = admin.client.get("/v1/images").json()["damaged"]
    assert (told["names"], told["digest"]) == (["damaged:1"], added["digest"])
    assert "damaged" in told["cause"]
    assert problem(admin.client.get("/v1/images/damaged:1"))["status"] == 500
    assert admin.client.delete(f"/v1/images/{told['digest']}").status_code == 200
    assert admin.client.get("/v1/images").json() == {"images": [], "damaged": []}


def test_jobs_run_in_an_image_as_soon_as_it_is_there(administered):
    with closing(administered()) as found:
        body = {"argv": ["echo", "hello"], "image": "here"}
        assert found.client.post("/v1/run", json=body).status_code == 422
        told = events(found.add(archive(programs("echo")), "here"))
        result = found.client.post("/v1/run", json=body).json()
        assert result["stdout"]["text"] == "hello\n"
        assert result["sandbox"]["digest"] == told[-1]["images"][0]["digest"]
        assert found.client.get("/v1/capabilities").json()["images"] == ["host", "here"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_image_is_removed_though_sandboxes_of_it_are_ready(administered, workers):
    with closing(administered(JAIL_WORKERS=workers)) as found:
        found.add(archive(programs("true")), "here")
        # On connections of their own, which any worker takes.
        for _ in range(8):
            told = httpx.post(f"{found.service.url}/v1/run", json={"argv": ["true"], "image": "here"})
            assert told.json()["status"] == "ok"
        assert found.client.delete("/v1/images/here").status_code == 200
        assert (found.names, list((found.store / "layers").iterdir())) == ([], [])


def test_an_image_is_not_removed_while_a_job_runs_in_it(administered, eventually, counted):
    with closing(administered()) as found:
        found.add(archive(programs("sleep")), "here")
        body = json.dumps({"argv": ["sleep", "1000"], "image": "here"}).encode()
        head = ["POST /v1/run HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        with found.open(head, body):
            eventually(lambda: counted(found.client)["jail_running"])
            refused = found.client.delete("/v1/images/here")
            assert refused.status_code == 409
            assert "A job runs in it" in problem(refused)["detail"]
            assert found.names == ["here"]
        eventually(lambda: not counted(found.client)["jail_running"])
        assert found.client.delete("/v1/images/here").status_code == 200


def test_an_archive_of_images_brings_them_in_with_their_names_and_progress_is_told(admin, tmp_path):
    big = archive({"noise": NOISE})
    told = events(admin.add(gzip.compress(image(archive(TREE), big), 1), "both"))
    assert told[-1]["event"] == "done"
    large = [each for each in told if each.get("what") == "unpack" and each["total"] > 1 << 20]
    assert large[-1]["bytes"] == large[-1]["total"]
    (unpacked,) = {each["digest"] for each in large}
    layers = admin.client.get("/v1/images/both").json()["layers"]
    assert unpacked == layers[1]["digest"]


def test_events_are_sent_as_a_browser_takes_them(admin):
    response = admin.add(archive(TREE), "tree", Accept="text/event-stream")
    assert response.headers["content-type"].startswith("text/event-stream")
    *_, last = response.text.split("\n\n")[:-1]
    name, data = last.split("\n")
    assert name == "event: done"
    assert json.loads(data.removeprefix("data: "))["images"][0]["names"] == ["tree"]


@pytest.mark.parametrize(
    ("headers", "path", "content", "status", "field"),
    [
        ({"Content-Type": "text/plain"}, "", b"x", 415, "Content-Type"),
        ({"Content-Type": ""}, "", b"x", 415, "Content-Type"),
        (TAR, "?name=-", b"x", 422, "name"),
        (TAR, "?name=host", b"x", 422, "name"),
        ({"Content-Type": "application/json"}, "", b"{", 422, "body"),
        ({"Content-Type": "application/json"}, "", b'{"pull": "registry.example/a", "x": 1}', 422, "body"),
        ({"Content-Type": "application/json"}, "", b'{"pull": 1}', 422, "body"),
        ({"Content-Type": "application/json"}, "", b'{"pull": ""}', 422, "pull"),
        ({"Content-Type": "application/json"}, "", b'{"pull": "file:///etc"}', 422, "pull"),
        ({"Content-Type": "application/json"}, "", b'{"pull": "r.example/a", "name": "../x"}', 422, "name"),
        ({"Content-Type": "application/json"}, "", b" " * (1 << 17), 413, "body"),
    ],
)
def test_what_is_asked_wrongly_is_refused_by_name(admin, headers, path, content, status, field):
    response = admin.client.post(f"/v1/images{path}", content=content, headers=headers)
    assert (response.status_code, problem(response)["field"]) == (status, field)


BOMB = zstandard.ZstdCompressor().compress(archive({"zeros": bytes(4 * IMAGE_BYTES)}))


def device():
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        about = tarfile.TarInfo("null")
        about.type, about.devmajor, about.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(about)
        tar.addfile(tarfile.TarInfo("file"))
    return made.getvalue()


def liar():
    """An image whose configuration says that its layer is another."""
    raw = image(archive(TREE))
    changed = raw.replace(b"here\n", b"gone\n")
    assert changed != raw
    return changed


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive at all" * 1000,
        BOMB,
        gzip.compress(archive(TREE))[:-20],
        liar(),
        image(archive(TREE))[:4000],
    ],
    ids=["empty", "garbage", "bomb", "cut", "liar", "cut image"],
)
def test_what_cannot_be_an_image_leaves_nothing_and_says_why(admin, content):
    (told,) = [each for each in events(admin.add(content, "hostile")) if each["event"] != "progress"]
    assert (told["event"], told["kind"]) == ("failed", "image")
    assert told["cause"]
    assert told["cure"]
    assert (admin.names, admin.files) == ([], [])


def test_what_the_store_has_no_room_for_is_told_as_that(administered):
    with closing(administered(JAIL_IMAGES_BYTES=str(1 << 20))) as found:
        (told,) = [each for each in events(found.add(archive({"noise": NOISE}), "noise")) if "kind" in each]
        assert (told["event"], told["kind"]) == ("failed", "full")
        assert "images_bytes" in told["cure"]
        assert (found.names, found.files) == ([], [])
        assert events(found.add(archive(TREE), "tree"))[-1]["event"] == "done"


def test_hostile_entries_stay_in_their_layer(admin, tmp_path):
    hostile = {"../../escaped": b"x", "/etc/absolute": b"x", "up": "../../.."}
    told = events(admin.add(archive(hostile), "hostile"))
    if told[-1]["event"] == "done":
        (layer,) = (admin.store / "layers").iterdir()
        assert not (admin.store / "escaped").exists()
        assert not (admin.store / "layers" / "escaped").exists()
        assert (layer / "etc" / "absolute").exists() or (layer / "absolute").exists()
    assert not Path("/etc/absolute").exists()


def test_a_device_is_left_out_and_told(admin):
    events(admin.add(device(), "device"))
    shown = admin.client.get("/v1/images/device").json()
    assert sum(shown["omitted"].values()) == 1


# What is cut


def test_an_upload_that_is_cut_is_no_image_wherever_that_is(admin, eventually):
    whole = archive(TREE)
    for cut in (0, 1, 512, 1024, len(whole) - 1024, len(whole)):
        with admin.upload(whole[:cut], length=len(whole) + 1):
            eventually(lambda: admin.service.image_programs)
        eventually(lambda: not admin.service.image_programs)
        assert (admin.names, admin.files) == ([], [])


def test_an_upload_in_chunks_that_is_cut_is_no_image(admin, eventually):
    whole = archive(TREE)
    head = [
        "POST /v1/images?name=cut HTTP/1.1",
        "Content-Type: application/x-tar",
        "Transfer-Encoding: chunked",
    ]
    with admin.open(head, b"%x\r\n" % len(whole), whole, b"\r\n"):
        eventually(lambda: admin.service.image_programs)
    eventually(lambda: not admin.service.image_programs)
    assert (admin.names, admin.files) == ([], [])


def test_an_upload_that_is_cut_while_it_is_large_gives_its_room_back(admin, eventually):
    raw = archive({"noise": NOISE * 4})
    with admin.upload(raw[: len(raw) // 2], length=len(raw)):
        eventually(lambda: any((admin.store / "incoming").glob("*/.*")))
    eventually(lambda: not admin.service.image_programs)
    assert admin.files == []


def test_an_answer_before_all_is_sent_ends_the_connection(admin):
    told = b""
    # A reset, where it had not read all that was sent: what it said comes before that.
    with admin.upload(b"garbage" * 100_000) as connection, suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            told += piece
    head, _, body = told.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert b'"failed"' in body


# At once


def test_no_more_than_a_few_are_under_way_at_once(admin, eventually):
    with ExitStack() as held:
        for _ in range(AT_ONCE):
            held.enter_context(admin.upload())
        eventually(lambda: len(admin.service.image_programs) == AT_ONCE)
        refused = admin.add(archive(TREE), "fifth")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        # Jobs and those who look need none of them.
        assert admin.client.post("/v1/run", json={"argv": ["true"]}).json()["status"] == "ok"
        assert admin.names == []
    eventually(lambda: not admin.service.image_programs)
    assert events(admin.add(archive(TREE), "fifth"))[-1]["event"] == "done"


def test_what_reads_an_archive_has_given_up_what_it_does_not_need(admin, eventually, processes):
    with admin.upload(archive(TREE)):
        eventually(lambda: admin.service.image_programs)
        (program,) = admin.service.image_programs
        eventually(lambda: processes.status(program)["Seccomp"] == "2")
        status = processes.status(program)
        assert status["NoNewPrivs"] == "1"
        assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
        # What it left behind, too.
        for pid in (program, *processes.children(program)):
            for name in ("environ", "maps"):
                with pytest.raises(PermissionError):
                    Path(f"/proc/{pid}/{name}").read_bytes()


# Registries


def test_an_image_is_pulled_and_jobs_can_name_it(admin, filled):
    told = events(admin.pull(filled, insecure=True, name="noise"))
    (pulled,) = told[-1]["images"]
    shown = admin.client.get("/v1/images/noise").json()
    assert pulled == {"digest": shown["digest"], "names": ["noise"], "replaced": {}}
    by_layer = {layer["digest"]: layer["bytes"] for layer in shown["layers"]}
    received = {each["digest"]: each for each in told if each.get("what") == "receive"}
    assert {name: received[name]["bytes"] for name in by_layer} == by_layer
    assert all(each["total"] == by_layer[name] for name, each in received.items() if name in by_layer)


def test_a_pull_without_a_name_has_the_references(admin, filled):
    events(admin.pull(filled, insecure=True))
    assert admin.names == [filled]
    assert admin.client.delete(f"/v1/images/{filled}").status_code == 200


@pytest.mark.parametrize(
    ("body", "words"), [({}, "TLS"), ({"insecure": True, "platform": "anywhere"}, "no platform")]
)
def test_a_pull_that_fails_says_why(admin, filled, body, words):
    (told,) = events(admin.pull(filled, **body))
    assert (told["event"], told["kind"]) == ("failed", "image")
    assert words in told["cause"] + told["cure"]


def test_an_image_that_the_registry_does_not_have_is_told(admin, registry):
    told = events(admin.pull(f"{registry.authority}/tools/none:1", insecure=True))
    assert [each["event"] for each in told] == ["failed"]
    assert admin.files == []


@pytest.fixture
def stalling():
    """A registry that takes a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_pull_whose_client_goes_away_ends(admin, stalling, eventually, processes):
    body = json.dumps({"pull": f"127.0.0.1:{stalling.getsockname()[1]}/a/b:1", "insecure": True}).encode()
    head = ["POST /v1/images HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    with admin.open(head, body):
        registry_side, _ = stalling.accept()
        (program,) = admin.service.image_programs
        family = [program, *processes.descendants(program)]
    processes.wait_for_end(family)
    with registry_side:
        while registry_side.recv(1 << 16):
            pass


# What goes


def test_what_is_exported_is_what_other_tools_take(admin, tmp_path):
    if shutil.which("skopeo") is None:
        pytest.skip("the host has no skopeo")
    events(admin.add(image(archive(TREE), archive({"more": b"x"})), "both"))
    shown = admin.client.get("/v1/images/both").json()
    response = admin.client.get("/v1/images/both/archive")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-tar")
    file = tmp_path / "image.tar"
    file.write_bytes(response.content)
    inspected = subprocess.run(
        ["skopeo", "inspect", f"oci-archive:{file}"], check=True, capture_output=True, timeout=DEADLINE_S
    )
    assert json.loads(inspected.stdout)["Layers"] == [layer["digest"] for layer in shown["layers"]]
    admin.clear()
    assert events(admin.add(response.content))[-1]["images"] == [
        {"digest": shown["digest"], "names": ["both"], "replaced": {}}
    ]


def test_an_export_whose_client_goes_away_ends(admin, eventually):
    events(admin.add(archive({str(number): NOISE for number in range(8)}), "noise"))
    with admin.open(["GET /v1/images/noise/archive HTTP/1.1"]) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        eventually(lambda: admin.service.image_programs)
    eventually(lambda: not admin.service.image_programs)


def test_head_of_an_archive_says_that_there_is_one(admin):
    events(admin.add(archive(TREE), "tree"))
    assert admin.client.head("/v1/images/tree/archive").status_code == 200
    assert admin.client.head("/v1/images/none/archive").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "none"), ("DELETE", "none"), ("GET", "none/archive"), ("GET", "sha256:" + "0" * 64)],
)
def test_what_is_not_there_is_not_found(admin, method, path):
    response = admin.client.request(method, f"/v1/images/{path}")
    assert response.status_code == 404
    assert problem(response)["detail"]


def test_a_name_that_no_packet_has_room_for_is_not_found(admin):
    # Six bytes in JSON, each.
    name = "%01" * 20_000
    for method, path in (("DELETE", name), ("GET", f"{name}/archive")):
        with admin.open([f"{method} /v1/images/{path} HTTP/1.1"]) as connection:
            assert connection.recv(1 << 16).split()[1] == b"404"


def test_a_pull_that_no_packet_has_room_for_is_refused(admin):
    assert admin.pull("127.0.0.1:1/name", password="p" * 65_350).status_code == 413


def test_a_name_goes_and_with_the_last_one_the_image(admin):
    raw = archive(TREE)
    events(admin.add(raw, "one"))
    events(admin.add(raw, "two"))
    assert admin.names == ["one", "two"]
    assert admin.client.delete("/v1/images/one").json() == {"event": "done", "freed_bytes": 0}
    assert admin.client.delete("/v1/images/two").json()["freed_bytes"] > 0
    assert admin.files == []


def test_nameless_images_are_pruned_when_that_is_asked(admin):
    events(admin.add(archive(TREE), "name"))
    events(admin.add(archive({"other": b"x"}), "name"))
    assert len(admin.client.get("/v1/images").json()["images"]) == 2
    admin.client.post("/v1/images/prune")
    assert len(admin.client.get("/v1/images").json()["images"]) == 2
    assert admin.client.post("/v1/images/prune?nameless=true").json()["freed_bytes"] > 0
    assert len(admin.client.get("/v1/images").json()["images"]) == 1
    assert admin.client.post("/v1/images/prune?nameless=perhaps").status_code == 422


# Ends


@pytest.mark.parametrize("ended", ["keeper", "service"])
def test_operations_die_with_whatever_they_are_of(administered, eventually, processes, ended):
    found = administered()
    service = found.service
    with found.upload(archive(TREE)), found.client:
        eventually(lambda: found.service.image_programs)
        (program,) = found.service.image_programs
        eventually(lambda: processes.children(program))
        family = [program, *processes.descendants(program)]
        os.kill(service.keeper if ended == "keeper" else service.pid, signal.SIGKILL)
        processes.wait_for_end(family)
    service.wait()
    with closing(administered()) as after:
        assert after.names == []
        after.client.post("/v1/images/prune")
        assert after.files == []


def test_a_service_that_is_told_to_stop_ends_its_operations(administered, eventually, processes):
    found = administered(JAIL_DRAIN_MS="0")
    service = found.service
    with found.upload(archive(TREE)), found.client:
        eventually(lambda: found.service.image_programs)
        family = processes.descendants(service.pid)
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        processes.wait_for_end(family)
    assert "Traceback" not in "".join(service.log)


def test_what_one_that_was_taken_over_left_in_the_store_leads_nowhere(administered, tmp_path):
    admin = administered()
    store, outside = admin.store, tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (outside / "file").write_text("mine")
    (store / "layers").rename(store / "chains" / "layers")
    (store / "layers").symlink_to(outside)
    (store / "index.json.new").symlink_to(outside / "file")
    (store / "oci-layout").unlink()
    with closing(admin):
        answer = admin.add(archive(TREE), "tree")
        # It ends before it hears what is sent, and what it said may be lost with that.
        assert answer.status_code == 503 or events(answer)[-1]["kind"] == "host"
    assert outside.stat().st_mode & 0o777 == 0o700
    assert [path.read_text() for path in outside.iterdir()] == ["mine"]


def test_every_worker_administers_the_one_store(administered):
    service = administered(JAIL_WORKERS="2", JAIL_SLOTS="2").service
    for number in range(4):
        # On a connection of its own, which any worker may take.
        url = f"{service.url}/v1/images?name=image{number}"
        raw = archive({"number": str(number).encode()})
        events(httpx.post(url, content=raw, headers=TAR | bearer(KEY), timeout=DEADLINE_S))
    found = httpx.get(f"{service.url}/v1/images", headers=bearer(KEY)).json()["images"]
    assert sorted(name for each in found for name in each["names"]) == [f"image{n}" for n in range(4)]
