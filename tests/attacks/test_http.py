"""Attacks 138 to 145: the HTTP service itself.

Beside the service of all attacks, one of this module's own with a short queue and small bodies, so that
filling either takes little.
"""

import asyncio
import base64
import concurrent.futures
import json
import os
import socket
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec
import pytest

from jail.limits import MINIMA

JSON = {"Content-Type": "application/json"}
DEADLINE_SECONDS = 60
HEALTH_SECONDS = 2  # generous: the machine is busy with the attack itself
SLOTS, QUEUE = 2, 8
MIB = 1 << 20


@pytest.fixture(scope="module")
def small(service_class, processes, ready):
    """A service with room for little."""
    settings = {"JAIL_SLOTS": str(SLOTS), "JAIL_QUEUE": str(QUEUE), "JAIL_BODY_BYTES": str(MIB)}
    with closing(service_class(settings)) as running:
        yield running
        running.settle()
        assert len(processes.descendants(running.supervisor)) == 2 * ready
        assert not [line for line in running.log if "Traceback" in line or '"defect"' in line]


def post(target, body):
    """The answer to a body given as a value, or as bytes for what no encoder would write."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return target.client.post("/v1/run", content=content, headers=JSON)


@pytest.fixture
def assert_refused(target):
    """The body is answered 422 by the field's name, and starts nothing."""

    def check(body, field):
        before = taken(target.client)
        answer = post(target, body)
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["field"] == field
        assert taken(target.client) == before

    return check


def metrics(client):
    """What /metrics tells: a number for each name, with its labels."""
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def answered(numbers):
    """How many jobs there were, by status."""
    return {name: number for name, number in numbers.items() if name.startswith("jail_jobs_total")}


def taken(client):
    """How many jobs the service has answered, runs or keeps waiting."""
    numbers = metrics(client)
    return sum(answered(numbers).values()) + numbers["jail_running"] + numbers["jail_queued"]


def wait_until(condition):
    end = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "the awaited event did not come"
    return found


def assert_idle(client):
    """Nothing runs or waits any more, and a job is answered."""
    wait_until(lambda: (now := metrics(client))["jail_running"] == now["jail_queued"] == 0)
    assert client.post("/v1/run", json={"argv": ["true"]}).json()["status"] == "ok"


def descriptors(service):
    """How many the service has, as it says, with the connection that asks."""
    with httpx.Client(base_url=service.url, timeout=DEADLINE_SECONDS) as client:
        return metrics(client)["process_open_fds"]


def connect(service):
    host, _, port = service.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS)


