"""problem.yaml, of each version of the format."""

import packages
import pytest

from jail.errors import PackageError
from jail.problems import metadata
from jail.problems.timing import time_limit_ms

MODERN = "problem_format_version: 2025-09\nname: Echo\nuuid: 1-2\n"


def read(text: str) -> metadata.Metadata:
    return metadata.read(packages.Package({"problem.yaml": text}))


def refused(text: str) -> str:
    with pytest.raises(PackageError) as caught:
        read(text)
    return caught.value.cause


def test_an_empty_problem_has_the_defaults_of_the_legacy_format():
    found = read("")

    assert found.legacy
    assert not found.scoring
    assert not found.custom_validator
    assert found.time_limit_ms is None
    assert found.timing == metadata.Timing(multiplier=5, resolution_ms=1000, rounds_up=False)
    assert (found.memory_bytes, found.output_bytes, found.code_bytes) == (None, None, 128 << 10)
    assert (found.compilation_ms, found.validation_ms) == (None, 60_000)


def test_limits_have_the_units_of_the_format():
    found = read(
        """
limits:
  time_multiplier: 2.5
  time_safety_margin: 3
  memory: 64
  output: 8
  code: 10
  compilation_time: 7
  compilation_memory: 128
  validation_time: 1.5
  validation_memory: 256
"""
    )

    assert found.timing.multiplier == 2.5
    assert (found.memory_bytes, found.output_bytes, found.code_bytes) == (64 << 20, 8 << 20, 10 << 10)
    assert (found.compilation_ms, found.compilation_memory_bytes) == (7000, 128 << 20)
    assert (found.validation_ms, found.validation_memory_bytes) == (1500, 256 << 20)


def test_the_formats_since_2023_07_name_a_time_limit():
    found = read(f"{MODERN}limits:\n  time_limit: 0.75\n  time_multipliers: {{ac_to_time_limit: 3}}\n")

    assert not found.legacy
    assert found.time_limit_ms == 750
    assert found.timing == metadata.Timing(multiplier=3, resolution_ms=1000, rounds_up=True)


@pytest.mark.parametrize("version", ["2023-07", "2023-07-draft", "2025-09", "2025-09-draft"])
def test_versions_since_2023_07_are_one_to_us(version):
    assert not read(MODERN.replace("2025-09", version)).legacy


@pytest.mark.parametrize("version", ["legacy", "legacy-icpc"])
def test_legacy_versions(version):
    assert read(f"problem_format_version: {version}").legacy


def test_a_time_limit_beside_problem_yaml():
    package = {"problem.yaml": "", ".timelimit": "3\n"}
    assert metadata.read(packages.Package(package)).time_limit_ms == 3000

    package = {"problem.yaml": "", "domjudge-problem.ini": "short-name = x\ntimelimit='1.5'\n"}
    assert metadata.read(packages.Package(package)).time_limit_ms == 1500

    with pytest.raises(PackageError, match="no number of seconds"):
        metadata.read(packages.Package({"problem.yaml": "", ".timelimit": "soon\n"}))


def test_a_custom_validator():
    found = read("type: scoring\nvalidation: custom score\nvalidator_flags: a  b\ngrading: {objective: min}")

    assert found.custom_validator
    assert found.custom_score
    assert found.scoring
    assert found.minimizes
    assert found.validator_flags == ("a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "validation: custom interactive",
        f"{MODERN}type: interactive",
        f"{MODERN}type: [scoring, interactive]",
    ],
)
def test_interactive_problems_are_not_supported_yet(text):
    assert "This problem is interactive, which is not supported yet." in refused(text)


def test_multi_pass_problems_are_not_supported_yet():
    assert "This problem is multi-pass, which is not supported yet." in refused(f"{MODERN}type: multi-pass")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("limits: {memroy: 1}", "memroy"),
        ("validaton: custom", "validaton"),
        ("limits: {memory: -1}", "limits.memory is -1"),
        ("limits: {memory: 1000000000000}", "limits.memory is 1000000000000"),
        ("limits: {time_multiplier: .nan}", "time_multiplier"),
        ("limits: {time_multiplier: nan}", "time_multiplier"),
        ("limits: {time_multiplier: 1e999}", "time_multiplier"),
        ("limits: {memory: 1.5}", "limits.memory"),
        (f"{MODERN}limits: {{time_limit: 0}}", "time_limit is 0"),
        (f"{MODERN}limits: {{time_multipliers: {{ac_to_time_limit: 0.5}}}}", "0.5, below 1"),
        ("problem_format_version: 2042-01", "'2042-01' is not read"),
        ("type: riddle", "'riddle' is no type"),
        ("validation: strict", "validation is 'strict'"),
        ("validation: default score", "validation is 'default score'"),
        (f"{MODERN}validation: custom", "validation is of the legacy format"),
        (f"{MODERN}type: submit-answer", "Submissions to this problem are answers"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, told):
    assert told in refused(text)


@pytest.mark.parametrize(
    ("slowest_ms", "legacy_ms", "modern_ms"),
    [
        (0, 1000, 1000),
        (10, 1000, 1000),
        (299, 1000, 1000),
        (300, 2000, 1000),
        (501, 3000, 2000),
        (1000, 5000, 2000),
    ],
)
def test_time_limits_follow_from_the_slowest(slowest_ms, legacy_ms, modern_ms):
    assert time_limit_ms(read("").timing, slowest_ms) == legacy_ms
    assert time_limit_ms(read(MODERN).timing, slowest_ms) == modern_ms


def test_time_limits_are_multiples_of_the_resolution():
    timing = read(f"{MODERN}limits: {{time_resolution: 0.1}}").timing

    assert [time_limit_ms(timing, one) for one in (1, 50, 51, 149)] == [100, 100, 200, 300]
