"""YAML of packages: read as what it is written as, and within bounds."""

import msgspec
import pytest

from jail.errors import PackageError
from jail.problems import documents


class Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str = "none"
    number: float = 0.5
    count: int = 1
    flags: list[str] = []
    inner: dict[str, str] = {}


def read(text: str | bytes) -> Kind:
    return documents.read("x.yaml", text if isinstance(text, bytes) else text.encode(), Kind)


def refused(text: str | bytes) -> str:
    with pytest.raises(PackageError) as caught:
        read(text)
    return caught.value.cause


def test_scalars_are_what_the_type_says():
    found = read("name: 2024-01-01\nnumber: 1e-6\ncount: 12\nflags: [1, yes, null]\ninner: {a: 0x10}\n")

    assert found == Kind("2024-01-01", 1e-6, 12, ["1", "yes", "null"], {"a": "0x10"})


@pytest.mark.parametrize("text", ["", "# nothing\n", "name:\n", "name: ~\nnumber: null\n", "\ufeffname:\n"])
def test_what_has_no_value_is_not_there(text):
    assert read(text) == Kind()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "line 1"),
        ("nam: x", "unknown field `nam`"),
        ("number: x", "float"),
        ("- name", "array"),
        ("name: a\nname: b", "line 2: 'name' stands twice"),
        ("? [a]\n: b", "a key is no text"),
        (b"name: \xff", "utf-8"),
        ("name: \0", "special characters"),
        ("--- {}\n--- {}\n", "document"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text, told):
    assert "x.yaml" in refused(text)
    assert told in refused(text)


def test_aliases_are_not_read():
    assert "aliases are not read" in refused("name: &a x\ninner: {y: *a}\n")


def test_a_page_that_stands_for_more_than_any_memory_is_refused_at_once():
    bomb = "a0: &a0 [x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))

    assert "aliases are not read" in refused(bomb)


def test_depth_is_bounded():
    assert "deeper than 16" in refused("flags: " + "[" * 60_000)


def test_length_is_bounded():
    assert "65537 bytes; the maximum is 65536" in refused(" " * (documents.BYTES_MAX + 1))


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [true]", "!!int x", "!!binary aGk=", "!x y"]
)
def test_tags_make_nothing(tag):
    with pytest.raises(PackageError):
        documents.read("x.yaml", f"count: {tag}".encode(), Kind)
