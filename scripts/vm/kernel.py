"""The newest cloud kernel in a suite of Debian. It boots without an initrd: NVMe and ext4 are built in."""

import subprocess
from pathlib import Path

_PACKAGE = "linux-image-cloud-amd64"
# From 7.0 on, the image is a package of its own that needs these two.
_PARTS = ("linux-image-", "linux-binary-", "linux-modules-")
_NEEDED_ONLY = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")


def unpack(source: str, directory: Path) -> None:
    """Unpack it beneath an empty directory; `source`, of sources.list(5), has one suite.

    Raises CalledProcessError.
    """
    apt = directory / "apt"
    for place in ("lists/partial", "cache/archives/partial"):
        (apt / place).mkdir(parents=True)
    (apt / "sources.list").write_text(f"{source}\n")
    (apt / "status").touch()
    options = (
        f"-oDir::Etc::SourceList={apt}/sources.list",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={apt}/lists",
        f"-oDir::State::Status={apt}/status",
        f"-oDir::Cache={apt}/cache",
        "-oAPT::Sandbox::User=root",
        "-oAcquire::Languages=none",
    )
    subprocess.run(["apt-get", *options, "-qq", "update"], check=True)
    only = (f"--no-{what}" for what in _NEEDED_ONLY)
    told = subprocess.run(
        ["apt-cache", *options, "depends", "--recurse", *only, _PACKAGE],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    subprocess.run(["apt-get", *options, "-qq", "download", *packages(told.stdout)], check=True, cwd=apt)
    for package in apt.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, directory], check=True)


def packages(depends: str) -> list[str]:
    """The packages that a kernel is in, of what apt-cache(8) says of all that is needed."""
    names = (line.strip() for line in depends.splitlines() if not line.startswith((" ", "<")))
    # Without a version it is a name for whichever is newest.
    return [name for name in names for part in _PARTS if name.startswith(part) and name[len(part)].isdigit()]
