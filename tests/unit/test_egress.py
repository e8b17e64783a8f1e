"""Names are resolved once, held against the table, and become what the hub lets through and /etc/hosts."""

import asyncio

import pytest

from jail import egress
from jail.destinations import Destination, parse_network
from jail.errors import SandboxError
from jail.network.protocol import ALLOWED_MAX, Allowed
from jail.spec import JobSpec, SpecError

KNOWN = {
    "one.example": ("1.1.1.1",),
    "both.example": ("8.8.8.8", "2606:4700::1"),
    "private.example": ("8.8.8.8", "10.1.2.3"),
    "metadata.example": ("169.254.169.254",),
    "mapped.example": ("::ffff:127.0.0.1",),
    "many.example": tuple(f"8.8.8.{number}" for number in range(200)),
    "more.example": tuple(f"9.8.8.{number}" for number in range(100)),
}


class Resolver:
    """Says what stands in KNOWN, and counts how often it is asked."""

    def __init__(self):
        self.asked = []

    async def __call__(self, host):
        self.asked.append(host)
        return (KNOWN[host], "") if host in KNOWN else ((), "no such name")


def job(*wanted):
    found = [
        Destination(place, None, port, "tcp")
        if place.endswith("e")
        else Destination(None, parse_network(place), port, "udp")
        for place, port in wanted
    ]
    return JobSpec(processes=(), destinations=tuple(found))


def pinned(*wanted, excepted=(), resolver=None):
    return asyncio.run(egress.pin(job(*wanted), resolver or Resolver(), excepted))


def refused(*wanted):
    with pytest.raises(SpecError) as caught:
        pinned(*wanted)
    return caught.value.field, caught.value.detail


def test_a_host_is_let_through_by_each_of_its_addresses_and_stands_in_etc_hosts():
    found = pinned(("both.example", 443), ("8.0.0.0/8", 53))
    assert egress.allowed(found) == (
        Allowed("8.8.8.8/32", 443, "tcp"),
        Allowed("2606:4700::1/128", 443, "tcp"),
        Allowed("8.0.0.0/8", 53, "udp"),
    )
    assert egress.hosts(found) == "8.8.8.8 both.example\n2606:4700::1 both.example\n"


def test_a_name_is_asked_for_once():
    resolver = Resolver()
    found = pinned(("one.example", 443), ("both.example", 443), ("one.example", 80), resolver=resolver)
    assert sorted(resolver.asked) == ["both.example", "one.example"]
    assert egress.hosts(found).count("one.example") == 1
    assert Allowed("1.1.1.1/32", 80, "tcp") in egress.allowed(found)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("nobody.example", "no such name"),
        # One address is enough.
        ("private.example", "10.1.2.3"),
        ("metadata.example", "169.254.169.254"),
        ("mapped.example", "IPv4-mapped"),
    ],
)
def test_a_host_that_is_nowhere_or_not_on_the_internet_is_refused_by_its_place(host, why):
    field, detail = refused(("8.0.0.0/8", 53), ("one.example", 443), (host, 443))
    assert field == "network.allow[2].host"
    assert why in detail


def test_an_operator_can_except_an_address_of_a_host():
    found = pinned(("private.example", 443), excepted=[parse_network("10.1.0.0/16")])
    assert Allowed("10.1.2.3/32", 443, "tcp") in egress.allowed(found)


def test_more_addresses_than_the_hub_takes_are_refused():
    assert len(KNOWN["many.example"]) + len(KNOWN["more.example"]) > ALLOWED_MAX
    assert pinned(("many.example", 443))
    assert refused(("many.example", 443), ("more.example", 443))[0] == "network.allow"


def test_a_job_whose_hosts_are_not_known_yet_has_no_network():
    with pytest.raises(SandboxError):
        egress.allowed(job(("one.example", 443)))


def test_who_asks_for_nothing_is_allowed_nothing():
    assert egress.allowed(job()) == ()
    assert egress.hosts(job()) == ""
