"""WebSockets as uvicorn serves them, with what it holds of a caller bounded.

As it comes, a message in parts is put together before any of it is passed on, however many they are; tiny
messages each cost a hundred times their size; a caller who pings and never reads is answered into memory; and
one who never reads can keep a connection for good.
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
        self._came = bytearray()
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

    def data_received(self, data: bytes) -> None:
        """Pass on what came at once as one message, whatever it was divided into: it is a stream of bytes."""
        super().data_received(data)
        self._pass_on()

    def handle_bytes(self, event: Frame) -> None:
        """More of the stream."""
        self.curr_msg_data_type = "bytes"
        self._came += event.data

    def handle_text(self, event: Frame) -> None:
        """Text is refused, whatever it says: it need not be decoded, which a part of it may not be."""
        self._pass_on()
        self.curr_msg_data_type = "text"
        self.frames = []
        self.send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        """Another part of either."""
        if self.curr_msg_data_type == "bytes":
            self._came += event.data

    def handle_close(self, event: Frame) -> None:
        """The caller's end, after what came before."""
        self._pass_on()
        super().handle_close(event)

    def handle_parser_exception(self) -> None:
        """The same, of a caller who breaks the rules."""
        self._pass_on()
        super().handle_parser_exception()

    def _pass_on(self) -> None:
        if self._came:
            self.curr_msg_data_type = "bytes"
            self.frames = [bytes(self._came)]
            self._came.clear()
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
