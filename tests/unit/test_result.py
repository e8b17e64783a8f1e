"""What a caller is told of a stream."""

import base64

import msgspec
import pytest

from jail.capture import Captured
from jail.result import ProcessResult, Result, Stream, milliseconds, stream


def whole(content):
    return Captured(content, len(content))


def cut(content):
    return Captured(content, len(content) + 1)


@pytest.mark.parametrize("text", ["", "hello\n", "é€𐍈", "\0", "\x1b[31m", "\ufeff", "a\r\n"])
def test_utf_8_is_text(text):
    content = text.encode()
    assert stream(whole(content)) == Stream(bytes=len(content), truncated=False, text=text)


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"ok\xffok", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"],
    ids=["byte", "in the middle", "overlong", "surrogate", "beyond Unicode", "half a character"],
)
def test_what_is_not_utf_8_is_base64(content):
    encoded = base64.b64encode(content).decode()
    assert stream(whole(content)) == Stream(bytes=len(content), truncated=False, base64=encoded)


@pytest.mark.parametrize("character", ["é", "€", "𐍈"])
def test_of_text_that_was_cut_half_a_character_goes_too(character):
    for kept in range(1, len(character.encode())):
        content = b"ab" + character.encode()[:kept]
        assert stream(cut(content)) == Stream(bytes=len(content) + 1, truncated=True, text="ab")


def test_text_that_was_cut_between_characters_is_whole():
    assert stream(cut("é".encode())) == Stream(bytes=3, truncated=True, text="é")


@pytest.mark.parametrize("content", [b"\xff", b"\xffa\xe2\x82", b"a\x80"])
def test_bytes_that_were_cut_are_base64_all_of_them(content):
    encoded = base64.b64encode(content).decode()
    assert stream(cut(content)) == Stream(bytes=len(content) + 1, truncated=True, base64=encoded)


@pytest.mark.parametrize(
    ("captured", "shape"),
    [
        (whole(b""), {"text": "", "bytes": 0, "truncated": False}),
        (cut(b"ok"), {"text": "ok", "bytes": 3, "truncated": True}),
        (whole(b"\xff"), {"base64": "/w==", "bytes": 1, "truncated": False}),
    ],
)
def test_an_answer_holds_text_or_base64_and_never_both(captured, shape):
    assert msgspec.json.decode(msgspec.json.encode(stream(captured))) == shape


@pytest.mark.parametrize(
    ("nanoseconds", "expected"), [(0, 0.0), (1, 0.0), (1_000, 0.001), (9_412_345, 9.412), (10**12, 10**6)]
)
def test_times_are_told_to_the_microsecond(nanoseconds, expected):
    assert milliseconds(nanoseconds) == expected


def test_a_process_is_told_all_of_a_result_but_what_is_the_whole_jobs():
    fields = [field for field in Result.__struct_fields__ if field not in ("id", "timing")]
    assert list(ProcessResult.__struct_fields__) == fields
    assert msgspec.structs.fields(ProcessResult)[0].required
