"""Attacks 132 and 134: jobs with a way out, and what leads back through it.

In a stand-in for the host's network and the internet, where on every address somebody listens.
"""

import re
from pathlib import Path

import pytest

REACH = """
import errno, socket
def reach(address, kind):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as made:
        made.settimeout(SECONDS)
        try:
            made.connect((address, 443))
            made.send(b"hello")
            return made.recv(1000).decode().split()[0]
        except TimeoutError:
            return "nothing"
        except OSError as error:
            return errno.errorcode[error.errno]
"""

ALLOW = [
    {"cidr": address, "port": 443, "protocol": protocol}
    for address in ("198.51.100.2", "2001:db8::2")
    for protocol in ("tcp", "udp")
]

# The host as slirp4netns shows it, as it is, and by its loopback; its resolver.
THE_HOST = (
    "10.107.0.2",
    "10.107.0.3",
    "fd00::2",
    "fd00::3",
    "198.51.100.1",
    "2001:db8::1",
    "127.0.0.1",
    "::1",
)

LISTENER = """
import select
made = []
for port in (8443, 8080):
    made.append(socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True))
    made.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    made[-1].bind(("::", port))
group = socket.inet_aton("224.0.0.251") + socket.inet_aton("0.0.0.0")
made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
made[-1].bind(("", 5353))
made[-1].setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
# It is there, and is seen from where it could be answered.
kept = socket.create_connection(("198.51.100.2", 443))
kept.recv(1000)
print(len(select.select(made, [], [], 3)[0]))
"""

# From the host's network: to whatever the way out or a sandbox could be there, each by both protocols.
SENDER = """
import socket
places = ("127.0.0.1", "::1", "198.51.100.1", "10.107.0.100", "10.106.0.2", "10.106.0.3", "fd00::100",
          "fd6a:6169:6c00::2", "fd6a:6169:6c00::3")
for place in places:
    family = socket.AF_INET6 if ":" in place else socket.AF_INET
    for port in (8443, 8080):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as made:
                made.settimeout(0.1)
                try:
                    made.connect((place, port))
                    made.send(b"hello")
                except OSError:
                    pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("198.51.100.1"))
    made.sendto(b"hello", ("224.0.0.251", 5353))
print("sent")
"""


def job(script: str, seconds: float = 0.3) -> dict:
    text = REACH.replace("SECONDS", str(seconds)) + script
    return {"argv": ["python3", "-ISc", text], "network": {"mode": "egress", "allow": ALLOW}}


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_way_out_does_not_lead_to_the_host(stranger, kind):
    """Attack 132. Not by the addresses that slirp4netns and pasta have for it, nor by its own."""
    result = stranger.ask(job(f"for place in {THE_HOST!r}: print(reach(place, {kind!r}))"))
    said = result["stdout"]["text"].split()
    # Its own loopback refuses, at which it has nobody listen.
    assert said == ["nothing"] * 6 + ["ECONNREFUSED"] * 2
    # Somebody is reached, and by both protocols.
    result = stranger.ask(job(f"print(reach('198.51.100.2', {kind!r}))", 10))
    assert result["stdout"]["text"] == "198.51.100.2\n"


@pytest.mark.parametrize("address", ["10.107.0.2", "fd00::2", "127.0.0.1", "::1", "198.51.100.1"])
def test_no_job_may_ask_for_the_host(stranger, address):
    """Attack 132. Whatever the operator offers; his own address, as he may have any, is not among them."""
    network = {"mode": "egress", "allow": [{"cidr": address, "port": 443 if address[0] != "9" else 1}]}
    told = stranger.ask({"argv": ["true"], "network": network})
    if address == "198.51.100.1":
        # An address like any other; whoever lists his own network lists himself.
        assert told["status"] == "ok"
    else:
        assert told["refused"] == "network.allow[0]"


def test_nothing_comes_in_from_the_hosts_network(stranger):
    """Attack 134. Neither connections nor datagrams, nor what is sent to all."""
    stranger.begin(job(LISTENER, 10))
    tables = Path(f"/proc/{stranger.wait_for('kept = socket.create_connection')}/net/tcp")
    # All else is there by the time that it is connected: to port 443, state 01.
    while not re.search(r":01BB 01 ", tables.read_text()):
        assert stranger.process.poll() is None
    assert stranger.beside(SENDER) == "sent\n"
    result = stranger.end()
    assert result["status"] == "ok", result
    assert result["stdout"]["text"] == "0\n"
