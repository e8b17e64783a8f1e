"""The newest cloud kernel in a suite of Debian. It boots without an initrd: NVMe and ext4 are built in."""

from pathlib import Path

from vm.suite import Suite

_PACKAGE = "linux-image-cloud-amd64"
# From 7.0 on, the image is a package of its own that needs these two.
_PARTS = ("linux-image-", "linux-binary-", "linux-modules-")


def unpack(source: str, directory: Path) -> None:
    """Unpack it beneath an empty directory; `source`, of sources.list(5), has one suite.

    Raises CalledProcessError.
    """
    suite = Suite(source, directory / "apt")
    suite.unpack(packages(suite.depends(_PACKAGE)), directory)


def packages(depends: str) -> list[str]:
    """The packages that a kernel is in, of what apt-cache(8) says of all that is needed."""
    names = (line.strip() for line in depends.splitlines() if not line.startswith((" ", "<")))
    # Without a version it is a name for whichever is newest.
    return [name for name in names for part in _PARTS if name.startswith(part) and name[len(part)].isdigit()]
