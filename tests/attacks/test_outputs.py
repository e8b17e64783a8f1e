"""Attacks 10 and 12 to 19, and 28: what is copied in and what is brought home."""

from base64 import b64decode

import pytest

from jail.spec import OUTPUTS_MAX

EPERM = 1
COLLECT_MS = 1000


@pytest.fixture
def outputs(attack):
    """The outputs of a shell script, and the reasons for those that did not come; soon."""

    def run(script, *names, **fields):
        result = attack(argv=["sh", "-c", script], outputs=list(names), **fields)
        assert result["timing"]["collect_ms"] < COLLECT_MS
        found = {name: b64decode(output["base64"]) for name, output in result["outputs"].items()}
        return found, {error["path"]: error["reason"] for error in result["output_errors"]}

    return run


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "a//x", "./x", "", "a/", ".", "..", "a/.."])
def test_an_input_file_cannot_be_put_outside_the_box(target, path):
    """Attacks 10 and 12. There are no archives: the paths of files are refused at the door."""
    answer = target.client.post("/v1/run", json={"argv": ["true"], "files": {path: "x"}})
    assert answer.status_code == 422
    assert answer.json()["field"].startswith("files.")


MISLEADING = [
    "proc/self/root/x",
    "dev/null",
    "..x/y",
    "...",
    "etc/passwd",
    "\\..\\x",
    "a\n/b",
    "~/x",
    "$HOME",
]


@pytest.mark.parametrize("path", MISLEADING)
def test_an_input_file_with_a_misleading_name_lies_in_the_box(python, path):
    """Attacks 10 and 12."""
    place = f"/box/{path}"
    told = python(
        f"print(open({place!r}).read(), os.path.realpath({path!r}) == {place!r})", files={path: "mine"}
    )
    assert told == "mine True\n"


def test_an_input_file_is_no_directory_on_the_way_to_another(target):
    """Attack 12."""
    answer = target.client.post("/v1/run", json={"argv": ["true"], "files": {"a": "x", "a/b": "y"}})
    assert (answer.status_code, answer.json()["field"]) == (422, "files.a/b")


def test_a_link_of_an_earlier_phase_is_not_written_through():
    """Attack 13."""
    pytest.skip("a job has one phase: nothing of it runs before its files are written")


def test_a_link_of_an_earlier_phase_does_not_change_the_owner_of_what_it_leads_to():
    """Attack 14."""
    pytest.skip("a job has one phase: nothing of it runs before its files get their owner and mode")


LINKS = {
    "absolute": "ln -s /etc/passwd out",
    "relative": "ln -s ../etc/passwd out",
    "to a link": "ln -s /etc/passwd one; ln -s one two; ln -s two out",
    "to the root of a process": "ln -s /proc/self/root/etc/passwd out",
    "to itself": "ln -s out out",
    "to an own file": "echo mine > mine; ln -s mine out",
}


@pytest.mark.parametrize("kind", LINKS)
def test_an_output_that_is_a_link_is_not_followed(outputs, kind):
    """Attack 15."""
    found, errors = outputs(LINKS[kind], "out")
    assert found == {}
    assert "link" in errors["out"]


@pytest.mark.parametrize(
    "goal", ["/etc", "/proc/1/root/etc", "/proc/self/root/etc", "/proc/self/cwd/../etc", ".."]
)
def test_no_link_on_the_way_to_an_output_is_followed(outputs, canary_file, goal):
    """Attacks 15 and 16."""
    names = ["way/passwd", "way/etc/passwd", f"way{canary_file}"]
    found, errors = outputs(f"ln -s {goal} way", *names)
    assert found == {}
    assert ["link" in errors[name] for name in names] == [True] * 3


@pytest.mark.parametrize(
    "goal", ["/proc/self/fd/0", "/proc/1/fd/3", "/proc/self/exe", "/proc/1/exe", "/dev/stdin"]
)
def test_an_output_that_is_a_magic_link_is_not_followed(outputs, goal):
    """Attack 16."""
    found, errors = outputs(f"ln -s {goal} out", "out", stdin="secret")
    assert found == {}
    assert "link" in errors["out"]


