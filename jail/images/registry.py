"""A repository of a registry, as the OCI distribution specification has it, for pulling.

Whatever comes is somebody else's word. What is asked for by digest is held against it; lengths are bounded
before anything is read, times by silence and by pace. So a registry can refuse, and nothing else.

Credentials go to the registry's own origin, and to where it has tokens made, over TLS; what it redirects to
gets none. Plain HTTP is spoken with the registry's own host alone, and only when it was named as insecure.
"""

import random
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

import httpx
import msgspec

from jail import __version__
from jail.errors import ImageError
from jail.images import challenges
from jail.images.credentials import Credentials
from jail.images.incoming import Incoming
from jail.images.oci import DOCUMENT_BYTES_MAX, INDEX_TYPES, MANIFEST_TYPES, Descriptor, digest, is_digest
from jail.images.reference import Reference

CONNECT_S = 15.0
SILENCE_S = 30.0
"""How long a registry may say nothing, in seconds."""

ANSWER_S = 60.0
"""How long an answer's headers may take, in seconds, from when it is asked for."""

DOCUMENT_S = 60.0
"""How long a document may take that has begun, in seconds."""

PACE_S, PACE_BYTES = 60.0, 64 << 10
"""What comes slower than so many bytes in so many seconds is given up."""

ATTEMPTS = 6
PROGRESS_BYTES = 1 << 20
"""So often what may pass is tried; a blob that grew so much since counts anew."""

PAUSE_S = 0.5
"""Before the second attempt, in seconds, more or less; each further one twice as long."""

PAUSE_S_MAX = 60.0
"""The longest that a registry can ask for."""

REDIRECTS_MAX = 5
TOKEN_BYTES_MAX = 256 << 10

_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (429, 500, 502, 503, 504)
_TOKEN = re.compile("[!-~]+")
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)")
_COMPLAINT_LENGTH_MAX = 200
_CREDENTIALS = "Give credentials that may pull it: --login or --credentials."
_FAULT = "It is the registry's fault: tell whoever keeps it."

T = TypeVar("T")


class _PassingError(Exception):
    """What may be over at the next attempt. pause_s: what the registry asks for, or 0."""

    def __init__(self, cause: str, pause_s: float = 0) -> None:
        super().__init__(cause)
        self.pause_s = pause_s


class _Complaint(msgspec.Struct, frozen=True):
    message: str = ""


class _Complaints(msgspec.Struct, frozen=True):
    errors: tuple[_Complaint, ...] = ()


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""


