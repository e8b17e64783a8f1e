"""The pure parts of networks: addresses, rules, messages."""

import re
import struct
from pathlib import Path

import msgspec
import pytest

from jail.network import addresses, netlink, protocol, rules
from jail.network.protocol import MEMBERS_MAX, PACKET_BYTES, Bounds, Done, Open, Traffic

LAST = addresses.SLOTS_MAX - 1


def test_every_slot_has_addresses_that_no_other_has():
    for address in (addresses.ipv4, addresses.ipv6, addresses.mac, addresses.port):
        assert len({address(slot) for slot in range(addresses.SLOTS_MAX)}) == addresses.SLOTS_MAX


@pytest.mark.parametrize("slot", [0, 1, 253, 254, LAST])
def test_addresses_are_those_of_hosts_in_the_networks(slot):
    assert addresses.ipv4(slot) in addresses.IPV4
    assert addresses.ipv6(slot) in addresses.IPV6
    reserved = (addresses.IPV4.network_address, addresses.IPV4[1], addresses.IPV4.broadcast_address)
    assert addresses.ipv4(slot) not in reserved
    assert addresses.ipv6(slot) not in (addresses.IPV6[0], addresses.IPV6[1])


def test_addresses_are_private_and_macs_locally_administered():
    assert addresses.IPV4.is_private
    assert addresses.IPV6.is_private
    assert addresses.mac(0) == "02:6a:61:69:00:02"
    assert addresses.mac(254) == "02:6a:61:69:01:00"
    assert len(addresses.port(LAST)) < 16


def test_the_shipped_unit_lets_members_have_their_addresses():
    unit = Path(__file__).parents[2] / "deploy" / "systemd" / "jail.service"
    allowed = " ".join(re.findall(r"^IPAddressAllow=(.*)$", unit.read_text(), re.MULTILINE)).split()
    assert {str(addresses.IPV4), str(addresses.IPV6), "multicast"} <= set(allowed)


def test_every_base_chain_drops_what_no_rule_lets_through():
    text = "".join(rules.transactions(1))
    hooks = re.findall(r"type filter hook (\w+) priority \S+; policy (\w+);", text)
    assert sorted(hooks) == sorted(
        [
            (hook, "drop")
            for hook in ("prerouting", "input", "forward", "output", "input", "forward", "output")
        ]
    )


@pytest.mark.parametrize("slots", [1, 3, 512, 513, 1200])
def test_each_set_has_one_element_a_slot(slots):
    text = "".join(rules.transactions(slots))
    sets = dict(re.findall(r"set (\w+) \{ typeof ([^;]*); \}", text))
    assert len(sets) == 5
    for name, types in sets.items():
        found = ", ".join(re.findall(rf"add element bridge jail {name} \{{ (.*) \}}", text)).split(", ")
        assert len(found) == len(set(found)) == slots
        assert {len(element.split(" . ")) for element in found} == {len(types.split(" . "))}
        assert [element.split(" . ")[0] for element in found] == [f"p{slot}" for slot in range(slots)]


def test_every_set_and_every_chain_is_used():
    text = "".join(rules.transactions(1))
    for name in re.findall(r"set (\w+) \{", text):
        assert f"@{name}" in text
    for name in re.findall(r"chain (\w+) \{\n(?!\s+type)", text):
        assert f"goto {name}" in text


BOUNDS = Bounds("/usr/bin/slirp4netns", 10_000, 7)


def test_egress_adds_no_base_chain_but_the_one_that_gives_what_leaves_an_address():
    (without,), (text,) = rules.transactions(1), rules.transactions(1, BOUNDS)
    assert text.startswith(without[: without.index("add element")])
    bases = re.findall(r"type (\w+) hook (\w+) priority \S+; policy (\w+);", text)
    assert [base for base in bases if base[2] != "drop"] == [("nat", "postrouting", "accept")]


def test_every_set_and_every_chain_of_egress_is_used():
    (text,) = rules.transactions(1, BOUNDS)
    for name in re.findall(r"(?:set|map) (\w+) \{", text):
        assert f"@{name}" in text
    for name in re.findall(r"chain (\w+) \{\n", text):
        assert f"goto {name}" in text or re.search(rf"chain {name} \{{\s+type", text)
    assert "ct count over 7" in text


@pytest.mark.parametrize("slots", [1, 513])
def test_each_slot_has_a_mark_of_its_own_and_none_is_that_of_nobody(slots):
    text = "".join(rules.transactions(slots, BOUNDS))
    for name in ("ipv4_marks", "ipv6_marks"):
        found = ", ".join(re.findall(rf"add element inet jail {name} \{{ (.*) \}}", text)).split(", ")
        marks = [int(element.rpartition(" : ")[2]) for element in found]
        assert marks == [addresses.mark(slot) for slot in range(slots)]
        assert 0 not in marks
        assert len(set(marks)) == slots


def test_the_last_of_a_message_is_what_with_last_says():
    whole = netlink.new_pair(70, 3)
    changed = netlink.with_last(whole, 0xABCD)
    assert changed[:-4] == whole[:-4]
    assert struct.unpack("=I", changed[-4:]) == (0xABCD,)
    # struct nlattr of IFLA_NET_NS_FD, and of IFLA_MASTER.
    assert struct.unpack("=HH", whole[-8:-4]) == (8, 28)
    assert struct.unpack("=HH", netlink.raise_port(70)[-8:-4]) == (8, 10)


@pytest.mark.parametrize("state", [0, 2, 6])
def test_a_link_is_up_when_its_state_says_so(state):
    answer = bytes(16) + struct.pack("=HHB3x", 5, 16, state)
    assert netlink.is_up(answer) == (state == 6)


def test_an_answer_without_what_was_asked_for_is_an_error():
    with pytest.raises(OSError, match="No data"):
        netlink.counters(bytes(12))


def test_the_longest_packets_fit():
    most = 2**64 - 1
    traffic = (Traffic(most, most, most, most),) * MEMBERS_MAX
    request = Open(2**62, 2**62, (LAST,) * MEMBERS_MAX)
    for packet in (request, Done(2**62, traffic)):
        assert len(msgspec.json.encode(packet)) < PACKET_BYTES / 2


def test_requests_and_answers_are_read_as_they_were_written():
    for kind, packets in (
        (protocol.Request, (Open(1, 2, (3, 4)), protocol.Close(1, 2), protocol.Dial(1, 2, 3, 4))),
        (
            protocol.Answer,
            (protocol.Ready(), Done(1, (Traffic(1, 2, 3, 4),)), protocol.Refused(1, 2, "three")),
        ),
    ):
        for packet in packets:
            assert msgspec.json.decode(msgspec.json.encode(packet), type=kind) == packet


def test_a_field_too_many_is_refused():
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"type":"close","number":1,"segment":2,"force":true}', type=protocol.Request)
