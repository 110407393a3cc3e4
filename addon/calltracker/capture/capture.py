"""A capture: all that the proxy wrote of one call, put together again. The worker makes the row of it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from .records import Message, Record, RecordKind


@dataclass(frozen=True, slots=True)
class Body:
    """A body as it was kept; `summary` is what BodySummary told of the whole, {} while that is unknown.

    `arrivals`: (offset in `data` after the piece, microseconds since the call began), in order.
    """

    data: bytes = b""
    arrivals: tuple[tuple[int, int], ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capture:
    """One call. The heads are the facts of BEGIN, RESPONSE_HEAD and END; times in them are microseconds since BEGIN.

    `last_seen` is when the last record was written; `end` is {} for a call whose proxy did not live to see it.
    """

    call_id: uuid.UUID
    begin: dict[str, Any]
    request: Body
    response_head: dict[str, Any]
    response: Body
    end: dict[str, Any]
    last_seen: int


class _Pieces:
    """A body that is being put together."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.arrivals: list[tuple[int, int]] = []
        self.summary: dict[str, Any] = {}

    def add(self, at: int, data: bytes) -> None:
        self.data += data
        self.arrivals.append((len(self.data), at))

    def body(self) -> Body:
        return Body(bytes(self.data), tuple(self.arrivals), self.summary)


class OpenCall:
    """A call that has begun: takes its records, in order, and gives the capture."""

    def __init__(self, begin: Record) -> None:
        self.call_id = begin.call_id
        self.begin = begin.facts()
        self.response_head: dict[str, Any] = {}
        self.end: dict[str, Any] = {}
        self.last_seen = 0
        self._request = _Pieces()
        self._response = _Pieces()

    def take(self, record: Record) -> Message | None:
        """Take the next record; a WebSocket message is given back, since a session is read as it goes."""
        if record.kind is RecordKind.MESSAGE:
            message = record.message()
            self.last_seen = max(self.last_seen, message.at)
            return message
        if record.kind in (RecordKind.REQUEST_DATA, RecordKind.RESPONSE_DATA):
            at, data = record.data()
            (self._request if record.kind is RecordKind.REQUEST_DATA else self._response).add(at, data)
        else:
            facts = record.facts()
            at = facts["at"]
            self._take_facts(record.kind, facts)
        self.last_seen = max(self.last_seen, at)
        return None

    def _take_facts(self, kind: RecordKind, facts: dict[str, Any]) -> None:
        if kind is RecordKind.REQUEST_END:
            self._request.summary = facts
        elif kind is RecordKind.RESPONSE_HEAD:
            self.response_head = facts
        elif kind is RecordKind.RESPONSE_END:
            self._response.summary = facts
        elif kind is RecordKind.END:
            self.end = facts

    def capture(self) -> Capture:
        return Capture(
            self.call_id,
            self.begin,
            self._request.body(),
            self.response_head,
            self._response.body(),
            self.end,
            self.last_seen,
        )
