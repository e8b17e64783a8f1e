"""Reading policies: what is accepted, and what the error says of the rest."""

from pathlib import Path

import pytest

import jail
from jail import policy as policies

HEAD = 'name = "p"\ndescription = "d"\n'


@pytest.fixture
def load(tmp_path):
    """Load one policy from its text, with parts beside it."""

    def load(text, **parts):
        (tmp_path / "parts").mkdir()
        (tmp_path / "p.toml").write_text(text)
        for name, part in parts.items():
            (tmp_path / "parts" / f"{name}.toml").write_text('description = "d"\n' + part)
        return policies.load("p", tmp_path)

    return load


def when(call, arguments):
    return f'[[when]]\ncall = "{call}"\n{arguments}\n'


def test_parts_and_policy_are_joined(load):
    policy = load(
        HEAD + 'include = ["a", "b"]\nallow = ["read"]',
        a='allow = ["write"]\n[answer]\nENOSYS = ["clone3"]',
        b=when("socket", "arg0 = { AF_UNIX = 1 }\narg1 = { mask = 0xf, A = 1, B = 2 }"),
    )

    assert policy.allow == {"read", "write"}
    assert policy.answers == {"clone3": 38}
    assert policy.rules == (
        policies.Rule(
            "socket",
            (
                policies.Condition(0, 0xFFFFFFFF, (1,), ("AF_UNIX",)),
                policies.Condition(1, 0xF, (1, 2), ("A", "B")),
            ),
            "parts/b.toml: when[0] (socket)",
        ),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('allow = ["raed"]', r"p\.toml: allow\[0\]: no system call is named 'raed'"),
        ('allow = ["read", "read"]', r"allow\[1\]: read is already decided at p\.toml: allow\[0\]"),
        ('alow = ["read"]', r"p\.toml: .*alow"),
        ("allow = [1]", r"p\.toml: .*\$\.allow\[0\]"),
        ("allow = [", r"p\.toml: "),
        ('[answer]\nEWHAT = ["read"]', r"answer\.EWHAT: no error number has this name"),
        ('[answer]\nENOSYS = ["raed"]', r"answer\.ENOSYS: no system call is named 'raed'"),
        ('allow = ["read"]\n[answer]\nENOSYS = ["read"]', r"read is already decided"),
        (when("raed", "arg0 = { A = 1 }"), r"when\[0\] \(raed\): no system call is named"),
        (when("read", ""), r"when\[0\] \(read\): no argument is compared"),
        (when("read", "arg6 = { A = 1 }"), r"arg6"),
        (when("read", "arg0 = { mask = 1 }"), r"arg0: compares nothing"),
        (when("read", "arg0 = { mask = 0, A = 0 }"), r"arg0: compares nothing"),
        (when("read", "arg0 = { mask = 1, A = 2 }"), r"arg0\.A: 0x2 has bits outside the mask 0x1"),
        (when("read", "arg0 = { A = 0x100000000 }"), r"\$\.when\[0\]\.arg0"),
        (when("read", "arg0 = { A = -1 }"), r"\$\.when\[0\]\.arg0"),
        ('allow = ["read"]\n' + when("read", "arg0 = { A = 1 }"), r"read is already decided"),
        ('include = ["absent"]', r"parts/absent\.toml"),
        ('include = ["../p"]', r"'\.\./p' is no policy name"),
    ],
)
def test_mistake_is_refused_by_file_and_key(load, text, told):
    with pytest.raises(policies.PolicyError, match=told):
        load(HEAD + text)


@pytest.mark.parametrize("name", ["", "..", "../default", "/etc/passwd", "a/b", "A", "a\n", "-a"])
def test_name_is_never_a_path(name, tmp_path):
    with pytest.raises(policies.PolicyError, match="is no policy name"):
        policies.load(name, tmp_path)


def test_policy_must_bear_the_name_of_its_file(load):
    with pytest.raises(policies.PolicyError, match=r"p\.toml: name: is 'q'"):
        load('name = "q"\ndescription = "d"')


def test_absent_policy_is_refused(tmp_path):
    with pytest.raises(policies.PolicyError, match=r"p\.toml"):
        policies.load("p", tmp_path)


def test_names_are_those_of_the_directory_without_its_parts(tmp_path):
    (tmp_path / "parts").mkdir()
    for name in ("b.toml", "a.toml", "readme.txt", "parts/c.toml"):
        (tmp_path / name).touch()

    assert policies.names(tmp_path) == ["a", "b"]


def test_shipped_policies_lie_inside_the_package():
    assert policies.shipped_directory() == Path(jail.__file__).parent / "policies"


@pytest.mark.parametrize("call", ["getpid", "socket", "fcntl"])
def test_a_policy_without_a_call_does_not_allow_it_in_any_form(call):
    policy = policies.load("default")
    assert call in policy.allowed
    assert policy.without(call).allowed == policy.allowed - {call}