def request(body, length=None):
    """The bytes of a request, whose body may be shorter than it says."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    head = (
        "POST /v1/run HTTP/1.1\r\nHost: jail\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content) if length is None else length}\r\n\r\n"
    )
    return head.encode() + content


# --- 138


@pytest.fixture
def marker():
    """A path of the host that an injected command would make; the job has no such directory."""
    path = Path(f"/var/tmp/jail-injected-{os.getpid()}")
    yield path
    assert not path.exists()


def injections(marker):
    return [
        f"; touch {marker};",
        f"$(touch {marker})",
        f"`touch {marker}`",
        f"\ntouch {marker}\n",
        f"| touch {marker}",
        f"&& touch {marker} #",
        f"'; touch {marker}; '",
        f'"; touch {marker}; "',
        "$HOME ${IFS} * ? ~ %s %n {0} \\x00 \\",
        "--help",
        "\r\n\x1b[2J\x7f",
    ]


def test_what_a_shell_would_expand_reaches_the_program_as_it_was_sent(attack, marker):
    """Attack 138. argv, env, stdin and the names of files."""
    words = injections(marker)
    names = [word.replace("/", "_") for word in words]
    script = (
        "import json, os, sys\n"
        "names = [name for name in os.listdir('.') if name != 'show.py']\n"
        "env = [os.environ[f'V{at}'] for at in range(int(sys.argv[1]))]\n"
        "json.dump([sys.argv[2:], env, sys.stdin.read(), sorted(names)], sys.stdout)"
    )
    result = attack(
        argv=["python3", "-IS", "show.py", str(len(words)), *words],
        env={f"V{at}": word for at, word in enumerate(words)},
        stdin="".join(words),
        files={"show.py": script} | dict.fromkeys(names, ""),
        outputs=names,
    )
    assert result["status"] == "ok", result
    seen = json.loads(result["stdout"]["text"])
    assert seen == [words, words, "".join(words), sorted(names)]
    assert sorted(result["outputs"]) == sorted(names)


def test_a_program_named_like_a_command_line_is_no_program(attack, marker):
    """Attack 138. argv[0] is a name, not a line for a shell."""
    for word in injections(marker):
        assert attack(argv=[f"true{word}"])["status"] == "start_failed"


@pytest.mark.parametrize("field", ["image", "policy", "network", "on_output_limit"])
def test_a_name_like_a_command_line_is_not_offered(assert_refused, marker, field):
    """Attack 138. The fields that choose from a list."""
    for word in injections(marker):
        assert_refused({"argv": ["true"], field: word}, field)


# --- 139


@pytest.fixture
def outside():
    """Ways out of /box to a file of the host that is not there, and must not be afterwards."""
    path = f"/var/tmp/jail-outside-{os.getpid()}"
    yield [path, "../" * 12 + path[1:], "a/" + "../" * 12 + path[1:], "./" + "../" * 12 + path[1:]]
    assert not Path(path).exists()


NAMES = ["../x", "/etc/x", "a/../../x", ".", "..", "", "/", "//x", "a//x", "./x", "a/.", "a/..", "x/", "x\0y"]


def test_a_path_that_leaves_the_box_is_refused_by_its_name(assert_refused, outside):
    """Attack 139. As an input and as an output; nothing is started."""
    for name in [*NAMES, *outside]:
        assert_refused({"argv": ["true"], "files": {name: "x"}}, f"files.{name}")
        assert_refused({"argv": ["true"], "outputs": [name]}, "outputs[0]")
        assert_refused({"argv": ["true"], "outputs": [f"{name}?"]}, "outputs[0]")


def test_a_strange_name_that_stays_in_the_box_is_just_a_name(attack):
    """Attack 139. What means something elsewhere (an option, a wildcard, %-escapes) means nothing here."""
    names = [
        "-x",
        "...",
        "..x",
        "%2e%2e%2fx",
        "..\\x",
        "\u2025",
        "\uff0e\uff0e\uff0fx",
        "C:\\x",
        "~root",
        " ",
    ]
    result = attack(argv=["true"], files=dict.fromkeys(names, "mine"), outputs=names)
    assert {name: file["bytes"] for name, file in result["outputs"].items()} == dict.fromkeys(names, 4)


def test_a_link_of_the_job_does_not_lead_the_service_to_another_file(attack, canary_file):
    """Attack 139. Links as an output's last component, on its way, to itself, and out of /proc."""
    script = (
        f"ln -s {canary_file} file; ln -s {canary_file.parent} dir; ln -s loop loop; ln -s / root\n"
        "ln -s /proc/self/root proc; ln -s /etc/passwd passwd"
    )
    links = ["file", f"dir/{canary_file.name}", "loop", "root/etc/passwd", "proc/etc/passwd", "passwd"]
    result = attack(argv=["sh", "-c", script], outputs=links)
    assert (result["status"], result["outputs"]) == ("ok", {})
    assert [error["path"] for error in result["output_errors"]] == links


# --- 140


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"], ["a/b/c/d", "a/b"]])
def test_a_name_that_is_file_and_directory_is_refused(assert_refused, names):
    """Attack 140."""
    deeper = max(names, key=len)
    assert_refused({"argv": ["true"], "files": dict.fromkeys(names, "")}, f"files.{deeper}")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('"files": {"a": "1", "a": "2"}', "files.a"),
        ('"files": {"a": "1", "\\u0061": "2"}', "files.a"),
        ('"files": {"a": {"text": "1", "text": "2"}}', "files.a.text"),
        ('"files": {"a": ""}, "files": {"b": ""}', "files"),
        ('"env": {"A": "1", "A": "2"}', "env.A"),
        ('"limits": {"cpu_ms": 1, "cpu_ms": 600000}', "limits.cpu_ms"),
        ('"limits": {"cpu_ms": 1}, "limits": {}', "limits"),
        ('"policy": "default", "policy": "default"', "policy"),
    ],
)
def test_a_name_that_stands_twice_is_refused(assert_refused, text, field):
    """Attack 140. Who checked the body before us may have read the other one."""
    assert_refused(b'{"argv": ["true"], %b}' % text.encode(), field)


