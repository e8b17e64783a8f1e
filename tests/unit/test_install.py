"""deploy/systemd/install, with stand-ins for what changes the host, as root of a mount namespace alone."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/systemd/install"
STANDING_IN = ("install", "newuidmap", "systemctl", "systemd-sysusers", "touch", "usermod")

# /opt is there anew, and /etc/subuid and /etc/subgid are files of ours.
PREPARE = """
set -eu
mount -t tmpfs tmpfs /opt
mkdir -p /opt/jail/bin
cp "$PLACE/bin/touch" /opt/jail/bin/pip
cp "$PLACE/bin/touch" /opt/jail/bin/python
mount --bind "$PLACE/ids" /etc/subuid
mount --bind "$PLACE/ids" /etc/subgid
PATH=$PLACE/bin:$PATH
exec "$@"
"""


@pytest.fixture
def place(tmp_path):
    """A directory with a wheel; what is called is noted in `called`, unless it names a file that is none."""
    (tmp_path / "bin").mkdir()
    for name in STANDING_IN:
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >>{tmp_path}/called\n')
        program.chmod(0o755)
    (tmp_path / "ids").touch()
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/jail-1.whl").touch()
    try:
        subprocess.run(["unshare", "-rm", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"unshare -rm does not work here: {error}")
    return tmp_path


def install(place, *arguments):
    command = ["unshare", "-rm", "sh", "-c", PREPARE, "sh", SCRIPT, *arguments]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PLACE": str(place)}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_is_found_from_where_the_step_is_called(place):
    done = install(place, "dist/jail-1.whl")
    assert done.returncode == 0, done.stderr
    assert f"pip install --quiet --upgrade {place}/dist/jail-1.whl\n" in (place / "called").read_text()


def test_what_is_no_file_is_not_looked_for_elsewhere(place):
    done = install(place, "jail")
    assert (done.returncode, done.stderr) == (1, "jail: usage: deploy/systemd/install WHEEL\n")
    assert not (place / "called").exists()


def test_ids_are_those_that_nobody_has_however_high(place):
    (place / "ids").write_text("other:100000:65536\nhigh:3000000000:65536\n")
    done = install(place, "dist/jail-1.whl")
    assert done.returncode == 0, done.stderr
    assert "--add-subuids 3000065536-3000131071 " in (place / "called").read_text()
