"""What a service manager hands over, as far as it shows within one process."""

import os
import socket

import pytest

from jail.cli import systemd
from jail.cli.systemd import Notices
from jail.errors import HostError


@pytest.fixture
def handed(monkeypatch):
    """A listening socket that a manager is said to have opened, under a number of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor = os.dup(listener.fileno())
        os.set_inheritable(descriptor, True)
        monkeypatch.setattr(systemd, "_FIRST", descriptor)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        yield listener.getsockname()


@pytest.fixture
def manager(monkeypatch, tmp_path):
    """What a manager hears; it wants a sign of life within 30 seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hearing:
        # Not a path: those of pytest can be too long for one.
        hearing.bind("")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{hearing.getsockname()[1:].decode()}")
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        yield hearing


def test_what_was_handed_over_is_not_inherited_further(handed):
    (listener,) = systemd.listeners()
    with listener:
        assert listener.getsockname() == handed
        assert not listener.get_inheritable()


def test_the_socket_to_the_manager_is_not_inherited(manager):
    notices = Notices()
    assert not notices._socket.get_inheritable()
    notices.close()


def test_an_abstract_socket_is_heard_on(manager):
    notices = Notices()
    notices.alive()
    assert manager.recv(64) == b"WATCHDOG=1"
    notices.close()


def test_signs_of_life_come_more_often_than_a_watchdog_wants_them(manager):
    notices = Notices()
    assert notices.sign_of_life_s == 10
    notices.close()


def test_a_manager_that_takes_nothing_in_holds_up_nobody(manager):
    notices = Notices()
    # More than any queue of the kernel's holds.
    for _ in range(100_000):
        notices.alive()
    notices.close()


def test_without_a_manager_nothing_is_handed_over_or_told(monkeypatch):
    for name in ("LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    assert systemd.listeners() == []
    notices = Notices()
    notices.ready()
    assert notices.sign_of_life_s is None


@pytest.mark.parametrize("address", ["/no/such/socket", "@no such name", "vsock:2:1"])
def test_a_manager_that_cannot_be_reached_is_an_error(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with pytest.raises(HostError, match="cannot be connected to"):
        Notices()


@pytest.mark.parametrize(("name", "asks"), [("LISTEN_FDS", systemd.listeners), ("WATCHDOG_USEC", Notices)])
def test_what_should_be_a_number_and_is_none_is_named(monkeypatch, manager, name, asks):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv(name, "some")
    with pytest.raises(HostError, match=f"{name} = 'some' is no number"):
        asks()
