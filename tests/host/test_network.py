"""Jobs with a network of their own: who finds whom, what is counted, and what a lost hub takes along."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from jail.errors import SandboxError
from jail.network.client import Hub

ISOLATED = {"mode": "isolated"}
PORT = 8000
# Of Ethernet, IPv6, and TCP with its times.
HEADERS = 14 + 40 + 32
MTU = 1500
# What finds out who has an address, what asks for a connection until there is a server, and what ends it.
SAID = 20_000

SERVER = f"""
import socket
server = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
for _ in range(2):
    connection, _ = server.accept()
    with connection: connection.sendall(b"hello, " + connection.recv(100))
"""

# Perl has a library of its own for addresses: no Python at either end.
CLIENT = """
use IO::Socket::IP;
for my $family (AF_INET, AF_INET6) {
    my $server;
    until ($server = IO::Socket::IP->new(PeerHost => "server", PeerPort => 8000, Family => $family)) {}
    $server->print("perl\\n"); print $server->getline;
}
"""

SINK = f"""
import socket
server = socket.create_server(("::", {PORT}), family=socket.AF_INET6)
connection, _ = server.accept()
count = 0
while part := connection.recv(1 << 16): count += len(part)
print(count)
"""

# Seldom: what asks for a connection counts.
SOURCE = f"""
import socket, time
while True:
    connection = socket.socket(socket.AF_INET6)
    if not connection.connect_ex(("sink", {PORT})): break
    time.sleep(0.05)
