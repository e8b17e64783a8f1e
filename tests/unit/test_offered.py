"""Which networks a host can give, and what is said of what is missing."""

import os
import shutil

import pytest

from jail import settings
from jail.errors import HostError
from jail.network import offered
from jail.network.way import TUN

EGRESS = {"JAIL_EGRESS": "*:443/tcp"}


@pytest.fixture
def a_host(monkeypatch):
    """A host with these programs, and /dev/net/tun in this state."""

    def make(*programs, tun="open"):
        paths = {program: f"/usr/bin/{program}" for program in programs}
        monkeypatch.setattr(shutil, "which", lambda name, path: paths.get(name))
        monkeypatch.setattr(os.path, "exists", lambda path: path == TUN and tun != "absent")
        monkeypatch.setattr(os, "access", lambda path, mode: path == TUN and tun == "open")

    return make


def refusal(environment):
    with pytest.raises(HostError) as caught:
        offered.offered(settings.load(environment))
    return str(caught.value)


def test_egress_is_offered_where_destinations_are_and_nowhere_else(a_host):
    a_host("nft", "slirp4netns")
    assert "egress" not in offered.offered(settings.load({}))
    assert offered.offered(settings.load(EGRESS)) == ("none", "isolated", "egress")
    assert offered.offered(settings.load(EGRESS | {"JAIL_NETWORKS": "none"})) == ("none", "egress")


def test_the_hub_is_told_nothing_of_egress_where_it_is_switched_off(a_host):
    a_host("nft", "slirp4netns")
    assert offered.bounds(settings.load({})) is None
    bounds = offered.bounds(settings.load(EGRESS | {"JAIL_EGRESS_CONNECTIONS": "7"}))
    assert (bounds.program, bounds.connections) == ("/usr/bin/slirp4netns", 7)


@pytest.mark.parametrize(
    ("installed", "wanted", "found"),
    [
        (("slirp4netns", "pasta"), "", "slirp4netns"),
        (("pasta",), "", "pasta"),
        (("slirp4netns", "pasta"), "pasta", "pasta"),
    ],
)
def test_the_way_out_is_the_one_that_is_wanted_or_whichever_is_installed(a_host, installed, wanted, found):
    a_host("nft", *installed)
    assert offered.find_way(wanted) == f"/usr/bin/{found}"


@pytest.mark.parametrize(
    ("programs", "tun", "more", "words"),
    [
        ((), "open", {}, ("nft", "nftables")),
        (("nft",), "open", {}, ("slirp4netns or pasta", "apt-get install slirp4netns")),
        (
            ("nft", "slirp4netns"),
            "open",
            {"JAIL_EGRESS_PROGRAM": "pasta"},
            ("pasta", "apt-get install passt"),
        ),
        (("nft", "slirp4netns"), "absent", {}, (TUN, "modprobe tun", "--device")),
        (("nft", "slirp4netns"), "closed", {}, (TUN, "chmod 666")),
    ],
)
def test_what_egress_lacks_is_named_with_its_cure(a_host, programs, tun, more, words):
    a_host(*programs, tun=tun)
    told = refusal(EGRESS | more)
    assert all(word in told for word in (*words, "egress = []"))