class Repository:
    """One repository, for several threads. To be closed; raises ImageError."""

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials | None = None,
        insecure: bool = False,
        proxy: str = "",
        pause_s: float = PAUSE_S,
    ) -> None:
        """Ask nothing yet.

        insecure: the registry speaks plain HTTP. proxy: a URL; those of the environment are not used.
        """
        self.reference = reference
        self._base = httpx.URL(
            f"{'http' if insecure else 'https'}://{reference.registry}/v2/{reference.repository}/"
        )
        self._insecure = insecure
        self._credentials = credentials or Credentials()
        self._pause_s = pause_s
        self._authorization = ""
        self._logging_in = threading.Lock()
        self._stopped = threading.Event()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._connecting = threading.Lock()
        try:
            self._client = httpx.Client(
                # The host's own authorities, which an operator can add to.
                verify=ssl.create_default_context(),
                # Or ~/.netrc would be read, too.
                trust_env=False,
                proxy=proxy or None,
                timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
                headers={"User-Agent": f"jail/{__version__}", "Accept-Encoding": "identity"},
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise ImageError(f"{proxy!r} is no proxy: {error}.", "Write http://HOST:PORT.") from None

    def __enter__(self) -> "Repository":
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._client.close()

    def stop(self) -> None:
        """Have whatever other threads do here end soon, with an ImageError."""
        self._stopped.set()
        self._cut()

    def _cut(self) -> None:
        """End all connections: threads that wait at one wake up, and go on with another."""
        with self._connecting:
            connections = list(self._sockets)
        for connection in connections:
            with suppress(OSError):
                # Not ssl's own, which is not for a second thread.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    # Documents

    def manifest(self, wanted: str) -> tuple[str, bytes]:
        """The media type and the bytes of the manifest or index of a tag or digest, which is verified."""
        accept = {"Accept": ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))}
        media_type, told, raw = self._patiently(lambda: self._document(f"manifests/{wanted}", accept))
        expected = wanted if is_digest(wanted) else told
        if is_digest(expected) and expected != digest(raw):
            raise ImageError(f"What should be {expected} is {digest(raw)}.", _FAULT)
        return media_type, raw

    def _document(self, path: str, headers: dict[str, str]) -> tuple[str, str, bytes]:
        with closing(self._ask(path, headers)) as response, self._broken():
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            told = response.headers.get("docker-content-digest", "")
            return media_type, told, _read(response, DOCUMENT_BYTES_MAX)

    # Blobs

    def fetch(self, wanted: Descriptor, incoming: Incoming, told: Callable[[int], None]) -> None:
        """Write what is missing of a blob. told: called with how many bytes are there."""
        begun = incoming.offset

        def attempt() -> None:
            if not incoming.is_whole:
                self._go_on(wanted, incoming, told)

        self._patiently(attempt, lambda: incoming.offset)
        if begun and incoming.digest != wanted.digest:
            # What was there from an earlier time may have been damaged since.
            incoming.restart()
            self._patiently(attempt, lambda: incoming.offset)

    def _go_on(self, wanted: Descriptor, incoming: Incoming, told: Callable[[int], None]) -> None:
        headers = {"Range": f"bytes={incoming.offset}-"} if incoming.offset else {}
        with closing(self._ask(f"blobs/{wanted.digest}", headers)) as response, self._broken():
            _refuse_beginning(response, wanted, incoming)
            pace = _Pace()
            for chunk in response.iter_raw():
                incoming.write(chunk)
                told(incoming.offset)
                pace.count(len(chunk))
                self._refuse_stopped()
        if not incoming.is_whole:
            raise _PassingError(f"{wanted.digest} ended after {incoming.offset} of {wanted.size} bytes")

    # Attempts

    def _patiently(self, attempt: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        failures, reached = 0, progress()
        while True:
            try:
                return attempt()
            except _PassingError as error:
                if progress() >= reached + PROGRESS_BYTES:
                    failures, reached = 0, progress()
                failures += 1
                self._refuse_stopped()
                if failures == ATTEMPTS:
                    cause = f"{self.reference.registry} failed {ATTEMPTS} times: {error}."
                    raise ImageError(cause, "Try again later: what has come is kept for a while.") from None
                self._stopped.wait(self._pause(failures, error.pause_s))

    def _pause(self, failures: int, asked_s: float) -> float:
        """Seconds. Not all who were turned away at once come again at once."""
        own = self._pause_s * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
        return max(own, min(asked_s, PAUSE_S_MAX))

    def _refuse_stopped(self) -> None:
        if self._stopped.is_set():
            raise ImageError("The pull was stopped.", "Pull again: what has come is kept for a while.")

    @contextmanager
    def _broken(self) -> Iterator[None]:
        """Tell what a network does from what never works."""
        try:
            yield
        except httpx.TransportError as error:
            self._refuse_stopped()
            reasons = list(_reasons(error))
            if any(isinstance(reason, ssl.SSLCertVerificationError) for reason in reasons):
                raise ImageError(
                    f"{self.reference.registry} is not trusted: {error}.",
                    "Have its authority's certificate installed on this host.",
                ) from None
            if any("WRONG_VERSION_NUMBER" in str(reason) for reason in reasons):
                raise ImageError(
                    f"{self.reference.registry} does not speak TLS.",
                    "If it is to be trusted with plain HTTP, say so: --insecure.",
                ) from None
            raise _PassingError(str(error).rstrip(".") or type(error).__name__) from None
        except httpx.InvalidURL as error:
            raise ImageError(f"{self.reference.registry} leads to no URL: {error}.", _FAULT) from None

    # Requests

    def _ask(self, path: str, headers: dict[str, str]) -> httpx.Response:
        """The registry's own answer, or what it redirects to: 200 or 206. To be closed."""
        used = self._authorization
        response = self._follow(path, headers, used)
        if response.status_code == 401 and self._is_own(response.url):
            response.close()
            authorization = self._log_in(response.headers.get_list("www-authenticate"), used)
            response = self._follow(path, headers, authorization)
        if response.status_code not in (200, 206):
            with closing(response):
                raise self._refusal(response)
        return response

    def _follow(self, path: str, headers: dict[str, str], authorization: str) -> httpx.Response:
        url = self._base.join(path)
        own = {**headers, "Authorization": authorization} if authorization else headers
        for _ in range(REDIRECTS_MAX + 1):
            response = self._send("GET", url, headers=own if self._is_own(url) else headers)
            if response.status_code not in _REDIRECTS:
                return response
            response.close()
            with self._broken():
                url = url.join(response.headers.get("location", ""))
        raise ImageError(
            f"{self.reference.registry} redirects more than {REDIRECTS_MAX} times, to {url.host!r} at last.",
            _FAULT,
        )

    def _send(self, method: str, url: httpx.URL, **parts: Any) -> httpx.Response:
        """An answer whose body is not read yet. Raises _PassingError, ImageError."""
        self._refuse_stopped()
        self._refuse_url(url)
        extensions = {"trace": self._trace}
        # Each byte of an answer would have the client wait for the next.
        limit = threading.Timer(ANSWER_S, self._cut)
        limit.start()
        try:
            with self._broken():
                request = self._client.build_request(method, url, extensions=extensions, **parts)
                return self._client.send(request, stream=True)
        finally:
            limit.cancel()

    def _trace(self, event: str, about: dict[str, Any]) -> None:
        """Know each connection: a thread that waits at one is only woken by its end."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            with self._connecting:
                self._sockets.add(about["return_value"].get_extra_info("socket"))
            if self._stopped.is_set():
                self._cut()

    def _is_own(self, url: httpx.URL) -> bool:
        return _origin(url) == _origin(self._base)

    def _refuse_url(self, url: httpx.URL) -> None:
        """Another than one of TLS, or of the host that was named as insecure; or one that names a user."""
        is_insecure = self._insecure and url.scheme == "http" and url.host == self._base.host
        if url.userinfo or not url.host or not (url.scheme == "https" or is_insecure):
            raise ImageError(
                f"{self.reference.registry} leads to {url.scheme}://{url.host}, which is not safe.",
                "Only URLs of https are followed, and of http those of the host that is named as insecure.",
            )

    def _refusal(self, response: httpx.Response) -> Exception:
        """What comes of an answer that is not what was asked for."""
        registry, name = self.reference.registry, str(self.reference)
        status = response.status_code
        # Those of others are nobody's to show.
        complaint = _complaint(response) if self._is_own(response.url) else ""
        told = f"{status}{complaint and f', {complaint!r}'}"
        if status in (401, 403):
            return self._denied(told)
        if status == 404:
            return ImageError(f"{registry} does not have {name}: {told}.", "Check the name and the tag.")
        if status in _PASSING:
            return _PassingError(f"it answers {told}", _asked_pause_s(response))
        return ImageError(f"{registry} answers {told}, asked for {name}.", _FAULT)

    def _denied(self, told: str) -> ImageError:
        return ImageError(f"{self.reference.registry} denies {self.reference}: {told}.", _CREDENTIALS)

    # Logging in

    def _log_in(self, headers: list[str], used: str) -> str:
        """The value of Authorization that answers one of these challenges, kept for what is asked next."""
        with self._logging_in:
            # Another thread may have been here first.
            if self._authorization == used:
                self._authorization = self._answer(challenges.parse(headers), used)
            return self._authorization

    def _answer(self, offered: list[challenges.Challenge], used: str) -> str:
        """`used`: what was not enough, or not any more."""
        ways = {challenge.scheme: challenge.parameters for challenge in offered}
        own = self._credentials
        if own.token and "bearer" in ways and not used:
            return f"Bearer {own.token}"
        if "bearer" in ways:
            return f"Bearer {self._patiently(lambda: self._token(ways['bearer']))}"
        if own.basic and "basic" in ways and used != own.basic:
            return own.basic
        raise self._denied("it wants to know who asks" if not used else "it does not take these credentials")

    def _token(self, parameters: dict[str, str]) -> str:
        """Have a token made: the specification's reference is Docker's "Token Authentication"."""
        realm = parameters.get("realm", "")
        # Never the scope that it asks for: the token is for this, and nothing else.
        scope = {"scope": f"repository:{self.reference.repository}:pull"}
        if "service" in parameters:
            scope["service"] = parameters["service"]
        with self._broken():
            url = httpx.URL(realm)
        with closing(self._send_for_token(url, scope)) as response, self._broken():
            if response.status_code in (400, 401, 403):
                raise self._denied(f"no token, {response.status_code}")
            if response.status_code != 200:
                raise self._refusal(response)
            return _parse_token(_read(response, TOKEN_BYTES_MAX))

    def _send_for_token(self, url: httpx.URL, scope: dict[str, str]) -> httpx.Response:
        own = self._credentials
        if own.identity:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": own.identity,
                "client_id": "jail",
                **scope,
            }
            return self._send("POST", url, data=form)
        headers = {"Authorization": own.basic} if own.basic else {}
        with self._broken():
            whole = url.copy_merge_params(scope)
        return self._send("GET", whole, headers=headers)


class _Pace:
    """Tells what has become too slow to end."""

    def __init__(self) -> None:
        self._since, self._bytes = time.monotonic(), 0

    def count(self, size: int) -> None:
        """So many bytes have come. Raises _PassingError."""
        self._bytes += size
        now = time.monotonic()
        if now - self._since < PACE_S:
            return
        if self._bytes < PACE_BYTES:
            raise _PassingError(f"only {self._bytes} bytes came in {now - self._since:.0f} seconds")
        self._since, self._bytes = now, 0


def _refuse_beginning(response: httpx.Response, wanted: Descriptor, incoming: Incoming) -> None:
    """Raise unless this answer goes on where we are; one that begins anew is taken as well."""
    if response.status_code == 206:
        found = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if not found or int(found[1]) != incoming.offset or found[2] not in ("*", str(wanted.size)):
            incoming.restart()
            raise _PassingError("it answers with another range than asked for")
    elif incoming.offset:
        incoming.restart()
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) != wanted.size - incoming.offset:
        raise ImageError(
            f"{wanted.digest} comes with {length} bytes; of its {wanted.size}, "
            f"{wanted.size - incoming.offset} are missing.",
            _FAULT,
        )


def _read(response: httpx.Response, size_max: int) -> bytes:
    raw, begun = bytearray(), time.monotonic()
    for chunk in response.iter_raw():
        raw += chunk
        if len(raw) > size_max:
            raise ImageError(f"A document of {response.url.host} is longer than {size_max} bytes.", _FAULT)
        if time.monotonic() - begun > DOCUMENT_S:
            raise _PassingError(f"a document took longer than {DOCUMENT_S:.0f} seconds")
    return bytes(raw)


def _complaint(response: httpx.Response) -> str:
    """The registry's own words, made short: error codes of the specification."""
    try:
        raw = _read(response, DOCUMENT_BYTES_MAX)
        found = msgspec.json.decode(raw, type=_Complaints).errors
    except (_PassingError, ImageError, ValueError, RecursionError, httpx.TransportError):
        return ""
    words = found[0].message if found else ""
    return "".join(letter for letter in words if letter.isprintable())[:_COMPLAINT_LENGTH_MAX]


def _asked_pause_s(response: httpx.Response) -> float:
    """RFC 9110, Retry-After: the seconds of it; a date is passed over."""
    text = response.headers.get("retry-after", "")
    return float(text) if re.fullmatch("[0-9]{1,6}", text) else 0


def _parse_token(raw: bytes) -> str:
    try:
        found = msgspec.json.decode(raw, type=_Token)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"The registry's token is not valid: {error}.", _FAULT) from None
    token = found.token or found.access_token
    if not _TOKEN.fullmatch(token):
        raise ImageError("The registry's token is not one that a header can have.", _FAULT)
    return token


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
