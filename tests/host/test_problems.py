"""Problem packages: output validators are built, and submissions judged, in sandboxes."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import packages
import problems
import pytest

from jail.errors import PackageError
from jail.files.desk import THREADS
from jail.languages import definitions
from jail.problems import files, package
from jail.problems.judge import Judge, Judged, contents

ANY_ORDER_PY = """
import sys
expected, found = open(sys.argv[2]).read().split(), sys.stdin.read().split()
sys.exit(42 if sorted(expected) == sorted(found) else 43)
"""
ANY_ORDER_CPP = """
#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>
#include "words.h"

int main(int, char **argv) {
	std::ifstream answer(argv[2]);
	return words(answer) == words(std::cin) ? 42 : 43;
}
"""
WORDS_H = """
#include <istream>
#include <string>
#include <vector>
std::vector<std::string> words(std::istream &from);
"""
WORDS_CPP = """
#include <algorithm>
#include <iterator>
#include "words.h"

std::vector<std::string> words(std::istream &from) {
	std::vector<std::string> found{std::istream_iterator<std::string>(from), {}};
	std::sort(found.begin(), found.end());
	return found;
}
"""
OWNER = "tests"
RUN = '#!/bin/sh\nexec python3 {} "$@"\n'
BUILD = f"""#!/bin/sh
set -e
mkdir lib
mv order.py lib
cat >run <<'end'
{RUN.format("lib/order.py")}end
chmod +x run
"""
VALIDATORS = {
    "a file": {"order.py": ANY_ORDER_PY},
    "sources": {"order/main.cpp": ANY_ORDER_CPP, "order/words.cpp": WORDS_CPP, "order/words.h": WORDS_H},
    "a script that builds": {"order/build": BUILD, "order/order.py": ANY_ORDER_PY},
    "a script that runs": {"order/run": RUN.format("order.py"), "order/order.py": ANY_ORDER_PY},
}


@pytest.fixture
def judging(jail: Any, tmp_path: Path):
    """Judges submissions of a package, all of them unless told otherwise."""

    def judge(content: packages.Content, *wanted: str) -> dict[str, Judged]:
        async def scene(judge: Judge) -> dict[str, Judged]:
            prepared, _ = await judge.prepare()
            return {
                one.name: await judge.judge(one, prepared)
                for one in judge.submissions()
                if one.name in wanted or not wanted
            }

        return judged(scene, content)

    def judged(scene: Any, content: packages.Content) -> Any:
        with files.opened(packages.write(tmp_path / "problem", content)) as found:
            held = contents(found, jail.engine.means.files.files, OWNER, {})
            judge = Judge(jail.engine, found, package.read(found), definitions.load(), held, OWNER)
            return jail.do(scene(judge))

    async def threads_are_idle() -> None:
        meet = threading.Barrier(THREADS)
        await asyncio.gather(*(jail.engine.means.files.do(meet.wait) for _ in range(THREADS)))

    judge.scene = judged
    yield judge
    # What jobs had of the store is given back behind their back.
    jail.do(threads_are_idle())


def verdicts(found: dict[str, Judged]) -> dict[str, str]:
    return {name: one.verdict for name, one in found.items()}


@pytest.mark.parametrize("folder", ["accepted", "wrong_answer", "time_limit_exceeded", "run_time_error"])
@pytest.mark.parametrize("kind", problems.KINDS)
def test_every_submission_gets_what_its_folder_says(judging, kind, folder):
    content = problems.KINDS[kind]
    others = [path for path in content if path.startswith("submissions/") and f"/{folder}/" not in path]

    found = judging({path: text for path, text in content.items() if path not in others})

    assert {name.rpartition(".")[2] for name in found} >= {"c", "py"}
    assert {name: one.complaints for name, one in found.items()} == dict.fromkeys(found, ())


def test_groups_have_scores(judging):
    names = [f"partially_accepted/{name}" for name in ("partially_accepted.c", "partially_accepted.py")]
    found = judging(problems.GROUPS, *names)

    assert [found[name].score for name in names] == [70, 50]
    assert {name: one.score for name, one in found[names[1]].groups.items()} == {
        "secret": 50,
        "secret/a": 20,
        "secret/b": 30,
        "secret/c": 0,
    }


def validated(by: dict[str, str]) -> dict[str, str]:
    beside = {f"output_validators/{path}": text for path, text in by.items()}
    answers = {"data/secret/1.in": "7 8\n", "data/secret/1.ans": "8 7\n"}
    wrong = {"submissions/wrong_answer/other.py": "input()\nprint('8 8')"}
    return {
        **packages.ECHO,
        **answers,
        **wrong,
        "problem.yaml": "validation: custom",
        ".timelimit": "5",
        **beside,
    }


@pytest.mark.parametrize("kind", VALIDATORS)
def test_an_output_validator_is_built_and_asked(judging, kind):
    found = judging(validated(VALIDATORS[kind]))

    assert verdicts(found) == {"accepted/echo.py": "AC", "wrong_answer/other.py": "WA"}
    assert found["wrong_answer/other.py"].failed == "sample/1"


def test_a_validator_that_cannot_be_built_is_told_with_what_its_compiler_said(judging):
    with pytest.raises(PackageError, match=r"cannot be built: nonzero_exit.*broken.cpp.*error"):
        judging(validated({"broken.cpp": "int main() { return x; }"}))


@pytest.mark.parametrize(
    "program", ["import sys; sys.exit(0)", "while True: pass", "import os; os.abort()", "raise ValueError"]
)
def test_a_validator_that_lies_hangs_or_crashes_is_never_the_submissions_fault(judging, program):
    limits = "validation: custom\nlimits: {validation_time: 0.2}"
    found = judging({**validated({"bad.py": program}), "problem.yaml": limits}, "accepted/echo.py")

    assert verdicts(found) == {"accepted/echo.py": "JE"}
    assert found["accepted/echo.py"].complaints == ("It is JE, and has to be AC.",)


def test_a_validator_is_given_the_flags_of_the_problem_and_of_the_group(judging):
    program = "import sys; sys.exit(42 if sys.argv[4:] == ['a', 'b'] else 43)"
    content = {
        **validated({"flags.py": program}),
        "problem.yaml": "validation: custom\nvalidator_flags: a",
        "data/sample/testdata.yaml": "output_validator_flags: b",
        "data/secret/testdata.yaml": "output_validator_flags: c",
    }
    found = judging(content, "accepted/echo.py")["accepted/echo.py"]

    assert {one.name: one.verdict for one in found.tests} == {"sample/1": "AC", "secret/1": "WA"}


SCORES = """
import sys
if sys.argv[4] == "part":
    open(sys.argv[3] + "score_multiplier.txt", "w").write("0.25")
