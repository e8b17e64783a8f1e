"""Which answers of the kernel are whose."""

import errno

import pytest

from jail.network import netlink

LOOPBACK = 1


@pytest.fixture
def links():
    with netlink.Socket() as made:
        yield made


def test_what_is_left_of_a_question_answers_no_other(links):
    links._send([netlink.get_link(LOOPBACK)] * 2, 0)
    with pytest.raises(OSError, match="No such device") as error:
        links.ask([netlink.find_link("nothing-of-ours")])
    assert error.value.errno == errno.ENODEV
    (answer,) = links.ask([netlink.find_link("lo")])
    assert netlink.index_of(answer) == LOOPBACK


def test_a_failure_that_nobody_waited_for_is_no_other_ones(links):
    """Whoever is not root may ask, and be told that it is done."""
    links._send([netlink.find_link("nothing-of-ours")], 0)
    links.do([netlink.get_link(LOOPBACK)])


def test_answers_are_in_the_order_of_the_questions(links):
    assert [netlink.index_of(answer) for answer in links.ask([netlink.get_link(LOOPBACK)] * 3)] == [
        LOOPBACK
    ] * 3
