"""WebSockets for the stand-in, on the library wsproto."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import wsproto
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from .exchange import Exchange


class Socket:
    """An accepted WebSocket."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._inbox = exchange.inbox  # type: ignore[attr-defined]  # WebSockets are HTTP/1.1 here
        self._connection = exchange.connection  # type: ignore[attr-defined]
        self._wire = wsproto.WSConnection(wsproto.ConnectionType.SERVER)

    async def accept(self) -> None:
        """Answer 101; the first sub-protocol that the client offers is taken."""
        received = self._exchange.received
        received.complete = True
        headers = [(name.encode(), value.encode()) for name, value in received.headers]
        self._wire.initiate_upgrade_connection(headers, received.path)
        request = next(found for found in self._wire.events() if isinstance(found, Request))
        accepted = AcceptConnection(
            subprotocol=next(iter(request.subprotocols), None),
            extensions=[PerMessageDeflate()] if self._exchange.option("deflate", 0) else [],
        )
        await self._connection.write(self._wire.send(accepted))

    async def messages(self) -> AsyncIterator[str | bytes]:
        """The client's messages, until it closes."""
        parts: list[Any] = []
        while data := await self._inbox.take(65536):
            self._wire.receive_data(data)
            for event in self._wire.events():
                if isinstance(event, Message):
                    parts.append(event.data)
                    if event.message_finished:
                        whole, parts = parts[0][:0].join(parts), []
                        self._exchange.standin.log.change(lambda _, m=whole: self._note(m))
                        yield whole
                elif isinstance(event, Ping):
                    await self._connection.write(self._wire.send(event.response()))
                elif isinstance(event, CloseConnection):
                    await self._connection.write(self._wire.send(event.response()))
                    self._exchange.standin.log.change(lambda _: setattr(self._exchange.received, "answered", True))
                    return

    def _note(self, message: str | bytes) -> None:
        self._exchange.received.messages.append(bytes(message) if isinstance(message, bytearray) else message)

    async def send(self, message: str | bytes) -> None:
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(bytes(message))
        await self._connection.write(self._wire.send(event))

    async def close(self, code: int, reason: str) -> None:
        """Close, and wait for the client's answer."""
        await self._connection.write(self._wire.send(CloseConnection(code, reason)))
        async for _ in self.messages():
            pass
        self._exchange.standin.log.change(lambda _: setattr(self._exchange.received, "answered", True))


async def echo(exchange: Exchange) -> None:
    """Sends each message back. close_after: closes after so many, with `code` and `reason`;
    cut_after: breaks the connection after so many, as `how` says; deflate=1: compresses."""
    socket = Socket(exchange)
    await socket.accept()
    number = 0
    async for message in socket.messages():
        number += 1
        await socket.send(message)
        if number == exchange.option("close_after", 0):
            await socket.close(exchange.option("code", 1000), exchange.option("reason", ""))
            return
        if number == exchange.option("cut_after", 0):
            await exchange.break_off(exchange.option("how", "reset"))
            return


async def realtime(exchange: Exchange) -> None:
    """As the Realtime API and Responses over WebSocket: each `response.create` gets created, deltas and done.

    deltas: how many text deltas; audio: bytes of base64 in an audio delta before them."""
    socket = Socket(exchange)
    await socket.accept()
    model = exchange.received.path.partition("model=")[2].partition("&")[0]
    is_realtime = "/realtime" in exchange.received.path
    if is_realtime:
        await socket.send(_text("session.created", session={"id": "sess_standin", "model": model}))
    number = 0
    async for message in socket.messages():
        asked = json.loads(message)
        if asked.get("type") != "response.create":
            continue
        number += 1
        for found in _answer(exchange, f"resp_{number}", asked.get("model") or model, is_realtime):
            await socket.send(found)


def _answer(exchange: Exchange, name: str, model: str, is_realtime: bool) -> list[str]:
    usage = {
        "total_tokens": 16,
        "input_tokens": 11,
        "output_tokens": 5,
        "input_token_details": {"cached_tokens": 4, "text_tokens": 11, "audio_tokens": 0},
        "output_token_details": {"text_tokens": 5, "audio_tokens": 0},
    }
    if not is_realtime:
        usage = {
            "total_tokens": 16,
            "input_tokens": 11,
            "output_tokens": 5,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 2},
        }
    begun = {"id": name, "object": "response", "model": model, "status": "in_progress", "output": []}
    messages = [_text("response.created", response=begun)]
    if audio := exchange.option("audio", 0):
        messages.append(_text("response.output_audio.delta", response_id=name, delta="A" * audio))
    for number in range(exchange.option("deltas", 3)):
        messages.append(_text("response.output_text.delta", response_id=name, delta=f"word{number} "))
    ended = {**begun, "status": "completed", "usage": usage}
    messages.append(_text("response.done" if is_realtime else "response.completed", response=ended))
    return messages


def _text(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, "event_id": "event_standin", **fields})
