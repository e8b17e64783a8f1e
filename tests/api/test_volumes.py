"""Volumes over HTTP: every example of docs/volumes.md, and what a service says of them."""

import json
import re
import tomllib
from pathlib import Path

import httpx
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "volumes.md").read_text()
BODY, SHOWN = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def offering(serve, tmp_path):
    """A service with the page's settings, but for the path: a host need not have a dictionary."""
    (setting,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    volumes = tomllib.loads(setting)["volumes"]
    tmp_path.chmod(0o755)
    with httpx.Client(
        base_url=serve(JAIL_VOLUMES=",".join(f"{name}={tmp_path}" for name in volumes)).url
    ) as client:
        yield client


def test_the_example_has_the_answer_of_the_page(offering):
    told = offering.post("/v1/run", json=BODY).json()
    assert told["status"] == SHOWN["status"], told
    assert told["stdout"]["text"] == SHOWN["stdout"]["text"]


def test_what_is_offered_is_told(offering):
    assert offering.get("/v1/capabilities").json()["volumes"] == ["words"]


def test_what_is_not_offered_is_refused_by_its_field(offering):
    told = offering.post("/v1/run", json={"argv": ["true"], "volumes": {"/data": "secrets"}})
    assert (told.status_code, told.json()["field"]) == (422, "volumes./data")
    assert "known: words" in told.json()["detail"]
