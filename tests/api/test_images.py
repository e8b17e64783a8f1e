"""Administering images over HTTP: real archives, a real registry, hostile callers, and what is left behind."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import httpx
import pytest

KEY, OTHER_KEY, WRONG_KEY = "an administrator's", "a caller's", "nobody's"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


PROGRAM = r"""
#include <stdio.h>
int main(void) { return puts("hello from an image") < 0; }
"""


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """A program that needs no file but itself."""
    place = tmp_path_factory.mktemp("program")
    (place / "hello.c").write_text(PROGRAM)
    subprocess.run(["cc", "-static", "-o", place / "hello", place / "hello.c"], check=True)
    return (place / "hello").read_bytes()


def tree(*entries):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in entries:
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), 0o755
            archive.addfile(about, io.BytesIO(content))
    return made.getvalue()


@pytest.fixture
def administered(serve, state):
    service = serve(JAIL_STATE=str(state), JAIL_ADMIN_KEYS_SHA256=sha256(KEY), JAIL_SLOTS="2")
    with httpx.Client(base_url=service.url, timeout=60, headers=bearer(KEY)) as client:
        service.client = client
        service.store = state / "images"
        yield service


def events(response):
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


TAR = {"Content-Type": "application/x-tar"}


def test_an_uploaded_tree_is_an_image_that_jobs_run_in_at_once(administered, program):
    client = administered.client
    told = events(client.post("/v1/images?name=hello", content=tree(("bin/hello", program)), headers=TAR))
    print(told)
    assert told[-1]["event"] == "done"
    (image,) = told[-1]["images"]
    assert image["names"] == ["hello"]
    result = client.post("/v1/run", json={"argv": ["/bin/hello"], "image": "hello"}).json()
    print(result)
    assert result["stdout"]["text"] == "hello from an image\n"
    print(client.get("/v1/images").json(), client.get("/v1/images/hello").json())
    a = client.get("/v1/images/hello/archive")
    print(a.status_code, len(a.content))
    d = client.delete("/v1/images/hello")
    print(d.status_code, d.text)