if sys.argv[4] == "score":
    open(sys.argv[3] + "score.txt", "w").write("7.5")
sys.exit(42)
"""


def test_validators_give_scores(judging):
    content = {
        "problem.yaml": "problem_format_version: 2025-09\ntype: scoring\nlimits: {time_limit: 5}",
        "output_validator/scores.py": SCORES,
        "submissions/accepted/echo.py": "print(1)",
        "data/secret/test_group.yaml": "max_score: 60",
    }
    for name in ("part", "score", "none"):
        content |= problems.cases(f"secret/{name}", {"1": ("", ""), "2": ("", "")})
        rules = f"max_score: 20\nscore_aggregation: sum\noutput_validator_args: [{name}]"
        content[f"data/secret/{name}/test_group.yaml"] = rules
    found = judging(content)["accepted/echo.py"]

    assert {name: one.score for name, one in found.groups.items()} == {
        "secret": 40,
        "secret/part": 5,
        "secret/score": 15,
        "secret/none": 20,
    }
    assert (found.verdict, found.score) == ("AC", 40)


def test_a_time_limit_follows_from_the_accepted_submissions(judging):
    busy = "import time\nprint(input())\nwhile time.process_time() < 0.5: pass\n"
    content = {**packages.ECHO, "submissions/accepted/slow.py": busy}

    async def scene(judge: Judge) -> tuple[int, dict[str, Judged]]:
        prepared, known = await judge.prepare()
        return prepared.time_limit_ms, known

    limit_ms, known = judging.scene(scene, content)
    slowest_ms = max(one.slowest_ms for one in known.values())
    assert known["accepted/slow.py"].slowest_ms == slowest_ms >= 500
    assert limit_ms == max(1, int(5 * slowest_ms / 1000 + 0.5)) * 1000


def test_without_an_accepted_submission_a_time_limit_has_to_be_said(judging):
    content = {path: text for path, text in packages.ECHO.items() if "submissions" not in path}

    with pytest.raises(PackageError, match="says no time limit"):
        judging(content)


def test_long_data_goes_through_the_store_and_is_the_same(judging):
    text = "".join(f"{n}\n" for n in range(20_000))
    content = {
        **packages.ECHO,
        ".timelimit": "5",
        "submissions/accepted/echo.py": "import sys\nsys.stdout.write(sys.stdin.read())",
        "submissions/wrong_answer/head.py": "import sys\nsys.stdout.write(sys.stdin.read()[:-3])",
        **problems.cases("secret", {"1": (text, text)}),
    }

    found = judging(content)
    assert verdicts(found) == {"accepted/echo.py": "AC", "wrong_answer/head.py": "WA"}
    assert found["wrong_answer/head.py"].failed == "sample/1"


def test_what_does_not_compile_is_told(judging):
    content = {
        **packages.ECHO,
        ".timelimit": "5",
        "submissions/compile_error/broken.c": "int main(void) { return x; }",
    }
    found = judging(content, "compile_error/broken.c")["compile_error/broken.c"]

    assert (found.verdict, found.complaints, found.tests) == ("CE", (), ())
    assert "broken.c:1" in found.detail


def test_a_submission_in_the_wrong_folder_is_told(judging):
    content = {**packages.ECHO, ".timelimit": "5", "submissions/wrong_answer/right.py": "print(input())"}

    assert judging(content)["wrong_answer/right.py"].complaints == ("It is AC, and has to be WA.",)


def test_since_2023_07_every_case_is_judged_that_a_rule_speaks_of(judging):
    content = {
        **packages.ECHO,
        "problem.yaml": "problem_format_version: 2025-09\nlimits: {time_limit: 1}",
        **problems.cases("secret", {"1": ("1\n", "1\n"), "2": ("2\n", "2\n"), "3": ("3\n", "3\n")}),
        "submissions/wrong_answer/both.py": "n = int(input())\nprint(n if n < 2 else 0 if n < 3 else 1 / 0)",
    }
    found = judging(content)["wrong_answer/both.py"]

    told = {one.name: one.verdict for one in found.tests}
    assert told == {"sample/1": "AC", "secret/1": "AC", "secret/2": "WA", "secret/3": "RTE"}
    assert found.complaints == ("secret/3 is RTE, and all have to be AC or WA.",)


def test_what_cannot_be_had_here_is_told(judging, jail):
    most = jail.engine.rules.ceilings.memory_bytes >> 20
    content = {**packages.ECHO, "problem.yaml": f"limits: {{memory: {most + 1}}}", ".timelimit": "1"}

    with pytest.raises(PackageError, match=r"cannot be judged here.*limits.memory_bytes"):
        judging(content)
