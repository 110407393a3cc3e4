"""HTTP/1.1 for the stand-in: lenient in what it reads, exact in what it writes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from .exchange import Exchange, Headers
from .log import Received

if TYPE_CHECKING:
    from .server import StandIn

FULL = 1024 * 1024  # bytes that wait before the client is made to wait


class Inbox:
    """What the client has sent and nobody has taken yet. One task fills it, and so sees a client leave."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._changed = asyncio.Condition()
        self.data = bytearray()
        self.gone = asyncio.Event()

    async def fill(self) -> None:
        """Read until the client leaves."""
        with contextlib.suppress(OSError):
            while data := await self._reader.read(65536):
                async with self._changed:
                    self.data += data
                    self._changed.notify_all()
                    await self._changed.wait_for(lambda: len(self.data) < FULL)
        async with self._changed:
            self.gone.set()
            self._changed.notify_all()

    async def take(self, size: int) -> bytes:
        """At most that many bytes, as soon as there are any; b"" when the client has left."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.data or self.gone.is_set())
            taken = bytes(self.data[:size])
            del self.data[:size]
            self._changed.notify_all()
            return taken

    async def until(self, mark: bytes) -> bytes:
        """The bytes before and with the mark; b"" when the client has left before it."""
        async with self._changed:
            await self._changed.wait_for(lambda: mark in self.data or self.gone.is_set())
            place = self.data.find(mark)
            if place < 0:
                return b""
            taken = bytes(self.data[: place + len(mark)])
            del self.data[: place + len(mark)]
            self._changed.notify_all()
            return taken


class Connection:
    """The transport of one connection: writing and the ways of breaking it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def break_off(self, how: str) -> None:
        """End the connection, once what has been written is with the kernel."""
        while self._writer.transport.get_write_buffer_size() and not self._writer.is_closing():
            await asyncio.sleep(0.001)
        if how == "reset":
            connected = self._writer.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        elif how == "abort":
            self._writer.transport.abort()
        elif how == "close":
            self._writer.close()
        else:
            raise ValueError(f"how={how!r}: one of reset, abort, close")


class Http1Exchange(Exchange):
    def __init__(self, standin: StandIn, received: Received, inbox: Inbox, connection: Connection) -> None:
        super().__init__(standin, received)
        self.inbox = inbox
        self.connection = connection
        self.keep_alive = received.header("connection").lower() != "close"
        self._body = self._read_body()
        self._waiting = received.header("expect").lower() == "100-continue"
        self._chunked = False

    async def read(self) -> bytes:
        if self._waiting and not self.received.body_size:
            self._waiting = False
            await self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await anext(self._body, b"")

    async def _read_body(self) -> AsyncIterator[bytes]:
        if "chunked" in self.received.header("transfer-encoding").lower():
            while line := await self.inbox.until(b"\r\n"):
                size = int(line.split(b";")[0], 16)
                async for data in self._exactly(size):
                    yield data
                while not size and await self.inbox.until(b"\r\n") != b"\r\n":
                    pass  # trailers
                if not size:
                    return
                await self.inbox.until(b"\r\n")
            raise ConnectionError("the client left within the body")
        async for data in self._exactly(int(self.received.header("content-length", "0"))):
            yield data

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            data = await self.inbox.take(size)
            if not data:
                raise ConnectionError("the client left within the body")
            size -= len(data)
            yield data

    async def write_head(self, status: int, headers: Headers, length: int | None) -> None:
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", *(f"{name}: {value}" for name, value in headers)]
        if status in (204, 304):
            pass  # these have no body, and say nothing of its length
        elif length is not None:
            lines.append(f"content-length: {length}")
        elif self.option("framing", "chunked") == "close":
            lines.append("connection: close")
            self.keep_alive = False
        else:
            lines.append("transfer-encoding: chunked")
            self._chunked = True
        await self.connection.write("\r\n".join([*lines, "", ""]).encode())

    async def write(self, data: bytes) -> None:
        await self.connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def write_end(self) -> None:
        if self._chunked:
            await self.connection.write(b"0\r\n\r\n")

    async def break_off(self, how: str) -> None:
        await self.connection.break_off(how)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


async def read_head(inbox: Inbox, number: int) -> Received | None:
    """The head of the next request; None when the client has left."""
    text = (await inbox.until(b"\r\n\r\n")).decode("latin-1")
    if not text:
        return None
    first, *lines = text.split("\r\n")[:-2]
    method, path, _ = first.split(" ", 2)
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    upgrade = any(name == "upgrade" and value.lower() == "websocket" for name, value in headers)
    return Received(number, "websocket" if upgrade else "http/1.1", method, path, headers)
