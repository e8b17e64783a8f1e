"""Files over HTTP: what is kept of what was sent, who is given it, and what is left of uploads that fail."""

import fcntl
import hashlib
import http.client
import json
import os
import socket
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

MIB = 1 << 20


LEAST = {"JAIL_READY_MIN": "0", "JAIL_READY_MAX": "0"}


@pytest.fixture(scope="module")
def place(service_class):
    """A service of this module's own, and where its files are."""
    with tempfile.TemporaryDirectory(prefix="jail-state-") as directory:
        Path(directory).chmod(0o711)
        with closing(service_class({**LEAST, "JAIL_STATE": directory})) as service:
            yield service, Path(directory, "files")


@pytest.fixture
def files(place):
    """A client of that; afterwards its service has none of the files that the test put."""
    with httpx.Client(base_url=place[0].url, timeout=60) as client:
        yield client
        for each in client.get("/v1/files").json()["files"]:
            client.delete(f"/v1/files/{each['file']}")


@pytest.fixture
def served(serve, state):
    """A service of the test's own with these settings, and where its files are."""

    def start(**settings):
        service = serve(JAIL_STATE=str(state), **LEAST, **settings)
        return service, state / "files"

    return start


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def put(client, content, name=""):
    return client.put(f"/v1/files{name and '/'}{name}", content=content)


def on_disk(directory):
    """All files of the store but for its mark and what is lent, whole or not."""
    found = [path for path in directory.glob("owned/*/*") if path.is_file()]
    return sorted(path.name for path in found)


def connect(service):
    place = urlsplit(service.url)
    return socket.create_connection((place.hostname, place.port), timeout=60)


def head(length, name=""):
    lines = [f"PUT /v1/files{name and '/'}{name} HTTP/1.1", "Host: jail", length, "", ""]
    return "\r\n".join(lines).encode()


def answered(connection):
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read(), dict(response.getheaders())


def test_what_was_put_is_got_by_its_digest(files):
    content = os.urandom(3 * MIB + 17)
    response = put(files, content)
    assert (response.status_code, response.json()) == (201, {"file": digest(content), "bytes": len(content)})
    assert response.headers["location"] == f"/v1/files/{digest(content)}"
    found = files.get(f"/v1/files/{digest(content)}")
    assert (found.status_code, found.content) == (200, content)
    assert found.headers["content-length"] == str(len(content))
    assert files.head(f"/v1/files/{digest(content)}").headers["content-length"] == str(len(content))


def test_to_put_it_again_is_no_new_file(files):
    assert [put(files, b"twice").status_code for _ in range(2)] == [201, 200]


@pytest.mark.parametrize("content", [b"", b"x", b"x" * MIB, b"x" * (MIB + 1)])
def test_a_file_of_any_length_is_whole(files, content):
    assert put(files, content).json()["bytes"] == len(content)
    assert files.get(f"/v1/files/{digest(content)}").content == content


def test_a_body_without_a_length_is_taken(files):
    content = os.urandom(2 * MIB)
    pieces = (content[start : start + 1000] for start in range(0, len(content), 1000))
    assert files.put("/v1/files", content=pieces).json()["file"] == digest(content)


def test_what_is_put_is_listed_until_it_is_removed(files):
    put(files, b"content")
    (listed,) = files.get("/v1/files").json()["files"]
    assert (listed["file"], listed["bytes"]) == (digest(b"content"), 7)
    assert files.delete(f"/v1/files/{listed['file']}").status_code == 204
    assert files.get("/v1/files").json() == {"files": []}
    for method in ("GET", "HEAD", "DELETE"):
        assert files.request(method, f"/v1/files/{listed['file']}").status_code == 404


def test_a_digest_that_was_said_is_checked(files):
    assert put(files, b"content", digest(b"content")).status_code == 201
    response = put(files, b"other", digest(b"something else"))
    assert (response.status_code, response.json()["field"]) == (422, "body")
    assert digest(b"other") in response.json()["detail"]
    assert len(files.get("/v1/files").json()["files"]) == 1


