"""Stored files in jobs: how they appear, what a job can do to them, and what a job stores."""

import fcntl
import hashlib
import os
from contextlib import closing
from pathlib import Path

import pytest

from jail.errors import FileInUseError

MIB = 1 << 20
OWNER = ""


@pytest.fixture(scope="module")
def own_engine(engine_with, tmp_path_factory):
    """An engine whose store is this module's own."""
    directory = tmp_path_factory.mktemp("files")
    with engine_with(files=str(directory), ready_min=0, ready_max=0, slots=2, files_bytes=64 * MIB) as found:
        # Before anybody counts descriptors: what it tried itself out with is still dying.
        found.settle()
        yield found


@pytest.fixture
def own(own_engine):
    """The same; after each test nothing of it is dying."""
    yield own_engine
    own_engine.settle()


@pytest.fixture
def store(own, until):
    """Afterwards nothing is lent, and nothing of the test's is stored."""
    files = own.engine.means.files.files
    yield files
    own.do(until(lambda: not list(files.lent.glob("*/*"))))
    for each in files.stored(OWNER):
        files.remove(each.digest, OWNER)


@pytest.fixture
def put(store):
    """Store bytes; what a job names them by."""

    def bring(content):
        with store.receive(OWNER) as incoming:
            incoming.write(content)
            return {"file": incoming.keep().digest}

    return bring


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def read(store, name):
    with open(store.open(name, OWNER), "rb") as file:
        return file.read()


def test_a_stored_file_is_where_it_was_asked_for(own, put):
    result = own.sh(
        "cat a deep/er/b; find . -mindepth 1 -type f -printf '%p %m %s\\n' | sort",
        files={"a": put(b"one\n"), "deep/er/b": put(b"two\n")},
    )
    assert result["stdout"]["text"].splitlines() == ["one", "two", "./a 555 4", "./deep/er/b 555 4"]


def test_stdin_can_be_a_stored_file(own, put):
    content = os.urandom(3 * MIB)
    result = own.sh("sha256sum", stdin=put(content))
    assert result["stdout"]["text"].split()[0] == hashlib.sha256(content).hexdigest()


def test_both_can_be_the_same_file(own, put):
    name = put(b"content")
    assert own.sh("cmp - a && cmp a b/c", stdin=name, files={"a": name, "b/c": name})["status"] == "ok"


def test_what_is_sent_lies_beside_what_is_stored(own, put):
    result = own.sh(
        "cat sent stored in/sent in/stored",
        files={
            "sent": "1",
            "stored": put(b"2"),
            "in/sent": "3",
            "in/stored": put(b"4"),
        },
    )
    assert (result["status"], result["stdout"]["text"]) == ("ok", "1234")


def test_a_job_writes_beside_stored_files_wherever_they_are(own, put):
    result = own.sh(
        "echo x > beside && mkdir d && echo x > in/deep/beside && mkdir in/d && "
        "find . -type d -printf '%p %m %u\\n' | sort",
        files={"a": put(b"2"), "in/deep/b": put(b"4")},
    )
    assert (result["status"], result["stderr"]["text"]) == ("ok", "")
    assert result["stdout"]["text"].splitlines() == [
        ". 755 jail",
        "./d 755 jail",
        "./in 755 jail",
        "./in/d 755 jail",
        "./in/deep 755 jail",
    ]


def test_a_stored_file_lies_as_deep_as_any(own, put):
    path = "d/" * 31 + "file"
    job = {"argv": ["sh", "-c", f"cat {path} && echo x > {path}2"], "files": {path: put(b"content")}}
    # It and its directories, their root, and what is made beside it.
    result = own.run({**job, "limits": {"files": 34}})
    assert (result["status"], result["stdout"]["text"]) == ("ok", "content"), result


def test_many_stored_files_lie_in_a_directory(own, put):
    name = put(b"x")
    files = {f"some/{number:0100}": name for number in range(64)}
    result = own.sh("ls some | wc -l; cat some/* | wc -c; touch some/more", files=files)
    assert (result["status"], result["stdout"]["text"].split()) == ("ok", ["64", "64"])


def test_processes_of_a_job_have_what_each_names(own, put):
    one, other = put(b"one"), put(b"other")
    told = own.run(
        {
            "processes": [
                {"name": "a", "argv": ["sh", "-c", "cat x; ls"], "files": {"x": one}},
                {"name": "b", "argv": ["sh", "-c", "cat; ls"], "stdin": other},
            ]
        }
    )["processes"]
    assert [told[name]["stdout"]["text"] for name in "ab"] == ["onex\n", "other"]


def test_a_stored_program_is_run(own, put):
    program = put(b"#!/bin/sh\necho $1\n")
    result = own.run({"argv": ["./run", "hello"], "files": {"run": program}})
    assert result["stdout"]["text"] == "hello\n"


