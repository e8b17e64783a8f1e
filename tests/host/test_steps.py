"""Jobs in steps: what one leaves the next finds, and every test is as fresh as the first."""

import os
import signal

import pytest

MIB = 1 << 20


@pytest.fixture(scope="module")
def own_engine(engine_with, tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    with engine_with(slots=3, ready_min=0, ready_max=0, memory_bytes=1 << 30, files=str(directory)) as found:
        # Before anybody counts descriptors: what it tried itself out with is still dying.
        found.settle()
        yield found


@pytest.fixture
def own(own_engine):
    """After each test nothing of it is dying."""
    yield own_engine
    own_engine.settle()


def step(name, script, **fields):
    return {"name": name, "argv": ["sh", "-c", script], "limits": {"memory_bytes": 64 * MIB}, **fields}


def steps(own, *scripts, **fields):
    """Run one after the other; what each did."""
    result = own.run({"steps": [step(f"s{n}", script) for n, script in enumerate(scripts)], **fields})
    return [result["steps"].get(f"s{n}") for n in range(len(scripts))]


def said(told):
    assert told["status"] == "ok", told
    return told["stdout"]["text"]


def test_a_step_sees_what_the_one_before_left(own):
    first = (
        "mkdir -m 700 d; echo hi >d/f; chmod 640 d/f; ln -s d/f link; touch -d @1000 d/f d; mkfifo -m 600 p"
    )
    look = "find . -mindepth 1 -printf '%y %m %u %p\\n' | sort; cat link; stat -c %Y d/f d"
    told = steps(own, first, look)
    assert said(told[1]).splitlines() == [
        *("d 700 jail ./d", "f 640 jail ./d/f", "l 777 jail ./link", "p 600 jail ./p"),
        *("hi", "1000", "1000"),
    ]


def test_what_a_step_changes_is_all_its_own(own):
    told = steps(
        own,
        "mkdir d; echo 1 >d/f; echo 1 >g",
        "echo 2 >>d/f; rm g; chmod 700 d; mv d e; mkdir d; touch d/new",
        "find . -type f | sort; cat e/f",
    )
    assert said(told[2]) == "./d/new\n./e/f\n1\n2\n"


def test_input_of_a_later_step_lies_where_it_should_whatever_was_left_there(own):
    left = "ln -s /tmp a; mkdir b; ln -s /etc/passwd c; mkfifo d; mkdir -p e/f"
    files = dict.fromkeys(("a/deep/file", "b", "c", "d", "e/f"), "mine\n")
    body = [step("left", left), step("look", "cat a/deep/file b c d e/f; ls /tmp", files=files)]
    assert said(own.run({"steps": body})["steps"]["look"]) == "mine\n" * 5


def test_what_was_never_written_takes_no_memory(own):
    told = steps(own, "truncate -s 50M f; printf x | dd of=f bs=1 seek=20M conv=notrunc", "stat -c '%s %b' f")
    size, blocks = map(int, said(told[1]).split())
    assert (size, blocks * 512 <= 65536) == (50 * MIB, True)


def test_a_step_that_fails_ends_the_job(own):
    result = own.run({"steps": [step("a", "exit 3"), step("b", "echo never")]})
    assert (result["status"], result["decided_by"], list(result["steps"])) == ("nonzero_exit", "a", ["a"])


def test_a_job_goes_on_past_what_it_says_it_may(own):
    body = [step("a", "echo x >f; exit 3", continue_on=["nonzero_exit"]), step("b", "cat f")]
    result = own.run({"steps": body})
    assert (result["status"], said(result["steps"]["b"])) == ("ok", "x\n")


def test_what_a_compiler_does_wrong_is_told_as_that(own):
    result = own.run({"steps": [step("compile", "echo no >&2; exit 1", compiles=True), step("run", "true")]})
    assert (result["status"], result["decided_by"]) == ("compile_error", "compile")
    assert result["steps"]["compile"]["stderr"]["text"] == "no\n"
    assert result["words"]["clics"] == "CE"


def test_directories_too_deep_to_be_kept_are_the_programs_fault(own):
    deep = "import os\nfor _ in range(300):\n os.mkdir('d'); os.chdir('d')"
    body = [{"name": "a", "argv": ["python3", "-c", deep]}, step("b", "true")]
    result = own.run({"steps": body})
    assert (result["status"], result["decided_by"]) == ("output_limit", "a")
    assert "256" in result["steps"]["a"]["detail"]


def test_what_was_left_has_to_fit_into_the_next(own):
    small = {"memory_bytes": 64 * MIB, "disk_bytes": MIB}
    result = own.run({"steps": [step("a", "head -c 4M /dev/zero >f"), step("b", "true", limits=small)]})
    assert (result["status"], result["decided_by"]) == ("output_limit", "b")
    assert result["steps"]["b"]["limit"] == "disk_bytes"


def test_an_output_can_be_had_of_every_step(own):
    body = [step("a", "echo 1 >f", outputs=["f"]), step("b", "echo 2 >>f", outputs=["f"])]
    told = own.run({"steps": body})["steps"]
    assert [told[name]["outputs"]["f"]["bytes"] for name in "ab"] == [2, 4]


# --- tests


def judged(own, script, tests, **fields):
    body = {"steps": [step("prepare", "echo prepared >p"), step("run", script)], "tests": tests, **fields}
    return own.run(body)


def test_each_test_has_its_own_verdict(own):
    script = 'read a; case $a in k) kill -9 $$;; e) exit 2;; l) sleep 9;; *) cat p; echo "$a $0";; esac'
    tests = [
        {"stdin": "x", "args": ["y"], "expected": "prepared\nx y\n"},
        {"stdin": "x", "expected": "prepared\nx z\n"},
        {"stdin": "e"},
        {"stdin": "k"},
        {"stdin": "l", "limits": {"wall_ms": 200}},
        {"stdin": "x", "args": ["Y"], "expected": "prepared\nx y\n"},
    ]
    result = judged(own, script, tests)
    assert [test["status"] for test in result["tests"]] == [
        *("ok", "wrong_answer", "nonzero_exit", "signaled", "wall_limit", "presentation_error"),
    ]
    assert (result["status"], result["decided_by"], result["score"]) == ("wrong_answer", "2", 1)
    assert result["tests"][1]["difference"]["output"]["line"] == 2
    assert result["tests"][3]["signal"] == signal.SIGKILL
    assert list(result["steps"]) == ["prepare"]


def test_nothing_gets_from_one_test_to_another(own):
    script = "ls /tmp /dev/shm; cat p; echo mine >>p; touch /tmp/t /dev/shm/s own; ls"
    result = judged(own, script, [{"expected": "/dev/shm:\n\n/tmp:\nprepared\nown\np\n"}] * 8)
    assert [test["difference"] for test in result["tests"]] == [None] * 8


HOLES = """
import mmap, os
with open("f", "r+b") as file:
    found = os.lseek(file.fileno(), 0, os.SEEK_DATA) if os.fstat(file.fileno()).st_blocks else -1
    print(found)
    mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED)[1 << 19]
"""


def test_what_is_read_of_a_hole_by_one_test_is_none_the_less_one_for_the_next(own):
    """A fault on a hole of a tmpfs fills it, even through a mount that is read-only."""
    body = {
        "steps": [step("make", "truncate -s 1M f"), {"name": "run", "argv": ["python3", "-c", HOLES]}],
        "tests": [{"expected": "-1"}] * 6,
    }
    assert own.run(body)["status"] == "ok"


DIRECTORIES = """
import os
open_now = []
for n in range(200):
    open_now.append(os.open(".", os.O_RDONLY))
    os.listdir(open_now[-1])
    os.close(os.open(f"extra{n}", os.O_CREAT | os.O_WRONLY))
    os.unlink(f"extra{n}")
with open("/proc/self/mountinfo") as mounts:
    print(*{line.split(" - ")[1].split()[0] for line in mounts if line.split()[4].startswith("/box")})
"""


def unreclaimable_bytes():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("SUnreclaim:")) * 1024


