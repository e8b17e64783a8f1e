"""Credentials for registries, from a file as Docker's tools write it: config.json, its `auths` alone.

Programs that such a file names (credsStore, credHelpers) are not run: what they keep has to be given by hand.
"""

import base64
import binascii
from pathlib import Path

import msgspec

from jail.errors import ImageError

FILE_BYTES_MAX = 1 << 20


class Credentials(msgspec.Struct, frozen=True):
    """What a registry knows somebody by; all empty for nobody.

    identity: a token that is good for others, as `docker login` may get it. token: one that the registry
    itself takes.
    """

    user: str = ""
    password: str = ""
    identity: str = ""
    token: str = ""

    def __repr__(self) -> str:
        """Without its secrets, which traces would show."""
        return f"Credentials(user={self.user!r})"

    @property
    def basic(self) -> str:
        """The value of the header Authorization: RFC 7617. Empty without a user."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}" if self.user else ""


class _Entry(msgspec.Struct, frozen=True, rename={"identity": "identitytoken", "token": "registrytoken"}):
    auth: str = ""
    username: str = ""
    password: str = ""
    identity: str = ""
    token: str = ""


class _File(msgspec.Struct, frozen=True, rename={"store": "credsStore", "helpers": "credHelpers"}):
    auths: dict[str, _Entry] = {}
    store: str = ""
    helpers: dict[str, str] = {}


def read(path: Path, registry: str, repository: str) -> Credentials:
    """What the file says of a registry, or of the innermost part of it in which the repository is.

    Raises ImageError when the file cannot be read or leaves that to another program.
    """
    found = _parse(path)
    keys = {_place(key): entry for key, entry in found.auths.items()}
    parts = f"{registry}/{repository}".split("/")
    for length in range(len(parts), 0, -1):
        entry = keys.get("/".join(parts[:length]))
        if entry is not None and entry != _Entry():
            return _credentials(path, entry)
    if registry in found.helpers or (found.store and registry in keys):
        raise ImageError(
            f"{path} leaves the credentials of {registry} to a program, which is not run.",
            "Give them with --login.",
        )
    return Credentials()


def _parse(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise ValueError(f"it is longer than {FILE_BYTES_MAX} bytes")
        return msgspec.json.decode(raw, type=_File)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.", "Name another file.") from None
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{path} is not valid: {error}.", "Write it as `docker login` does.") from None


def _place(key: str) -> str:
    """Docker's older tools write URLs: https://registry.example/v1/."""
    bare = key.removeprefix("https://").removeprefix("http://").removesuffix("/")
    return bare.removesuffix("/v1").removesuffix("/v2")


def _credentials(path: Path, entry: _Entry) -> Credentials:
    user, password = entry.username, entry.password
    if entry.auth:
        try:
            decoded = base64.b64decode(entry.auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ImageError(
                f"{path} is not valid: `auth` is not base64 of USER:PASSWORD.",
                "Write it as `docker login` does.",
            ) from None
        user, _, password = decoded.partition(":")
    # Docker pads with NULs what its oldest versions wrote.
    return Credentials(user, password.strip("\0"), entry.identity, entry.token)
