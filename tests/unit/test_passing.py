"""Where a redirection of a program in a sandbox may lead, and which headers of it pass."""

import pytest

from jail.http.passing import Place, to_caller, to_program

PLACE = Place("0" * 32, 8080, b"/v1/jobs/0/ports/8080", b"/a/b?c=d")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (b"/x", b"/x"), (b"x?y#z", b"/a/x?y#z"), (b"?q", b"/a/b?q"), (b"#f", b"/a/b?c=d#f"),
        (b"", b"/a/b?c=d"), (b"http://localhost:8080", b"/"), (b"http://localhost:8080/a?b", b"/a?b"),
        (b"//localhost:8080/x", b"/x"),
        # It cannot be left upwards.
        (b"../../..", b"/"), (b"/../../run", b"/run"), (b"./../../../../v1/run", b"/v1/run"),
        # What looks like another host is a path here.
        (b"///evil/x", b"/evil/x"), (b"http:/x", b"/x"), (b"//localhost:8080//evil", b"//evil"),
    ],
)  # fmt: skip
def test_a_redirection_stays_with_the_program(location, target):
    assert (b"location", PLACE.prefix + target) in to_caller([(b"location", location)], PLACE)


@pytest.mark.parametrize(
    "location",
    [
        b"//evil/", b"http://evil/", b"https://localhost:8080/", b"http://localhost/",
        b"http://localhost:80/",
        b"http://localhost:8080@evil/", b"http://localhost:8080.evil/",
        b"http://x@localhost:8080/",
        b"javascript:alert(1)", b"file:///etc/passwd", b"http://[::1",
        b"\\\\evil", b"/\\evil", b"/..\\..\\run",
        # Browsers take these for two dots.
        b"/%2e%2e/run", b"/%2E./run", b"/.%2e/%2e%2E/run", b"/%2e%2e", b"/a/%2f../..%2f..", b"/%2e/x",
        # And drop these.
        b"/.\t./run", b"/ ../run", "/\u00e9".encode(),
    ],
)  # fmt: skip
def test_a_redirection_elsewhere_is_none(location):
    assert not [value for name, value in to_caller([(b"location", location)], PLACE) if name == b"location"]


def test_a_service_is_called_by_its_port():
    assert to_program([(b"host", b"public"), (b"a", b"b")], PLACE) == [
        (b"host", b"localhost:8080"),
        (b"a", b"b"),
        (b"connection", b"close"),
    ]


@pytest.mark.parametrize("value", [b"a\nb", b"a\rb", b"a\0b", b"a\x7fb", b"\x1b[2J"])
def test_a_value_with_a_control_is_no_value_whichever_header_has_it(value):
    with pytest.raises(ValueError, match="etag"):
        to_caller([(b"etag", value)], PLACE)
    with pytest.raises(ValueError, match="x-unknown"):
        to_caller([(b"x-unknown", value)], PLACE)
