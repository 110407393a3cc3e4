"""HTTP/2 for the stand-in, on the library h2."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from .exchange import Exchange, Headers
from .http1 import Connection
from .log import Received

if TYPE_CHECKING:
    from .server import StandIn


class Http2Exchange(Exchange):
    def __init__(self, standin: StandIn, received: Received, session: Session, stream: int) -> None:
        super().__init__(standin, received)
        self.arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._session = session
        self._stream = stream

    async def read(self) -> bytes:
        return await self.arrived.get()

    async def write_head(self, status: int, headers: Headers, length: int | None) -> None:
        known = [("content-length", str(length))] if length is not None else []
        self._session.h2.send_headers(self._stream, [(":status", str(status)), *headers, *known])
        await self._session.flush()

    async def write(self, data: bytes) -> None:
        while data:
            window = await self._session.window(self._stream)
            self._session.h2.send_data(self._stream, data[:window])
            data = data[window:]
            await self._session.flush()

    async def write_end(self) -> None:
        self._session.h2.end_stream(self._stream)
        await self._session.flush()

    async def break_off(self, how: str) -> None:
        if how == "reset":
            self._session.h2.reset_stream(self._stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
            await self._session.flush()
        else:
            await self._session.connection.break_off(how)


class Session:
    """One HTTP/2 connection: a task for each of its streams."""

    def __init__(self, standin: StandIn, reader: asyncio.StreamReader, connection: Connection, number: int) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self.connection = connection
        self._standin = standin
        self._reader = reader
        self._number = number
        self._exchanges: dict[int, tuple[Http2Exchange, asyncio.Task[None]]] = {}
        self._windows = asyncio.Condition()

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            await self.connection.write(data)

    async def window(self, stream: int) -> int:
        """How many bytes may be sent on the stream, once that is any."""

        def room() -> int:
            return min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)

        async with self._windows:
            await self._windows.wait_for(room)
        return room()

    async def serve(self) -> None:
        self.h2.initiate_connection()
        await self.flush()
        try:
            with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
                while data := await self._reader.read(65536):
                    for event in self.h2.receive_data(data):
                        self._handle(event)
                    async with self._windows:
                        self._windows.notify_all()
                    await self.flush()
        finally:
            for stream in list(self._exchanges):
                self._leave(stream)

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._begin(event)
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self._exchanges and event.data:
                self._exchanges[event.stream_id][0].arrived.put_nowait(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            if event.stream_id in self._exchanges:
                self._exchanges[event.stream_id][0].arrived.put_nowait(b"")
        elif isinstance(event, h2.events.StreamReset):
            self._leave(event.stream_id)

    def _begin(self, event: h2.events.RequestReceived) -> None:
        fields = [(str(name), str(value)) for name, value in event.headers]
        pseudo = dict(fields[:4])
        headers = [pair for pair in fields if not pair[0].startswith(":")]
        headers.insert(0, ("host", pseudo.get(":authority", "")))
        received = Received(self._number, "h2", pseudo[":method"], pseudo[":path"], headers)
        exchange = Http2Exchange(self._standin, received, self, event.stream_id)
        task = asyncio.create_task(self._standin.answer(exchange))
        self._exchanges[event.stream_id] = exchange, task
        task.add_done_callback(lambda _: self._exchanges.pop(event.stream_id, None))

    def _leave(self, stream: int) -> None:
        exchange, task = self._exchanges.pop(stream, (None, None))
        if exchange and task:
            if not exchange.received.answered:
                self._standin.log.change(lambda _: setattr(exchange.received, "client_gone", True))
            task.cancel()