def test_directories_that_a_job_holds_open_take_no_memory_but_its_own(own):
    """Of an overlay the kernel keeps the list of each, which nobody is charged for."""
    fill = "import os\nfor n in range(3000): open(f'{n:0250}', 'w').close()"
    body = {
        "steps": [
            {"name": "fill", "argv": ["python3", "-c", fill]},
            {"name": "hold", "argv": ["python3", "-c", DIRECTORIES + "input()"], "stdin": "x"},
        ]
    }
    before = unreclaimable_bytes()
    told = own.run(body)["steps"]["hold"]
    assert said(told) == "tmpfs\n"
    assert unreclaimable_bytes() - before < 100 * MIB


def test_tests_after_one_that_failed_are_not_told_of(own):
    tests = [{"expected": "a"}, {"expected": "b"}, {"expected": "a"}]
    result = judged(own, "echo a", tests, fail_fast="job")
    assert [test["status"] for test in result["tests"]] == ["ok", "wrong_answer", None]


def test_groups_are_scored_on_their_own(own):
    tests = [
        {"expected": "a", "group": "g"},
        {"expected": "b", "group": "g"},
        {"expected": "a", "group": "h"},
    ]
    groups = [{"name": "g", "points": 30, "score": "min"}, {"name": "h", "points": 70, "score": "min"}]
    result = judged(own, "echo a", tests, groups=groups, fail_fast="group")
    assert (result["groups"]["g"]["points"], result["groups"]["h"]["points"], result["score"]) == (0, 70, 70)


CHECKER = """
import sys
given, output, answer = (open(path).read().split() for path in sys.argv[1:])
if output == ["hang"]:
    while True: pass
if output == ["crash"]:
    sys.exit(99)
print("points 0.5" if output == ["half"] else "fine", file=sys.stderr)
sys.exit(0 if output == answer else 7 if output == ["half"] else 1)
"""

VALIDATOR = """
import sys
given, answer = (open(path).read().split() for path in sys.argv[1:3])
open(sys.argv[3] + "teammessage.txt", "w").write("looked at it")
sys.exit(42 if sys.stdin.read().split() == answer else 43)
"""


