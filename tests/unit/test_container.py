"""The files of deploy/container agree with the policies, the settings and the page about them."""

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

from jail import policy
from jail.cli.serve import _grace_s
from jail.settings import Settings

CHECKOUT = Path(__file__).parents[2]
PLACE = CHECKOUT / "deploy" / "container"
SCRIPT = runpy.run_path(str(CHECKOUT / "scripts" / "container.py"))
COMPOSE = yaml.safe_load((PLACE / "compose.yaml").read_text())["services"]["jail"]
CONTAINERFILE = (PLACE / "Containerfile").read_text()
DOCS = (CHECKOUT / "docs" / "container.md").read_text()


def test_the_profile_is_what_the_script_writes():
    assert (PLACE / "seccomp.json").read_text() == SCRIPT["text"]()


@pytest.mark.parametrize("name", policy.names(CHECKOUT / "policies"))
def test_the_profile_keeps_nothing_from_a_job_that_its_policy_allows(name):
    found = policy.load(name, CHECKOUT / "policies")
    rules = json.loads((PLACE / "seccomp.json").read_text())["syscalls"]
    allowed = {call for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for call in rule["names"]}
    assert {*found.allow, *(rule.call for rule in (*found.rules, *found.counted))} <= allowed


def test_a_call_of_the_profile_is_one_that_exists():
    rules = json.loads((PLACE / "seccomp.json").read_text())["syscalls"]
    calls = [call for rule in rules for call in rule["names"]]
    # LookupError for a name that is none.
    assert all(policy.numbers.number(call) is None or call for call in calls)
    assert len(calls) == len(set(calls))


def test_a_container_has_the_time_to_drain():
    seconds = int(COMPOSE["stop_grace_period"].removesuffix("s"))
    assert seconds > _grace_s(Settings())


def test_the_ids_of_sandboxes_are_within_what_a_user_namespace_has():
    first, count = map(int, re.search(r"echo jail:(\d+):(\d+) ", CONTAINERFILE).groups())
    assert first > 1000
    assert first + count <= 65536


def test_the_port_is_the_one_that_is_listened_on():
    port = re.search(r"JAIL_ADDRESS=0\.0\.0\.0:(\d+)", CONTAINERFILE).group(1)
    assert f"EXPOSE {port}\n" in CONTAINERFILE
    assert COMPOSE["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_the_state_is_where_something_can_be_written():
    assert COMPOSE["read_only"]
    place = re.search(r"^VOLUME (\S+)$", CONTAINERFILE, re.MULTILINE).group(1)
    assert f"JAIL_STATE={place}/state" in CONTAINERFILE


def test_the_container_is_not_privileged():
    assert "privileged" not in COMPOSE
    assert COMPOSE["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("option", [*COMPOSE["security_opt"], *COMPOSE["cap_add"]])
def test_every_option_has_its_line_in_the_docs(option):
    # ${JAIL_CGROUPS:-writable-cgroups=true}
    said = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", option).replace("./", "deploy/container/")
    assert re.search(rf"^\|.*`[^`|]*{re.escape(said)}`", DOCS, re.MULTILINE)
