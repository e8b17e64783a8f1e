"""References to images of registries, after the distribution specification and what Docker's tools write."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jail.errors import ImageError
from jail.images.reference import Reference, parse

DIGEST = f"sha256:{'0123456789abcdef' * 4}"

GOOD = {
    "registry.example/gcc": ("registry.example", "gcc", "latest", ""),
    "registry.example/gcc:13": ("registry.example", "gcc", "13", ""),
    "registry.example:5000/gcc:13.2-rc_1": ("registry.example:5000", "gcc", "13.2-rc_1", ""),
    "localhost/gcc": ("localhost", "gcc", "latest", ""),
    "localhost:5000/gcc": ("localhost:5000", "gcc", "latest", ""),
    "127.0.0.1:5000/a/b/c": ("127.0.0.1:5000", "a/b/c", "latest", ""),
    "[::1]/gcc": ("[::1]", "gcc", "latest", ""),
    "[2001:DB8::1]:65535/gcc:x": ("[2001:db8::1]:65535", "gcc", "x", ""),
    "Registry.Example/gcc": ("registry.example", "gcc", "latest", ""),
    f"registry.example/gcc@{DIGEST}": ("registry.example", "gcc", "", DIGEST),
    f"registry.example/gcc:13@{DIGEST}": ("registry.example", "gcc", "13", DIGEST),
    "a.b/a_b/c__d/e.f/g--h": ("a.b", "a_b/c__d/e.f/g--h", "latest", ""),
    "a.b/c:_": ("a.b", "c", "_", ""),
    f"a.b/c:{'t' * 128}": ("a.b", "c", "t" * 128, ""),
    f"a.b/{'r' * 255}": ("a.b", "r" * 255, "latest", ""),
    "a.b/latest:latest": ("a.b", "latest", "latest", ""),
}

BAD = [
    "",
    "gcc",
    "gcc:13",
    "library/gcc",
    "gcc/13",
    DIGEST,
    "/gcc",
    "a.b/",
    "a.b//gcc",
    "a.b/gcc/",
    "a.b/Gcc",
    "a.b/gcc_",
    "a.b/-gcc",
    "a.b/g..c",
    "a.b/g___c",
    "a.b/g._c",
    "a.b/../c",
    "a.b/./c",
    "a.b/g c",
    "a.b/gcc?x=1",
    "a.b/gcc#x",
    "a.b/gc%63",
    "a.b/gcc\n",
    "a.b/gcc:",
    "a.b/gcc:13\n",
    "a.b/gcc:-13",
    "a.b/gcc:.13",
    "a.b/gcc:1:2",
    "a.b/gcc:1/2",
    "a.b/gcc:é",
    f"a.b/gcc:{'t' * 129}",
    f"a.b/{'r' * 256}",
    "a.b/gcc@",
    "a.b/gcc@sha256:12",
    f"a.b/gcc@{DIGEST.upper()}",
    f"a.b/gcc@{DIGEST}\n",
    f"a.b/gcc@{DIGEST}@{DIGEST}",
    f"a.b/gcc@sha512:{'0' * 128}",
    f"a.b/gcc@md5:{'0' * 64}",
    "https://a.b/gcc",
    "user@a.b/gcc",
    "user:password@a.b/gcc",
    "a.b:/gcc",
    "a.b:0/gcc",
    "a.b:65536/gcc",
    "a.b:080/gcc",
    "a.b:+80/gcc",
    "a.b:80:80/gcc",
    "a.b:٣/gcc",
    ".a.b/gcc",
    "a.b./gcc",
    "-a.b/gcc",
    "a_b.c/gcc",
    "ä.b/gcc",
    " a.b/gcc",
    "::1/gcc",
    "[::1/gcc",
    "::1]/gcc",
    "[]/gcc",
    "[1.2.3.4]/gcc",
    "[::1]5000/gcc",
    "[::1]:/gcc",
    "[fe80::1%eth0]/gcc",
    "[[::1]]/gcc",
    f"{'a' * 64}.b/gcc",
    f"{'a.' * 127}b/gcc",
]


@pytest.mark.parametrize("text", GOOD)
def test_a_reference_names_an_image(text):
    assert parse(text) == Reference(*GOOD[text])


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_refused(text):
    with pytest.raises(ImageError, match="is no reference to an image of a registry"):
        parse(text)


def test_a_digest_wins_over_a_tag_and_both_are_told():
    found = parse(f"a.b/c:1@{DIGEST}")
    assert (found.wanted, found.name, str(found)) == (DIGEST, "a.b/c:1", f"a.b/c:1@{DIGEST}")


def test_what_is_asked_for_by_digest_alone_has_no_name():
    assert parse(f"a.b/c@{DIGEST}").name == ""


def test_the_tag_that_was_meant_is_written():
    assert str(parse("a.b/c")) == "a.b/c:latest"


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
PORT = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))
HOST = st.one_of(
    st.lists(LABEL, min_size=2, max_size=4).map(".".join),
    st.just("localhost"),
    st.ip_addresses().map(lambda found: str(found) if found.version == 4 else f"[{found}]"),
)
PART = st.from_regex(r"[a-z0-9]{1,9}((\.|_|__|-{1,3})[a-z0-9]{1,9}){0,2}", fullmatch=True)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,30}", fullmatch=True)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(HOST, PORT, st.lists(PART, min_size=1, max_size=4), TAG, st.none() | HEX)
def test_what_is_written_is_read_again(host, port, parts, tag, digits):
    made = Reference(host + port, "/".join(parts), tag, f"sha256:{digits}" if digits else "")
    assert parse(str(made)) == made


@given(st.text(string.printable + "é٣\u2028\0", max_size=60) | st.text("a.b/:@[]-_1", max_size=30))
def test_no_text_is_read_as_anything_but_what_it_says(text):
    try:
        found = parse(text)
    except ImageError:
        return
    told = str(found)
    written = text if found.tag != "latest" or text.endswith(":latest") else f"{text}:latest"
    assert told.lower() == written.lower()
    assert told.isascii()
    assert not set(told) & set(" \t\r\n\0%?#\\")
