"""Try ports of addresses over TCP and UDP: scan.py FIRST LAST ADDRESS...; print what answered as JSON.

`connected`: [address, port] of those that took a connection; `answered`: how many others were refused by
whoever is there; `silent`: how many attempts of TCP came to nothing.
"""

import errno
import json
import select
import socket
import sys
from contextlib import suppress

AT_ONCE = 900
WAIT_SECONDS = 0.02


def attempts(address: str, ports: range) -> list[tuple[int, socket.socket]]:
    """The connections on their way, to each port to which there is one, and a datagram sent there."""
    family, _, _, _, place = socket.getaddrinfo(address, 1, type=socket.SOCK_STREAM)[0]
    begun = []
    for port in ports:
        attempt = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        target = (place[0], port, *place[2:])
        if attempt.connect_ex(target) in (0, errno.EINPROGRESS):
            begun.append((port, attempt))
        else:
            attempt.close()
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams, suppress(OSError):
            datagrams.sendto(b"scan", target)
    return begun


def settle(begun: list[tuple[int, socket.socket]]) -> dict[int, int]:
    """What came of them, by port: 0 or an errno value; those that nothing came of are left out."""
    poll = select.poll()
    waiting = {attempt.fileno(): (port, attempt) for port, attempt in begun}
    for number in waiting:
        poll.register(number, select.POLLOUT)
    told = {}
    while waiting and (events := poll.poll(WAIT_SECONDS * 1000)):
        for number, _ in events:
            port, attempt = waiting.pop(number)
            told[port] = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            poll.unregister(number)
    for _, attempt in begun:
        attempt.close()
    return told


def main() -> None:
    """Scan, and print the report."""
    first, last = int(sys.argv[1]), int(sys.argv[2])
    connected, answered, silent = [], 0, 0
    for address in sys.argv[3:]:
        for start in range(first, last + 1, AT_ONCE):
            ports = range(start, min(last + 1, start + AT_ONCE))
            told = settle(attempts(address, ports))
            connected += [[address, port] for port, error in told.items() if not error]
            refused = sum(error == errno.ECONNREFUSED for error in told.values())
            answered += refused
            silent += len(ports) - refused - sum(not error for error in told.values())
    json.dump({"connected": connected, "answered": answered, "silent": silent}, sys.stdout)


if __name__ == "__main__":
    main()