@pytest.mark.parametrize(
    "name",
    [
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha512:" + "a" * 64,
        "a" * 64,
        "sha256:" + "a" * 63 + "%2f",
        "sha256:%2e%2e%2f" + "a" * 58,
        "sha256:" + "a" * 63 + "%00",
        "sha256:" + "a" * 64 + "%0a",
        "sha256:" + "%d9%a3" * 64,
    ],
)
def test_a_name_that_is_no_digest_is_refused(files, name):
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        response = files.request(method, f"/v1/files/{name}", content=b"x" if method == "PUT" else b"")
        # What holds a slash is another path.
        assert response.status_code in ((422, 404) if "%2f" in name else (422,)), (method, response.text)
        assert response.headers["content-type"] == "application/problem+json"
    assert files.get("/v1/files").json() == {"files": []}


def test_problems_are_told_as_everywhere(files):
    response = files.get(f"/v1/files/{digest(b'unknown')}")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["title"] == "Not Found"
    assert "no file sha256:" in response.json()["detail"]
    assert files.post("/v1/files").status_code == 405


def test_what_is_offered_is_told(client):
    told = client.get("/v1/capabilities").json()["files"]
    assert told == {"bytes": 8 << 30, "file_bytes": 2 << 30, "age_s": 2_592_000}


def test_who_shows_no_key_gets_nowhere(served):
    service, directory = served(JAIL_KEYS_SHA256=hashlib.sha256(b"key").hexdigest())
    name = digest(b"content")
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for method, path in (
            ("GET", "/v1/files"),
            ("PUT", "/v1/files"),
            *((method, f"/v1/files/{name}") for method in ("PUT", "GET", "DELETE")),
        ):
            assert client.request(method, path).status_code == 401
        assert on_disk(directory) == []
        client.headers["Authorization"] = "Bearer key"
        assert put(client, b"content").status_code == 201


# Uploads that come to nothing


@pytest.mark.parametrize("name", ["", digest(b"x" * 10)])
@pytest.mark.parametrize("sent", [0, 1, 9, MIB, 2 * MIB + 5])
def test_nothing_is_left_of_an_upload_that_is_cut(place, files, eventually, sent, name):
    service, directory = place
    with closing(connect(service)) as connection:
        connection.sendall(head(f"Content-Length: {3 * MIB if sent > 9 else 10}", name))
        connection.sendall(b"x" * sent)
        eventually(lambda: len(on_disk(directory)) == 1)
    eventually(lambda: on_disk(directory) == [])
    assert not [line for line in service.log if "defect" in line]


def test_an_upload_whose_pieces_end_before_their_end_is_none(place, files, eventually):
    service, directory = place
    with closing(connect(service)) as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        eventually(lambda: len(on_disk(directory)) == 1)
    eventually(lambda: on_disk(directory) == [])


def test_what_comes_after_the_length_that_was_said_is_no_part_of_it(place, files, eventually):
    service, directory = place
    with closing(connect(service)) as connection:
        connection.sendall(head("Content-Length: 5") + b"hello and more of it")
        # The server may see that it is no request before the upload is answered.
        assert answered(connection)[0] in (201, 400)
    eventually(lambda: set(on_disk(directory)) <= {hashlib.sha256(b"hello").hexdigest()})


