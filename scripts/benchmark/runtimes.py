"""How long runtimes take to start: the same "hello" inside and outside, in turns; and what options gain.

What is left is compared: less what a program that does nothing takes there, which is the sandbox's own.
The figures are those of the job, from its execve() on; how it comes to that is in the other sections.
"""

import json
import os
import shutil
import statistics
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from benchmark.client import Connection, result
from benchmark.floor import Floor
from benchmark.inside import Spent
from benchmark.row import Row
from benchmark.service import serving
from benchmark.session import Session

TITLE = "start-up of runtimes: CPU time of hello, inside and outside"
IS_PLAIN = True

NO_OP = "no-op"
AT_MOST = 1.1
NOTICEABLE_MS = 1
"""What takes less is no start-up to speak of, and its ratio is that of two errors of measurement."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin"

_JAVA = 'class Hello { public static void main(String[] a) { System.out.println("hello"); } }\n'
_GO = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n'
_C = '#include <stdio.h>\n\nint main(void) { puts("hello"); }\n'

SOURCES = {"Hello.java": _JAVA, "hello.go": _GO, "hello.c": _C, "hello.py": "print('hello')\n"} | {
    "hello.js": "console.log('hello')\n",
    "hello.pl": 'print "hello\\n";\n',
    "hello.rb": "puts 'hello'\n",
    "hello.sh": "echo hello\n",
}

COMPILERS = {
    "hello-c": ["gcc", "-O2", "-o", "hello-c", "hello.c"],
    "hello-static": ["gcc", "-O2", "-static", "-o", "hello-static", "hello.c"],
    "hello-go": ["go", "build", "-o", "hello-go", "hello.go"],
    "Hello.class": ["javac", "Hello.java"],
}
"""What is made of the sources, by its name."""

HELLOS = {
    "C": ["./hello-c"],
    "C, -static": ["./hello-static"],
    "Go": ["./hello-go"],
    "bash": ["bash", "hello.sh"],
    "Perl": ["perl", "hello.pl"],
    "Ruby": ["ruby", "hello.rb"],
    "Python": ["/usr/bin/python3", "hello.py"],
    "Python, -I -S": ["/usr/bin/python3", "-I", "-S", "hello.py"],
    "Node": ["node", "hello.js"],
    "Java": ["java", "-cp", ".", "Hello"],
    "Java, -XX:TieredStopAtLevel=1": ["java", "-XX:TieredStopAtLevel=1", "-cp", ".", "Hello"],
    "Java, -XX:+UseSerialGC": ["java", "-XX:+UseSerialGC", "-cp", ".", "Hello"],
    "Java, -Xshare:off": ["java", "-Xshare:off", "-cp", ".", "Hello"],
}
"""Each command. What follows a comma is an option of the one before."""

TURNS, TURNS_FULL = 9, 41


class Figures(msgspec.Struct, frozen=True):
    """Runs by command; the nth inside came right after the nth outside."""

    outside: dict[str, tuple[Spent, ...]]
    inside: dict[str, tuple[Spent, ...]]


def measure(session: Session) -> Figures:
    """Every command that this host has, in turn, again and again. Raises OSError."""
    directory = _prepare(session)
    commands = {name: argv for name, argv in HELLOS.items() if _is_there(argv, directory)}
    commands |= {NO_OP: ["./true"]}
    turns = TURNS_FULL if session.is_full else TURNS
    outside: dict[str, list[Spent]] = {name: [] for name in commands}
    inside: dict[str, list[Spent]] = {name: [] for name in commands}
    advance = session.task("runtimes", turns)
    with serving() as service, closing(Connection(service.port)) as connection:
        for turn in range(turns + 1):
            for name, argv in commands.items():
                found = _outside(argv, directory), _inside(connection, argv, directory)
                # The first turn fills the page cache.
                if turn:
                    outside[name].append(found[0])
                    inside[name].append(found[1])
            advance()
    return Figures(_frozen(outside), _frozen(inside))


def _frozen(found: Mapping[str, list[Spent]]) -> dict[str, tuple[Spent, ...]]:
    return {name: tuple(runs) for name, runs in found.items()}


def _prepare(session: Session) -> Path:
    """A directory with every program that can be made here."""
    directory = session.directory / "hello"
    directory.mkdir(exist_ok=True)
    shutil.copy(session.no_op, directory / "true")
    for name, text in SOURCES.items():
        (directory / name).write_text(text)
    for command in COMPILERS.values():
        if shutil.which(command[0], path=PATH):
            subprocess.run(command, cwd=directory, env=_environment(directory), check=True)
    return directory


def _environment(directory: Path) -> dict[str, str]:
    return {"PATH": PATH, "HOME": str(directory), "LANG": "C.UTF-8"}


def _is_there(argv: list[str], directory: Path) -> bool:
    if argv[0].startswith("./"):
        return (directory / argv[0]).exists()
    return shutil.which(argv[0], path=PATH) is not None


def _outside(argv: list[str], directory: Path) -> Spent:
    program = shutil.which(argv[0], path=PATH) or str(directory / argv[0])
    began = time.perf_counter()
    process = subprocess.Popen(
        argv, executable=program, cwd=directory, env=_environment(directory), stdout=subprocess.DEVNULL
    )
    used = os.wait4(process.pid, 0)[2]
    wall_ms = (time.perf_counter() - began) * 1e3
    process.returncode = 0
    return Spent((used.ru_utime + used.ru_stime) * 1e3, wall_ms)


def _inside(connection: Connection, argv: list[str], directory: Path) -> Spent:
    job = {"argv": argv, "files": _files(argv, directory), "env": {"PATH": PATH}}
    usage = result(connection.ask(body=json.dumps(job).encode()))["usage"]
    return Spent(usage["cpu_ms"], usage["wall_ms"])


def _files(argv: list[str], directory: Path) -> dict[str, dict]:
    """Those files of the directory that a command names, or that its last argument is the class of."""
    names = {Path(word).name for word in argv} | {f"{argv[-1]}.class"}
    return {
        name: {"base64": b64encode((directory / name).read_bytes()).decode(), "executable": True}
        for name in names
        if (directory / name).is_file()
    }


def beyond(runs: Mapping[str, tuple[Spent, ...]], name: str, kind: str) -> float:
    """Milliseconds that a command takes beyond the one that does nothing, at the median."""
    found, nothing = (statistics.median(getattr(run, kind) for run in runs[each]) for each in (name, NO_OP))
    return found - nothing


def rows(found: Figures, _floor: Floor) -> Iterator[Row]:
    """Each runtime against itself outside; what an option changes, against the runtime without it, inside."""
    for name in found.inside:
        if name == NO_OP:
            continue
        inside = beyond(found.inside, name, "cpu_ms")
        runtime = name.partition(",")[0]
        is_plain = name == runtime
        other = beyond(found.outside if is_plain else found.inside, runtime, "cpu_ms")
        is_told = other >= NOTICEABLE_MS
        wall_ms = beyond(found.inside, name, "wall_ms")
        yield Row(
            name=name,
            value=inside,
            ratio=inside / other if is_told else None,
            to=("outside" if is_plain else runtime) if is_told else "",
            at_most=AT_MOST if is_plain and is_told else None,
            note=f"real time: {wall_ms:.1f} ms, outside {beyond(found.outside, name, 'wall_ms'):.1f}",
        )