connection.sendall(bytes(%d))
"""


def python(name, script, **more):
    return {"name": name, "argv": ["python3", "-ISc", script], **more}


def job(*processes):
    return {"network": ISOLATED, "processes": list(processes)}


def hub_of(jail):
    return jail.engine.sandboxes.networks.pid


def links_of(jail):
    lines = Path(f"/proc/{hub_of(jail)}/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines if line.strip().startswith("p")]


@pytest.fixture
def all_links_go(jail, until):
    """Wait until no link is left in the hub: a moment after its job, since the kernel takes its time."""

    async def gone():
        await until(lambda: not links_of(jail))

    def wait():
        jail.settle()
        jail.do(gone())

    return wait


def test_processes_in_different_languages_find_each_other_by_name(jail):
    client = {"name": "client", "argv": ["perl", "-e", CLIENT]}
    result = jail.run(job(python("server", SERVER), client))
    assert result["status"] == "ok", result
    assert result["processes"]["client"]["stdout"]["text"] == "hello, perl\n" * 2


def test_a_job_of_one_has_an_address_and_nobody_to_talk_to(jail):
    result = jail.sh("grep -c eth0 /proc/net/if_inet6; cat /etc/hosts", network=ISOLATED)
    assert result["stdout"]["text"] == "1\n127.0.0.1 localhost jail\n::1 localhost jail\n"


def test_a_process_called_like_every_host_is_found_where_it_is(jail):
    other = {"name": "other", "argv": ["getent", "ahostsv4", "jail"]}
    result = jail.run(job({"name": "jail", "argv": ["true"]}, other))
    assert result["processes"]["other"]["stdout"]["text"].startswith("10.106.")


def test_without_a_network_there_is_none(jail):
    result = jail.sh("grep -c eth0 /proc/net/dev")
    assert (result["stdout"]["text"], result["usage"]["network"]) == ("0\n", None)


def test_what_is_counted_is_what_was_sent(jail):
    size = 1 << 20
    result = jail.run(job(python("sink", SINK), python("source", SOURCE % size)))
    sink, source = (result["processes"][name] for name in ("sink", "source"))
    assert sink["stdout"]["text"] == f"{size}\n"
    sent, received = source["usage"]["network"], sink["usage"]["network"]
    # A header for every 64 KiB at least, which the kernel need not cut; and for every MTU at most.
    assert (
        size + size // 65_536 * HEADERS < sent["sent_bytes"] < size * (1 + HEADERS / (MTU - HEADERS)) + SAID
    )
    # But for what is said to all: of those there may be more than two.
    for one, other in ((sent, received), (received, sent)):
        assert abs(one["sent_bytes"] - other["received_bytes"]) < SAID


def test_the_first_that_ends_keeps_its_counters_until_the_last_has(jail):
    first = python("first", SOURCE.replace("sink", "second") % 100_000)
    second = python("second", SINK + "import time; time.sleep(0.2)")
    result = jail.run(job(first, second))
    assert result["status"] == "ok", result
    assert [end["process"] for end in result["ended"]] == ["first", "second"]
    assert result["processes"]["first"]["usage"]["network"]["sent_bytes"] > 100_000


def test_many_jobs_leave_nothing_in_the_hub(all_links_go, jail):
    async def scene():
        for _ in range(5):
            runs = [jail.submit({"argv": ["true"], "network": ISOLATED}) for _ in range(8)]
            for run in runs:
                assert (await run.task).status == "ok"

    jail.do(scene())
    all_links_go()
    own = hub_of(jail)
    route = Path(f"/proc/{own}/net/route").read_text().splitlines()[1:]
    assert route == []
    # Its own alone.
    assert len([entry for entry in os.listdir(f"/proc/{own}/fd") if _is_network(own, entry)]) == 1


def _is_network(pid, entry):
    try:
        return os.readlink(f"/proc/{pid}/fd/{entry}").startswith("net:")
    except OSError:
        return False


def test_a_cancelled_job_leaves_no_network(all_links_go, jail, executing):
    async def scene():
        run = jail.submit(
            job({"name": "a", "argv": ["sleep", "1000"]}, {"name": "b", "argv": ["sleep", "1000"]})
        )
        await executing(jail.supervisor, "sleep", 2)
        run.cancel()
        return await jail.answer(run)

    result = jail.do(scene())
    assert {process["status"] for process in result["processes"].values()} == {"cancelled"}
    all_links_go()


def test_a_lost_hub_ends_those_that_need_it_and_nobody_else(jail, executing):
    async def scene():
        needing = jail.submit(
            job({"name": "a", "argv": ["sleep", "1000"]}, {"name": "b", "argv": ["sleep", "1000"]})
        )
        await executing(jail.supervisor, "sleep", 2)
        other = jail.submit({"argv": ["sh", "-c", "cat; echo done"], "stdin": "x"})
        lost = hub_of(jail)
        os.kill(lost, signal.SIGKILL)
        return lost, await jail.answer(needing), await jail.answer(other)

    lost, needing, other = jail.do(scene())
    assert needing["status"] == "sandbox_error"
    for process in needing["processes"].values():
        assert (process["status"], "network" in process["detail"]) == ("sandbox_error", True)
    assert (other["status"], other["stdout"]["text"]) == ("ok", "xdone\n")
    assert jail.run({"argv": ["true"], "network": ISOLATED})["status"] == "ok"
    assert hub_of(jail) not in (None, lost)


@pytest.mark.parametrize("moment", ["open", "close"])
def test_a_hub_that_is_lost_while_it_works_is_told(jail, monkeypatch, moment):
    ask = Hub.ask

    async def kill_and_ask(self, request, *more, **by_name):
        kind = type(request(0)).__name__.lower()
        if kind == moment and not killed:
            killed.append(hub_of(jail))
            os.kill(hub_of(jail), signal.SIGKILL)
        return await ask(self, request, *more, **by_name)

    assert jail.run({"argv": ["true"], "network": ISOLATED})["status"] == "ok"
    killed = []
    monkeypatch.setattr(Hub, "ask", kill_and_ask)
    result = jail.run({"argv": ["true"], "network": ISOLATED})
    assert killed
    assert (result["status"], "network" in result["detail"]) == ("sandbox_error", True)
    monkeypatch.undo()
    assert jail.run({"argv": ["true"], "network": ISOLATED})["status"] == "ok"


def test_a_lost_supervisor_leaves_no_link(all_links_go, jail, executing):
    async def scene():
        run = jail.submit(
            job({"name": "a", "argv": ["sleep", "1000"]}, {"name": "b", "argv": ["sleep", "1000"]})
        )
        await executing(jail.supervisor, "sleep", 2)
        os.kill(jail.supervisor, signal.SIGKILL)
        return await jail.answer(run)

    assert jail.do(scene())["status"] == "sandbox_error"
    assert jail.run({"argv": ["true"], "network": ISOLATED})["status"] == "ok"
    all_links_go()


def test_a_hub_that_cannot_start_is_a_failure_of_ours(jail, monkeypatch):
    def refuse(_control):
        raise SandboxError("keeper", 11)

    networks = jail.engine.sandboxes.networks
    monkeypatch.setattr(networks, "_hub", None)
    monkeypatch.setattr(networks, "_start", refuse)
    result = jail.run({"argv": ["true"], "network": ISOLATED})
    assert result["status"] == "sandbox_error"


def test_a_job_that_waits_for_its_network_can_be_cancelled(all_links_go, jail):
    async def scene():
        runs = [jail.submit({"argv": ["true"], "network": ISOLATED}) for _ in range(4)]
        await asyncio.sleep(0)
        for run in runs:
            run.cancel()
        return [(await run.task).status for run in runs]

    assert set(jail.do(scene())) == {"cancelled"}
    all_links_go()
