"""Jobs in steps over HTTP: every example of docs/steps.md, and what is refused."""

import hashlib

import pages
import pytest

EXAMPLES = pages.examples("steps.md")


@pytest.mark.parametrize(("body", "shown"), EXAMPLES)
def test_an_example_has_the_answer_of_the_page(client, body, shown):
    response = client.post("/v1/run", json=body)
    assert pages.is_part(shown, response.json()), response.text


def test_there_are_examples():
    assert len(EXAMPLES) == 4


STORED = {"file": "sha256:" + hashlib.sha256(b"data").hexdigest()}
STEP = {"name": "run", "argv": ["true"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"steps": []}, "steps"),
        ({"steps": [STEP, STEP]}, "steps[1].name"),
        ({"steps": [{**STEP, "name": "a/b"}]}, "steps[0].name"),
        ({"steps": [{**STEP, "limits": {"cpu_ms": 0}}]}, "steps[0].limits.cpu_ms"),
        ({"steps": [STEP], "tests": [{"group": "g"}]}, "tests[0].group"),
        ({"steps": [STEP], "tests": [{"name": "run"}]}, "tests[0].name"),
        ({"steps": [STEP], "tests": [{"name": "a"}, {"name": "a"}]}, "tests[1].name"),
        ({"steps": [STEP], "tests": [{"expected": {"base64": "?"}}]}, "tests[0].expected"),
        ({"steps": [STEP], "tests": [{"expected": {"file": "sha256:0"}}]}, "tests[0].expected"),
        ({"steps": [STEP], "tests": [{"args": ["\0"]}]}, "tests[0].argv[1]"),
        ({"steps": [STEP], "tests": [{"points": -1}]}, "tests[0].points"),
        ({"steps": [STEP], "groups": [{"name": "g"}, {"name": "g"}]}, "groups[1].name"),
        (
            {"steps": [STEP], "checker": {**STEP, "convention": "icpc"}},
            "checker.name",
        ),
        (
            {
                "steps": [STEP],
                "checker": {"argv": ["a"], "files": {".judge/input": ""}, "convention": "icpc"},
            },
            "checker.files..judge/input",
        ),
        ({"steps": [STEP], "argv": ["true"]}, "argv"),
        (
            {"steps": [{**STEP, "files": {"a": STORED}}, {**STEP, "name": "b", "outputs": ["a"]}]},
            "steps[1].outputs[0]",
        ),
        ({"steps": [{**STEP, "limits": {"memory_bytes": 1 << 50}}]}, "steps[0].limits.memory_bytes"),
    ],
)
def test_what_is_wrong_is_refused_by_its_field(client, body, field):
    assert client.put("/v1/files", content=b"data").json() == {**STORED, "bytes": 4}
    response = client.post("/v1/run", json=body)
    assert (response.status_code, response.json()["field"]) == (422, field)
