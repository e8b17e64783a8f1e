"""The description is true, and no request that follows it, or nearly, finds a defect."""

import json

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

schemathesis.serializer.alias("application/zip", "application/octet-stream")

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]


def test_the_description_says_what_the_service_parses_with(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    limits = document["components"]["schemas"]["LimitsRequest"]["properties"]
    told = client.get("/v1/limits").json()
    assert limits.keys() == told.keys()
    for name, about in told.items():
        assert {key: limits[name][key] for key in about} == about


@pytest.fixture(scope="module")
def schema(client):
    return schemathesis.openapi.from_dict(client.get("/openapi.json").json())


@pytest.fixture
def forgets_files(client):
    """What is stored in the test is removed after it."""
    before = _stored(client)
    yield
    for digest in _stored(client) - before:
        client.delete(f"/v1/files/{digest}")


def _stored(client):
    return {each["file"] for each in client.get("/v1/files").json()["files"]}


@pytest.mark.usefixtures("forgets_files")
def test_every_operation_answers_as_described(schema, service):
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.settings(max_examples=40 if operation.method == "post" else 3)
        @hypothesis.given(case=operation.as_strategy())
        def ask(case):
            _shorten(case)
            case.call_and_validate(base_url=service.url, checks=CHECKS, timeout=200)

        ask()
        count += 1
    assert count == 24


def _shorten(case):
    """A job that by chance can sleep must not hold the test for the length of the default limit."""
    body = case.body
    if not isinstance(body, dict):
        return
    parts = [body]
    for several in ("processes", "steps", "tests"):
        found = body.get(several, [])
        parts += found if isinstance(found, list) else []
    parts.append(body.get("checker"))
    for part in parts if body.keys() & {"processes", "steps"} == set() else parts[1:]:
        if isinstance(part, dict) and isinstance(part.get("limits", {}), dict):
            part["limits"] = {**part.get("limits", {}), "wall_ms": 500, "cpu_ms": 500}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NUMBER = st.integers(-(2**70), 2**70) | st.floats() | JSON
STORED = st.fixed_dictionaries({"file": st.text() | st.just("sha256:" + "5" * 64)})
FIELDS = {
    "argv": st.lists(st.text(), max_size=3) | JSON,
    "image": st.just("host") | JSON,
    "policy": st.just("default") | JSON,
    "network": st.sampled_from(["none", {"mode": "none"}, {"mode": "isolated"}]) | JSON,
    "files": st.dictionaries(
        st.text() | st.sampled_from(["a", "a/b", "../a", "/a"]), st.text() | STORED | JSON, max_size=3
    )
    | JSON,
    "stdin": st.text() | st.fixed_dictionaries({"base64": st.text()}) | STORED | JSON,
    "env": st.dictionaries(st.text(), st.text(), max_size=3) | JSON,
    "outputs": st.lists(
        st.text() | st.fixed_dictionaries({"path": st.text(), "store": st.booleans()}), max_size=3
    )
    | JSON,
    "limits": st.dictionaries(
        st.sampled_from(["cpu_ms", "wall_ms", "memory_bytes", "pids", "cpus", "files", "stack_bytes"])
        | st.text(),
        NUMBER,
        max_size=3,
    )
    | JSON,
    "on_output_limit": st.sampled_from(["kill", "truncate"]) | JSON,
}
PLAIN = st.fixed_dictionaries(
    {"argv": FIELDS["argv"]}, optional={k: v for k, v in FIELDS.items() if k != "argv"}
)
PROCESS = st.fixed_dictionaries(
    {"argv": FIELDS["argv"], "name": st.sampled_from(["a", "b"]) | JSON},
    optional={k: v for k, v in FIELDS.items() if k not in ("argv", "network")}
    | {"background": st.booleans() | JSON},
)
GROUP = st.fixed_dictionaries(
    {"processes": st.lists(PROCESS, max_size=3) | JSON},
    optional={"network": FIELDS["network"], "argv": FIELDS["argv"]},
)
BODY = PLAIN | GROUP


def ask(client, content):
    response = client.post("/v1/run", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 422), (content, response.text)
    if response.status_code == 422:
        assert response.json()["field"]
    else:
        assert response.json()["status"] != "sandbox_error", (content, response.text)


@hypothesis.settings(max_examples=300)
@hypothesis.given(body=BODY)
def test_no_body_finds_a_defect(client, body):
    ask(client, json.dumps(body))


PROGRAM = st.fixed_dictionaries(
    {"argv": st.just(["sh", "-c", "cat; ls -A; env"])},
    optional={
        "stdin": st.text(max_size=50),
        "files": st.dictionaries(
            st.from_regex(r"[a-z]{1,3}(/[a-z\u00e0-\u00ff]{1,3})?", fullmatch=True), st.text(), max_size=3
        ),
        "env": st.dictionaries(st.from_regex("[A-Z]{4,5}", fullmatch=True), st.text(max_size=9), max_size=2),
        "outputs": st.lists(st.from_regex("[a-z]{1,2}[?]?", fullmatch=True), max_size=3),
        "limits": st.fixed_dictionaries(
            {"wall_ms": st.integers(1, 300)},
            optional={
                "cpu_ms": st.integers(1, 300),
                "memory_bytes": st.integers(2 << 20, 32 << 20),
                "pids": st.integers(2, 9),
                "cpus": st.floats(0.01, 2),
                "disk_bytes": st.integers(4096, 1 << 20),
                "files": st.integers(4, 20),
                "open_files": st.integers(4, 64),
                "stack_bytes": st.integers(65_536, 16 << 20),
                "stdout_bytes": st.integers(1, 100),
                "output_bytes": st.integers(1, 100),
            },
        ),
        "on_output_limit": st.sampled_from(["kill", "truncate"]),
    },
)
PAIR = st.builds(
    lambda one, other, background: {
        "processes": [{**one, "name": "a"}, {**other, "name": "b", "background": background}]
    },
    PROGRAM,
    PROGRAM,
    st.booleans(),
)
VALID = PROGRAM | PAIR


@hypothesis.settings(max_examples=150)
@hypothesis.given(body=VALID)
def test_no_valid_job_is_our_failure(client, body):
    ask(client, json.dumps(body))


@hypothesis.settings(max_examples=150)
@hypothesis.given(content=st.binary(max_size=200))
def test_no_bytes_find_a_defect(client, content):
    ask(client, content)