def test_an_output_that_is_named_twice_is_refused(assert_refused):
    """Attack 140."""
    assert_refused({"argv": ["true"], "outputs": ["a", "b", "a?"]}, "outputs[2]")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"files": {f"{n}": "" for n in range(100_000)}}, "files"),
        ({"outputs": [f"{n}" for n in range(100_000)]}, "outputs"),
        ({"argv": ["a"] * 100_000}, "argv"),
        ({"env": {f"{n}": "" for n in range(200_000)}}, "argv"),
        ({"files": {"/".join(["d"] * 1000): ""}}, "files." + "/".join(["d"] * 1000)),
        ({"files": {f"{n}/{n}/{n}": "" for n in range(2000)}}, "files"),
    ],
    ids=["files", "outputs", "argv", "env", "deep", "directories"],
)
def test_a_hundred_thousand_of_anything_are_refused(assert_refused, fields, field):
    """Attack 140."""
    assert_refused({"argv": ["true"], **fields}, field)


def test_a_body_that_says_that_it_has_ten_gibibytes_is_refused_before_it_is_sent(small):
    """Attack 140."""
    with connect(small) as connection:
        connection.sendall(request(b"", 10 << 30))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_ten_gibibytes_in_chunks_is_cut_off_and_not_taken_in(small, processes):
    """Attack 140. A client that goes on sending may see its connection reset before it sees the 413."""
    before_bytes = processes.memory_bytes(small.pid)
    head = request(b"", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    piece = b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
    with connect(small) as connection, suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(head)
        for sent in range(10 << 10):
            connection.sendall(piece)
            assert sent < 64
    assert processes.memory_bytes(small.pid) - before_bytes < 32 * MIB
    with httpx.Client(base_url=small.url) as client:
        assert_idle(client)


# --- 141


@contextmanager
def health_watched(service):
    """The seconds that each of the health checks took that were made meanwhile."""
    seconds, ended = [], []

    def watch():
        with httpx.Client(base_url=service.url, timeout=DEADLINE_SECONDS) as client:
            while not ended:
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                seconds.append(time.monotonic() - began)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield seconds
        finally:
            ended.append(True)
            watching.result()


async def answer_of(service, sent):
    """Status and headers of the answer to a request."""
    host, _, port = service.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        await reader.read()
    finally:
        writer.close()
    return int(head[0].split()[1]), dict(line.split(": ", 1) for line in head[1:] if line)


def test_a_thousand_jobs_at_once_are_answered_or_told_when_to_come_again(
    small, jail, processes, ready, slowness
):
    """Attack 141. No more sandboxes than slots live or die at once, and /healthz is answered meanwhile."""
    sent = request({"argv": ["sleep", "0.05"]})
    most = 0

    async def scene():
        nonlocal most
        tasks = [asyncio.create_task(answer_of(small, sent)) for _ in range(1000)]
        while not all(task.done() for task in tasks):
            most = max(most, len(processes.children(small.supervisor)))
            await asyncio.wait(tasks, timeout=0.01)
        return [task.result() for task in tasks]

    with httpx.Client(base_url=small.url) as client, health_watched(small) as seconds:
        answers = jail.do(scene())
        assert_idle(client)
    ran = [status for status, _ in answers if status == 200]
    refused = [headers for status, headers in answers if status in (429, 503)]
    assert len(ran) + len(refused) == 1000
    assert SLOTS + QUEUE <= len(ran) < 1000
    assert all(int(headers["retry-after"]) >= 1 for headers in refused)
    assert 1 <= most <= 2 * SLOTS + ready
    assert max(seconds) < HEALTH_SECONDS * slowness


@pytest.mark.parametrize("sent", [b"", b"POST /v1/run HTTP/1.1\r\nHost:", request(b'{"argv', 1000)])
def test_a_thousand_connections_that_say_no_more_keep_nobody_out(small, slowness, sent):
    """Attack 141. They hold no slot, and all go when their clients go."""
    before = descriptors(small)
    with httpx.Client(base_url=small.url, timeout=DEADLINE_SECONDS) as client, ExitStack() as opened:
        for _ in range(1000):
            opened.enter_context(connect(small)).sendall(sent)
        began = time.monotonic()
        assert_idle(client)
        assert client.get("/healthz").status_code == 200
        assert time.monotonic() - began < HEALTH_SECONDS * slowness
    wait_until(lambda: descriptors(small) <= before)


# --- 142


SLEEPER = {"argv": ["sleep", "1000"]}


def test_a_client_that_leaves_while_it_sends_its_body_starts_nothing(target):
    """Attack 142. With the head, half a body, and all but its last byte."""
    before = taken(target.client)
    body = json.dumps(SLEEPER).encode()
    for part in (b"", body[:5], body[:-1]):
        with connect(target.service) as connection:
            connection.sendall(request(part, len(body)))
    assert_idle(target.client)
    assert taken(target.client) == before + 1


def test_a_client_that_leaves_while_its_job_waits_takes_it_out_of_the_queue(target):
    """Attack 142."""
    running = [connect(target.service) for _ in range(SLOTS)]
    for connection in running:
        connection.sendall(request(SLEEPER))
    wait_until(lambda: metrics(target.client)["jail_running"] == SLOTS)
    with connect(target.service) as waiting:
        waiting.sendall(request(SLEEPER))
        wait_until(lambda: metrics(target.client)["jail_queued"] == 1)
    wait_until(lambda: metrics(target.client)["jail_queued"] == 0)
    assert metrics(target.client)["jail_running"] == SLOTS
    for connection in running:
        connection.close()
    assert_idle(target.client)


def job_named(target, processes, name):
    """The process of the job, by the name of its program."""

    def found():
        pids = processes.jobs(target.service.supervisor)
        return [pid for pid in pids if processes.name(pid) == name]

    return wait_until(found)[0]


@pytest.mark.parametrize("how", ["closed", "reset", "half closed"])
def test_a_client_that_leaves_while_its_job_runs_has_it_killed(target, processes, how):
    """Attack 142."""
    before = answered(metrics(target.client))
    with connect(target.service) as connection:
        connection.sendall(request(SLEEPER))
        pid = job_named(target, processes, "sleep")
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "half closed":
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.close()
        processes.wait_for_end([pid])
    assert_idle(target.client)
    cancelled = 'jail_jobs_total{status="cancelled"}'
    assert answered(metrics(target.client))[cancelled] == before.get(cancelled, 0) + 1


def test_a_client_that_leaves_before_its_job_is_made_has_it_cancelled(target):
    """Attack 142. The whole request and the end of the connection come in one."""
    for _ in range(20):
        with connect(target.service) as connection:
            connection.sendall(request(SLEEPER))
    assert_idle(target.client)


# Many outputs and much of them, so that bringing them home takes a while. Nor is it gone before it was seen.
HOARDER = {
    "argv": ["sh", "-c", "sleep 0.5; head -c 32M /dev/zero | split -a 3 -d -b 128K"],
    "outputs": [f"x{n:03}" for n in range(256)],
    "limits": {"output_bytes": 32 * MIB},
}


@pytest.mark.parametrize("phase", ["collected", "sent"])
def test_a_client_that_leaves_while_outputs_are_brought_home_leaves_nothing(target, processes, phase):
    """Attack 142. The job has ended by itself; its result is counted and goes nowhere."""
    before = sum(answered(metrics(target.client)).values())
    with connect(target.service) as connection:
        connection.sendall(request(HOARDER))
        processes.wait_for_end([job_named(target, processes, "sh")])
        if phase == "sent":
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert_idle(target.client)
    assert sum(answered(metrics(target.client)).values()) == before + 2


# --- 143


LIMITS = msgspec.structs.asdict(MINIMA)
NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "+1", "01", "0x10", "1_000", ".5", "1.", "1e", "9" * 5000 + "e"]
OUT_OF_RANGE = ["0", "-0", "-1", "-0.0", "1e-400", "1e30", "1e999", "9223372036854775808", "9" * 5000]
OTHER_KINDS = ['"1"', '"max"', '""', "true", "false", "[]", "[1]", "{}", '{"value": 1}']


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_is_no_limit_is_refused_by_its_name(target, name):
    """Attack 143. What JSON has no number for is refused as a whole."""
    told = target.client.get("/v1/limits").json()[name]
    beyond = [str(told["maximum"] + 1), repr(told["maximum"] * 1.0000001)]
    before = taken(target.client)
    for text in [*NO_NUMBERS, *OUT_OF_RANGE, *OTHER_KINDS, *beyond]:
        answer = post(target, f'{{"argv": ["true"], "limits": {{"{name}": {text}}}}}'.encode())
        assert answer.status_code == 422, (text, answer.text)
        assert answer.json()["field"] == ("body" if text in NO_NUMBERS else f"limits.{name}"), text
    assert taken(target.client) == before


