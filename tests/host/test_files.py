"""stdin, files in, files out."""

import base64

import pytest

EVERY_BYTE = bytes(range(256))


def b64(content):
    return {"base64": base64.b64encode(content).decode()}


@pytest.mark.parametrize(
    ("stdin", "content"),
    [
        ("", b""),
        ("two\nlines\n", b"two\nlines\n"),
        ({"text": "ünï"}, "ünï".encode()),
        (b64(EVERY_BYTE), EVERY_BYTE),
        (b64(EVERY_BYTE * 8192), EVERY_BYTE * 8192),
    ],
    ids=["empty", "text", "unicode", "bytes", "2 MiB"],
)
def test_stdin_arrives_as_it_was_sent(jail, stdin, content):
    result = jail.run({"argv": ["cmp", "-", "expected"], "stdin": stdin, "files": {"expected": b64(content)}})
    assert (result["status"], result["stdout"]["text"]) == ("ok", "")


def test_stdin_cannot_be_written(jail):
    result = jail.sh("echo y > /proc/self/fd/0 || echo x >&0; cat", stdin="mine")
    assert result["stdout"]["text"] == "mine"


def test_files_are_there_with_their_directories_and_modes(jail):
    result = jail.sh(
        "find . -mindepth 1 -printf '%p %m %U:%G %y\\n' | sort",
        files={
            "plain": "x",
            "deep/er/file": {"text": "y"},
            "deep/other": b64(b"z"),
            "run": {"text": "#!/bin/sh\n", "executable": True},
            "with space and ünï": "",
        },
    )
    assert result["stdout"]["text"].splitlines() == [
        "./deep 755 1000:1000 d",
        "./deep/er 755 1000:1000 d",
        "./deep/er/file 644 1000:1000 f",
        "./deep/other 644 1000:1000 f",
        "./plain 644 1000:1000 f",
        "./run 755 1000:1000 f",
        "./with space and ünï 644 1000:1000 f",
    ]


def test_an_executable_file_is_run(jail):
    script = {"text": "#!/bin/sh\necho $1\n", "executable": True}
    result = jail.run({"argv": ["./bin/hello", "world"], "files": {"bin/hello": script}})
    assert result["stdout"]["text"] == "world\n"


def test_files_of_the_job_can_be_changed_by_it(jail):
    result = jail.sh("echo more >> a/b && mv a/b a/c && rm d && cat a/c", files={"a/b": "some\n", "d": ""})
    assert result["stdout"]["text"] == "some\nmore\n"


def test_outputs_come_back_with_content_size_and_mode(jail):
    result = jail.sh(
        "mkdir -p a/b; cp every a/b/out; printf x > plain; chmod 640 plain; chmod 0 closed; true",
        files={"every": b64(EVERY_BYTE), "closed": "secret"},
        outputs=["a/b/out", "plain", "closed"],
    )
    assert result["output_errors"] == []
    assert result["outputs"] == {
        "a/b/out": {**b64(EVERY_BYTE), "bytes": 256, "mode": 0o644},
        "plain": {**b64(b"x"), "bytes": 1, "mode": 0o640},
        "closed": {**b64(b"secret"), "bytes": 6, "mode": 0},
    }


def test_outputs_come_back_from_a_job_that_was_ended(jail):
    result = jail.sh("echo x > out; sleep 1000", outputs=["out"], limits={"wall_ms": 200})
    assert result["status"] == "wall_limit"
    assert result["outputs"]["out"]["base64"] == b64(b"x\n")["base64"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (":", "no such file"),
        ("ln -s /etc/passwd out", "symbolic link"),
        ("ln -s nowhere out", "symbolic link"),
        ("mkdir out", "directory"),
        ("mkfifo out", "not a regular file"),
        ("head -c 1001 /dev/zero > out", "larger"),
    ],
    ids=["missing", "link out", "broken link", "directory", "fifo", "too large"],
)
def test_what_cannot_be_brought_home_is_told(jail, make, reason):
    result = jail.sh(make, outputs=["out"], limits={"output_bytes": 1000})
    assert result["status"] == "ok"
    assert result["outputs"] == {}
    (error,) = result["output_errors"]
    assert error["path"] == "out"
    assert reason in error["reason"]


def test_a_socket_is_no_output(jail):
    result = jail.python("import socket; socket.socket(socket.AF_UNIX).bind('out')", outputs=["out"])
    assert result["outputs"] == {}
    assert "not a regular file" in result["output_errors"][0]["reason"]


def test_no_link_on_the_way_is_followed(jail):
    result = jail.sh("ln -s /etc way; ln -s . here; echo x > f", outputs=["way/passwd", "here/f", "f/x"])
    assert result["outputs"] == {}
    reasons = [error["reason"] for error in result["output_errors"]]
    assert ["symbolic link" in reason for reason in reasons] == [True, True, False]
    assert "not a directory" in reasons[2]


def test_a_missing_optional_output_is_no_error(jail):
    result = jail.sh("echo x > there", outputs=["there?", "missing?", "away/missing?"])
    assert list(result["outputs"]) == ["there"]
    assert result["output_errors"] == []


def test_outputs_share_one_budget(jail):
    result = jail.sh(
        "for f in a b c; do head -c 400 /dev/zero > $f; done",
        outputs=["a", "b", "c"],
        limits={"output_bytes": 1000},
    )
    assert sorted(result["outputs"]) == ["a", "b"]
    assert [error["path"] for error in result["output_errors"]] == ["c"]


def test_a_sparse_file_is_as_large_as_it_says(jail):
    result = jail.sh("truncate -s 1T out", outputs=["out"])
    assert result["outputs"] == {}
    assert "larger" in result["output_errors"][0]["reason"]
