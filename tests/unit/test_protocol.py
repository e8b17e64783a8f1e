"""The messages: what Python takes their layout and their words to be."""

import typing

import pytest
from jail._protocol import ffi, lib
from offered import Offered

from jail import limits, outcome, process, rlimits, spec, supervisor
from jail.outcome import Failure
from jail.supervisor import Report, Start, pack_file

STRUCTS = ["header", "make", "start", "file", "ask", "failure", "cpu_time", "report", "news"]
STRUCTS += ["counted", "answer", "denial", "denials"]
MESSAGES = ["make", "start", "ask", "report", "news"]


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_has_no_padding_that_is_not_named(name):
    end = 0
    for _, field in ffi.typeof(f"struct {name}").fields:
        assert field.offset == end
        end += ffi.sizeof(field.type)
    # What the compiler put in would carry bytes of the sender's memory.
    assert ffi.sizeof(f"struct {name}") == end


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_begins_with_its_type_and_its_slot_and_fits_a_packet(name):
    first, field = ffi.typeof(f"struct {name}").fields[0]
    assert (first, field.type.cname, field.offset) == ("header", "struct header", 0)
    assert ffi.sizeof(f"struct {name}") <= lib.MESSAGE_BYTES_MAX


@pytest.mark.parametrize("name", ["stage", "type", "cause"])
def test_no_two_names_of_an_enum_mean_the_same(name):
    elements = ffi.typeof(f"enum {name}").relements
    assert len(set(elements.values())) == len(elements)


@pytest.mark.parametrize("name", ["stage", "cause"])
def test_the_words_of_an_enum_count_up_from_none(name):
    elements = ffi.typeof(f"enum {name}").elements
    assert sorted(elements) == list(range(len(elements)))
    assert elements[0] == f"{name.upper()}_NONE"


def test_the_word_of_every_stage_is_its_own():
    words = [name.removeprefix("STAGE_").lower() for name in ffi.typeof("enum stage").relements]
    assert len(set(words)) == len(words)


def report(**fields):
    struct = ffi.new("struct report *", fields)
    return Report(bytes(ffi.buffer(struct)), [])


@pytest.mark.parametrize(
    ("number", "word"),
    [(lib.STAGE_CLONE, "clone"), (lib.STAGE_NO_NEW_PRIVS, "no_new_privs"), (lib.STAGE_TIME, "time")],
)
def test_a_report_tells_the_stage_that_failed_by_its_word(number, word):
    told = report(failure={"stage": number, "error": 13, "index": 2})
    assert told.failure == Failure(word, 13, 2)


def test_a_report_without_a_stage_tells_of_no_failure():
    assert report().failure is None


@pytest.mark.parametrize(("number", "word"), supervisor.CAUSES.items())
def test_a_report_tells_its_cause_by_its_word(number, word):
    assert report(cause=number).cause == word


def test_a_report_has_the_descriptor_that_came_along_or_none():
    packet = bytes(ffi.sizeof("struct report"))
    assert Report(packet, [7]).descriptor == 7
    assert Report(packet, []).descriptor == -1


def test_the_stages_that_blame_the_program_are_stages():
    words = {name.removeprefix("STAGE_").lower() for name in ffi.typeof("enum stage").relements}
    assert set(outcome._START_STAGES) <= words


def test_every_cause_becomes_a_verdict():
    assert {*process._CAUSES, "none", "service"} == set(supervisor.CAUSES.values())


def test_a_file_of_a_plan_is_its_struct_its_path_and_its_bytes():
    packed = pack_file(b"a/b", 0o755, b"\0x")
    header = ffi.from_buffer("struct file *", packed[: ffi.sizeof("struct file")])
    assert (header.bytes, header.mode, header.path_bytes) == (2, 0o755, 4)
    assert packed[ffi.sizeof("struct file") :] == b"a/b\0\0x"


def test_a_start_sends_stdio_the_filter_and_the_plan_in_this_order():
    start = Start((1, 2, 3), policy=4, plan=5)
    assert start.descriptors == (1, 2, 3, 4, 5)
    assert start.message.header.type == lib.TYPE_START


def test_a_start_that_is_explained_sends_two_more_and_listens():
    start = Start((1, 2, 3), policy=4, plan=5, explains=(6, 7))
    assert start.descriptors == (1, 2, 3, 4, 5, 6, 7)
    assert (start.message.explains, start.message.listens) == (1, 1)


def test_a_start_without_anything_to_hand_over_does_not_listen():
    start = Start((1, 2, 3), policy=4, plan=5)
    assert start.message.listens == 0


def test_denials_are_those_that_were_written():
    about = {"count": 1, "omitted": 9, "listed": [{"arguments": [1, 2, 3, 4, 5, 6], "count": 7, "call": 41}]}
    content = bytes(ffi.buffer(ffi.new("struct denials *", about)))
    assert supervisor.unpack_denials(content) == ([(41, (1, 2, 3, 4, 5, 6), 7)], 9)
    assert supervisor.unpack_denials(bytes(supervisor.DENIALS_BYTES)) == ([], 0)


def test_a_start_has_room_for_every_resource_limit():
    assert lib.RLIMIT_COUNT == rlimits.COUNT


def test_a_start_has_room_for_the_options_of_the_largest_scratch():
    start = Start((1, 2, 3), policy=4, plan=5)
    job = spec.validate(
        spec.Request(argv=["true"], limits=limits.LimitsRequest(disk_bytes=1 << 62, files=1 << 62)),
        spec.Rules(
            defaults=limits.Limits(),
            ceilings=limits.Limits(disk_bytes=1 << 62, files=1 << 62),
            images=Offered(),
            policies=("default",),
            processes=1,
            memory_bytes=limits.Limits().memory_bytes,
        ),
    )
    process._fill(start.message, job.processes[0], 16)
    assert ffi.string(start.message.scratch_options) == b"size=%d,nr_inodes=%d" % (1 << 62, 1 << 62)


def test_a_start_has_a_bit_for_every_processor():
    start = Start((1, 2, 3), policy=4, plan=5)
    start.pin((0, 65, supervisor.PROCESSORS_MAX - 1))
    words = list(start.message.processors)
    assert (words[0], words[1], words[-1], sum(map(bool, words))) == (1, 2, 1 << 63, 3)


def test_the_longest_path_of_a_job_fits_into_a_packet():
    assert spec.PATH_BYTES_MAX < lib.PATH_BYTES_MAX
    assert ffi.sizeof("struct ask") + lib.PATH_BYTES_MAX <= lib.MESSAGE_BYTES_MAX


def test_every_status_is_one_word():
    assert all(word.replace("_", "").isalpha() for word in typing.get_args(outcome.Status))