@pytest.mark.parametrize("name", [name for name in LIMITS if name != "cpus"])
def test_a_whole_limit_that_is_given_as_a_fraction_is_refused(target, name):
    """Attack 143."""
    for text in ("8192.0", "8192.5", "1e4", "1E4"):
        answer = post(target, f'{{"argv": ["true"], "limits": {{"{name}": {text}}}}}'.encode())
        assert (answer.status_code, answer.json()["field"]) == (422, f"limits.{name}"), text


@pytest.mark.parametrize(
    ("name", "script", "expected"),
    [
        ("cpu_ms", "while :; do :; done", {"status": "cpu_limit"}),
        ("wall_ms", "sleep 1000", {"status": "wall_limit"}),
        ("memory_bytes", "head -c 64M /dev/zero >x", {"status": "memory_limit"}),
        ("pids", "true; true & wait", {"status": "nonzero_exit"}),
        ("disk_bytes", "head -c 8K /dev/zero >x", {"status": "nonzero_exit"}),
        ("files", "touch 1 && touch 2 && touch 3 && touch 4", {"status": "nonzero_exit"}),
        ("open_files", "ulimit -n", {"stdout": {"text": "8\n", "bytes": 2, "truncated": False}}),
        ("stack_bytes", "ulimit -s", {"stdout": {"text": "64\n", "bytes": 3, "truncated": False}}),
        ("stdout_bytes", "echo 12", {"status": "output_limit", "limit": "stdout_bytes"}),
        ("stderr_bytes", "echo 12 >&2", {"status": "output_limit", "limit": "stderr_bytes"}),
        ("output_bytes", "echo 12 >out", {"outputs": {}}),
    ],
)
def test_the_least_of_a_limit_is_a_limit(attack, name, script, expected):
    """Attack 143. The smallest value that is taken is not read as none."""
    result = attack(argv=["sh", "-c", script], outputs=["out?"], limits={name: LIMITS[name]})
    assert {key: result[key] for key in expected} == expected, result