@pytest.mark.parametrize("place", ["/etc/passwd", "the canary"])
def test_outputs_that_change_until_the_end_show_nothing_else(attack, built, canary_file, place):
    """Attack 17. One is the file and the other is the link, whichever: those who exchange them are dead."""
    goal = str(canary_file) if place == "the canary" else place
    for _ in range(10):
        result = attack(argv=["./swap", goal], files={"swap": built("swap.c")}, outputs=["out", "link"])
        assert result["status"] == "ok"
        (output,) = result["outputs"].values()
        assert b64decode(output["base64"]) == b"mine\n"
        (error,) = result["output_errors"]
        assert "link" in error["reason"]


PIPES = {
    "nobody has open": "mkfifo out",
    "has a writer": "mkfifo out; exec 3<>out; sleep 9 & true",
    "has a writer that waits": "mkfifo out; sleep 9 > out & true",
}


@pytest.mark.parametrize("kind", PIPES)
def test_a_pipe_among_the_outputs_holds_nothing_up(outputs, kind):
    """Attack 18."""
    assert outputs(PIPES[kind], "out") == ({}, {"out": "not a regular file"})


def test_no_device_can_be_made(probe):
    """Attacks 19 and 25. By the filter: a whiteout, 0:0, the kernel would let anyone make."""
    whiteout, null, disk = (0o020666, 0), (0o020666, 0x103), (0o060666, 0x800)
    calls = [("mknod", "=/box/out", *device) for device in (whiteout, null, disk)]
    calls += [("mknodat", -1, "=/box/out", *device) for device in (whiteout, null, disk)]
    assert [outcome.errno for outcome in probe(*calls)] == [EPERM] * 6


def test_sockets_and_pipes_among_the_outputs_are_refused_by_the_thousand(attack):
    """Attack 19. As many as a job may make are named as a job may name."""
    script = (
        "import os, socket\n"
        "for name in range(1000): socket.socket(socket.AF_UNIX).bind(f's{name}'); os.mkfifo(f'p{name}')\n"
    )
    names = [f"{kind}{name}" for kind in "sp" for name in range(OUTPUTS_MAX // 2)]
    result = attack(argv=["python3", "-ISc", script], outputs=names)
    assert result["status"] == "ok"
    assert result["timing"]["collect_ms"] < COLLECT_MS
    assert result["outputs"] == {}
    assert [error["path"] for error in result["output_errors"]] == names
    assert {error["reason"] for error in result["output_errors"]} == {"not a regular file"}


# Sets a terminal's clipboard; clears it; in red, from right to left.
ESCAPES = "\x1b]52;c;eHh4\x07\x1b[2J\x9b31m\r\n\u202e"
WRITE_ESCAPES = """
import sys
sys.stdout.buffer.write(bytes(range(256)))
open(sys.argv[1], 'w').write(sys.argv[1])
"""


@pytest.fixture
def escapes():
    """A job of control characters: in its arguments, environment, standard output, and names of outputs."""
    return {
        "argv": ["python3", "-ISc", WRITE_ESCAPES, ESCAPES],
        "env": {"X": ESCAPES},
        "outputs": [ESCAPES, f"missing{ESCAPES}"],
    }


def test_control_characters_come_back_as_data(attack, escapes):
    """Attack 28."""
    result = attack(escapes)
    assert result["status"] == "ok", result
    assert b64decode(result["stdout"]["base64"]) == bytes(range(256))
    assert b64decode(result["outputs"][ESCAPES]["base64"]).decode() == ESCAPES
    assert result["output_errors"][0]["path"] == f"missing{ESCAPES}"


def test_no_control_character_is_sent_to_a_terminal(target, attack, escapes):
    """Attack 28. Answers, refusals and the log have them escaped."""
    bodies = (escapes, {"argv": ["true"], "policy": ESCAPES}, {"argv": ["true"], ESCAPES: 1})
    answers = [target.client.post("/v1/run", json=body).text for body in bodies]
    attack(argv=[ESCAPES])
    for seen in (*answers, "".join(target.service.log).replace("\n", "")):
        assert not [character for character in seen if character < " "]