def checker(program, convention):
    limits = {"memory_bytes": 64 * MIB, "cpu_ms": 300, "wall_ms": 3000}
    return {
        "argv": ["python3", "c.py"],
        "files": {"c.py": program},
        "convention": convention,
        "limits": limits,
    }


def test_a_checker_judges_in_place_of_a_comparison(own):
    tests = [
        {"stdin": word, "expected": "right", "points": 10} for word in ("right", "wrong", "half", "crash")
    ]
    result = judged(own, "cat", tests, checker=checker(CHECKER, "testlib"))
    assert [test["status"] for test in result["tests"]] == ["ok", "wrong_answer", "ok", "checker_error"]
    assert [test["points"] for test in result["tests"]] == [10, 0, 5, 0]
    assert (result["status"], result["decided_by"]) == ("checker_error", "4")


def test_a_checker_that_hangs_is_not_the_programs_fault(own):
    result = judged(own, "echo hang", [{"expected": "x"}], checker=checker(CHECKER, "testlib"))
    assert (result["status"], result["tests"][0]["exit_code"]) == ("checker_error", 0)


def test_an_output_validator_has_a_directory_for_what_it_says(own):
    tests = [{"stdin": "a", "expected": "a"}, {"stdin": "b", "expected": "a"}]
    result = judged(own, "cat", tests, checker=checker(VALIDATOR, "icpc"))
    assert [test["status"] for test in result["tests"]] == ["ok", "wrong_answer"]
    assert result["tests"][0]["message"] == "looked at it"


# --- stored files


def put(own, content):
    with own.engine.means.files.files.receive("") as incoming:
        incoming.write(content)
        return {"file": incoming.keep().digest}


def test_a_stored_file_of_a_step_is_there_in_those_after_it(own):
    data = put(own, b"data\n")
    body = {
        "steps": [step("a", "cat in/data", files={"in/data": data}), step("b", "cat in/data")],
        "tests": [{"expected": put(own, b"data\n")}, {"expected": "mine\n", "files": {"in/data": "mine\n"}}],
    }
    result = own.run(body)
    assert (result["status"], said(result["steps"]["a"])) == ("ok", "data\n")


def test_stdin_and_what_is_expected_can_be_stored(own):
    numbers = put(own, b"".join(b"%d\n" % number for number in range(100_000)))
    result = judged(own, "cat /dev/stdin", [{"stdin": numbers, "expected": numbers}])
    assert result["status"] == "ok"


# --- what is ours


def test_a_job_is_cancelled_wherever_it_is(own, executing):
    async def scene(body, program):
        run = own.submit(body)
        await executing(own.supervisor, program)
        run.cancel()
        return await own.answer(run)

    sleeping = {"steps": [step("a", "exec sleep 1000"), step("b", "true")]}
    assert own.do(scene(sleeping, "sleep"))["status"] == "cancelled"
    tested = {"steps": [step("a", "exec sleep 1000")], "tests": [{}] * 9}
    result = own.do(scene(tested, "sleep"))
    assert (result["status"], result["tests"][-1]["status"]) == ("cancelled", None)


def test_tests_that_a_lost_supervisor_took_along_are_nobodys_fault(own, executing):
    async def scene():
        script = "read a; [ $a = 2 ] && exec sleep 1000; cat p"
        body = {
            "steps": [step("prepare", "echo prepared >p"), step("run", script)],
            "tests": [{"stdin": str(n), "expected": "prepared\n"} for n in range(6)],
        }
        run = own.submit(body)
        await executing(own.supervisor, "sleep")
        os.kill(own.supervisor, signal.SIGKILL)
        return await own.answer(run)

    result = own.do(scene())
    assert {test["status"] for test in result["tests"]} <= {"ok", "sandbox_error"}
    assert result["status"] == "sandbox_error"


@pytest.mark.parametrize("fail_fast", ["never", "job"])
def test_many_tests_are_the_same_however_they_are_run_side_by_side(own, fail_fast):
    tests = [{"stdin": str(n), "expected": str(n if n != 23 else -1)} for n in range(40)]
    result = judged(own, "cat", tests, fail_fast=fail_fast)
    after = [None] * 16 if fail_fast == "job" else ["ok"] * 16
    assert [test["status"] for test in result["tests"]] == ["ok"] * 23 + ["wrong_answer"] + after


def test_what_may_be_done_with_box_itself_is_no_matter_of_ours(own):
    assert said(steps(own, "echo x >f; chmod 0 .", "cat f")[1]) == "x\n"


def test_more_pieces_than_can_be_copied_in_time_are_the_programs_fault(own):
    pieces = "with open('f', 'wb') as f:\n for n in range(70000):\n  f.seek(n << 13); f.write(b'x')"
    limits = {"memory_bytes": 512 * MIB, "disk_bytes": 400 * MIB}
    body = [{"name": "a", "argv": ["python3", "-c", pieces], "limits": limits}, step("b", "true")]
    result = own.run({"steps": body})
    assert (result["status"], result["decided_by"]) == ("output_limit", "a")
