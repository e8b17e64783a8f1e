"""Problem packages: output validators are built, and submissions judged, in sandboxes."""

from pathlib import Path
from typing import Any

import packages
import pytest

from jail.languages import definitions
from jail.problems import files, package
from jail.problems.judge import Judge, inline

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
    """Makes a judge of a package, and runs what it is to do."""

    def judge(content: packages.Content, scene: Any) -> Any:
        with files.opened(packages.write(tmp_path / "problem", content)) as found:
            problem = package.read(found)
            return jail.do(scene(Judge(jail.engine, found, problem, definitions.load(), inline(found))))

    return judge


def validated(by: dict[str, str]) -> dict[str, str]:
    beside = {f"output_validators/{path}": text for path, text in by.items()}
    return {**packages.ECHO, "problem.yaml": "validation: custom", **beside}


@pytest.mark.parametrize("kind", VALIDATORS)
def test_an_output_validator_is_built(judging, kind):
    async def prepare(judge: Judge) -> dict[str, Any]:
        await judge.prepare()
        return judge._checker

    checker = judging(validated(VALIDATORS[kind]), prepare)
    print(checker["argv"], {k: len(v["base64"]) for k, v in checker["files"].items()})
    assert 0
