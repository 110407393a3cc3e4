"""One request and its response, whatever the protocol: what behaviours are written against.

Options that every behaviour has (of `on`, or of the header x-standin):

    coding      gzip, deflate, br or zstd: the response's content coding
    pieces      bytes in each write of the body (HTTP/1.1: in each chunk)
    framing     length (usual for whole bodies), chunked (usual for streams) or close; HTTP/1.1 only
    interval    seconds between the pieces of a whole body, or between the events of a stream
    late        seconds between the body's last byte and the mark of its end
    late_gate   name of a gate at which that mark waits
    gate        name of a gate at which the response waits
    gate_at     where that is: so many bytes into the body, or "head": before the head
    cut         the connection breaks, that many bytes into the body ("head": before the response)
    how         how it breaks: reset (TCP RST), close (orderly), abort (FIN without TLS's close_notify);
                over HTTP/2, reset is RST_STREAM and the others end the connection
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .codings import ENCODERS, decode, encode
from .log import KEPT, Received

if TYPE_CHECKING:
    from .server import StandIn

Headers = list[tuple[str, str]]


class Broken(Exception):
    """The response was broken off on purpose."""


@dataclass(frozen=True)
class Reply:
    """A response given beforehand: a recording, say. Headers for framing and coding are added to these."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""


class Exchange(ABC):
    """A request that has come, up to its head at least, and the ways to answer it."""

    def __init__(self, standin: StandIn, received: Received) -> None:
        self.standin = standin
        self.received = received
        self.options: dict[str, str] = {}
        self._hash = hashlib.sha256()
        self._sent = 0  # bytes of the response's body

    # what the protocol does

    @abstractmethod
    async def read(self) -> bytes:
        """Some of the request's body; b"" at its end."""

    @abstractmethod
    async def write_head(self, status: int, headers: Headers, length: int | None) -> None: ...

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Write a piece of the body."""

    @abstractmethod
    async def write_end(self) -> None: ...

    @abstractmethod
    async def break_off(self, how: str) -> None: ...

    # options

    def option(self, name: str, default: Any) -> Any:
        """An option's value, of the default's type."""
        return type(default)(self.options[name]) if name in self.options else default

    # the request

    async def receive(self) -> bytes:
        """Read some of the request's body and note it; b"" at its end."""
        data = await self.read()
        self._hash.update(data)

        def note(_: list[Received]) -> None:
            entry = self.received
            entry.body += data[: max(0, KEPT - len(entry.body))]
            entry.body_size += len(data)
            if not data:
                entry.complete, entry.body_sha256 = True, self._hash.hexdigest()

        self.standin.log.change(note)
        return data

    async def body(self) -> bytes:
        """The request's whole body (its first KEPT bytes), content codings removed where they are what they say."""
        while not self.received.complete:
            await self.receive()
        try:
            return decode(self.received.header("content-encoding"), bytes(self.received.body))
        except zlib.error:
            return bytes(self.received.body)

    async def document(self) -> dict[str, Any]:
        """The request's JSON object, or an empty one."""
        try:
            found = json.loads(await self.body())
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    # the response

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer with a body whose length is known."""
        coding = self.option("coding", "")
        encoded = encode(coding, body) if coding else body
        length = len(encoded) if self.option("framing", "length") == "length" else None
        await self.head(status, self._coded(headers, coding), length)
        size = self.option("pieces", 65536)
        for start in range(0, len(encoded), size):
            await self.send(encoded[start : start + size])
            await asyncio.sleep(self.option("interval", 0.0))
        await self.end()

    async def stream(self, status: int, headers: Headers, parts: Iterable[bytes]) -> None:
        """Answer with a body whose parts come one after the other."""
        coding = self.option("coding", "")
        encoder = ENCODERS[coding]()
        await self.head(status, self._coded(headers, coding), None)
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(self.option("interval", 0.0))
            await self._in_pieces(encoder.part(part))
        await self._in_pieces(encoder.end())
        await self.end()

    def _coded(self, headers: Headers, coding: str) -> Headers:
        return [*headers, ("content-encoding", coding)] if coding else headers

    async def _in_pieces(self, data: bytes) -> None:
        size = self.option("pieces", len(data) or 1)
        for start in range(0, len(data), size):
            await self.send(data[start : start + size])

    async def head(self, status: int, headers: Headers, length: int | None) -> None:
        """Send the response's head, unless an option has it wait or break before that."""
        if self.options.get("gate_at") == "head":
            await self.standin.gate(self.options["gate"]).pass_through()
        if self.options.get("cut") == "head":
            await self._break()
        await self.write_head(status, headers, length)

    async def send(self, data: bytes) -> None:
        """Send bytes of the body up to where an option has it wait or break, then the rest."""
        for place, act in self._places():
            if self._sent <= place < self._sent + len(data):
                before, data = data[: place - self._sent], data[place - self._sent :]
                if before:
                    self._sent += len(before)
                    await self.write(before)
                await act()
        if data:
            self._sent += len(data)
            await self.write(data)

    def _places(self) -> list[tuple[int, Any]]:
        places: list[tuple[int, Any]] = []
        if self.options.get("gate_at", "head") != "head":
            places.append((int(self.options["gate_at"]), self.standin.gate(self.options["gate"]).pass_through))
        if self.options.get("cut", "head") != "head":
            places.append((int(self.options["cut"]), self._break))
        return sorted(places, key=lambda place: place[0])

    async def end(self) -> None:
        """Mark the end of the response."""
        if "late_gate" in self.options:
            await self.standin.gate(self.options["late_gate"]).pass_through()
        await asyncio.sleep(self.option("late", 0.0))
        await self.write_end()
        self.standin.log.change(lambda _: setattr(self.received, "answered", True))

    async def _break(self) -> None:
        await self.break_off(self.option("how", "reset"))
        raise Broken