def test_a_limit_of_null_is_the_default_and_holds(target, attack):
    """Attack 143. Absent, null and an empty object mean the same."""
    told = target.client.get("/v1/limits").json()
    for body in ({}, {"limits": {}}, {"limits": dict.fromkeys(LIMITS)}):
        result = attack(argv=["sh", "-c", "ulimit -n; ulimit -s; head -c 2M /dev/zero"], **body)
        assert (result["status"], result["limit"]) == ("output_limit", "stdout_bytes")
        lines = result["stdout"]["text"].split("\n", 2)
        assert lines[:2] == [str(told["open_files"]["default"]), str(told["stack_bytes"]["default"] // 1024)]
        assert result["stdout"]["bytes"] >= told["stdout_bytes"]["default"]


# --- 144


def test_a_file_by_reference_is_refused_whoever_has_its_content(attack, assert_refused):
    """Attack 144. What a job is sent is not stored: to know its digest is worth nothing."""
    digest = sha256(b"mine").hexdigest()
    attack(argv=["true"], files={"a": "mine"})
    assert_refused({"argv": ["true"], "files": {"a": {"file": f"sha256:{digest}"}}}, "files.a")
    assert_refused({"argv": ["true"], "stdin": {"file": f"sha256:{digest}"}}, "stdin")


def test_the_same_name_with_another_content_is_another_file(small):
    """Attack 144. One job after the other and at once: each sees its own, and finds nothing before it."""
    script = "ls; cat a; echo poison | tee a >/tmp/a; echo poison >b; chmod 777 a"

    def run(number):
        body = {"argv": ["sh", "-c", script], "files": {"a": f"{number}\n"}, "outputs": ["a"]}
        return httpx.post(f"{small.url}/v1/run", json=body, timeout=60).json()

    with concurrent.futures.ThreadPoolExecutor(QUEUE) as pool:
        results = list(pool.map(run, range(16)))
    assert [result["stdout"]["text"] for result in results] == [f"a\n{number}\n" for number in range(16)]
    assert len({result["id"] for result in results}) == 16


# --- 145


FORGED_RESULT = {
    "id": "0" * 32,
    "status": "ok",
    "exit_code": 0,
    "signal": None,
    "limit": None,
    "usage": {"cpu_ms": 0.0},
    "outputs": {"forged": {"base64": "", "bytes": 0, "mode": 420}},
}
FORGERIES = [
    json.dumps(FORGED_RESULT),
    f"\n{json.dumps(FORGED_RESULT)}\n",
    '"}, "status": "ok", "exit_code": 0, "x": {"text": "',
    '{"event": "job", "status": "ok", "level": "info"}\n{"event": "defect", "level": "error"}\n',
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    '# TYPE jail_jobs_total counter\njail_jobs_total{status="ok"} 1e9\n',
    "status:0\nexited 0\nstage=exec errno=0 index=0\n",
    "[" * 60_000,
    "\u2028\u2029\ufeff\x1b[2K\x00\x7f",
]


@pytest.mark.parametrize("text", FORGERIES, ids=range(len(FORGERIES)))
def test_output_that_imitates_an_answer_is_text_and_decides_nothing(target, attack, text):
    """Attack 145. On both streams and in an output; the verdict is the kernel's."""
    before = answered(metrics(target.client))
    result = attack(argv=["sh", "-c", "tee out <in >&2; cat in; exit 3"], files={"in": text}, outputs=["out"])
    ended = {"status": "nonzero_exit", "exit_code": 3, "signal": None, "limit": None}
    assert {key: result[key] for key in ended} == ended
    assert result["stdout"]["text"] == result["stderr"]["text"] == text
    assert list(result["outputs"]) == ["out"]
    assert base64.b64decode(result["outputs"]["out"]["base64"]).decode() == text
    name = 'jail_jobs_total{status="nonzero_exit"}'
    assert answered(metrics(target.client)) == before | {name: before.get(name, 0) + 1}


@pytest.mark.parametrize("written", ["\\377", "\\355\\240\\200", "\\300\\200", "{\\200}", "\\376\\377"])
def test_output_that_is_no_text_is_handed_on_as_bytes(attack, written):
    """Attack 145. Surrogates, overlong forms, marks of other encodings: never repaired, never guessed."""
    content = bytes(written, "ascii").decode("unicode_escape").encode("latin-1")
    script = f"printf '{written}'; printf '{written}' >&2; printf '{written}' >out"
    result = attack(argv=["sh", "-c", script], outputs=["out"])
    told = result["stdout"], result["stderr"], result["outputs"]["out"]
    assert [base64.b64decode(each["base64"]) for each in told] == [content] * 3


def test_nothing_of_a_job_stands_in_the_log_but_what_the_service_says_of_it(target, attack):
    """Attack 145. One line a job, written by the service; none from streams, names, variables, refusals."""
    forged = '\n{"event": "forged", "level": "error"}\n'
    seen = len(target.service.log)
    ids = [
        attack(argv=["sh", "-c", 'echo "$1"; echo "$1" >&2; exit 1', forged, forged])["id"],
        attack(argv=[f"none{forged}"], env={"X": forged})["id"],
        attack(argv=["true"], files={forged.replace("/", "_"): forged}, stdin=forged)["id"],
        attack(argv=["true"], outputs=[forged])["id"],
    ]
    for body in ({"argv": ["true"], forged: 1}, {"argv": ["true"], "image": forged}):
        assert post(target, body).status_code == 422
    target.client.get(f"/{quote(forged)}")
    last = attack(argv=["true"])["id"]
    wait_until(lambda: any(last in line for line in target.service.log[seen:]))
    lines = [json.loads(line) for line in target.service.log[seen:]]
    assert [(line["event"], line["id"]) for line in lines] == [("job", name) for name in [*ids, last]]


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ("kill -KILL $$", ("signaled", None, 9, None)),
        ("kill -XCPU $$", ("signaled", None, 24, None)),
        ("kill -XFSZ $$", ("signaled", None, 25, None)),
        ("exit 137", ("nonzero_exit", 137, None, None)),
        ("exit 127", ("nonzero_exit", 127, None, None)),
        ("exit 126", ("nonzero_exit", 126, None, None)),
        ("exit 255", ("nonzero_exit", 255, None, None)),
        ("echo 'sh: killed: out of memory' >&2; exit 1", ("nonzero_exit", 1, None, None)),
    ],
)
def test_an_end_that_imitates_a_limit_is_told_as_it_was(attack, script, ended):
    """Attack 145."""
    result = attack(argv=["sh", "-c", script])
    assert tuple(result[key] for key in ("status", "exit_code", "signal", "limit")) == ended


def test_a_refusal_that_quotes_the_caller_stays_one_answer(target):
    """Attack 145. Line ends and quotes of a name are escaped, and no header is made of them."""
    for forged in FORGERIES:
        answer = post(target, {"argv": ["true"], "policy": forged[:1000]})
        assert (answer.status_code, answer.json()["status"], answer.json()["field"]) == (422, 422, "policy")
        assert set(answer.headers) == {"date", "content-length", "content-type"}
