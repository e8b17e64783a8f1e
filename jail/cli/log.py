"""The service's log: one JSON object a line, so that what a caller named cannot forge a line."""

import json
from typing import BinaryIO

import msgspec
import structlog


def configure(stream: BinaryIO) -> None:
    """Have structlog write to `stream`; a line is out when the call that logs it returns."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _line,
        ],
        logger_factory=structlog.BytesLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def _line(_logger: object, _method: str, event: dict[str, object]) -> bytes:
    """In ASCII: other characters can move a terminal's cursor, and some end a line."""
    try:
        line = msgspec.json.encode(event, enc_hook=repr)
        if line.isascii():
            return line
    except UnicodeEncodeError:
        # Half of a surrogate pair, which json escapes.
        pass
    return json.dumps(event, default=repr).encode()
