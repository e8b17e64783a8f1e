"""WebSockets as uvicorn serves them, with what it holds of a caller bounded.

As it comes, a message in parts is put together before any of it is passed on, however many they are; a caller
who pings and never reads is answered into memory; and one who never reads can keep a connection for good.
"""

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

MESSAGE_BYTES = 1 << 18
"""The largest message. Of each connection that much is held at most, and what was read at once."""

STALL_SECONDS = 30
"""For a caller to read what there is for it."""

_CLOSE_SECONDS = 2


class WebSocket(WebSocketsSansIOProtocol):
    """One connection. It belongs to a job, and ends with it, not when the service is told to stop."""

    _stalled: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: object, **options: object) -> None:
        """As uvicorn calls it."""
        super().__init__(*arguments, **options)
        # For the answer to a close.
        self.close_timeout = _CLOSE_SECONDS

    def shutdown(self) -> None:
        """Nothing: the job goes on for as long as it may."""

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().connection_lost(error)

    def pause_writing(self) -> None:
        """The caller does not keep up: read nothing that would have to be answered."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)
        self._read_or_not()

    def resume_writing(self) -> None:
        """The caller has read."""
        self._stop_waiting()
        super().resume_writing()
        self._read_or_not()

    def keepalive_timeout(self) -> None:
        """The caller does not answer: it would not read that this is the end either."""
        super().keepalive_timeout()
        self.transport.abort()

    async def receive(self) -> dict:
        """The next message of the caller."""
        message = await super().receive()
        self._read_or_not()
        return message

    def handle_bytes(self, event: Frame) -> None:
        """Pass on each part as it comes: what is said is a stream of bytes."""
        self.curr_msg_data_type = "bytes"
        self._pass_on(event)

    def handle_text(self, event: Frame) -> None:
        """The same."""
        self.curr_msg_data_type = "text"
        self._pass_on(event)

    def handle_cont(self, event: Frame) -> None:
        """The same."""
        self._pass_on(event)

    def _pass_on(self, event: Frame) -> None:
        # Text is refused, whatever it says: it need not be decoded, which parts of it may not be.
        self.frames = [event.data if self.curr_msg_data_type == "bytes" else b""]
        self.send_receive_event_to_app()

    def _read_or_not(self) -> None:
        if self.read_paused or not self.writable.is_set():
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _stop_waiting(self) -> None:
        if self._stalled:
            self._stalled.cancel()
            self._stalled = None