def test_an_upload_may_come_byte_by_byte(place, files):
    service, _ = place
    with closing(connect(service)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head("Content-Length: 300") + bytes(range(100)) * 3:
            connection.send(bytes([byte]))
        assert json.loads(answered(connection)[1])["file"] == digest(bytes(range(100)) * 3)


def test_uploads_that_stand_still_hold_nobody_up(place, files, eventually):
    service, directory = place
    stalled = [connect(service) for _ in range(40)]
    for connection in stalled:
        connection.sendall(head(f"Content-Length: {MIB}") + b"half")
    eventually(lambda: len(on_disk(directory)) == len(stalled))
    with httpx.Client(base_url=service.url, timeout=60) as client:
        assert put(client, b"content").status_code == 201
        assert client.get(f"/v1/files/{digest(b'content')}").content == b"content"
        assert client.post("/v1/run", json={"argv": ["true"]}).json()["status"] == "ok"
    for connection in stalled:
        connection.close()
    eventually(lambda: len(on_disk(directory)) == 1)


def test_a_download_that_nobody_takes_holds_nobody_up_and_no_memory(place, files, processes):
    service, _ = place
    content = bytes(64 * MIB)
    with httpx.Client(base_url=service.url, timeout=60) as client:
        assert put(client, content).status_code == 201
        before = processes.memory_bytes(service.pid)
        stalled = [connect(service) for _ in range(20)]
        for connection in stalled:
            request = f"GET /v1/files/{digest(content)} HTTP/1.1\r\nHost: jail\r\n\r\n"
            connection.sendall(request.encode())
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert client.get(f"/v1/files/{digest(content)}").content == content
        assert processes.memory_bytes(service.pid) - before < 40 * MIB
        for connection in stalled:
            connection.close()


def test_a_disk_that_is_slow_holds_up_nobody_who_does_not_wait_for_it(place, files, eventually):
    service, directory = place
    put(files, b"content")
    (owned,) = directory.glob("owned/*")
    answers = []

    def wait_for_disk():
        answers.append(httpx.put(f"{service.url}/v1/files", content=b"more", timeout=60).status_code)

    held = os.open(owned, os.O_RDONLY)
    try:
        # Whoever brings something in waits for this, as for a disk that does not answer.
        fcntl.flock(held, fcntl.LOCK_EX)
        threads = [threading.Thread(target=wait_for_disk) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            assert files.get("/healthz").status_code == 200
            assert files.post("/v1/run", json={"argv": ["true"]}).json()["status"] == "ok"
        assert answers == []
    finally:
        os.close(held)
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 7 + [201]


def test_a_file_that_is_too_large_is_refused_with_the_maximum(served):
    service, directory = served(JAIL_FILE_BYTES="1000")
    with httpx.Client(base_url=service.url, timeout=60) as client:
        response = put(client, b"x" * 1001)
        assert response.status_code == 413
        assert "may have 1000 bytes" in response.json()["detail"]
        # Before it was sent.
        with closing(connect(service)) as connection:
            connection.sendall(head("Content-Length: 1001"))
            assert answered(connection)[0] == 413
        # Nobody had said how long it is.
        assert client.put("/v1/files", content=iter([b"x" * 600] * 2)).status_code == 413
        assert put(client, b"x" * 1000).status_code == 201
    assert len(on_disk(directory)) == 1


def test_a_quota_that_is_taken_up_is_told_with_when_to_come_again(served, eventually):
    service, directory = served(JAIL_FILES_BYTES=str(2 * MIB))
    with httpx.Client(base_url=service.url, timeout=60) as client:
        with closing(connect(service)) as connection:
            connection.sendall(head(f"Content-Length: {2 * MIB}") + bytes(2 * MIB - 1))
            eventually(lambda: any(path.stat().st_size >= MIB for path in directory.glob("owned/*/.*")))
            response = put(client, b"x" * (MIB + 4096))
            assert (response.status_code, response.headers["retry-after"]) == (429, "5")
            assert f"quota is {2 * MIB} bytes" in response.json()["detail"]
        eventually(lambda: on_disk(directory) == [])
        assert put(client, b"x" * 2 * MIB).status_code == 201
        assert put(client, b"y" * 2 * MIB).status_code == 201
        listed = client.get("/v1/files").json()["files"]
        assert [each["file"] for each in listed] == [digest(b"y" * 2 * MIB)]


def test_a_large_file_passes_through_little_memory(place, files, processes):
    service, _ = place
    pieces = [os.urandom(MIB) for _ in range(4)]
    with httpx.Client(base_url=service.url, timeout=60) as client:
        put(client, pieces[0])
        before = processes.memory_bytes(service.pid)
        response = client.put("/v1/files", content=(piece for _ in range(50) for piece in pieces))
        assert response.json()["bytes"] == 200 * MIB
        with client.stream("GET", f"/v1/files/{response.json()['file']}") as found:
            assert sum(map(len, found.iter_bytes())) == 200 * MIB
        assert processes.memory_bytes(service.pid) - before < 24 * MIB


def test_many_put_the_same_file_at_once_and_it_is_one(served):
    service, directory = served(JAIL_WORKERS="2")
    content = os.urandom(MIB)
    statuses = []

    def work():
        with httpx.Client(base_url=service.url, timeout=60) as client:
            statuses.append(put(client, content).status_code)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 7 + [201]
    assert on_disk(directory) == [hashlib.sha256(content).hexdigest()]


def test_all_workers_have_what_one_of_them_was_sent(served):
    service, _ = served(JAIL_WORKERS="2")
    with httpx.Client(base_url=service.url, timeout=60) as client:
        assert put(client, b"content").status_code == 201
    for _ in range(8):
        # Each on a connection of its own: the kernel deals them out.
        assert httpx.get(f"{service.url}/v1/files/{digest(b'content')}").content == b"content"


def test_what_was_stored_is_there_when_the_service_starts_again(served, serve, state):
    service, directory = served()
    with closing(connect(service)) as connection:
        httpx.put(f"{service.url}/v1/files", content=b"content")
        connection.sendall(head("Content-Length: 10") + b"half")
        while len(on_disk(directory)) < 2:
            pass
        service.process.kill()
        service.wait()
    again, _ = served()
    assert on_disk(directory) == [hashlib.sha256(b"content").hexdigest()]
    assert httpx.get(f"{again.url}/v1/files/{digest(b'content')}").content == b"content"
    assert len(list(Path(directory, "lent").iterdir())) == 1


OLD_LANDLOCK = """
import jail.host
jail.host.landlock_abi = lambda: 1
from jail.cli import main
main(["serve"], prog_name="jail")
"""


def test_where_nobody_may_link_files_none_are_stored(service_class, state):
    # The kernel denies it to whoever does not name the right, as nobody could before.
    service = service_class({**LEAST, "JAIL_STATE": str(state)}, ("-c", OLD_LANDLOCK))
    with closing(service), httpx.Client(base_url=service.url, timeout=60) as client:
        assert client.get("/v1/capabilities").json()["files"] is None
        response = put(client, b"content")
        assert (response.status_code, "Linux 5.19" in response.json()["detail"]) == (501, True)
        told = client.post("/v1/run", json={"argv": ["true"], "stdin": {"file": digest(b"content")}})
        assert (told.status_code, told.json()["field"]) == (422, "stdin")
        assert client.post("/v1/run", json={"argv": ["true"]}).json()["status"] == "ok"


def test_a_file_that_a_job_has_is_not_removed(place, files, eventually):
    name = put(files, b"content").json()["file"]

    content = json.dumps({"argv": ["sleep", "1000"], "stdin": {"file": name}}).encode()
    lines = ["POST /v1/run HTTP/1.1", "Host: jail", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", "", ""]
    with closing(connect(place[0])) as connection:
        connection.sendall("\r\n".join(lines).encode() + content)
        eventually(lambda: list(place[1].glob("lent/*/*/stdin")))
        response = files.delete(f"/v1/files/{name}")
        assert (response.status_code, response.headers["retry-after"]) == (409, "5")
    # The caller has gone, and the job with it.
    eventually(lambda: files.delete(f"/v1/files/{name}").status_code == 204)


def test_a_file_that_is_on_its_way_to_a_caller_is_not_removed(place, files, eventually):
    # Else whoever takes downloads slowly could take up any number of quotas.
    content = bytes(32 * MIB)
    name = put(files, content).json()["file"]
    with closing(connect(place[0])) as connection:
        connection.sendall(f"GET /v1/files/{name} HTTP/1.1\r\nHost: jail\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert files.delete(f"/v1/files/{name}").status_code == 409
    eventually(lambda: files.delete(f"/v1/files/{name}").status_code == 204)
    assert list(place[1].glob("lent/*/*")) == []
