"""What a job may ask to reach: what an operator offers, and what is refused whoever asks."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jail.destinations import (
    NEVER,
    OWN,
    UNLESS_LISTED,
    Destination,
    never,
    parse_host,
    parse_network,
    parse_offer,
    refusal,
)

ANYTHING = st.ip_addresses()
EVERY = NEVER + UNLESS_LISTED


def ranges(*texts):
    return tuple(map(parse_network, texts))


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "8.8.8.0/24",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.0.0.0/8",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.0.0/16",
        "172.32.0.0/16",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::/23",
        "2606:4700:4700::1111",
        "2a00::/12",
    ],
)
def test_the_internet_may_be_reached(text):
    assert refusal(parse_network(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        # Loopback, and what the kernel takes for it.
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "::1",
        "::",
        # Private.
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "fc00::1",
        "fdff::1",
        # Link-local.
        "169.254.1.1",
        "fe80::1",
        "febf::1",
        # Metadata services of clouds.
        "169.254.169.254",
        "169.254.170.2",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        # To many at once.
        "224.0.0.251",
        "239.255.255.250",
        "255.255.255.255",
        "ff02::1",
        "ff0e::1",
        # Documentation, benchmarks, reserved.
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "198.18.0.1",
        "198.19.255.255",
        "240.0.0.1",
        "192.88.99.1",
        "2001:db8::1",
        "3fff::1",
        "2001:2::1",
        "5f00::1",
        "100::1",
        # The site-local of old.
        "fec0::1",
        # IPv4 in other clothes: mapped, compatible, NAT64 of both kinds, 6to4, Teredo.
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::808:808",
        "64:ff9b:1::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:808:808::1",
        "2001:0:808:808::",
        # What jail is made of.
        *map(str, OWN),
        "10.106.255.254",
        "fd6a:6169:6c00::1",
        # A part of them, and more than that.
        "0.0.0.0/0",
        "::/0",
        "128.0.0.0/1",
        "10.0.0.0/7",
        "192.168.0.0/15",
        "168.63.129.0/24",
        "2001::/16",
        "2000::/3",
        "c000::/2",
    ],
)
def test_what_is_not_of_the_internet_is_refused_wholly_or_in_part(text):
    assert refusal(parse_network(text))


@given(ANYTHING)
@example(ipaddress.ip_address("168.63.129.16"))
def test_whatever_may_be_reached_is_global_for_python_too(address):
    if refusal(ipaddress.ip_network(address)) is None:
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


@given(ANYTHING, st.integers(0, 128))
def test_a_network_is_refused_if_any_refused_range_is_in_it_or_around_it(address, length):
    network = ipaddress.ip_network((address, min(length, address.max_prefixlen)), strict=False)
    touched = any(network.version == refused.version and network.overlaps(refused) for refused, _ in EVERY)
    assert bool(refusal(network)) == touched


@pytest.mark.parametrize("text", ["10.1.0.0/16", "169.254.169.254", "198.51.100.0/24", "fd00:ec2::254"])
def test_an_operator_can_except_a_range_by_name_and_no_more_than_that(text):
    (network,) = ranges(text)
    assert never(network) is None
    assert refusal(network)
    assert refusal(network, [network]) is None
    wider = network.supernet()
    assert refusal(wider, [network])


@pytest.mark.parametrize(("network", "why"), NEVER, ids=str)
def test_what_leads_to_the_host_to_many_or_nowhere_cannot_be_excepted(network, why):
    assert why in never(network)
    assert refusal(network, [network])


def test_an_exception_that_holds_what_is_never_reached_does_not_help_it():
    excepted = ranges("0.0.0.0/0", "::/0")
    assert refusal(parse_network("127.0.0.1"), excepted)
    assert refusal(parse_network("10.106.0.1"), excepted)
    assert refusal(parse_network("10.0.0.1"), excepted) is None


@pytest.mark.parametrize(
    "text",
    [
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b::/96",
        "64:ff9b::a00:0/108",
        "2002:a00:1::1",
        "2002::/16",
        "2002:a00::/24",
        # The server is 10.0.0.1; the client is, with every bit the other way round.
        "2001:0:a00:1::f7f7:f7f7",
        "2001:0:808:808::f5ff:fffe",
        "2001:0:808:808::/64",
    ],
)
def test_what_an_excepted_address_of_ipv6_stands_for_is_looked_at(text):
    excepted = ranges("64:ff9b::/96", "2002::/16", "2001::/32")
    assert "it holds" in refusal(parse_network(text), excepted)


@pytest.mark.parametrize("text", ["64:ff9b::808:808", "2002:808:808::1", "2001:0:808:808::f7f7:f7f7"])
def test_what_stands_for_an_address_of_the_internet_can_be_excepted(text):
    assert refusal(parse_network(text), ranges("64:ff9b::/96", "2002::/16", "2001::/32")) is None


def test_every_refused_range_names_where_that_is_written_or_that_it_is_nowhere():
    unwritten = {str(network) for network, why in EVERY if "RFC" not in why}
    assert unwritten == {"168.63.129.16/32", *map(str, OWN)}


@pytest.mark.parametrize("text", ["example.org", "a", "xn--bcher-kva.example", "1.2.3.com", "A.Example"])
def test_a_name_of_a_host_is_kept_in_lower_case(text):
    assert parse_host(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a_b",
        "a b",
        "a\n",
        "a\tb",
        "a#b",
        "bücher.example",
        "a" * 64,
        ".".join(["a" * 63] * 4),
        "*",
        "::1",
        "[::1]",
        "fe80::1%eth0",
        # Addresses to inet_aton(3).
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "a.0x1",
    ],
)
def test_what_is_no_name_of_a_host_is_refused(text):
    with pytest.raises(ValueError, match=r"not the name|not a name"):
        parse_host(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "example.org",
        "1.2.3",
        "1.2.3.4/33",
        "1.2.3.4/24",
        "1.2.3.0/255.255.255.0",
        "01.2.3.4",
        "0x1.2.3.4",
        "1.2.3.4/-1",
        "1.2.3.4 ",
        "fe80::1%eth0",
        "2001:db8::/129",
        "2001:db8::1/64",
        "\u0661.2.3.4",
    ],
)
def test_what_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match="no network"):
        parse_network(text)


def wanted(text):
    """A destination, written as an offer of one is."""
    offer = parse_offer(text)
    return Destination(offer.host, offer.network, offer.ports[0], offer.protocol)


@pytest.mark.parametrize(
    ("offer", "asked"),
    [
        ("example.org:443/tcp", "example.org:443/tcp"),
        ("*.example.org:443/tcp", "a.b.example.org:443/tcp"),
        ("*:*/tcp", "example.org:1/tcp"),
        ("*:*/tcp", "192.0.2.0/24:65535/tcp"),
        ("192.0.2.0/24:80-90/udp", "192.0.2.7:90/udp"),
        ("192.0.2.0/24:80-90/udp", "192.0.2.0/24:80/udp"),
        ("[2001:db8::/32]:53/udp", "[2001:db8:1::/48]:53/udp"),
    ],
)
def test_an_offer_covers_what_is_within_it(offer, asked):
    assert parse_offer(offer).covers(wanted(asked))


@pytest.mark.parametrize(
    ("offer", "asked"),
    [
        ("example.org:443/tcp", "example.org:443/udp"),
        ("example.org:443/tcp", "example.org:444/tcp"),
        ("example.org:443/tcp", "www.example.org:443/tcp"),
        ("example.org:443/tcp", "badexample.org:443/tcp"),
        ("*.example.org:443/tcp", "example.org:443/tcp"),
        ("*.example.org:443/tcp", "badexample.org:443/tcp"),
        ("*.example.org:443/tcp", "example.org.evil.example:443/tcp"),
        ("example.org:443/tcp", "192.0.2.1:443/tcp"),
        ("192.0.2.0/24:443/tcp", "example.org:443/tcp"),
        ("192.0.2.0/24:443/tcp", "192.0.2.0/23:443/tcp"),
        ("192.0.2.0/24:443/tcp", "[2001:db8::1]:443/tcp"),
        ("[2001:db8::/32]:443/tcp", "192.0.2.1:443/tcp"),
        ("192.0.2.0/24:80-90/tcp", "192.0.2.1:79/tcp"),
        ("192.0.2.0/24:80-90/tcp", "192.0.2.1:91/tcp"),
        ("*:*/udp", "example.org:443/tcp"),
    ],
)
def test_an_offer_covers_nothing_else(offer, asked):
    assert not parse_offer(offer).covers(wanted(asked))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "example.org:443",
        "example.org:443/icmp",
        "example.org:443/TCP",
        "example.org:0/tcp",
        "example.org:65536/tcp",
        "example.org:90-80/tcp",
        "example.org:*-80/tcp",
        "example.org:٤٤٣/tcp",
        "2001:db8::1:443/tcp",
        "[2001:db8::1:443/tcp",
        "[example.org]:443/tcp",
        "a.*.org:443/tcp",
        "*example.org:443/tcp",
        "192.0.2.1/24:443/tcp",
        "192.0.2:443/tcp",
        "example.org:443/tcp ",
    ],
)
def test_what_is_no_offer_is_refused(text):
    with pytest.raises(ValueError, match=r"PLACE:PORT/PROTOCOL|a port is|no network|not the name|not a name"):
        parse_offer(text)


@pytest.mark.parametrize("text", ["example.org:443/tcp", "192.0.2.0/24:80/udp", "[2001:db8::/32]:1/tcp"])
def test_a_destination_is_written_as_offers_are(text):
    assert str(wanted(text)) == text
