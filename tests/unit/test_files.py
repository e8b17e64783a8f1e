"""The store of files: what it keeps, for whom, how long, and what is left of those who died in it."""

import hashlib
import os
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from jail.errors import (
    FileDigestError,
    FileInUseError,
    FileNotStoredError,
    FilesDiskFullError,
    FilesFullError,
    FileTooLargeError,
    HostError,
)
from jail.files import Bounds, Files, store
from jail.files.store import PAGE_BYTES

pytestmark = pytest.mark.usefixtures("leaks_nothing")

DAY_S = 24 * 3600
OWN, OTHER = "someone", "someone else"


class Clock:
    """Time that passes by a second whenever it is looked at, and by more when it is told to."""

    def __init__(self):
        self.now_s = 1_800_000_000

    def __call__(self):
        self.now_s += 1
        return self.now_s * 10**9


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def opened(tmp_path, clock):
    """Open the store of the test, with bounds of its own."""

    @contextmanager
    def open_store(**bounds):
        found = Bounds(**({"bytes": 0, "file_bytes": 1 << 24, "age_s": 0} | bounds))
        with Files(tmp_path / "files", found, clock) as files:
            yield files

    return open_store


@pytest.fixture
def files(opened):
    with opened() as found:
        yield found


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def put(files, content, owner=OWN):
    with files.receive(owner) as incoming:
        incoming.write(content)
        return incoming.keep()


def read(files, name, owner=OWN):
    with open(files.open(name, owner), "rb") as file:
        return file.read()


def digests(files, owner=OWN):
    return {each.digest for each in files.stored(owner)}


def page(letter):
    """Content that counts as one page."""
    return letter.encode() * PAGE_BYTES


def everything(files):
    """Whatever there is in the store but for directories, its mark and what is lent, by path."""
    found = [path for path in files.directory.rglob("*") if path.is_file() and path.name != "store"]
    return [path for path in found if not path.is_relative_to(files.lent)]


def test_a_file_is_found_by_the_digest_of_its_bytes(files):
    kept = put(files, b"content")
    assert (kept.digest, kept.bytes, kept.is_new) == (digest(b"content"), 7, True)
    assert read(files, kept.digest) == b"content"
    assert files.find(kept.digest, OWN) == 7


def test_the_same_bytes_are_kept_once(files):
    put(files, b"content")
    assert not put(files, b"content").is_new
    assert len(everything(files)) == 1


def test_pieces_of_any_length_make_one_file(files):
    content = os.urandom(3 << 20)
    with files.receive(OWN) as incoming:
        for start in range(0, len(content), 77_777):
            incoming.write(content[start : start + 77_777])
        kept = incoming.keep(digest(content))
    assert read(files, kept.digest) == content


def test_nobody_can_write_a_file_and_everybody_may_execute_it(files):
    kept = put(files, b"#!/bin/sh\n")
    assert os.stat(everything(files)[0]).st_mode & 0o7777 == 0o555
    with pytest.raises(PermissionError):
        everything(files)[0].open("ab")
    assert kept.bytes == 10


def test_what_is_not_what_it_was_said_to_be_is_refused_and_gone(files):
    with files.receive(OWN) as incoming:
        incoming.write(b"other bytes")
        with pytest.raises(FileDigestError, match="should be sha256:"):
            incoming.keep(digest(b"content"))
    assert everything(files) == []


def test_nothing_stays_of_a_file_that_was_not_kept(files):
    with files.receive(OWN) as incoming:
        incoming.write(b"half")
        assert len(everything(files)) == 1
    assert everything(files) == []


def test_a_file_has_no_more_bytes_than_it_may_have(opened):
    with opened(file_bytes=10) as files:
        put(files, b"0123456789")
        with pytest.raises(FileTooLargeError, match="may have 10 bytes"), files.receive(OWN) as incoming:
            incoming.write(b"0123456789a")
        with pytest.raises(FileTooLargeError):
            files.begin(OWN, 11)
        assert len(everything(files)) == 1


def test_a_file_that_alone_is_more_than_the_quota_is_too_large(opened):
    with opened(bytes=PAGE_BYTES) as files, pytest.raises(FileTooLargeError, match=f"{PAGE_BYTES} bytes"):
        put(files, b"x" * (PAGE_BYTES + 1))


# Owners


def test_owners_neither_see_nor_use_nor_remove_each_others_files(files):
    name = put(files, b"content", OTHER).digest
    assert files.find(name, OWN) is None
    assert files.stored(OWN) == []
    for attempt in (
        lambda: files.open(name, OWN),
        lambda: files.remove(name, OWN),
        lambda: files.publish(name, OWN),
        lambda: files.lend({"a": name}, None, OWN),
        lambda: files.lend({}, name, OWN),
    ):
        with pytest.raises(FileNotStoredError):
            attempt()
    assert read(files, name, OTHER) == b"content"


