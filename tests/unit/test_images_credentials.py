"""Who may pull: files as Docker's tools write them, and what registries ask for."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jail.errors import ImageError
from jail.images import challenges
from jail.images.challenges import Challenge
from jail.images.credentials import FILE_BYTES_MAX, Credentials, read


def pair(text):
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.fixture
def known(tmp_path):
    """What a file says of registry.example/tools/gcc."""

    def ask(content, registry="registry.example", repository="tools/gcc"):
        path = tmp_path / "config.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read(path, registry, repository)

    return ask


@pytest.mark.parametrize(
    "key",
    [
        "registry.example",
        "https://registry.example",
        "https://registry.example/v1/",
        "http://registry.example/v2/",
        "registry.example/tools",
        "registry.example/tools/gcc",
    ],
)
def test_a_login_is_found_by_its_registry(known, key):
    assert known({"auths": {key: pair("me:secret")}}) == Credentials("me", "secret")


@pytest.mark.parametrize(
    "key",
    [
        "registry.example:5000",
        "example",
        "other.example",
        "registry.example/tool",
        "registry.example/tools/gcc/x",
    ],
)
def test_another_s_login_is_not_used(known, key):
    assert known({"auths": {key: pair("me:secret")}}) == Credentials()


def test_the_innermost_login_is_used(known):
    keys = {
        "registry.example": pair("a:1"),
        "registry.example/tools": pair("b:2"),
        "registry.example/t": pair("c:3"),
    }
    assert known({"auths": keys}) == Credentials("b", "2")


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        (pair("me:a:b"), Credentials("me", "a:b")),
        (pair("me:secret\0\0"), Credentials("me", "secret")),
        (pair("mé:sécret"), Credentials("mé", "sécret")),
        ({"username": "me", "password": "secret"}, Credentials("me", "secret")),
        ({**pair("me:"), "identitytoken": "lasting"}, Credentials("me", "", identity="lasting")),
        ({"registrytoken": "given"}, Credentials(token="given")),
        ({**pair("me:secret"), "email": "x", "other": [1]}, Credentials("me", "secret")),
    ],
)
def test_each_form_of_a_login_is_understood(known, entry, meant):
    assert known({"auths": {"registry.example": entry}, "HttpHeaders": {}}) == meant


@pytest.mark.parametrize(
    "content",
    [
        {"auths": {"registry.example": {}}, "credsStore": "desktop"},
        {"credHelpers": {"registry.example": "cloud"}},
    ],
)
def test_a_login_that_a_program_keeps_is_not_had(known, content):
    with pytest.raises(ImageError, match=r"to a program, which is not run\. Give them with --login"):
        known(content)


def test_a_program_that_keeps_others_logins_is_no_matter(known):
    content = {"auths": {"registry.example": pair("me:secret")}, "credHelpers": {"other.example": "cloud"}}
    assert known(content) == Credentials("me", "secret")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"auths": []}',
        '{"auths": {"registry.example": {"auth": 1}}}',
        '{"auths": {"registry.example": {"auth": "no base64"}}}',
        '{"auths": {"registry.example": {"auth": "/////w=="}}}',
        "[" * 100_000,
        " " * (FILE_BYTES_MAX + 1),
    ],
)
def test_a_file_of_another_form_is_refused(known, content):
    with pytest.raises(ImageError, match="is not valid"):
        known(content)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        read(tmp_path / "none", "registry.example", "gcc")


def test_secrets_are_not_in_traces():
    assert "secret" not in repr(Credentials("me", "secret1", "secret2", "secret3"))


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        ("Basic", [Challenge("basic", {})]),
        (
            'Bearer realm="https://a.b/t",service="a.b",scope="repository:x:pull"',
            [Challenge("bearer", {"realm": "https://a.b/t", "service": "a.b", "scope": "repository:x:pull"})],
        ),
        ('bearer REALM = "a" , Service=b', [Challenge("bearer", {"realm": "a", "service": "b"})]),
        (
            'Basic realm="a, b", Bearer realm="c\\"d\\\\",x=y',
            [Challenge("basic", {"realm": "a, b"}), Challenge("bearer", {"realm": 'c"d\\', "x": "y"})],
        ),
        ("Negotiate, Basic realm=x", [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        ("Negotiate abc==, Basic realm=x", [Challenge("negotiate", {})]),
        ('Bearer realm="never ends', [Challenge("bearer", {})]),
        ("", []),
        ("=,=", []),
    ],
)
def test_a_challenge_is_read(header, meant):
    assert challenges.parse([header]) == meant


def test_challenges_come_in_several_headers_too():
    found = challenges.parse(["Basic realm=a", "Bearer realm=b"])
    assert [each.scheme for each in found] == ["basic", "bearer"]


@given(st.text('aB =,"\\\t', max_size=300) | st.text(max_size=100))
def test_any_header_is_read_as_something(header):
    assert all(isinstance(each, Challenge) for each in challenges.parse([header]))


@pytest.mark.parametrize("piece", [" ", ",", "a ", "a=", 'a="', '"\\', "a,", "a ="])
def test_no_header_takes_long(piece):
    """Beyond the length that is looked at there is nothing to be gained."""
    found = challenges.parse([piece * 100_000])
    assert len(found) <= 4096
