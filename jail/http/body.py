"""Reading a request body: of the right type, and never more of it than the cap."""

from starlette.requests import Request

from jail.http.problems import ProblemError

# A connection whose body was not read cannot carry another request.
_CLOSE = {"Connection": "close"}


async def read(request: Request, cap_bytes: int) -> bytes:
    """The body of a JSON request. Raises ProblemError 415 or 413."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        detail = f"Content-Type is {content_type or 'missing'}; it has to be application/json."
        raise ProblemError(415, detail, "Content-Type", _CLOSE)
    if int(request.headers.get("content-length", 0)) > cap_bytes:
        raise _too_large(cap_bytes)
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(400, "The client went away before its body was whole.")
        chunk, more = message["body"], message["more_body"]
        size += len(chunk)
        if size > cap_bytes:
            raise _too_large(cap_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(cap_bytes: int) -> ProblemError:
    return ProblemError(413, f"The body is larger than {cap_bytes} bytes.", "body", _CLOSE)
