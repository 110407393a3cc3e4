"""Records: what the proxy writes of a call, in the order in which it happens, and how that lies in a file.

    BEGIN  REQUEST_DATA*  REQUEST_END  RESPONSE_HEAD  RESPONSE_DATA*  RESPONSE_END  MESSAGE*  END

Any may be missing but BEGIN and, once the call is over, END. A record in a file is a head (length of the payload,
CRC-32 of all that follows it, kind, call) and the payload. Payloads of *_DATA are the time in microseconds since BEGIN
(unsigned, 64 bit) and bytes; of MESSAGE that time, flags, the message's true size and its bytes; of all others JSON.
A file that ends in the middle of a record was being written: the rest comes, or its writer was killed.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

MAGIC = b"llm-calls spool 1\n"
LARGEST = 64 * 1024 * 1024  # bytes of a payload; more is not a record

_HEAD = struct.Struct("<IIB16s")
_SIZE_AND_CHECKSUM = struct.Struct("<II")
_KIND_AND_CALL = struct.Struct("<B16s")
_TIME = struct.Struct("<Q")
_MESSAGE = struct.Struct("<QBI")


class RecordKind(IntEnum):
    BEGIN = 1
    REQUEST_DATA = 2
    REQUEST_END = 3
    RESPONSE_HEAD = 4
    RESPONSE_DATA = 5
    RESPONSE_END = 6
    MESSAGE = 7
    END = 8


class Ending:
    """How the connections saw a call end; the worker makes the outcome of it, once it has read the payload."""

    COMPLETE = "complete"
    CLIENT_GONE = "client_gone"
    SERVER_GONE = "server_gone"
    NOT_CONNECTED = "not_connected"
    TIMEOUT = "timeout"
    STOPPED = "stopped"  # by a user or an addon (flow.kill), or a limit of the proxy's
    INTERRUPTED = "interrupted"  # the proxy ended


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was read; the next begins `size` bytes after it."""

    kind: RecordKind
    call_id: uuid.UUID
    payload: bytes
    size: int

    def facts(self) -> dict[str, Any]:
        """The payload of a record of JSON."""
        facts: dict[str, Any] = orjson.loads(self.payload)
        return facts

    def data(self) -> tuple[int, bytes]:
        """The payload of a *_DATA record: (microseconds since BEGIN, bytes)."""
        return _TIME.unpack_from(self.payload)[0], self.payload[_TIME.size :]

    def message(self) -> Message:
        at, flags, size = _MESSAGE.unpack_from(self.payload)
        return Message(at, bool(flags & 1), bool(flags & 2), size, self.payload[_MESSAGE.size :])


@dataclass(frozen=True, slots=True)
class Message:
    """A WebSocket message; `content` is cut where it is shorter than `size`. `at`: microseconds since BEGIN."""

    at: int
    from_client: bool
    is_text: bool
    size: int
    content: bytes


def encode(kind: RecordKind, call_id: bytes, payload: bytes) -> bytes:
    checked = _KIND_AND_CALL.pack(kind, call_id) + payload
    return _SIZE_AND_CHECKSUM.pack(len(payload), zlib.crc32(checked)) + checked


def encode_facts(kind: RecordKind, call_id: bytes, facts: dict[str, Any]) -> bytes:
    return encode(kind, call_id, orjson.dumps(facts))


def encode_data(kind: RecordKind, call_id: bytes, at: int, data: bytes) -> bytes:
    return encode(kind, call_id, _TIME.pack(at) + data)


def encode_message(call_id: bytes, message: Message) -> bytes:
    flags = message.from_client | message.is_text << 1
    head = _MESSAGE.pack(message.at, flags, message.size)
    return encode(RecordKind.MESSAGE, call_id, head + message.content)


class CorruptRecordError(Exception):
    """The bytes at this place are no record, and more bytes will not make them one."""


def decode(data: bytes) -> Iterator[Record]:
    """Give the whole records at the start of `data`. Raises CorruptRecordError where what follows cannot be one."""
    start = 0
    while len(data) - start >= _HEAD.size:
        length, checksum, kind, call_id = _HEAD.unpack_from(data, start)
        if length > LARGEST or not RecordKind.BEGIN <= kind <= RecordKind.END:
            raise CorruptRecordError
        end = start + _HEAD.size + length
        if end > len(data):
            return
        if zlib.crc32(data[start + 8 : end]) != checksum:
            raise CorruptRecordError
        payload = data[start + _HEAD.size : end]
        yield Record(RecordKind(kind), uuid.UUID(bytes=call_id), payload, end - start)
        start = end
