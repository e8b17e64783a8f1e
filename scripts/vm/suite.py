"""Packages of any suite of Debian, unpacked without being installed."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

_NEEDED_ONLY = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")


class Suite:
    """One suite, as apt sees it when it sees no other."""

    def __init__(self, source: str, directory: Path) -> None:
        """Read its lists; `source` is a line of sources.list(5). Raises CalledProcessError.

        `directory`, which need not exist, is for what apt keeps.
        """
        self._directory = directory
        for place in ("lists/partial", "cache/archives/partial"):
            (directory / place).mkdir(parents=True)
        (directory / "sources.list").write_text(f"{source}\n")
        (directory / "status").touch()
        self._options = (
            f"-oDir::Etc::SourceList={directory}/sources.list",
            "-oDir::Etc::SourceParts=/dev/null",
            f"-oDir::State::Lists={directory}/lists",
            f"-oDir::State::Status={directory}/status",
            f"-oDir::Cache={directory}/cache",
            "-oAPT::Sandbox::User=root",
            "-oAcquire::Languages=none",
        )
        subprocess.run(["apt-get", *self._options, "-qq", "update"], check=True)

    def depends(self, package: str) -> str:
        """What apt-cache(8) says of all that a package needs. Raises CalledProcessError."""
        only = (f"--no-{what}" for what in _NEEDED_ONLY)
        told = subprocess.run(
            ["apt-cache", *self._options, "depends", "--recurse", *only, package],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return told.stdout

    def unpack(self, packages: Iterable[str], directory: Path) -> None:
        """Unpack packages beneath a directory. Raises CalledProcessError."""
        subprocess.run(
            ["apt-get", *self._options, "-qq", "download", *packages], check=True, cwd=self._directory
        )
        for package in self._directory.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, directory], check=True)