@pytest.mark.parametrize(
    "name", ["", "..", "../secret", "/etc/passwd", "sha256:../../secret", "sha256:" + "A" * 64]
)
def test_what_is_no_digest_is_no_file(files, name, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    assert files.find(name, OWN) is None
    for attempt in (
        lambda: files.open(name, OWN),
        lambda: files.remove(name, OWN),
        lambda: files.withdraw(name),
        lambda: files.publish(name, OWN),
        lambda: files.lend({"a": name}, None, OWN),
    ):
        with pytest.raises(FileNotStoredError, match="is no digest"):
            attempt()
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_nobody_learns_by_putting_a_file_that_another_has_it(files):
    put(files, b"content", OTHER)
    assert put(files, b"content").is_new
    assert len({path.stat().st_ino for path in everything(files)}) == 2


def test_an_owner_may_be_called_anything(files):
    owners = ["", "..", "/", "a/b", "\0", "a" * 1000, "é"]
    for owner in owners:
        put(files, owner.encode() + b"'s", owner)
    assert [len(files.stored(owner)) for owner in owners] == [1] * len(owners)
    assert {path.parent.parent.name for path in everything(files)} == {"owned"}


def test_what_is_published_everybody_has_and_none_can_remove(files):
    name = put(files, b"content").digest
    files.publish(name, OWN)
    assert read(files, name, OTHER) == b"content"
    (seen,) = files.stored(OTHER)
    assert (seen.digest, seen.bytes, seen.published, seen.used_s) == (name, 7, True, 0)
    for owner in (OWN, OTHER):
        with pytest.raises(FileNotStoredError):
            files.remove(name, owner)
    files.publish(name, OWN)
    files.withdraw(name)
    assert files.find(name, OTHER) is None
    with pytest.raises(FileNotStoredError):
        files.withdraw(name)


def test_a_published_file_tells_nobody_when_others_used_it(files):
    name = put(files, b"content").digest
    files.publish(name, OWN)
    before = everything(files)[0].stat()
    read(files, name, OTHER)
    files.lend({"a": name}, None, OTHER)
    after = everything(files)[0].stat()
    assert (after.st_atime_ns, after.st_mtime_ns) == (before.st_atime_ns, before.st_mtime_ns)


# Quota and age


def test_the_least_recently_used_goes_first(opened):
    with opened(bytes=3 * PAGE_BYTES) as files:
        first, second, third = (put(files, page(letter)).digest for letter in "abc")
        read(files, first)
        fourth = put(files, page("d")).digest
        assert digests(files) == {first, third, fourth}
        # To put it again is to use it.
        put(files, page("c"))
        fifth = put(files, page("e")).digest
        assert digests(files) == {third, fourth, fifth}
        assert second not in digests(files)


def test_a_file_that_a_job_has_is_not_evicted(opened):
    with opened(bytes=2 * PAGE_BYTES) as files:
        first, second = (put(files, page(letter)).digest for letter in "ab")
        with closing(files.lend({"x": first}, None, OWN)):
            read(files, second)
            third = put(files, page("c")).digest
            assert digests(files) == {first, third}
        assert digests(files) == {first, third}
        put(files, page("d"))
        put(files, page("e"))
        assert first not in digests(files)


def test_where_nothing_more_can_be_evicted_the_quota_is_said_and_nothing_goes(opened):
    with opened(bytes=3 * PAGE_BYTES) as files:
        first, second, third = (put(files, page(letter)).digest for letter in "abc")
        with closing(files.lend({"x": first}, second, OWN)):
            with pytest.raises(FilesFullError, match=f"quota is {3 * PAGE_BYTES} bytes"):
                files.begin(OWN, 2 * PAGE_BYTES)
            assert digests(files) == {first, second, third}
            # Whose length is not known is found out by and by.
            with pytest.raises(FilesFullError):
                put(files, page("d") + page("e"))
            assert digests(files) == {first, second}


def test_what_is_on_its_way_counts_and_is_not_evicted(opened):
    with opened(bytes=3 * PAGE_BYTES) as files, files.receive(OWN) as incoming:
        incoming.write(page("a") + page("b"))
        put(files, page("c"))
        put(files, page("d"))
        assert digests(files) == {digest(page("d"))}
        with pytest.raises(FilesFullError):
            put(files, page("e") + page("f"))
        assert incoming.keep().bytes == 2 * PAGE_BYTES


def test_no_more_is_evicted_than_is_needed_when_the_length_is_known(opened):
    with opened(bytes=4 * PAGE_BYTES) as files:
        kept = [put(files, page(letter)).digest for letter in "abcd"]
        incoming = files.begin(OWN, 2 * PAGE_BYTES)
        with closing(incoming):
            incoming.write(page("e"))
            incoming.write(page("f"))
            added = incoming.keep().digest
        assert digests(files) == {*kept[2:], added}


def test_the_quota_of_one_owner_is_no_other_owners(opened):
    with opened(bytes=2 * PAGE_BYTES) as files:
        others = {put(files, page(letter), OTHER).digest for letter in "ab"}
        for letter in "cdef":
            put(files, page(letter))
        assert digests(files, OTHER) == others
        assert len(digests(files)) == 2


def test_what_is_published_counts_for_nobody(opened):
    with opened(bytes=2 * PAGE_BYTES) as files:
        published = put(files, page("a")).digest
        files.publish(published, OWN)
        kept = {put(files, page(letter)).digest for letter in "bcd"}
        assert digests(files) == {published, digest(page("c")), digest(page("d"))}
        assert digest(page("b")) in kept


def test_small_files_count_as_pages(opened):
    with opened(bytes=2 * PAGE_BYTES) as files:
        for letter in "abc":
            put(files, letter.encode())
        assert digests(files) == {digest(b"b"), digest(b"c")}


def test_the_number_of_files_is_bounded(opened, monkeypatch):
    monkeypatch.setattr(store, "FILES_MAX", 2)
    with opened() as files:
        for letter in "abc":
            put(files, letter.encode())
        assert digests(files) == {digest(b"b"), digest(b"c")}


def test_what_nobody_uses_for_long_is_gone(opened, clock):
    with opened(age_s=DAY_S) as files:
        old, used, lent_out = (put(files, letter.encode()).digest for letter in "abc")
        published = put(files, b"d").digest
        files.publish(published, OWN)
        with closing(files.lend({}, lent_out, OWN)):
            clock.now_s += DAY_S - 100
            read(files, used)
            clock.now_s += 200
            assert digests(files) == {used, lent_out, published}
            assert files.find(old, OWN) is None
            assert len(everything(files)) == 4
            files.sweep()
            assert len(everything(files)) == 3
        files.sweep()
        assert digests(files) == {used, published}


def test_what_is_old_goes_first_of_all_when_something_comes(opened, clock):
    with opened(age_s=DAY_S) as files:
        put(files, b"old")
        clock.now_s += DAY_S
        kept = put(files, b"new").digest
        assert digests(files) == {kept}
        assert len(everything(files)) == 1


# What jobs have


def tree(directory):
    found = {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*"))}
    return {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}


def test_a_job_has_links_to_its_files(files):
    one, two = put(files, b"one").digest, put(files, b"two").digest
    before = os.umask(0o077)
    try:
        had = files.lend({"a/b/one": one, "a/two": two, "again": one}, two, OWN)
    finally:
        os.umask(before)
    assert tree(had.directory) == {
        "box": None,
        "box/a": None,
        "box/a/b": None,
        "box/a/b/one": b"one",
        "box/a/two": b"two",
        "box/again": b"one",
        "stdin": b"two",
    }
    assert len({path.stat().st_ino for path in everything(files)}) == 2
    assert (had.directory / "box/again").stat().st_ino in {path.stat().st_ino for path in everything(files)}
    modes = {path.stat().st_mode & 0o7777 for path in had.directory.rglob("*") if path.is_dir()}
    assert modes == {0o755}
    had.close()
    assert list(files.lent.glob("*/*")) == []


def test_what_a_job_has_stays_and_counts(opened):
    # Else an owner who removes what jobs have could take up any number of quotas.
    with opened(bytes=2 * PAGE_BYTES) as files:
        name = put(files, page("a")).digest
        with closing(files.lend({"x": name}, None, OWN)):
            with pytest.raises(FileInUseError, match="has the file"):
                files.remove(name, OWN)
            with pytest.raises(FilesFullError):
                files.begin(OWN, 2 * PAGE_BYTES)
        files.remove(name, OWN)
        assert files.find(name, OWN) is None


def test_a_job_keeps_what_is_withdrawn_meanwhile(files):
    name = put(files, b"content").digest
    files.publish(name, OWN)
    with closing(files.lend({"x": name}, None, OTHER)) as had:
        files.withdraw(name)
        assert (had.directory / "box/x").read_bytes() == b"content"
        assert files.find(name, OTHER) is None


def test_of_a_job_that_names_what_is_not_there_nothing_is_left(files):
    name = put(files, b"content").digest
    with pytest.raises(FileNotStoredError):
        files.lend({"a/b": name, "c": digest(b"unknown")}, None, OWN)
    assert list(files.lent.glob("*/*")) == []


# What others leave


def test_another_directory_is_no_store(tmp_path, opened):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "thesis.tex").touch()
    with pytest.raises(HostError, match=r"no store of files: there is thesis\.tex"), opened():
        pass


def test_the_store_is_closed_to_others_but_for_what_is_lent(files):
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in (files.directory, files.lent, files.directory / "owned", files.directory / "published")
    }
    assert modes == {"files": 0o700, "lent": 0o711, "owned": 0o700, "published": 0o700}


