"""Every example of docs/runtimes.md does what the page says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "runtimes.md").read_text()
PARTS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
EXAMPLES = {
    name: [json.loads(body) for body in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    for name, text in PARTS.items()
}
NODE_WITH_SNAPSHOTS = 20


def lacks(program):
    path = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin")
    if program != "node" or path is None:
        return path is None
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return int(version.strip("v\n").partition(".")[0]) < NODE_WITH_SNAPSHOTS


def completed(body, outputs):
    """A body with the outputs of examples before in place of the dots."""
    files = {
        name: outputs[name] if content == {"base64": "…"} else content
        for name, content in body["files"].items()
    }
    return {**body, "files": {name: _input(content) for name, content in files.items()}}


def _input(content):
    """What an output is as an input."""
    if isinstance(content, str):
        return content
    return content["text"] if "text" in content else {"base64": content["base64"]}


@pytest.mark.parametrize("language", [name for name, bodies in EXAMPLES.items() if bodies])
def test_an_example_says_hello(client, language):
    outputs = {}
    for body in EXAMPLES[language]:
        if lacks(body["argv"][0]):
            pytest.skip(f"the host has no {body['argv'][0]}")
        answer = client.post("/v1/run", json=completed(body, outputs)).json()
        assert answer["status"] == "ok", answer
        outputs |= answer["outputs"]
        assert set(body.get("outputs", ())) == set(answer["outputs"])
        assert "outputs" in body or answer["stdout"]["text"] == "hello\n"


def test_every_language_of_the_page_with_options_has_an_example():
    assert {name for name, bodies in EXAMPLES.items() if bodies} == {"Python", "Java", "Node"}
