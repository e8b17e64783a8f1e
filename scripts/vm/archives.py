"""Where this machine's own apt gets Debian from: no archive is named here."""

import platform
import subprocess
from collections.abc import Mapping

import msgspec

from vm.errors import VmError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FORMAT = "$(RELEASE) $(COMPONENT) $(REPO_URI)"


class Archives(msgspec.Struct, frozen=True):
    """`codename` of this machine's Debian; `main` and `security`, the addresses of its archives."""

    codename: str
    main: str
    security: str

    def source(self, suite: str) -> str:
        """A line of sources.list(5) for any suite of Debian."""
        address = self.security if suite.endswith("-security") else self.main
        return f"deb [signed-by={KEYRING}] {address} {suite} main"

    def sources(self) -> tuple[str, ...]:
        """The lines of the Debian that this machine has itself."""
        return self.source(self.codename), self.source(f"{self.codename}-security")


def find() -> Archives:
    """Those of this machine. Raises VmError."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    )
    return parse(told.stdout, platform.freedesktop_os_release())


def parse(targets: str, release: Mapping[str, str]) -> Archives:
    """From what apt-get(8) says of its index targets, and os-release(5). Raises VmError."""
    codename = release.get("VERSION_CODENAME", "")
    words = (line.split() for line in targets.splitlines())
    found = {word[0]: word[2] for word in words if len(word) == 3 and word[1] == "main"}
    try:
        return Archives(codename, found[codename], found[f"{codename}-security"])
    except KeyError as error:
        raise VmError(
            f"Images are made of Debian, and apt's sources here have no {error.args[0] or 'codename'} main."
        ) from None
