"""Which answers of the kernel are whose, and what becomes of the thread that deletes."""

import errno
import select

import pytest

from jail.network import netlink
from jail.network.burial import Burial, Undertaker

LOOPBACK = 1
SECONDS = 60


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


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOBUFS, "no room"), ValueError("no answer of the kernel")]
)
def test_whatever_ends_the_thread_that_deletes_is_told(monkeypatch, failure):
    def fail(*_arguments):
        raise failure

    monkeypatch.setattr(netlink.Socket, "do", fail)
    undertaker = Undertaker()
    undertaker.bury(Burial((LOOPBACK,)))
    poll = select.poll()
    poll.register(undertaker.done, select.POLLIN)
    assert poll.poll(SECONDS * 1000)
    with pytest.raises(type(failure), match=str(failure.args[-1])):
        undertaker.gone()
