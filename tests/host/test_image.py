"""What is mounted beneath /usr, on this host and in mount namespaces of the tests' own."""

import shutil
import subprocess
import sys

import pytest

from jail import host

BUILD = """
import sys
from pathlib import Path
from jail.errors import HostError
from jail.image import build_host
try:
    build_host(Path(sys.argv[1]), "host")
except HostError as error:
    print(error.cause)
else:
    print("built")
"""


@pytest.fixture
def build(environment, tmp_path):
    """What comes of the image `host` once these commands have mounted something."""
    if shutil.which("unshare") is None:
        pytest.skip("the host has no unshare(1)")

    def run(*commands):
        script = " && ".join((*commands, 'exec "$0" "$@"'))
        inner = [sys.executable, "-P", "-c", BUILD, str(tmp_path)]
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, *inner]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd="/")
        return done.stdout

    return run


def test_this_host_has_nothing_mounted_beneath_usr():
    assert host.mounts_beneath("/usr") == ()


def test_a_host_with_nothing_mounted_beneath_usr_has_an_image(build):
    assert build() == "built\n"


def test_what_is_mounted_beneath_usr_is_refused_by_name(build):
    told = build("mount -t tmpfs none /usr/games", "mount --bind /dev/null /usr/bin/env")
    assert told.endswith(": /usr/games, /usr/bin/env.\n")


def test_what_is_mounted_elsewhere_is_no_matter(build):
    assert build("mount -t tmpfs none /mnt", "mount -t tmpfs none /srv") == "built\n"


def test_what_lies_under_a_mount_of_usr_itself_is_no_matter(build):
    """As the cure has it."""
    assert build("mount -t tmpfs none /usr/games", "mount --bind /usr /usr") == "built\n"
