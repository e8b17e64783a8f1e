"""Debian's docker-registry on loopback, filled by skopeo."""

import io
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading

import pytest

DEADLINE_S = 60


class Registry:
    """One that runs in a directory of its own until it is closed. `authority`: its HOST:PORT."""

    def __init__(self, directory):
        """Start it, on whichever port is free. Skips the test where it is not installed."""
        for program in ("docker-registry", "skopeo"):
            if shutil.which(program) is None:
                pytest.skip(f"the host has no {program}")
        config = directory / "config.yml"
        config.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/storage}}}}\n"
            "http: {addr: '127.0.0.1:0'}\n"
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

    def fill(self, archive, name):
        """Have an image, of an OCI archive's bytes, under a name."""
        with tempfile.TemporaryDirectory() as layout:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(layout)
            copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
            command = [*copy, f"oci:{layout}", f"docker://{self.authority}/{name}"]
            subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE_S)

    def close(self):
        """End it."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stderr.close()
