"""Keys that callers show: "Authorization: Bearer KEY". The service knows their digests alone."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from jail.http.problems import ProblemError


def require(request: HTTPConnection, digests: Sequence[str]) -> None:
    """Raise ProblemError 401 unless the caller shows a key with one of these SHA-256 digests."""
    if not is_shown(request, digests):
        detail = "Send one of this service's keys as Authorization: Bearer KEY."
        raise ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})


def is_shown(request: HTTPConnection, digests: Sequence[str]) -> bool:
    """Whether the caller shows one. Compared in constant time, all of them: the delay tells nothing."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    digest = hashlib.sha256(key.strip().encode(errors="surrogateescape")).hexdigest()
    found = [hmac.compare_digest(digest, known.lower()) for known in digests]
    return scheme.lower() == "bearer" and any(found)
