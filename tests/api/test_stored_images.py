"""Images of the store under `jail serve`, which has shed what it does not need."""

import subprocess
import sys
from contextlib import closing

import httpx
import pytest
import rootfs
from registry import Registry

from jail.image import ETC_FILES


@pytest.fixture
def command(environment, tmp_path):
    """`jail image`, of the store of the service."""

    def run(*words):
        line = [sys.executable, "-P", "-m", "jail", "image", *words]
        given = {**environment, "JAIL_IMAGES": str(tmp_path / "images")}
        subprocess.run(line, env=given, check=True)

    return run


@pytest.fixture
def bring_in(command, tmp_path):
    """Import an image under a name."""

    def run(name, *layers, **settings):
        file = tmp_path / "image.tar"
        file.write_bytes(rootfs.image(*layers, **settings))
        command("import", str(file), "--name", name)

    return run


@pytest.fixture
def caller(serve, tmp_path):
    service = serve(JAIL_IMAGES=str(tmp_path / "images"), JAIL_VOLUMES="here=/usr/share")
    with httpx.Client(base_url=service.url, timeout=60) as found:
        yield found


def test_an_image_can_be_used_as_soon_as_it_is_there(caller, bring_in):
    def run(**fields):
        return caller.post("/v1/run", json={"image": "mini:1", **fields})

    assert run().status_code == 422
    assert caller.get("/v1/capabilities").json()["images"] == ["host"]
    base = rootfs.archive(
        {**rootfs.programs("cat"), "etc": None, "etc/motd": b"hello\n", "srv/old/file": b""}
    )
    bring_in("mini:1", base, rootfs.archive({"srv/old/.wh..wh..opq": b""}), Cmd=["cat", "/etc/motd"])
    told = run().json()
    assert (told["status"], told["stdout"]["text"]) == ("ok", "hello\n"), told["detail"]
    assert caller.get("/v1/capabilities").json()["images"] == ["host", "mini:1"]
    told = run(volumes={"/srv/old/file": "here"}, argv=["cat", "/etc/passwd"]).json()
    assert (told["status"], told["stdout"]["text"]) == ("ok", ETC_FILES["passwd"]), told


def test_what_the_service_keeps_ready_of_an_image_does_not_keep_it_from_being_removed(
    caller, bring_in, command
):
    bring_in("mini:1", rootfs.archive(rootfs.programs("true")))
    for _ in range(3):
        assert caller.post("/v1/run", json={"image": "mini:1", "argv": ["true"]}).json()["status"] == "ok"
    command("rm", "mini:1")
    assert caller.post("/v1/run", json={"image": "mini:1", "argv": ["true"]}).status_code == 422


def test_a_job_runs_in_an_image_that_was_pulled(caller, command, tmp_path):
    with closing(Registry(tmp_path / "registry")) as registry:
        layers = (
            rootfs.archive(rootfs.programs("sh", "cat")),
            rootfs.archive({"srv/.wh.none": b"", "motd": b"pulled\n"}),
        )
        registry.fill_from(rootfs.image(*layers, Cmd=["cat", "/motd"], Env=["WHO=image"]), "tools/gcc:13")
        command("pull", "--insecure", f"{registry.authority}/tools/gcc:13", "--name", "gcc:13")
    told = caller.post("/v1/run", json={"image": "gcc:13"}).json()
    assert (told["status"], told["stdout"]["text"]) == ("ok", "pulled\n"), told["detail"]
    assert told["sandbox"]["digest"].startswith("sha256:")
    told = caller.post(
        "/v1/run", json={"image": "gcc:13", "argv": ["sh", "-c", "echo $WHO; cat /etc/debian_version"]}
    )
    assert told.json()["stdout"]["text"] == "image\n"
