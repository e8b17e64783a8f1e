"""Write the seeds of native/fuzz.c to a directory: scripts/corpus.py native/corpus.

To be run when native/message.h changes. The first byte of a seed says which reader it is for.
"""

import sys
from pathlib import Path

from jail._protocol import ffi, lib

from jail import plan
from jail.limits import Limits
from jail.spec import InputFile, ProcessSpec
from jail.supervisor import pack_file

HOSTS = b"127.0.0.1 server\n"
TEXT = b"root\0\0host/root:host/empty\0usr\0/usr:host/empty\0"

PLACES = b"boxes/1\0/files/lent/7\0"


def request(kind: str, number: int, tail: bytes = b"", **fields: object) -> bytes:
    """A packet of that struct and type, with what comes after it."""
    message = ffi.new(f"struct {kind} *", fields)
    message.header.type, message.header.slot = number, 7
    return b"r" + bytes(ffi.buffer(message)) + tail


# The places of enum state, in native/slot.h; and the bit by which native/fuzz.c knows that the exit was told.
MAKING, STARTING, RUNNING, EXITED = 1, 3, 4, 128


def news(state: int, number: int, **fields: object) -> bytes:
    """What init says, heard in that state of its slot."""
    message = ffi.new("struct news *", fields)
    message.header.type, message.header.slot = number, 7
    return b"n" + bytes([state]) + bytes(ffi.buffer(message))


def texts(form: int, cut: int, ours: bytes, theirs: bytes) -> bytes:
    """Two texts, the form for both, and in pieces of how many bytes they come."""
    return b"t" + bytes([form, cut]) + ours + b"\0" + theirs


FOLDED = 128
NUMBERS = (b"1.0000001 -2e3 nan\n+.5 1e400 00012\n", b"1 -2000 nan\n0.5 1.0e400 12\n")
LINES = (b"a b  \r\n\n\n  c\n\n", b"a b\n\n\n  c")


def seeds() -> dict[str, bytes]:
    """Every request, and a plan with its files, by the name of its seed."""
    maps = b"0 201 1\n1000 202 1\n1001 203 1\n"
    make = {"overlays": 2, "text_bytes": len(TEXT), "id_map": maps}
    files = (InputFile("a/b.txt", b"hello", 0o644), InputFile("empty", b"", 0o755))
    job = ProcessSpec(
        argv=("python3", "main.py"),
        image="host",
        policy="default",
        files=files,
        stdin=b"",
        env={"PATH": "/usr/bin:/bin", "HOME": "/box"},
        outputs=(),
        limits=Limits(),
        truncate=False,
    )
    return {
        "make-v1": request("make", lib.TYPE_MAKE, TEXT, joins=5, cpu_counters=3, oom_event=1, **make),
        "make-v2": request("make", lib.TYPE_MAKE, TEXT, born=1, cpu_counters=1, **make),
        "start": request(
            "start",
            lib.TYPE_START,
            scratch_options=b"size=4096,nr_inodes=8",
            filter_bytes=8,
            plan_bytes=64,
            hosts_bytes=len(HOSTS),
        ),
        "start-explained": request(
            "start",
            lib.TYPE_START,
            scratch_options=b"size=4096,nr_inodes=8",
            filter_bytes=8,
            explains=1,
            listens=1,
        ),
        "start-places": request(
            "start",
            lib.TYPE_START,
            PLACES,
            scratch_options=b"size=4096,nr_inodes=8",
            filter_bytes=8,
            keeps=1,
            lends=1,
            lends_stdin=1,
            lent_files=2,
            places_bytes=len(PLACES),
        ),
        "kill": request("ask", lib.TYPE_KILL),
        "open": request("ask", lib.TYPE_OPEN, b"out/a.txt\0", path_bytes=10),
        "release": request("ask", lib.TYPE_RELEASE),
        "freeze": request("ask", lib.TYPE_FREEZE, b"boxes/3\0", path_bytes=8, owner=203),
        "started": news(STARTING, lib.TYPE_STARTED, clock_ns=10**9, cpu={"total_ns": 5, "user_ns": 3}),
        "exited": news(RUNNING, lib.TYPE_EXITED, exit_code=-1, signal=9, max_rss_bytes=1 << 20),
        "empty": news(RUNNING | EXITED, lib.TYPE_EMPTY, clock_ns=10**9),
        "failed": news(MAKING, lib.TYPE_FAILED, failure={"stage": lib.STAGE_ROOT, "error": 2, "index": 1}),
        "numbers": texts(lib.CANON_TOKENS, 7, *NUMBERS),
        "long-numbers": texts(lib.CANON_TOKENS, 100, b"1" * 600 + b" 2", b"1" * 600 + b" 3"),
        "exact": texts(lib.CANON_EXACT | FOLDED, 3, *LINES),
        "lines": texts(lib.CANON_LINES, 1, *LINES),
        "long-blanks": texts(lib.CANON_LINES, 50, b"a" + b" \t" * 70 + b"b" + b"\n" * 100 + b"c", b"a"),
        "full-lines": texts(lib.CANON_FULL_LINES, 5, *LINES),
        "words": texts(lib.CANON_WORDS | FOLDED, 2, *LINES),
        "plan": b"p" + plan.pack(job, HOSTS),
        "files": b"p" + b"".join(pack_file(f.path.encode(), f.mode, f.content) for f in files),
    }


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(exist_ok=True)
    for name, content in seeds().items():
        (directory / name).write_bytes(content)
