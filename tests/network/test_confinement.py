"""What a hub that was taken over could still do, shown by a program in its place, confined as it is."""

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CONFINED = str(Path(__file__).parent / "confined.py")
SECONDS = 60

# What the hub is for.
NEEDED = "enter a network"


@pytest.fixture
def attempts(stand_ins: Any, outer: Any, tmp_path: Path) -> Iterator[Any]:
    """By name the errno of each, as that id."""
    file = tmp_path / "file"
    file.touch(0o600)
    for directory in (tmp_path, *tmp_path.parents[:2]):
        # It is the file that refuses.
        directory.chmod(0o755)
    member = stand_ins.Member(outer, 0)
    service = subprocess.Popen(["sleep", "1000"])

    def attempted(identity: int) -> dict[str, int]:
        words = (identity, service.pid, member.pid, file)
        command = [sys.executable, "-P", CONFINED, *map(str, words)]
        with stand_ins.begun(
            outer, command, stdin=member.namespace, stdout=subprocess.PIPE, text=True
        ) as made:
            return json.loads(made.communicate(timeout=SECONDS)[0])

    yield attempted
    service.kill()
    service.wait()
    member.close()


def test_a_hub_that_is_taken_over_reaches_networks_and_nothing_else(attempts, stand_ins):
    said = attempts(stand_ins.IDENTITY)
    assert said.pop(NEEDED) == 0
    assert {name: errno.errorcode.get(error, error) for name, error in said.items()} == {
        name: "EACCES" if name.startswith(("read", "see", "open")) else "EPERM" for name in said
    }


def test_it_would_reach_them_as_whom_it_begins(attempts):
    said = attempts(0)
    refused = {name for name, error in said.items() if error}
    # The service is in another user namespace.
    assert refused <= {"trace the service"}


def test_the_hub_is_nobody_else(scene, processes):
    scene.do(scene.hub.ready())
    own = processes.status(os.getpid())
    for kind in ("Uid", "Gid"):
        found = set(processes.status(scene.process.pid)[kind].split())
        assert len(found) == 1
        assert not found & set(own[kind].split())


PARENT = """
import signal, subprocess, sys
print(subprocess.Popen(sys.argv[2:], pass_fds=[int(sys.argv[1])], stdin=0, stdout=subprocess.DEVNULL).pid)
sys.stdout.flush()
signal.pause()
"""


def test_it_dies_with_its_parent_though_it_is_another_user(outer, stand_ins):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(SECONDS)
    descriptor = str(outer.descriptor)
    hub = [sys.executable, "-P", "-m", "jail.network", "4", str(stand_ins.IDENTITY)]
    command = [sys.executable, "-P", "-c", PARENT, descriptor]
    command += [sys.executable, "-P", stand_ins.AGENT, descriptor, *hub]
    with (
        ours,
        subprocess.Popen(
            command, pass_fds=[outer.descriptor], stdin=theirs, stdout=subprocess.PIPE, text=True
        ) as parent,
    ):
        theirs.close()
        ended = os.pidfd_open(int(parent.stdout.readline()))
        try:
            assert b"ready" in ours.recv(1 << 14)
            parent.send_signal(signal.SIGKILL)
            # Our end of its socket is still open.
            assert select.select([ended], [], [], SECONDS)[0]
        finally:
            os.close(ended)
