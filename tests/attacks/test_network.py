"""Attacks 129 to 131 and 133, 135 to 137: jobs with a network of their own, and what they reach with it."""

import json
import re
import select
import socket
from contextlib import closing
from pathlib import Path

import pytest

from jail.limits import CEILINGS

HERE = Path(__file__).parent
ISOLATED = {"mode": "isolated"}
PORT = 8000
LONG = {"cpu_ms": CEILINGS.cpu_ms, "wall_ms": CEILINGS.wall_ms, "open_files": 1024}

# Of clouds, and where a hub could be.
NOBODYS = ("169.254.169.254", "fd00:ec2::254", "10.106.0.1", "10.106.255.254", "fd6a:6169:6c00::1")

# Ends as soon as anything reaches it.
LISTENER = f"""
import select, socket
server = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.bind(("::", {PORT}))
select.select([server, datagrams], [], [])
"""

# Tells what comes, and whether that is from whom it says, up to "end".
RECEIVER = f"""
import socket
datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.bind(("::", {PORT}))
sender = {{about[4][0] for about in socket.getaddrinfo("sender", None, socket.AF_INET6)}}
socket.create_server(("", {PORT})).accept()
told = None
while told != b"end":
    told, (address, *_) = datagrams.recvfrom(100)
    print(told.decode(), address in sender)
"""

SPOOFER = f"""
import errno, os, socket, struct
IP_FREEBIND, IP_TRANSPARENT, IPV6_PKTINFO, IPV6_FREEBIND = 15, 19, 50, 78
def attempt(what, call, *arguments):
    try: call(*arguments); print(what, "done")
    except OSError as error: print(what, errno.errorcode[error.errno])
def receiver(family): return (socket.getaddrinfo("receiver", {PORT}, family)[0][4])
while socket.socket().connect_ex(receiver(socket.AF_INET)): pass
four, six = socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
attempt("bind", four.bind, ("10.106.0.200", 0))
attempt("bind", six.bind, ("fd6a:6169:6c00::c8", 0))
attempt("peer's", six.bind, (receiver(socket.AF_INET6)[0], 0))
attempt("transparent", four.setsockopt, socket.IPPROTO_IP, IP_TRANSPARENT, 1)
attempt("free", six.setsockopt, socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
four.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
four.bind(("10.106.0.200", 0))
attempt("send", four.sendto, b"spoofed", receiver(socket.AF_INET))
source = socket.inet_pton(socket.AF_INET6, "fd6a:6169:6c00::c8") + struct.pack("i", 0)
information = [(socket.IPPROTO_IPV6, IPV6_PKTINFO, source)]
attempt("sendmsg", six.sendmsg, [b"spoofed"], information, 0, receiver(socket.AF_INET6))
six.sendto(b"end", receiver(socket.AF_INET6))
"""

# What an interface could be made to do, and whether anybody may.
INTERFACE = """
import fcntl, struct
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFHWADDR, SIOCSIFMTU, SIOCSIFNAME = 0x8914, 0x8916, 0x8924, 0x8922, 0x8923
SIOCSARP, SIOCADDRT, SIOCGIFFLAGS, SIOCETHTOOL, SIOCBRADDIF = 0x8955, 0x890b, 0x8913, 0x8946, 0x89a2
IFF_UP, IFF_PROMISC = 1, 0x100
any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def change(request, value): fcntl.ioctl(any_socket, request, struct.pack("16s24s", b"eth0", value))
about = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16s24s", b"eth0", b""))
(flags,) = struct.unpack_from("16xH", about)
for request, value in (
    (SIOCSIFFLAGS, struct.pack("H", flags | IFF_PROMISC)),
    (SIOCSIFFLAGS, struct.pack("H", flags & ~IFF_UP)),
    (SIOCSIFFLAGS, struct.pack("H", flags)),
    (SIOCSIFADDR, struct.pack("HH4s", socket.AF_INET, 0, bytes((10, 106, 0, 200)))),
    (SIOCSIFHWADDR, struct.pack("H6s", 1, bytes(6))),
    (SIOCSIFMTU, struct.pack("i", 9000)),
    (SIOCSIFNAME, b"lo1"),
    (SIOCSARP, b""), (SIOCADDRT, b""), (SIOCETHTOOL, b""), (SIOCBRADDIF, b""),
): print(answer(change, request, value))
for family, kind, protocol in (
    (socket.AF_PACKET, socket.SOCK_RAW, 0x0300), (socket.AF_PACKET, socket.SOCK_DGRAM, 0x0300),
    (socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_INET, socket.SOCK_RAW, 255),
    (socket.AF_INET6, socket.SOCK_RAW, 58), (socket.AF_INET, socket.SOCK_DGRAM, 1),
    (socket.AF_NETLINK, socket.SOCK_RAW, 0), (socket.AF_NETLINK, socket.SOCK_RAW, 12),
): print(answer(socket.socket, family, kind, protocol))
low = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(answer(low.setsockopt, socket.SOL_SOCKET, 36, 1))
print(answer(open, "/proc/sys/net/ipv4/ip_forward", "w"))
print(answer(open, "/proc/sys/net/ipv6/conf/eth0/accept_ra", "w"))
"""


