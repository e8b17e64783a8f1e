"""References to images of registries: REGISTRY/REPOSITORY[:TAG][@DIGEST].

The grammar is that of the distribution specification (Pulling manifests: <name>, <reference>) with the
registry before it, as Docker's tools write it. They fill in a registry of their own where none is named;
here it has to be named, so that nobody is given somebody else's image of the same name.
"""

import ipaddress
import re

import msgspec

from jail.errors import ImageError
from jail.images.oci import is_digest

REPOSITORY_LENGTH_MAX = 255
"""What the specification advises registries and clients to bear."""

DEFAULT_TAG = "latest"

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_HOST_LENGTH_MAX = 253
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_PORT = re.compile("[1-9][0-9]{0,4}")

_CURE = "Write REGISTRY/REPOSITORY[:TAG][@DIGEST], like registry.example:5000/tools/gcc:13.2."


class Reference(msgspec.Struct, frozen=True):
    """An image of a registry.

    registry: HOST[:PORT] in lower case, IPv6 addresses in brackets. tag: empty only when there is a digest.
    digest: empty, or "sha256:" and 64 digits.
    """

    registry: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def wanted(self) -> str:
        """What the registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    @property
    def name(self) -> str:
        """REGISTRY/REPOSITORY:TAG, or empty without a tag: what an image is called once it is here."""
        return f"{self.registry}/{self.repository}:{self.tag}" if self.tag else ""

    def __str__(self) -> str:
        """As it is written, with the tag that was meant."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def parse(text: str) -> Reference:
    """Read a reference; neither a tag nor a digest means the tag `latest`. Raises ImageError."""
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _wrong(text, "its digest is not sha256: and 64 hexadecimal digits in lower case")
    host, slash, path = rest.partition("/")
    if not slash or not _looks_like_host(host):
        raise _wrong(text, "it does not begin with a registry's host")
    repository, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _wrong(text, "its tag is not up to 128 of letters, digits, and _ . - after the first")
    if len(repository) > REPOSITORY_LENGTH_MAX or not _REPOSITORY.fullmatch(repository):
        raise _wrong(
            text,
            f"its repository is not up to {REPOSITORY_LENGTH_MAX} of lower-case letters and digits, "
            "with one . or _ or __ or several - between them, and / between such parts",
        )
    return Reference(_registry(text, host.lower()), repository, tag or ("" if at else DEFAULT_TAG), digest)


def _looks_like_host(text: str) -> bool:
    """Docker's rule: what has neither a dot nor a port is the beginning of a repository."""
    return "." in text or ":" in text or text == "localhost"


def _registry(text: str, authority: str) -> str:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _wrong(text, "its registry is not HOST or HOST:PORT, with brackets around an address of IPv6")
    host, port = found["host"], found["port"]
    if port is not None and not (_PORT.fullmatch(port) and int(port) <= 65535):
        raise _wrong(text, "its registry's port is not one of 1 to 65535")
    if host.startswith("["):
        _refuse_address(text, host[1:-1])
    elif len(host) > _HOST_LENGTH_MAX or not _HOST.fullmatch(host):
        raise _wrong(text, "its registry's host is neither a name nor an address")
    return authority


def _refuse_address(text: str, address: str) -> None:
    try:
        # A zone is this machine's affair, and % begins an escape in a URL.
        if ipaddress.IPv6Address(address).scope_id is None:
            return
    except ValueError:
        pass
    raise _wrong(text, "its registry's address is not one of IPv6, without a zone")


def _wrong(text: str, reason: str) -> ImageError:
    return ImageError(f"{text!r} is no reference to an image of a registry: {reason}.", _CURE)
