"""Blobs on their way into the store, and those who bring them."""

import os
import subprocess
import sys
import threading

import pytest

from jail.errors import ImageError, StoreFullError
from jail.images import oci
from jail.images.incoming import AlreadyThere, Incoming
from jail.images.oci import Descriptor
from jail.images.writers import Writer, claimed, discard, needed

CONTENT = b"what a blob has" * 1000
WANTED = Descriptor("", oci.digest(CONTENT), len(CONTENT))


def silence(_):
    pass


@pytest.fixture
def file(tmp_path):
    descriptor = os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_a_blob_is_whole_when_all_of_it_came(file):
    incoming = Incoming(file, WANTED, silence)
    incoming.write(CONTENT[:10])
    assert not incoming.is_whole
    incoming.write(memoryview(CONTENT)[10:])
    incoming.check()
    assert incoming.is_whole
    assert os.pread(file, len(CONTENT) + 1, 0) == CONTENT


def test_the_next_one_goes_on_where_the_last_was_cut_off(file):
    Incoming(file, WANTED, silence).write(CONTENT[:100])
    incoming = Incoming(file, WANTED, silence)
    assert incoming.offset == 100
    incoming.write(CONTENT[100:])
    incoming.check()


def test_who_cannot_go_on_begins_anew(file):
    Incoming(file, WANTED, silence).write(b"x" * 100)
    incoming = Incoming(file, WANTED, silence)
    incoming.restart()
    incoming.write(CONTENT)
    incoming.check()
    assert os.fstat(file).st_size == len(CONTENT)


def test_what_is_longer_than_it_can_be_is_begun_anew(file):
    os.write(file, b"x" * (len(CONTENT) + 1))
    assert Incoming(file, WANTED, silence).offset == 0


def test_more_than_was_said_is_refused_before_it_is_written(file):
    incoming = Incoming(file, WANTED, silence)
    incoming.write(CONTENT[:-1])
    with pytest.raises(ImageError, match="is longer than its"):
        incoming.write(b"xx")
    assert os.fstat(file).st_size == len(CONTENT) - 1


def test_less_than_was_said_is_refused_and_can_be_gone_on_with(file):
    incoming = Incoming(file, WANTED, silence)
    incoming.write(CONTENT[:-1])
    with pytest.raises(ImageError, match=f"ends after {len(CONTENT) - 1} of {len(CONTENT)} bytes"):
        incoming.check()
    assert Incoming(file, WANTED, silence).offset == len(CONTENT) - 1


def test_what_has_another_digest_is_refused_and_forgotten(file):
    incoming = Incoming(file, WANTED, silence)
    incoming.write(b"x" * len(CONTENT))
    with pytest.raises(ImageError, match=f"What should be {WANTED.digest} is sha256:"):
        incoming.check()
    assert os.fstat(file).st_size == 0


def test_room_is_asked_for_before_anything_is_written(file):
    def refuse(size):
        raise StoreFullError(f"{size} more.", "None.")

    incoming = Incoming(file, None, refuse)
    with pytest.raises(StoreFullError, match=r"7 more\."):
        incoming.write(b"content")
    assert os.fstat(file).st_size == 0


def test_of_what_is_there_nothing_is_missing():
    found = AlreadyThere(WANTED)
    found.restart()
    assert found.is_whole
    with pytest.raises(ImageError):
        found.write(b"x")


def test_a_writer_needs_until_it_is_closed(tmp_path):
    writer = Writer(tmp_path)
    writer.need("blob-a", 5)
    writer.need("layer-b")
    assert needed(tmp_path) == {"blob-a": 5, "layer-b": 0}
    writer.forget("layer-b")
    assert writer.names() == {"blob-a"}
    writer.close()
    assert needed(tmp_path) == {}


def test_of_two_writers_what_more_may_come_counts(tmp_path):
    first, second = Writer(tmp_path), Writer(tmp_path)
    first.need("blob-a", 5)
    second.need("blob-a", 3)
    assert needed(tmp_path) == {"blob-a": 5}
    first.close()
    assert needed(tmp_path) == {"blob-a": 3}
    second.close()


def test_a_writers_own_files_count_by_their_length(tmp_path):
    writer = Writer(tmp_path)
    (writer.directory / ".spool").write_bytes(b"12345")
    assert needed(tmp_path) == {f"{writer.directory.name}/.spool": 5}
    assert writer.names() == set()
    writer.close()


def test_what_a_dead_writer_needed_nobody_needs(tmp_path):
    program = (
        "import sys; from pathlib import Path; from jail.images.writers import Writer\n"
        "writer = Writer(Path(sys.argv[1])); writer.need('blob-a', 5); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert needed(tmp_path) == {"blob-a": 5}
        process.kill()
    assert needed(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_claim_waits_for_the_one_before_and_then_has_a_file_of_its_own(tmp_path):
    path, order = tmp_path / "blob", []

    def second():
        with claimed(path) as descriptor:
            order.append(("second", os.fstat(descriptor).st_size))

    with claimed(path) as descriptor:
        thread = threading.Thread(target=second)
        thread.start()
        os.write(descriptor, b"whole")
        path.rename(tmp_path / "kept")
        order.append(("first", 5))
    thread.join(60)
    assert order == [("first", 5), ("second", 0)]
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_a_claim_leaves_what_was_written(tmp_path):
    with claimed(tmp_path / "blob") as descriptor:
        os.write(descriptor, b"part")
    assert (tmp_path / "blob").read_bytes() == b"part"


def test_what_is_claimed_cannot_be_discarded(tmp_path):
    path = tmp_path / "blob"
    with claimed(path) as descriptor:
        os.write(descriptor, b"part")
        assert not discard(path)
        assert path.exists()
    assert discard(path)
    assert not path.exists()
    assert discard(path)


@pytest.mark.parametrize("open_it", [discard, lambda path: claimed(path).__enter__()])
def test_a_link_in_place_of_a_blob_is_not_followed(tmp_path, open_it):
    (tmp_path / "victim").write_bytes(b"victim")
    (tmp_path / "blob").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic links"):
        open_it(tmp_path / "blob")
    assert (tmp_path / "victim").read_bytes() == b"victim"
