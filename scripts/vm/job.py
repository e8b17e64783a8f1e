"""What crosses into a machine and back: tar archives; agent.py is at the other end."""

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

RESULTS = "out/results.xml"
"""Where a job leaves pytest's report: beneath /job there."""

_NO_ANSWER, _TIMEOUT = 125, 124
_AGENT = Path(__file__).with_name("agent.py")
_BLOCK_BYTES = 1 << 20
_NOT_HANDED_IN = {".git", ".venv", "build", "__pycache__", ".hypothesis", ".ruff_cache"}


class Job(msgspec.Struct, frozen=True):
    """A command, run in the checkout as `user`: "root", or "jail" in a unit set as the shipped one.

    drop_ins: names of files beside that unit, which change it.
    """

    command: tuple[str, ...]
    user: str
    drop_ins: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """`status` of the command, and seconds: from power on to the job, and of pip."""

    status: int
    boot_s: float
    install_s: float


def pack(job: Job, checkout: Path, wheels: Sequence[Path], target: Path) -> None:
    """Write the archive of a job. It can be given to a machine as a disk."""
    with tarfile.open(target, "w") as archive:
        text = msgspec.json.encode(job)
        about = tarfile.TarInfo("job.json")
        about.size = len(text)
        archive.addfile(about, io.BytesIO(text))
        archive.add(_AGENT, _AGENT.name)
        for wheel in wheels:
            archive.add(wheel, f"wheels/{wheel.name}")
        archive.add(checkout, "checkout", filter=_handed_in)
    os.truncate(target, -(-target.stat().st_size // _BLOCK_BYTES) * _BLOCK_BYTES)


def no_answer(is_over: bool) -> tuple[Answer, bytes]:
    """In place of one, of a machine that ended by itself or, as timeout(1) says it, took too long."""
    return Answer(_NO_ANSWER if is_over else _TIMEOUT, 0, 0), b""


def _handed_in(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(entry.name).name in _NOT_HANDED_IN else entry


def unpack(source: Path) -> tuple[Answer, bytes] | None:
    """Read the archive of an answer: with pytest's own report, or b"". None: it is not whole."""
    try:
        with tarfile.open(source) as archive:
            files = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}
        return msgspec.json.decode(files["answer.json"], type=Answer), files.get(RESULTS, b"")
    except (OSError, tarfile.TarError, KeyError, msgspec.MsgspecError):
        return None
