"""Debian's docker-registry on loopback, filled by skopeo."""

import io
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest

DEADLINE_S = 60


def needed(*programs):
    """Skip the test where one of them is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"the host has no {program}")


class Registry:
    """One that runs in a directory of its own until it is closed. `authority`: its HOST:PORT."""

    def __init__(self, directory, auth=""):
        """Start it, on whichever port is free. auth: more of its configuration."""
        needed("docker-registry", "skopeo")
        (directory / "storage").mkdir(parents=True)
        config = directory / "config.yml"
        config.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/storage}}}}\n"
            "http: {addr: '127.0.0.1:0'}\n" + auth
        )
        command = ["docker-registry", "serve", config]
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        lines = (re.search(r"listening on (127\.0\.0\.1:\d+)", line) for line in self._process.stderr)
        self.authority = next(found[1] for found in lines if found)
        # It waits for nobody to read what it says.
        self._reader = threading.Thread(target=self._process.stderr.read)
        self._reader.start()

    def fill(self, layout, name, to, *options):
        """Have the image of that name in an OCI layout; no name is the only one's."""
        command = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *options]
        words = [*command, f"oci:{layout}{name and ':'}{name}", f"docker://{self.authority}/{to}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 0, done.stderr

    def fill_from(self, archive, to):
        """Have the only image of an OCI archive's bytes."""
        with tempfile.TemporaryDirectory() as layout:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(layout)
            self.fill(Path(layout), "", to)

    def close(self):
        """End it."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stderr.close()