def addresses(pid):
    """The addresses in the network namespace of a process, but for loopback's."""
    trie = Path(f"/proc/{pid}/net/fib_trie").read_text()
    found = set(re.findall(r"\|-- ([\d.]+)\n\s+/32 host LOCAL", trie))
    for line in Path(f"/proc/{pid}/net/if_inet6").read_text().splitlines():
        found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])))
    return sorted(
        address for address in found if address != "::1" and not address.startswith(("127.", "fe80:"))
    )


def listens(pid):
    return f":{PORT:04X} " in Path(f"/proc/{pid}/net/tcp6").read_text()


@pytest.fixture
def scan(attack):
    """What a job with a network finds at addresses: the report of scan.py."""

    def run(targets, first=PORT, last=PORT, **fields):
        body = {
            "argv": ["python3", "-IS", "scan.py", str(first), str(last), *targets],
            "files": {"scan.py": (HERE / "scan.py").read_text()},
            "limits": LONG,
            "network": ISOLATED,
        }
        result = attack(body | fields)
        assert result["status"] == "ok", result
        return json.loads(result["stdout"]["text"])

    return run


@pytest.fixture
def host_servers():
    """Servers on every address of the host, TCP and UDP, and the port that they share."""
    with (
        closing(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)) as stream,
        closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as datagrams,
    ):
        port = stream.getsockname()[1]
        datagrams.bind(("::", port))
        yield port, [stream, datagrams]


def test_no_address_of_the_host_is_reached(scan, host_servers):
    """Attack 129. Its own, those of clouds, and those that a hub would have."""
    port, servers = host_servers
    report = scan(["127.0.0.1", "::1", *addresses("self"), *NOBODYS], port, port)
    # Nobody is there to refuse either, but on loopback, which is the job's own.
    assert (report["connected"], report["answered"]) == ([], 2)
    assert select.select(servers, [], [], 0)[0] == []


def test_nothing_leads_out_of_the_segment(sh):
    """Attack 129. No default route, and no link-local address on the way to anything."""
    result = sh("grep eth0 /proc/net/if_inet6 /proc/net/route /proc/net/ipv6_route", network=ISOLATED)
    lines = result["stdout"]["text"].splitlines()
    seen = [line.split(":", 1)[1].split() for line in lines if line.startswith("/proc/net/if_inet6")]
    assert [address[:16] for address, *_ in seen] == ["fd6a61696c000000"]
    routes = [line.split(":", 1)[1].split() for line in lines if line.startswith("/proc/net/route")]
    assert [(route[1], route[7]) for route in routes] == [("00006A0A", "0000FFFF")]
    gateways = {line.split(":", 1)[1].split()[4] for line in lines if "ipv6_route" in line.split(":")[0]}
    assert gateways == {"0" * 32}


def test_another_job_is_not_reached_on_any_port(scan, running, eventually, slowness):
    """Attack 130. Every port, TCP and UDP, of both its addresses; it would end at the first packet."""
    count = round(65_535 / slowness)
    victim = {"argv": ["python3", "-ISc", LISTENER], "network": ISOLATED, "limits": LONG}
    with running(victim, "python3") as pids:
        assert eventually(lambda: listens(pids[-1]))
        targets = addresses(pids[-1])
        assert len(targets) == 2
        report = scan(targets, 1, count)
        assert (report["connected"], report["answered"]) == ([], 0)
        assert report["silent"] == 2 * count
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_scan_finds_whoever_is_in_the_same_job(attack, slowness):
    """Attack 130. What the scan above would find, if another job were there to be found."""
    server = f"import socket, time\nkept = socket.create_server(('', {PORT}))\ntime.sleep(1000)"
    last = max(PORT, round(65_535 / slowness))
    # Once it is found at all.
    found = f"until python3 -IS scan.py {PORT} {PORT} server | grep -q {PORT}; do :; done"
    scanner = {
        "name": "scanner",
        "argv": ["sh", "-c", f"{found}; python3 -IS scan.py 1 {last} server"],
        "files": {"scan.py": (HERE / "scan.py").read_text()},
        "limits": LONG,
    }
    servers = {"name": "server", "background": True, "argv": ["python3", "-ISc", server], "limits": LONG}
    result = attack({"network": ISOLATED, "processes": [servers, scanner]})
    assert result["status"] == "ok", result
    report = json.loads(result["processes"]["scanner"]["stdout"]["text"])
    assert [port for _, port in report["connected"]] == [PORT]
    assert (report["answered"], report["silent"]) == (last - 1, 0)


