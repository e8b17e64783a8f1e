"""The bytes of a TCP connection to a program in a sandbox, in binary messages of a WebSocket.

Nothing is read from one side before the other has taken what there was. The codes with which a WebSocket is
closed are those of RFC 6455, section 7.4.1.
"""

import asyncio
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from jail.published import Connection

IDLE_SECONDS = 300
"""Without a byte either way."""

Closing = tuple[int, str]

_END_OF_STREAM = 1000, "The program has closed its side."
_JOB_ENDED = 1001, "The job has ended."
_TEXT = 1003, "Send binary messages."
_IDLE = 1008, "Nothing has passed for too long."
_BROKEN = 1011, "The program has broken the connection."


class Raw:
    """A WebSocket that is yet to be accepted, and a connection that is given back afterwards."""

    def __init__(self, websocket: WebSocket, connection: Connection, idle_s: float) -> None:
        """Take both, and how long nothing need pass: IDLE_SECONDS."""
        self._websocket = websocket
        self._connection = connection
        self._idle_s = idle_s

    async def run(self) -> None:
        """Accept it, and pass on what comes until either side closes."""
        await self._websocket.accept()
        closing = await self._pass_on()
        if closing is None:
            await self._connection.finish()
            return
        with suppress(WebSocketDisconnect):
            await self._websocket.close(*closing)

    async def _pass_on(self) -> Closing | None:
        """Why the WebSocket is to be closed; None: its caller has closed it."""
        pumps = []
        try:
            async with asyncio.timeout(self._idle_s) as self._clock:
                pumps = [asyncio.create_task(pump()) for pump in (self._to_program, self._to_caller)]
                done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        except TimeoutError:
            return _IDLE
        except WebSocketDisconnect:
            return None
        except OSError:
            return _JOB_ENDED if self._connection.ended else _BROKEN
        finally:
            for pump in pumps:
                pump.cancel()

    async def _to_program(self) -> Closing | None:
        while (message := await self._websocket.receive())["type"] == "websocket.receive":
            if message.get("bytes") is None:
                return _TEXT
            await self._connection.write(message["bytes"])
            self._go_on()
        return None

    async def _to_caller(self) -> Closing:
        while data := await self._connection.read():
            await self._websocket.send_bytes(data)
            self._go_on()
        return _JOB_ENDED if self._connection.ended else _END_OF_STREAM

    def _go_on(self) -> None:
        self._clock.reschedule(asyncio.get_running_loop().time() + self._idle_s)