def test_two_processes_share_a_store(opened):
    with opened() as first, opened() as second:
        name = put(first, b"content").digest
        with closing(second.lend({"x": name}, None, OWN)):
            assert read(second, name) == b"content"
            with first.receive(OWN) as incoming:
                incoming.write(b"half")
                # Who opens it meanwhile sweeps nothing that somebody has.
                with opened():
                    pass
                assert len(everything(first)) == 2
            assert len(list(first.lent.glob("*/*"))) == 1


def test_who_puts_and_who_evicts_at_once_keep_to_the_quota(opened):
    """Eight threads with two stores open: at no time is more than the quota there, and nothing is damaged."""
    bytes_max = 20 * PAGE_BYTES
    failures = []

    def work(files, number):
        try:
            for turn in range(30):
                put(files, os.urandom(1 + (number * 977 + turn * 131) % (2 * PAGE_BYTES)))
                sizes = [store._pages(path.stat().st_size) for path in files.directory.glob("owned/*/[!.]*")]
                assert sum(sizes) <= bytes_max
        except FileNotFoundError:
            # What was listed was evicted meanwhile.
            pass
        except BaseException as error:
            failures.append(error)

    with opened(bytes=bytes_max) as first, opened(bytes=bytes_max) as second:
        threads = [threading.Thread(target=work, args=((first, second)[n % 2], n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        for path in everything(first):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


CRASH = """
import os, sys
from pathlib import Path

calls, left = set(sys.argv[3].split()), int(sys.argv[4])

def dying(call):
    def attempt(*arguments, **options):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return call(*arguments, **options)
    return attempt

from jail.files import Bounds, Files
for name in calls:
    setattr(os, name, dying(getattr(os, name)))
files = Files(Path(sys.argv[1]), Bounds(bytes=0, file_bytes=1 << 24, age_s=0))
with files.receive("someone") as incoming:
    incoming.write(b"the new one" * 100_000)
    kept = incoming.keep()
files.lend({"a/b": kept.digest, "c": sys.argv[2]}, kept.digest, "someone").close()
files.publish(kept.digest, "someone")
files.remove(sys.argv[2], "someone")
files.close()
print(left)
"""

CALLS = "chmod close fchmod fsync ftruncate link mkdir open rename rmdir scandir unlink utime write"


def crash(directory, name, left):
    """Work with the store in a process that dies before the call with that number; its exit status."""
    command = [sys.executable, "-P", "-c", CRASH, directory, name, CALLS, str(left)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_whoever_dies_in_the_store_leaves_whole_files_and_no_other(opened, tmp_path):
    with opened() as files:
        old = put(files, b"the old one").digest
    new = digest(b"the new one" * 100_000)
    whole = crash(tmp_path / "files", old, 1000)
    assert whole.returncode == 0, whole.stderr
    calls = 1000 - int(whole.stdout)
    assert calls > 30
    for left in range(calls):
        with opened() as files:
            put(files, b"the old one")
            for name in digests(files) & {new}:
                files.withdraw(name)
        assert crash(tmp_path / "files", old, left).returncode == 9
        with opened() as files:
            assert digests(files) <= {old, new}
            assert all(digest(read(files, name)) == name for name in digests(files))
            assert len(everything(files)) == len(digests(files))
            assert list(files.lent.glob("*/*")) == []
            assert len(list(files.lent.iterdir())) == 1
            # It goes on.
            assert put(files, b"the new one" * 100_000).digest == new
            if {each.digest for each in files.stored(OWN) if not each.published} >= {new}:
                files.remove(new, OWN)


def test_a_full_disk_is_told_as_such_and_nothing_stays(files, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(FilesDiskFullError, match="disk of stored files is full"):
        put(files, b"content")
    assert everything(files) == []


def test_links_in_the_store_are_not_followed(files, tmp_path):
    name = put(files, b"content").digest
    (path,) = everything(files)
    secret = Path(tmp_path / "secret")
    secret.write_bytes(b"secret")
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        files.open(name, OWN)
