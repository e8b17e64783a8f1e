"""Whatever is wrong with a request is told, by the field's name, and nothing is started."""

import http.client
import json
import urllib.parse

import pytest

TRUE = {"argv": ["true"]}
A = {"name": "a", "argv": ["true"]}
UNSET = object()
HUGE = 10**30
LIMITS = (
    "cpu_ms", "wall_ms", "memory_bytes", "pids", "cpus", "disk_bytes", "files", "open_files", "stack_bytes",
    "stdout_bytes", "stderr_bytes", "output_bytes",
)  # fmt: skip
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def starts_nothing(leaves_nothing, client, jobs_counted):
    before = jobs_counted(client)
    yield
    assert jobs_counted(client) == before


def check(response, status, field=None):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["type"].startswith("urn:jail:problem:")
    assert problem["detail"]
    assert problem.get("field") == field
    return problem


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"argw": []}, "argw"),
        ({"argv": None}, "argv"),
        ({"argv": []}, "argv"),
        ({"argv": [""]}, "argv[0]"),
        ({"argv": ["a\0b"]}, "argv[0]"),
        ({"argv": ["a", "x" * 131_072]}, "argv[1]"),
        ({"argv": ["a", *["x" * 100_000] * 12]}, "argv"),
        ({"argv": "true"}, "argv"),
        ({"argv": ["a", 1]}, "argv[1]"),
        ({"image": "debian"}, "image"),
        ({"policy": "none"}, "policy"),
        ({"network": "host"}, "network"),
        ({"env": {"A=B": "x"}}, "env.A=B"),
        ({"env": {"": "x"}}, "env."),
        ({"env": {"A": "x\0"}}, "env.A"),
        ({"env": {"A": 1}}, "env[...]"),
        ({"stdin": 7}, "stdin"),
        ({"stdin": {}}, "stdin"),
        ({"stdin": {"text": "", "base64": ""}}, "stdin"),
        ({"stdin": {"base64": "!"}}, "stdin"),
        ({"stdin": {"base64": "AAA"}}, "stdin"),
        ({"stdin": "\ud800"}, "body"),
        ({"files": {"/etc/passwd": ""}}, "files./etc/passwd"),
        ({"files": {"../x": ""}}, "files.../x"),
        ({"files": {"a/../b": ""}}, "files.a/../b"),
        ({"files": {"a//b": ""}}, "files.a//b"),
        ({"files": {"./a": ""}}, "files../a"),
        ({"files": {"a/": ""}}, "files.a/"),
        ({"files": {"": ""}}, "files."),
        ({"files": {"a\0b": ""}}, "files.a\0b"),
        ({"files": {"x" * 256: ""}}, "files." + "x" * 256),
        ({"files": {"a": "", "a/b": ""}}, "files.a/b"),
        ({"files": {"a": {"text": "", "mode": 511}}}, "files[...].mode"),
        ({"files": {"a": {"executable": True}}}, "files.a"),
        ({"files": {str(n): "" for n in range(4097)}}, "files"),
        ({"files": {"a": "x" * 8192}, "limits": {"disk_bytes": 4096}}, "files"),
        ({"outputs": ["/etc/passwd"]}, "outputs[0]"),
        ({"outputs": ["a", "../x"]}, "outputs[1]"),
        ({"outputs": ["a", "a?"]}, "outputs[1]"),
        ({"outputs": ["?"]}, "outputs[0]"),
        ({"outputs": ["a"] * 257}, "outputs"),
        ({"on_output_limit": "ignore"}, "on_output_limit"),
        ({"limits": {"cpu": 1}}, "limits.cpu"),
        ({"limits": {"memory_byte": 1}}, "limits.memory_byte"),
        ({"limits": []}, "limits"),
        ({"limits": None}, "limits"),
        ({"network": {"mode": "host"}}, "network.mode"),
        ({"processes": [A]}, "argv"),
        ({"argv": UNSET, "processes": []}, "processes"),
        ({"argv": UNSET, "processes": None}, "processes"),
        ({"argv": UNSET, "processes": [A, A]}, "processes[1].name"),
        ({"argv": UNSET, "processes": [A | {"name": "localhost"}]}, "processes[0].name"),
        ({"argv": UNSET, "processes": [A | {"background": True}]}, "processes"),
        ({"argv": UNSET, "processes": [A, {"name": "b"}]}, "processes[1].argv"),
        ({"argv": UNSET, "processes": [A | {"limits": {"cpu_ms": 0}}]}, "processes[0].limits.cpu_ms"),
        ({"argv": UNSET, "processes": [A], "limits": {}}, "limits"),
        ({"argv": UNSET}, "argv"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_a_field_that_is_wrong_is_named(client, change, field):
    # Not by httpx: half of a surrogate pair is valid in JSON, as an escape.
    content = json.dumps({name: value for name, value in (TRUE | change).items() if value is not UNSET})
    check(client.post("/v1/run", content=content, headers=JSON), 422, field)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(
    "value",
    [0, -1, HUGE, -HUGE, 2**63, 2**64, 2**53 + 1, True, "1", "unlimited", [], {}, 1e300],
    ids=repr,
)
def test_a_limit_that_is_out_of_range_or_no_number_is_named(client, name, value):
    response = client.post("/v1/run", json=TRUE | {"limits": {name: value}})
    check(response, 422, f"limits.{name}")


@pytest.mark.parametrize("name", [name for name in LIMITS if name != "cpus"])
def test_a_limit_that_is_not_whole_is_named(client, name):
    response = client.post("/v1/run", json=TRUE | {"limits": {name: 10.5}})
    check(response, 422, f"limits.{name}")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_json_has_no_number_for_is_refused(client, text):
    content = f'{{"argv": ["true"], "limits": {{"cpus": {text}}}}}'
    response = client.post("/v1/run", content=content, headers=JSON)
    assert response.status_code == 422
    assert response.json()["field"] in ("body", "limits.cpus")


def test_a_refused_limit_tells_the_value_and_the_maximum(client):
    maximum = client.get("/v1/limits").json()["cpu_ms"]["maximum"]
    response = client.post("/v1/run", json=TRUE | {"limits": {"cpu_ms": maximum + 1}})
    problem = check(response, 422, "limits.cpu_ms")
    assert str(maximum + 1) in problem["detail"]
    assert str(maximum) in problem["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"argv"',
        b'{"argv": ["\xff"]}',
        b'{"argv": ["true"]} {}',
        b'{"argv": ["true"],}',
        b"\xef\xbb\xbf{}",
        '{"argv": ["true"]}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"argv": ' * 100_000,
        b'{"argv": ["true"], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=[
        "empty", "cut", "array", "null", "string", "not UTF-8", "two values", "comma", "byte order mark",
        "UTF-16", "deep arrays", "deep objects", "deep and unknown",
    ],
)  # fmt: skip
def test_what_is_not_a_json_object_is_refused(client, content):
    response = client.post("/v1/run", content=content, headers=JSON)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["field"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    ],
)
def test_another_content_type_is_refused(client, headers):
    check(client.post("/v1/run", content=json.dumps(TRUE), headers=headers), 415, "Content-Type")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/run/", "/v1/jobs/x", "/../etc/passwd", "/v1/run%00"])
