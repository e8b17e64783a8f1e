"""A client that knows just enough HTTP: what is measured is the service."""

import json
import socket

NO_OP = b'{"argv": ["/bin/true"]}'
"""The job that does nothing."""


class Connection:
    """A kept-alive connection."""

    def __init__(self, port: int) -> None:
        """Connect. Raises OSError."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._received = b""

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def send(self, head: str = "POST /v1/run", body: bytes = NO_OP) -> None:
        """Send a request at once."""
        lines = f"{head} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.socket.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (lines.encode(), len(body), body))

    def receive(self) -> bytes | None:
        """Take in what has come: the whole answer, or None while there is more of it to come."""
        chunk = self.socket.recv(65_536)
        if not chunk:
            raise ConnectionError("the service closed the connection")
        self._received += chunk
        head, _, body = self._received.partition(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length: ")
        if not length or len(body) < int(length.split(b"\r\n", 1)[0]):
            return None
        answer, self._received = self._received, b""
        return answer

    def ask(self, head: str = "POST /v1/run", body: bytes = NO_OP) -> bytes:
        """Send a request and wait for the whole answer."""
        self.send(head, body)
        answer = None
        while answer is None:
            answer = self.receive()
        return answer


def check(answer: bytes) -> None:
    """Raise OSError unless a job ended well."""
    if b" 200 " not in answer[:20] or b'"status":"ok"' not in answer.replace(b'": ', b'":'):
        raise OSError(f"a job was answered with {answer.decode(errors='replace')}")


def result(answer: bytes) -> dict:
    """The result of a job that ended well. Raises OSError."""
    check(answer)
    return json.loads(answer.partition(b"\r\n\r\n")[2])
