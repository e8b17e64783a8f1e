"""A program that sheds what it does not need, and then tries what each line of stdin says."""

_PROGRAM = """
import ctypes, json, os, socket, sys, threading, types
from pathlib import Path
from jail import shed
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

attempts = [compile(line, line, "exec") for line in sys.stdin]
SHED
answers = []
for attempt in attempts:
    try:
        exec(attempt)
        answers.append(0)
    except OSError as error:
        answers.append(error.errno)
sys.stdout.write(json.dumps(answers))
"""


def trial(shedding):
    """Its text; what it sheds is done by this statement. It writes the errno of each line, or 0, as JSON."""
    return _PROGRAM.replace("SHED", shedding)
