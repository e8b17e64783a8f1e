"""What docs/install.md says that can be tried without the hosts that it is about: see tests/vm for those."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from jail import ids, limits, namespace, rlimits, settings
from jail.doctor import checks
from jail.doctor.description import Host
from jail.sandbox import most_at_once

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "install.md").read_text()
EXAMPLE = tomllib.loads(re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)[1])
MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def example(monkeypatch, tmp_path):
    """The settings of the worked example, on the machine that it is about."""
    monkeypatch.setattr(settings.host, "cpus", lambda: 8)
    monkeypatch.setattr(settings.host, "memory_bytes", lambda: 16 * GIB)
    path = tmp_path / "jail.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)[1])
    return settings.load({"HOME": "/nowhere"}, config=str(path))


def number(pattern):
    return float(re.search(pattern, TEXT)[1].replace(",", ""))


def test_the_first_job_has_the_answer_that_it_asks_for(client):
    url, body = re.search(r"curl -s (\S+) .*? -d '(.*?)'\n", TEXT).groups()
    answer = client.post(url.partition("8099")[2], content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["stdout"]["text"] == "hello\n"


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (DOCS / target).exists(), target
    for file in re.findall(r"\bdeploy/[\w./-]+\w", TEXT):
        assert (DOCS.parent / file).exists(), file


def test_every_check_of_doctor_that_can_fail_is_in_the_table():
    rows = re.findall(r"^\| [^|]+ \| ([a-z, ]+) \| [^|]+ \| `", TEXT, re.MULTILINE)
    named = {name for row in rows for name in row.split(", ")}
    every = {check.name for check in checks.examine(Host(user="jail", kernel="6.1"))}
    # The first is said above it, the others promise nothing or rest on all.
    assert named == every - {"kernel", "hardware", "sandbox"}


def test_the_example_has_the_sizes_that_follow_from_the_code(example):
    sandboxes = most_at_once(example.slots, example.ready_max)
    assert sandboxes == number(r"at most (\d+) sandboxes at once")
    # One more pair is the hub's.
    blocks = -(-(sandboxes + 1) // ids.BLOCK_SLOTS)
    assert blocks * ids.BLOCK_SLOTS * namespace.IDS_PER_SLOT == number(r"(\d+) subordinate ids of 65,536")
    descriptors = rlimits._FILES_BASE + example.slots * rlimits._FILES_PER_SLOT
    descriptors += example.ready_max * rlimits._FILES_PER_READY
    assert descriptors == number(r"(\d+) descriptors and")
    processes = checks._OWN_PROCESSES + 2 * sandboxes + example.slots * example.defaults.pids
    assert processes == number(r"and (\d+) processes, and")
    besides = number(r"(\d+) MiB for the service") + sandboxes * 0.55 + 256 * 0.2
    assert round(besides) == number(r"with the service (\d+) MiB")
    free = 16 * GIB - example.memory_bytes - besides * MIB
    assert round(free / GIB, 1) == number(r"the other ([\d.]+) GiB")
    assert example.queue / example.slots == number(r"longer than (\d+) s\.")
    assert example.slots * example.defaults.memory_bytes <= example.memory_bytes


def test_the_example_changes_what_it_names(example):
    default = settings.Settings()
    for name, value in EXAMPLE.items():
        if name != "defaults":
            assert getattr(example, name) == value != getattr(default, name)
    assert EXAMPLE["defaults"].items() <= msgspec.structs.asdict(example.defaults).items()
    assert all(value != getattr(limits.Limits(), name) for name, value in EXAMPLE["defaults"].items())
