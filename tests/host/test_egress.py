"""Jobs with a way out, from the body to the result, in a stand-in for the host's network and the internet.

The engine runs in a container that has it for a network: see tests/network/outside.py.
"""

import os
import signal
from typing import Any

import pytest

REACH = """
import errno, socket, sys
def reach(host, port, kind="tcp", seconds=10):
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port)[0]
        with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as made:
            made.settimeout(seconds)
            made.connect(address)
            if kind == "udp":
                made.send(b"hello")
            return made.recv(1000).decode().split()[0]
    except socket.gaierror as error:
        return "no such name"
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return errno.errorcode[error.errno]
"""


def python(script: str, *allow: dict[str, Any]) -> dict[str, Any]:
    network = {"mode": "egress", "allow": [{"port": 443, **one} for one in allow]}
    return {"argv": ["python3", "-ISc", REACH + script], "network": network if allow else "none"}


def asked_of(stranger: Any, script: str, *allow: dict[str, Any]) -> dict[str, Any]:
    return stranger.ask(python(script, *allow))


def printed(result: dict[str, Any]) -> list[str]:
    assert result.get("status") == "ok", result
    return result["stdout"]["text"].split("\n")[:-1]


BOTH = ({"host": "both.example"}, {"host": "both.example", "protocol": "udp"})


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_what_is_allowed_is_reached_by_name_and_by_address(stranger, kind):
    allow = ({"host": "both.example", "protocol": kind}, {"cidr": "198.51.100.3", "protocol": kind})
    script = f"""
for place in ("both.example", "198.51.100.2", "2001:db8::2", "198.51.100.3"):
    print(reach(place, 443, {kind!r}))
"""
    first, *others = printed(asked_of(stranger, script, *allow))
    assert first in ("198.51.100.2", "2001:db8::2")
    assert others == ["198.51.100.2", "2001:db8::2", "198.51.100.3"]


def test_nothing_else_is_reached(stranger):
    places = [
        ("198.51.100.2", 444),
        ("198.51.100.3", 443),
        ("2001:db8::3", 443),
        ("169.254.169.254", 443),
        ("198.51.100.1", 443),
        ("10.107.0.2", 443),
        ("fd00::2", 443),
    ]
    script = f"""
print(reach("both.example", 443))
for place, port in {places!r}:
    print(reach(place, port, seconds=0.3))
for question in ("metadata.example", "private.example", "example.org"):
    print(reach(question, 443))
print(reach("198.51.100.2", 53, "udp", 0.3), reach("10.107.0.3", 53, "udp", 0.3))
"""
    first, *others, last = printed(asked_of(stranger, script, *BOTH[:1]))
    assert first in ("198.51.100.2", "2001:db8::2")
    assert others == ["nothing"] * len(places) + ["no such name"] * 3
    assert last == "nothing nothing"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"host": "nobody.example"}, "not known"),
        ({"host": "private.example"}, "10.0.0.1: 10.0.0.0/8 is private"),
        ({"host": "metadata.example"}, "169.254.0.0/16"),
        ({"host": "localhost"}, "loopback"),
        ({"host": "both.example", "port": 444}, "not offered"),
        ({"cidr": "169.254.169.254"}, "metadata"),
        ({"cidr": "127.0.0.1"}, "loopback"),
        ({"cidr": "10.107.0.2"}, "jail's own"),
        ({"cidr": "fd00::2"}, "jail's own"),
        ({"cidr": "fd01::2"}, "unique local"),
        ({"cidr": "198.51.100.2", "port": 444}, "not offered"),
    ],
)
def test_what_no_job_may_reach_is_refused_before_it_runs(stranger, asked, why):
    told = asked_of(stranger, "", {"host": "both.example"}, asked)
    assert told["refused"].startswith("network.allow[1]"), told
    assert why in told["detail"]


def test_the_next_job_has_none_of_it(stranger):
    assert printed(asked_of(stranger, "print(reach('198.51.100.2', 443))", *BOTH)) == ["198.51.100.2"]
    script = "print(reach('198.51.100.2', 443, seconds=0.3), reach('both.example', 443))"
    assert printed(asked_of(stranger, script, {"cidr": "198.51.100.3"})) == ["nothing no such name"]
    for mode in ("none", {"mode": "isolated"}):
        told = printed(stranger.ask({**python(script), "network": mode}))
        assert told in (["ENETUNREACH no such name"], ["nothing no such name"])


def test_processes_reach_each_other_and_out(stranger):
    server = """
server = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
print(reach("both.example", 443), flush=True)
server.accept()[0].sendall(b"hello")
"""
    client = """
while reach("server", 8080) == "ECONNREFUSED":
    pass
print(reach("both.example", 443), reach("198.51.100.3", 443, seconds=0.3))
"""
    job = stranger.ask(
        {
            "processes": [
                {"name": "server", "argv": ["python3", "-ISc", REACH + server]},
                {"name": "client", "argv": ["python3", "-ISc", REACH + client]},
            ],
            "network": {"mode": "egress", "allow": [{"host": "both.example", "port": 443}]},
        }
    )
    assert job.get("status") == "ok", job
    for name in ("server", "client"):
        assert job["processes"][name]["stdout"]["text"].split()[0] in ("198.51.100.2", "2001:db8::2")
    assert job["processes"]["client"]["stdout"]["text"].split()[1] == "nothing"


def test_what_passed_stands_in_the_usage(stranger):
    script = """
with socket.create_connection(("198.51.100.2", 443)) as made:
    made.sendall(bytes(100_000))
    made.shutdown(socket.SHUT_WR)
    while made.recv(1000):
        pass
"""
    network = asked_of(stranger, script, *BOTH)["usage"]["network"]
    assert 100_000 < network["sent_bytes"] < 115_000
    assert 0 < network["received_bytes"] < 20_000


def test_a_job_that_loses_its_way_out_is_not_to_blame(stranger):
    for lost in ("the way out", "the hub"):
        stranger.begin(python("import time; time.sleep(100)", *BOTH))
        stranger.wait_for("time.sleep(100)")
        os.kill(stranger.way if lost == "the way out" else stranger.hub, signal.SIGKILL)
        told = stranger.end()
        assert told["status"] == "sandbox_error", told
        assert "network" in told["detail"]
        assert printed(asked_of(stranger, "print(reach('198.51.100.2', 443))", *BOTH)) == ["198.51.100.2"]