CHANGES = """
import errno, os
def attempt(name, change):
    try:
        change()
        print(name, "done")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
for path in ("a", "/proc/self/fd/0"):
    attempt("write", lambda: os.open(path, os.O_WRONLY))
    attempt("append", lambda: os.open(path, os.O_RDWR | os.O_APPEND))
    attempt("truncate", lambda: os.truncate(path, 0))
    attempt("chmod", lambda: os.chmod(path, 0o777))
    attempt("utime", lambda: os.utime(path, (1, 1)))
    attempt("xattr", lambda: os.setxattr(path, "user.x", b"x"))
attempt("truncate", lambda: os.ftruncate(0, 0))
attempt("write", lambda: os.write(0, b"x"))
attempt("unlink", lambda: os.unlink("a"))
attempt("replace", lambda: open("a", "w").write("mine"))
print(open("a").read())
"""


def test_no_job_changes_a_stored_file(own, put, store):
    name = put(b"content")
    result = own.python(CHANGES, files={"a": name}, stdin=name)
    lines = result["stdout"]["text"].splitlines()
    assert lines[-1] == "content"
    assert {line.split()[1] for line in lines[:-1]} <= {
        "EBUSY",
        "EACCES",
        "EPERM",
        "EROFS",
        "EBADF",
        "EINVAL",
        "ENOTSUP",
    }
    assert read(store, name["file"]) == b"content"
    (path,) = (path for path in store.directory.glob("owned/*/*"))
    assert path.stat().st_mode & 0o7777 == 0o555
    assert own.sh("cat a", files={"a": name})["stdout"]["text"] == "content"


LOCK = """
import fcntl, sys
for path in ("a", "/proc/self/fd/0"):
    fcntl.flock(open(path), fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.fcntl(open(path), fcntl.F_GETLK, b"\\0" * 32)
print("locked")
"""


def test_locks_of_a_job_hold_nobody_else_up(own, put, store):
    name = put(b"content")
    with open(store.open(name["file"], OWNER), "rb") as file:
        # As another sandbox would, on the file itself.
        fcntl.flock(file, fcntl.LOCK_EX)
        result = own.python(LOCK, files={"a": name}, stdin=name)
    assert (result["stdout"]["text"], result["stderr"]["text"]) == ("locked\n", "")


def test_two_sandboxes_have_no_inode_in_common(own, put):
    name = put(b"content")
    job = {"argv": ["sh", "-c", "stat -L -c %d:%i a /proc/self/fd/0"], "files": {"a": name}, "stdin": name}
    told = own.run({"processes": [{"name": each, **job} for each in ("one", "two")]})["processes"]
    inodes = [set(told[each]["stdout"]["text"].split()) for each in ("one", "two")]
    assert inodes[0]
    assert not inodes[0] & inodes[1]


def test_a_stored_file_takes_nothing_of_what_a_job_may_use(own, put):
    name = put(os.urandom(8 * MIB))
    result = own.sh(
        "cat big | wc -c; wc -c",
        files={"big": name},
        stdin=name,
        limits={"disk_bytes": 65536, "files": 8, "memory_bytes": 16 * MIB},
    )
    assert result["status"] == "ok", result
    assert result["stdout"]["text"].split() == [str(8 * MIB)] * 2


def test_nothing_of_a_stored_file_is_copied_for_a_job(own, put, store, until):
    name = put(os.urandom(MIB))
    before = {path.stat().st_ino for path in store.directory.glob("owned/*/*")}

    async def look():
        run = own.submit({"argv": ["sleep", "1000"], "files": {"a": name}, "stdin": name})
        await until(lambda: len(list(store.lent.glob("*/*/*"))) == 2)
        found = [path.stat() for path in store.lent.rglob("*") if path.is_file()]
        run.cancel()
        await run.task
        return found

    found = own.do(look())
    assert len(found) == 2
    assert {about.st_ino for about in found} == before


@pytest.mark.parametrize("argv", [["true"], ["no such program"], ["sh", "-c", "kill -9 $$"]])
def test_what_a_job_has_is_given_back_however_it_ends(own, put, store, until, argv):
    name = put(b"content")
    own.run({"argv": argv, "files": {"a": name}, "stdin": name})
    own.do(until(lambda: not list(store.lent.glob("*/*"))))


def test_a_job_that_is_cancelled_in_the_queue_gives_back_what_it_has(own, put, store, until):
    name = put(b"content")

    async def scene():
        running = [own.submit({"argv": ["sleep", "1000"]}) for _ in range(2)]
        waiting = own.submit({"argv": ["cat", "a"], "files": {"a": name}})
        await until(lambda: list(store.lent.glob("*/*/box/a")))
        waiting.cancel()
        await waiting.task
        await until(lambda: not list(store.lent.glob("*/*")))
        for run in running:
            run.cancel()
            await run.task

    own.do(scene())