def test_an_unknown_path_is_a_problem(client, path):
    check(client.get(path), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_a_problem(client, method):
    response = client.request(method, "/v1/run")
    check(response, 405)
    assert response.headers["allow"] == "POST"


def connect(service):
    return http.client.HTTPConnection(urllib.parse.urlsplit(service.url).netloc, timeout=30)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_a_gibibyte_is_refused_while_it_is_read(service, processes, chunked):
    before_bytes = processes.memory_bytes(service.pid)
    connection = connect(service)
    connection.putrequest("POST", "/v1/run")
    connection.putheader("Content-Type", "application/json")
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putheader("Content-Length", str(1 << 30))
    connection.endheaders()
    piece = b" " * (1 << 20)
    framed = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
    sent = peak_bytes = 0
    try:
        for _ in range(1024):
            connection.send(framed)
            sent += 1
            peak_bytes = max(peak_bytes, processes.memory_bytes(service.pid))
    except (BrokenPipeError, ConnectionResetError):
        pass
    # What is above the cap is never taken in.
    assert sent < 128
    assert peak_bytes - before_bytes < 192 << 20
    connection.close()


def test_a_body_that_says_it_is_too_large_is_answered_before_it_is_sent(service):
    connection = connect(service)
    connection.putrequest("POST", "/v1/run")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(1 << 30))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert response.headers["content-type"] == "application/problem+json"
    problem = json.loads(response.read())
    assert problem["field"] == "body"
    connection.close()


def test_a_body_in_chunks_above_the_cap_is_answered(serve):
    service = serve(JAIL_BODY_BYTES="1000")
    connection = connect(service)
    connection.request("POST", "/v1/run", iter([b" " * 600, b" " * 600]), JSON)
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["field"] == "body"
    connection.close()


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "99999999999999999999999", "+5", "5, 5"])
def test_a_content_length_that_is_no_length_is_refused(service, length):
    connection = connect(service)
    connection.putrequest("POST", "/v1/run")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", length)
    connection.endheaders(b"hello")
    response = connection.getresponse()
    assert 400 <= response.status < 500
    connection.close()


def test_a_client_that_goes_away_in_the_middle_of_its_body_starts_nothing(service):
    connection = connect(service)
    connection.putrequest("POST", "/v1/run")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "18")
    connection.endheaders(b'{"argv": ')
    connection.close()
