"""GET /v1/languages: what the tools of an image say, and what is not there is not offered."""

import hashlib
import json
import re
from pathlib import Path

import httpx
import pytest

LANGUAGES = """
[smoke]
stdin = "wörld"
expected = "hello, wörld\\n"

[languages.python]
title = "Python"
extensions = [".py"]
source = "main.py"
version = ["python3", "--version"]
variants = { slow = [], fast = ["-I"] }
variant = "slow"
compile.argv = ["cp", "{source}", "program"]
makes = ["program"]
run.argv = ["python3", "{variant}", "program"]
smoke = 'print(f"hello, {input()}")'

[languages.lacking]
title = "Lacking"
extensions = [".l"]
source = "main.l"
version = ["no-such-tool", "--version"]
run.argv = ["no-such-tool", "{source}"]
smoke = ""

[languages.broken]
title = "Broken"
extensions = [".sh"]
source = "main.sh"
version = ["sh", "-c", "echo Broken Shell, version 1.22.333-rc"]
run.argv = ["sh", "{source}"]
smoke = "echo goodbye"
"""


@pytest.fixture
def languages(state):
    """A file of languages of the operator's own."""
    path = state / "languages.toml"
    path.write_text(LANGUAGES)
    path.chmod(0o644)
    return str(path)


def test_what_is_there_is_told_and_what_is_not_is_not_offered(serve, languages):
    service = serve(JAIL_LANGUAGES=languages)
    answer = httpx.get(f"{service.url}/v1/languages", timeout=60).json()
    assert answer["image"] == "host"
    python, lacking, broken = answer["languages"]
    assert python["version"].startswith("3.")
    assert {
        name: python[name] for name in ("name", "title", "extensions", "source", "variants", "variant")
    } == {
        "name": "python",
        "title": "Python",
        "extensions": [".py"],
        "source": "main.py",
        "variants": ["slow", "fast"],
        "variant": "slow",
    }
    assert (python["available"], python["reason"]) == (True, None)
    for cost in (python["compile"], python["run"]):
        assert 0 < cost["cpu_ms"] < 10_000
        assert 0 < cost["wall_ms"] < 30_000
        assert 0 < cost["memory_peak_bytes"] < 64 << 20
    assert (lacking["available"], lacking["version"], lacking["run"]) == (False, None, None)
    assert lacking["reason"] == "there is no no-such-tool"
    assert (broken["available"], broken["version"]) == (False, "1.22.333")
    assert broken["reason"] == "its smoke program: wrong_answer"


def test_the_tools_are_asked_once(serve, languages, counted):
    service = serve(JAIL_LANGUAGES=languages)
    with httpx.Client(base_url=service.url, timeout=60) as client:
        first = client.get("/v1/languages").json()
        # Measured again, at least one of the times would be another.
        assert client.get("/v1/languages?image=host").json() == first


def test_an_image_that_is_not_there_is_refused_by_name(client):
    answer = client.get("/v1/languages?image=nowhere")
    assert (answer.status_code, answer.json()["field"]) == (422, "image")


def test_who_shows_no_key_is_told_nothing(serve):
    service = serve(JAIL_KEYS_SHA256=hashlib.sha256(b"key").hexdigest())
    assert httpx.get(f"{service.url}/v1/languages?image=nowhere").status_code == 401


def test_a_file_of_languages_that_is_wrong_keeps_the_service_from_starting(serve, state):
    path = state / "languages.toml"
    path.write_text(LANGUAGES.replace("[smoke]", "[smoker]"))
    with pytest.raises(RuntimeError, match=r"languages\.toml: .*smoke"):
        serve(JAIL_LANGUAGES=str(path))


def run(client, **body):
    return client.post("/v1/run", json=body)


def test_a_source_is_compiled_and_run(client):
    source = '#include <stdio.h>\nint main(void) { int a, b; scanf("%d %d", &a, &b); printf("%d", a + b); }'
    answer = run(client, language="c", source=source, stdin="3 4").json()
    if answer.get("field") == "language":
        pytest.skip(answer["detail"])
    assert (answer["status"], answer["decided_by"]) == ("ok", None)
    assert answer["steps"].keys() == {"compile", "run"}
    assert answer["steps"]["run"]["stdout"]["text"] == "7"


def test_a_source_that_does_not_compile_is_a_compile_error(client):
    answer = run(client, language="c", source="int main(void) {").json()
    if answer.get("field") == "language":
        pytest.skip(answer["detail"])
    assert (answer["status"], answer["decided_by"]) == ("compile_error", "compile")
    assert "error" in answer["steps"]["compile"]["stderr"]["text"]
    assert "run" not in answer["steps"]


def test_a_source_is_tested(client):
    tests = [
        {"stdin": "1\n", "expected": "1\n"},
        {"stdin": "2\n", "expected": "3\n"},
        {"stdin": "x\n", "expected": "\n"},
    ]
    answer = run(client, language="python", source="print(int(input()))", tests=tests).json()
    assert [test["status"] for test in answer["tests"]] == ["ok", "wrong_answer", "nonzero_exit"]
    assert answer["status"] == "wrong_answer"


def test_a_language_that_the_image_lacks_is_refused(serve, languages):
    service = serve(JAIL_LANGUAGES=languages)
    with httpx.Client(base_url=service.url, timeout=60) as client:
        answer = run(client, language="lacking", source="")
        assert (answer.status_code, answer.json()["field"]) == (422, "language")
        assert answer.json()["detail"] == "'lacking' is not offered in 'host': there is no no-such-tool"
        assert run(client, language="fast", source="print(1)").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"language": "cobol"}, "language"),
        ({"source": "x" * (50 << 20)}, "source"),
        ({"source": {"file": f"sha256:{'0' * 64}"}}, "source"),
        ({"source_name": "../main.py"}, "source_name"),
        ({"files": {"main.py": ""}}, "files.main.py"),
        ({"argv": ["true"]}, "argv"),
        ({"image": "nowhere"}, "image"),
        ({"limits": {"memory_bytes": 1}}, "limits.memory_bytes"),
    ],
)
def test_what_is_wrong_is_refused_by_its_field(client, more, field):
    answer = run(client, **{"language": "python", "source": ""} | more)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


PAGE = (Path(__file__).parents[2] / "docs" / "languages.md").read_text()
EXAMPLES = [json.loads(body) for body in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("body", EXAMPLES, ids=lambda body: body["language"])
def test_an_example_of_the_page_does_what_it_says(client, body):
    answer = run(client, **body).json()
    if answer.get("field") == "language":
        pytest.skip(answer["detail"])
    assert answer["status"] == "ok", answer
