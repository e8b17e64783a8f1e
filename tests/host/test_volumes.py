"""Volumes: directories that jobs read where they ask for them, and that nobody can change."""

import os
import stat

import pytest

from jail.errors import HostError
from jail.spec import SpecError


@pytest.fixture(scope="module", autouse=True)
def umask():
    """As of somebody who makes test data for everybody; the unit has another for the service."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A directory of test data, which everybody may read but one file."""
    directory = tmp_path_factory.mktemp("words")
    directory.chmod(0o755)
    (directory / "en").mkdir()
    (directory / "en" / "short").write_text("a\nan\nthe\n")
    (directory / "own").write_text("not for jobs")
    (directory / "own").chmod(0o600)
    (directory / "tool").write_text("#!/bin/sh\nid -u\n")
    (directory / "tool").chmod(0o4755)
    return directory


@pytest.fixture
def engine(engine_with, words, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    other.chmod(0o755)
    (other / "model").write_text("1.0\n")
    volumes = {"words": str(words), "other": str(other)}
    with engine_with(slots=2, ready_min=0, ready_max=8, volumes=volumes) as found:
        yield found


def sh(engine, script, **volumes):
    result = engine.sh(script, volumes={f"/{name}": volume for name, volume in volumes.items()})
    return result["stdout"]["text"] + result["stderr"]["text"]


def test_a_job_reads_it_where_it_asked_for_it(engine):
    assert sh(engine, "cat /data/en/short", data="words") == "a\nan\nthe\n"
    assert sh(engine, "cat /deep/within/model", **{"deep/within": "other"}) == "1.0\n"


def test_the_umask_of_the_service_closes_no_way_to_it(engine_with, words):
    """As in the shipped unit: the supervisor makes the directories that lead there."""
    os.umask(0o077)
    try:
        with engine_with(slots=1, ready_min=0, ready_max=0, volumes={"words": str(words)}) as engine:
            assert sh(engine, "cat /data/en/short", data="words") == "a\nan\nthe\n"
    finally:
        os.umask(0o022)


def test_two_can_be_had_at_once_and_one_twice(engine):
    volumes = {"a": "words", "b": "other", "c/words": "words"}
    assert sh(engine, "ls /a/en /b; cmp /a/tool /c/words/tool", **volumes) == "/a/en:\nshort\n\n/b:\nmodel\n"


def test_who_asks_for_none_sees_none(engine):
    assert sh(engine, "cat /data/en/short", data="words")
    assert sh(engine, "ls -d /data") == "ls: cannot access '/data': No such file or directory\n"


def state(directory):
    """All but the times of access, which looking at it changes."""
    found = [(path, path.stat()) for path in sorted(directory.rglob("*"))]
    return [(str(path), *about[:7], about.st_mtime_ns, about.st_ctime_ns) for path, about in found]


@pytest.mark.parametrize(
    "attempt",
    [
        ": >>/data/en/short",
        "echo x >/data/new",
        "mkdir /data/new",
        "rm /data/en/short",
        "mv /data/en /data/fr",
        "ln -s x /data/link",
        "ln /data/en/short /data/en/again",
        "touch /data/en/short",
        "chmod 777 /data/en/short",
        "truncate -s 0 /data/en/short",
    ],
)
def test_nothing_in_it_can_be_changed(engine, words, attempt):
    before = state(words)
    result = engine.sh(attempt, volumes={"/data": "words"})
    assert result["status"] == "nonzero_exit"
    assert "Read-only file system" in result["stderr"]["text"]
    assert state(words) == before


def test_what_not_everybody_may_read_no_job_may_either(engine):
    assert sh(engine, "cat /data/own", data="words") == "cat: /data/own: Permission denied\n"


def test_a_set_id_bit_in_it_means_nothing(engine, words):
    assert (words / "tool").stat().st_mode & stat.S_ISUID
    assert sh(engine, "/data/tool", data="words") == "1000\n"


def test_ready_sandboxes_are_made_for_the_same_volumes_only(engine):
    for _ in range(3):
        assert sh(engine, "ls /data", data="other") == "model\n"
        assert sh(engine, "ls /data", data="words") == "en\nown\ntool\n"


@pytest.mark.parametrize("path", ["/usr/share/x", "/bin/x", "/lib", "/etc/passwd", "/etc/passwd/x"])
def test_where_the_image_has_something_else_it_is_refused(engine, path):
    with pytest.raises(SpecError) as error:
        engine.run({"argv": ["true"], "volumes": {path: "words"}})
    assert error.value.field == f"volumes.{path}"


def test_a_file_of_it_is_one_inode_for_each_sandbox(engine):
    """So that locks do not leak between jobs."""
    assert sh(engine, "exec 9</data/en/short; flock -n 9 && echo mine", data="words") == "mine\n"


@pytest.mark.parametrize(
    ("path", "words"),
    [("gone", "is no directory"), ("own", "cannot be read by jobs"), (".", "has the images in it")],
)
def test_a_volume_that_cannot_be_one_is_told_at_start(engine_with, tmp_path, path, words):
    tmp_path.chmod(0o755)
    (tmp_path / "own").mkdir(mode=0o700)
    volumes = {"mine": str(tmp_path / path)}
    with (
        pytest.raises(HostError, match=f"The volume mine {words}"),
        engine_with(volumes=volumes, images=str(tmp_path / "images")),
    ):
        pass


def test_a_root_too_long_for_the_supervisor_fails_alone(engine_with, tmp_path):
    path = tmp_path.joinpath(*["d" * 200] * 12)
    path.mkdir(parents=True)
    tmp_path.chmod(0o755)
    with engine_with(slots=1, ready_min=0, ready_max=0, volumes={"far": str(path)}) as engine:
        supervisor = engine.supervisor
        volumes = {f"/v{number}": "far" for number in range(16)}
        result = engine.sh("true", volumes=volumes)
        assert (result["status"], result["detail"]) == ("sandbox_error", "stage service, EMSGSIZE, index 0")
        assert engine.sh("echo goes on")["stdout"]["text"] == "goes on\n"
        assert engine.supervisor == supervisor