def test_nobody_speaks_for_another(attack):
    """Attack 131. What is not refused in the sender's sandbox does not come to the receiver."""
    receiver = {"name": "receiver", "argv": ["python3", "-ISc", RECEIVER]}
    sender = {"name": "sender", "argv": ["python3", "-ISc", SPOOFER]}
    result = attack({"network": ISOLATED, "processes": [receiver, sender]})
    assert result["status"] == "ok", result
    told = {name: process["stdout"]["text"] for name, process in result["processes"].items()}
    assert told["receiver"] == "end True\n"
    outcomes = [line.split()[-1] for line in told["sender"].splitlines()]
    assert outcomes[:5] == ["EADDRNOTAVAIL"] * 3 + ["EPERM"] * 2
    assert set(outcomes[5:]) <= {"EINVAL", "ENETUNREACH", "EPERM"}


def test_the_interface_and_what_lies_beneath_it_are_not_the_jobs(python):
    """Attack 131. Promiscuous, lowered, raised again, renamed, moved; raw sockets; sysctls."""
    outcomes = python("import socket\n" + INTERFACE, network=ISOLATED).split()
    assert len(outcomes) == 22
    assert set(outcomes) <= {"EPERM", "EACCES", "EROFS", "EAFNOSUPPORT", "ESOCKTNOSUPPORT"}


def test_names_are_found_in_a_file_and_nowhere_else(python):
    """Attack 133. Nobody is asked: there is no server, and no way to one."""
    script = (
        "import socket\n"
        "for name in ('canary.example', 'localhost', 'jail'):\n"
        "    try: print({about[4][0] for about in socket.getaddrinfo(name, None)} <= {'127.0.0.1', '::1'})\n"
        "    except socket.gaierror as error: print(error.errno in (socket.EAI_NONAME, socket.EAI_AGAIN))\n"
        "print(open('/etc/resolv.conf').read() == '')\n"
        "query = socket.socket(type=socket.SOCK_DGRAM)\n"
        "print(answer(query.sendto, b'canary', ('8.8.8.8', 53)))"
    )
    told = python(script, network=ISOLATED).splitlines()
    assert told == ["True"] * 4 + ["ENETUNREACH"]


def test_all_ports_in_use_are_those_of_one_sandbox(attack, slowness):
    """Attack 135. Sixty thousand connections to itself, each of which keeps its port for a minute."""

    def connecting(count):
        return (
            "import errno, socket\n"
            "server, made = socket.create_server(('', 8000), backlog=4096), 0\n"
            f"for _ in range({count}):\n"
            "    client = socket.socket()\n"
            "    if client.connect_ex(('127.0.0.1', 8000)) == errno.EADDRNOTAVAIL: break\n"
            "    client.close(); server.accept()[0].close(); made += 1\n"
            "print(made)"
        )

    count = round(60_000 / slowness)
    result = attack(argv=["python3", "-ISc", connecting(count)], network=ISOLATED, limits=LONG)
    assert (result["status"], int(result["stdout"]["text"]) > count // 3) == ("ok", True)
    again = attack(argv=["python3", "-ISc", connecting(100)], network=ISOLATED)
    assert again["stdout"]["text"] == "100\n"


def test_connections_that_were_left_open_hold_no_network(attack):
    """Attack 136. Full of data, unread, with those who have them in the background and detached."""
    server = (
        "import os, socket, time\n"
        "server = socket.create_server(('', 8000))\n"
        "if os.fork() == 0: os.setsid()\n"
        "kept = [server.accept() for _ in range(8)]\n"
        "time.sleep(1000)"
    )
    client = (
        "import os, socket, sys, time\n"
        "kept = []\n"
        "while len(kept) < 16:\n"
        "    connection = socket.socket()\n"
        "    if connection.connect_ex(('server', 8000)): continue\n"
        "    connection.setblocking(False)\n"
        "    try:\n"
        "        while True: connection.send(bytes(65536))\n"
        "    except BlockingIOError: kept.append(connection)\n"
        "if os.fork() == 0: os.setsid(); time.sleep(1000)\n"
    )
    processes = [
        {"name": "server", "background": True, "argv": ["python3", "-ISc", server]},
        {"name": "client", "argv": ["python3", "-ISc", client]},
    ]
    # That no link is left in the hub the oracle sees.
    result = attack({"network": ISOLATED, "processes": processes})
    assert result["status"] == "ok", result
    assert result["processes"]["client"]["usage"]["network"]["sent_bytes"] > 65_536


def test_no_table_of_the_firewall_is_the_jobs(sh):
    """Attack 137. Not by netlink, and not by the old calls."""
    script = (
        "for command in 'nft add table inet own' 'nft list ruleset' 'iptables -L' 'ip link set eth0 down' "
        "'ip addr add 10.106.0.200/16 dev eth0' 'ip link set eth0 netns 1' 'ip neigh flush dev eth0'; do "
        "PATH=$PATH:/usr/sbin:/sbin $command >/dev/null 2>&1 && echo $command; done; "
        "grep -c eth0 /proc/net/dev"
    )
    result = sh(script, network=ISOLATED)
    assert result["stdout"]["text"] == "1\n"
