"""Start the service, post jobs over HTTP, and show how each of them ended.

Exits 0 only if every job ended as it should.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from rich.console import Console
from rich.table import Table

Answer = dict[str, Any]

ADD = """#include <stdio.h>
int main(void) { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }"""

# getpid by the 32-bit entry, where a filter that looks at numbers alone sees another call.
OLD_ENTRY = 'int main(void) { int n = 20; __asm__ volatile("int $0x80" : "+a"(n)); return n < 0; }'

UNSHARE = (
    "import ctypes; c = ctypes.CDLL(None, use_errno=True)\nprint(c.unshare(1 << 28), ctypes.get_errno())"
)


class Job(NamedTuple):
    """A job, and what has to be true of its answer."""

    title: str
    body: dict[str, Any]
    expected: str
    is_right: Callable[[Answer], bool]


def says(text: str) -> Callable[[Answer], bool]:
    """The job is fine and printed that."""
    return lambda answer: answer["status"] == "ok" and answer["stdout"].get("text") == text


def ends(status: str) -> Callable[[Answer], bool]:
    """The job has that status."""
    return lambda answer: answer["status"] == status


def shell(script: str, **body: Any) -> dict[str, Any]:
    """A job that is a shell script."""
    return {"argv": ["sh", "-c", script], **body}


JOBS = (
    Job(
        "Python",
        {"argv": ["python3", "-c", "print(input()[::-1])"], "stdin": "olleh"},
        "hello",
        says("hello\n"),
    ),
    Job("shell pipeline", shell("printf '3\\n1\\n2\\n' | sort | tr '\\n' ' '"), "1 2 3", says("1 2 3 ")),
    Job(
        "C, compiled and run",
        shell("gcc -O2 -o add add.c && echo 20 22 | ./add", files={"add.c": ADD}),
        "42",
        says("42\n"),
    ),
    Job(
        "a file in, a file out",
        shell("wc -c < in.txt > out.txt", files={"in.txt": "twelve bytes"}, outputs=["out.txt"]),
        "out.txt",
        lambda answer: answer["status"] == "ok" and answer["outputs"]["out.txt"]["bytes"] == 3,
    ),
    Job("a program that fails", shell("exit 3"), "exit 3", lambda answer: answer["exit_code"] == 3),
    Job(
        "an endless loop",
        shell("while :; do :; done", limits={"cpu_ms": 300}),
        "cpu_limit",
        ends("cpu_limit"),
    ),
    Job("a sleeper", {"argv": ["sleep", "60"], "limits": {"wall_ms": 300}}, "wall_limit", ends("wall_limit")),
    Job(
        "a memory bomb",
        {"argv": ["python3", "-c", "bytearray(1 << 30)"], "limits": {"memory_bytes": 64 << 20}},
        "memory_limit",
        ends("memory_limit"),
    ),
    Job(
        "a fork bomb",
        {"argv": ["bash", "-c", "b() { b | b & wait; }; b"], "limits": {"pids": 32, "wall_ms": 1000}},
        "at most 32 pids",
        lambda answer: answer["usage"]["pids_limit_hits"] > 0 and (answer["usage"]["pids_peak"] or 0) <= 32,
    ),
    Job("an output flood", {"argv": ["yes"]}, "output_limit", ends("output_limit")),
    Job("a refused system call", {"argv": ["python3", "-c", UNSHARE]}, "EPERM", says("-1 1\n")),
    Job(
        "a call by the 32-bit entry",
        shell("gcc -o old old.c && exec ./old", files={"old.c": OLD_ENTRY}),
        "syscall_denied",
        ends("syscall_denied"),
    ),
    Job("a program left behind", shell("setsid sleep 60 & echo done"), "done, at once", says("done\n")),
)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def wait_until_ready(service: subprocess.Popen, port: int, log: TextIO) -> None:
    """Come back once the service takes jobs; if it ends before, exit with what it said."""
    while service.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except ConnectionRefusedError:
            time.sleep(0.02)
        finally:
            connection.close()
    log.seek(0)
    sys.exit(f"The service did not start.\n{log.read()}")


def post(port: int, body: dict[str, Any]) -> tuple[Answer, float]:
    """The answer to a job, and how long it took in milliseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    began = time.perf_counter()
    connection.request("POST", "/v1/run", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.load(connection.getresponse())
    connection.close()
    return answer, (time.perf_counter() - began) * 1000


def describe(answer: Answer) -> str:
    """How it ended, in a few words."""
    if answer["status"] == "nonzero_exit":
        return f"nonzero_exit {answer['exit_code']}"
    return answer["status"]


def show(port: int, console: Console) -> bool:
    """Run every job and print the table. Whether all ended as they should."""
    table = Table(title="jail: what became of each job")
    for name in ("job", "expected", "status"):
        table.add_column(name)
    for name in ("answered", "CPU", "memory", "pids"):
        table.add_column(name, justify="right")
    table.add_column("")
    all_right = True
    for job in JOBS:
        with console.status(job.title):
            answer, took_ms = post(port, job.body)
        right = "usage" in answer and job.is_right(answer)
        all_right &= right
        if not right:
            console.print(answer)
        usage = answer.get("usage") or {}
        table.add_row(
            job.title,
            job.expected,
            describe(answer) if "limit" in answer else "refused",
            f"{took_ms:.1f} ms",
            f"{usage.get('cpu_ms', 0):.1f} ms",
            f"{usage.get('memory_peak_bytes', 0) / (1 << 20):.1f} MiB",
            str(usage.get("pids_peak") or "-"),
            "[green]✓[/]" if right else "[red]✗[/]",
        )
    console.print(table)
    return all_right


def main() -> int:
    """Start, show, stop."""
    port = free_port()
    environment = os.environ | {"JAIL_ADDRESS": f"127.0.0.1:{port}"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryFile("w+") as log:
        service = subprocess.Popen(["jail", "serve"], env=environment, stderr=log)
        try:
            wait_until_ready(service, port, log)
            return 0 if show(port, Console(width=max(110, Console().width))) else 1
        finally:
            service.terminate()
            service.wait()


if __name__ == "__main__":
    sys.exit(main())
