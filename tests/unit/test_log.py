"""The service's log: whatever is in an event, it is one line of JSON, in ASCII."""

import io
import json

import pytest
import structlog

from jail.cli import log


@pytest.fixture
def written():
    stream = io.BytesIO()
    log.configure(stream)
    yield stream.getvalue
    structlog.reset_defaults()


VALUES = ["", 'a"\n{"event":"ready"}', "\\", "\r\x00\x1b[2K", "\x85\u2028\x9b2K", "é", "\ud800", None, 1.5]


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_a_value_stands_in_its_line_and_moves_nothing(written, value):
    structlog.get_logger().info("job", name=value)
    line = written()
    assert line.isascii()
    assert line.endswith(b"\n")
    assert line[:-1].decode().isprintable()
    found = json.loads(line)
    assert (found["event"], found["name"], found["level"]) == ("job", value, "info")
    assert found["timestamp"].endswith("Z")


@pytest.mark.parametrize("beside", ["", "é"])
def test_a_value_that_json_has_no_form_for_is_described(written, beside):
    structlog.get_logger().info("job", name=1j, beside=beside)
    assert json.loads(written())["name"] == "1j"


def test_an_exception_is_told_with_its_way(written):
    try:
        raise ValueError("\u2028")
    except ValueError as error:
        structlog.get_logger().error("defect", exc_info=error)
    found = json.loads(written())
    assert found["level"] == "error"
    assert "test_log.py" in found["exception"]
    assert "ValueError" in found["exception"]
