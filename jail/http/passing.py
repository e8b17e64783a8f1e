"""Which headers pass between a caller and a program in a sandbox.

To the program: what the caller sent, but for what belongs to one connection, is meant for the service, or
tells of the way to it.

From the program: only what is listed here. Its answer has the origin of the service, and so of everything
else there. Cookies, service workers, transport security, other services for the origin, reports, data to be
cleared, what a proxy on the way would obey (X-Accel-Redirect, X-Sendfile): a list of headers that act beyond
the answer itself would never be whole.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import msgspec

Headers = Iterable[tuple[bytes, bytes]]

_PER_CONNECTION = {
    # RFC 9110, section 7.6.1; Upgrade is for nobody here, as is an Expect that has been answered.
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    *(b"expect", b"proxy-authenticate", b"proxy-authorization"),
}
_NOT_THE_PROGRAMS = {
    # The service's key, and what a browser keeps for its origin.
    *(b"authorization", b"cookie"),
    # Who calls, and by which way, is nothing to a program that nobody trusts.
    *(b"forwarded", b"via", b"x-real-ip"),
    # The program's own takes its place.
    b"host",
}
_WAY = b"x-forwarded-"

_FROM_PROGRAM = {
    # The representation: RFC 9110, section 8. How it is framed is for either connection to say.
    *(b"content-type", b"content-encoding", b"content-language", b"content-disposition"),
    *(b"etag", b"last-modified", b"accept-ranges", b"content-range", b"vary"),
    # About the resource, and when to come again.
    *(b"allow", b"accept-patch", b"accept-post", b"link", b"retry-after"),
    # How long this answer may be kept.
    *(b"cache-control", b"expires"),
    # Who else may read this answer. Not that credentials may be used: none are passed on.
    *(b"access-control-allow-origin", b"access-control-allow-methods", b"access-control-allow-headers"),
    *(b"access-control-expose-headers", b"access-control-max-age"),
    # Restricts further: a browser obeys every policy that it is given.
    *(b"content-security-policy", b"permissions-policy", b"x-frame-options"),
}

_ADDED = (
    # A page runs in an origin of its own, which is nobody's: it can neither read what the service would show
    # to the browser nor keep anything there.
    (b"content-security-policy", b"sandbox allow-scripts allow-forms"),
    # Nothing is taken for a page, script or style that does not say it is one.
    (b"x-content-type-options", b"nosniff"),
    # Its address holds the job's id, which is secret.
    (b"referrer-policy", b"no-referrer"),
)

# Visible ASCII. Browsers read a backslash as a slash, and drop some controls.
_ADDRESS = re.compile(rb"[!-\[\]-~]*")

# RFC 9110, section 5.5; visible, obsolete text, and blanks.
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")


class Place(msgspec.Struct, frozen=True):
    """What a caller asks for: of a job, by its id, a port; there `target`, path and query as they came.

    `prefix`: the path under which the service has that port.
    """

    job: str
    port: int
    prefix: bytes
    target: bytes

    @property
    def host(self) -> bytes:
        """What the program is called there, in the requests that reach it."""
        return b"localhost:%d" % self.port


def to_program(headers: Headers, place: Place) -> list[tuple[bytes, bytes]]:
    """The headers of a request, for the program. Names are in lower case."""
    headers = list(headers)
    dropped = _PER_CONNECTION | _NOT_THE_PROGRAMS | _connection_options(headers)
    passed = [(name, value) for name, value in headers if not (name in dropped or name.startswith(_WAY))]
    if any(name == b"transfer-encoding" for name, _ in headers):
        passed.append((b"transfer-encoding", b"chunked"))
    return [(b"host", place.host), *passed, (b"connection", b"close")]


def _connection_options(headers: Headers) -> set[bytes]:
    """What the Connection header names besides: RFC 9110, section 7.6.1."""
    options = b",".join(value for name, value in headers if name == b"connection")
    # Without its length a body would have no end.
    return {option.strip().lower() for option in options.split(b",")} - {b"content-length"}


def to_caller(headers: Headers, place: Place) -> list[tuple[bytes, bytes]]:
    """The headers of an answer, for the caller. Raises ValueError for a value that is none."""
    headers = list(headers)
    dropped = _connection_options(headers)
    passed = []
    for name, value in headers:
        if not _VALUE.fullmatch(value):
            raise ValueError(name)
        if name == b"location":
            passed += _redirection(value, place)
        elif name in _FROM_PROGRAM and name not in dropped:
            passed.append((name, value))
    return [*passed, *_ADDED]


def _redirection(value: bytes, place: Place) -> list[tuple[bytes, bytes]]:
    """Where the program sends its caller, if it is to itself; else nowhere.

    Whoever follows does so with the key, and maybe with the body: not to another part of the service.
    """
    if not _ADDRESS.fullmatch(value):
        return []
    own = f"http://{place.host.decode()}"
    try:
        found = urlsplit(urljoin(own + place.target.decode(), value.decode()))
    except ValueError:
        return []
    path = found.path or "/"
    if f"{found.scheme}://{found.netloc}" != own or not _stays(path):
        return []
    rest = found._replace(scheme="", netloc="", path="").geturl()
    return [(b"location", place.prefix + path.encode() + rest.encode())]


def _stays(path: str) -> bool:
    """Whether no part of a path leads upwards, however it is written."""
    parts = unquote_to_bytes(path).split(b"/")
    return path.startswith("/") and not {b".", b".."} & set(parts)