def test_a_file_stays_while_its_job_waits(own, put, store, until):
    name = put(b"content")

    async def scene():
        running = [own.submit({"argv": ["sleep", "1000"]}) for _ in range(2)]
        waiting = own.submit({"argv": ["cat", "a"], "files": {"a": name}})
        await until(lambda: list(store.lent.glob("*/*/box/a")))
        with pytest.raises(FileInUseError):
            store.remove(name["file"], OWNER)
        for run in running:
            run.cancel()
            await run.task
        return await own.answer(waiting)

    assert own.do(scene())["stdout"]["text"] == "content"


def test_a_file_that_has_gone_before_is_not_the_programs_fault(own, put, store):
    name = put(b"content")

    async def scene():
        run = own.submit({"argv": ["cat", "a"], "files": {"a": name}})
        store.remove(name["file"], OWNER)
        return await own.answer(run)

    result = own.do(scene())
    assert (result["status"], result["detail"]) == ("sandbox_error", "stage stored, ENOENT, index 0")


def test_an_output_is_stored_and_is_the_next_jobs_input(own, store):
    made = own.sh(
        "printf '#!/bin/sh\\necho hello\\n' > a.out; chmod 700 a.out; echo x > b",
        outputs=[{"path": "a.out", "store": True}, "b", {"path": "none?", "store": True}],
    )
    content = b"#!/bin/sh\necho hello\n"
    assert made["outputs"] == {
        "a.out": {"file": digest(content), "bytes": len(content), "mode": 0o700},
        "b": {"base64": "eAo=", "bytes": 2, "mode": 0o644},
    }
    assert read(store, digest(content)) == content
    ran = own.run({"argv": ["./a.out"], "files": {"a.out": {"file": made["outputs"]["a.out"]["file"]}}})
    assert ran["stdout"]["text"] == "hello\n"


def test_what_is_stored_needs_not_fit_in_an_answer(own, store):
    made = own.sh(
        "head -c 3000000 /dev/zero > out",
        outputs=[{"path": "out", "store": True}],
        limits={"output_bytes": 1000},
    )
    assert made["outputs"]["out"]["file"] == digest(bytes(3_000_000))


def test_a_file_of_holes_is_no_way_to_store_more_than_a_job_may_have(own, store):
    made = own.sh("truncate -s 1G out", outputs=[{"path": "out", "store": True}])
    (error,) = made["output_errors"]
    assert "limits.disk_bytes" in error["reason"]
    assert store.stored(OWNER) == []


def test_what_does_not_fit_in_the_quota_is_told_and_the_verdict_stands(own, store):
    made = own.sh(
        "truncate -s 65M out",
        outputs=[{"path": "out", "store": True}],
        limits={"disk_bytes": 70 * MIB, "memory_bytes": 100 * MIB},
    )
    (error,) = made["output_errors"]
    assert (made["status"], "may have" in error["reason"]) == ("ok", True)


@pytest.mark.parametrize("make", ["ln -s /etc/passwd out", "mkfifo out", "mkdir out"])
def test_only_regular_files_are_stored(own, store, make):
    made = own.sh(make, outputs=[{"path": "out", "store": True}])
    assert [error["path"] for error in made["output_errors"]] == ["out"]
    assert store.stored(OWNER) == []


def test_others_of_the_host_reach_no_stored_file(store, put, own):
    name = put(b"content")
    with closing(store.lend({"a": name["file"]}, None, OWNER)):
        assert store.directory.stat().st_mode & 0o077 == 0


def test_a_job_sees_no_stored_file_but_its_own(own, put, store):
    put(b"of another")
    result = own.sh(f"find / -path '*{store.directory.name}*' 2>/dev/null; grep -c owned /proc/mounts")
    assert result["stdout"]["text"] == "0\n"
    assert Path(store.directory, "owned").is_dir()


def test_a_hundred_jobs_with_a_large_file_have_no_copy_of_it(own, put, store, processes):
    large, small = put(os.urandom(60 * MIB)), put(b"small")
    body = {"argv": ["cmp", "-n", "4096", "-", "a"]}

    async def run_all(name, count):
        runs = [own.submit({**body, "files": {"a": name}, "stdin": name}) for _ in range(count)]
        return [await own.answer(run) for run in runs]

    own.do(run_all(small, 5))
    before, begun = processes.memory_bytes(os.getpid()), _used_bytes(store)
    peaks = {}
    for name, count in ((small, 5), (large, 100)):
        results = own.do(run_all(name, count))
        assert {result["status"] for result in results} == {"ok"}
        peaks[name["file"]] = max(result["usage"]["memory_peak_bytes"] for result in results)
    assert processes.memory_bytes(os.getpid()) - before < 10 * MIB
    assert _used_bytes(store) == begun
    # What was read of it may count as memory of who read it first.
    assert peaks[large["file"]] - peaks[small["file"]] < 2 * MIB


def _used_bytes(store):
    return sum(path.stat().st_blocks * 512 for path in store.directory.glob("owned/*/*"))
