"""Pages of docs/, whose examples have to be so."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def examples(*pages: str) -> list[tuple[Any, Any]]:
    """The blocks of JSON of these pages, by twos: what is asked, and a part of what is answered."""
    text = "".join((DOCS / page).read_text() for page in pages)
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    return list(zip(blocks[::2], blocks[1::2], strict=True))


def is_part(shown: Any, told: Any) -> bool:
    """Whether all that is shown is told so."""
    if isinstance(shown, dict):
        return all(name in told and is_part(value, told[name]) for name, value in shown.items())
    if isinstance(shown, list):
        return len(shown) == len(told) and all(map(is_part, shown, told))
    return shown == told


def typed(
    page: str, count: int, place: Path, environment: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Type what a page types, `count` commands, in `place`: each, a pattern of its answer, the answer."""
    command = place / "bin" / "jail"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m jail "$@"\n')
    command.chmod(0o755)
    work = place / "work"
    work.mkdir()
    given = {**environment, "PATH": f"{command.parent}:{environment['PATH']}"}
    text = "".join(re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(), re.DOTALL))
    parts = re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", text, re.MULTILINE)
    assert len(parts) == count
    for line, answer in parts:
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(
            ["sh", "-c", line], **both, cwd=work, env=given, timeout=100, text=True, check=False
        )
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        pattern = "\n".join(".*".join(map(re.escape, line.split("…"))) for line in answer.splitlines())
        yield line, pattern, "\n".join(lines)
