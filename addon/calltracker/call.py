"""A call: one row.

The fields of `Call` are the one list of the row's columns: their order, types, defaults and meanings. The stream in
Proton, the table in the journal and every INSERT are made from `COLUMNS`. The first eight are the specified ones,
with the specified names, order and types; each later one has a default, so that an INSERT of those eight alone works.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
import uuid
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any


class Kind(Enum):
    """What a column holds: (type in Proton, DEFAULT in Proton or '', type in SQLite)."""

    TEXT = ("string", "''", "TEXT NOT NULL DEFAULT ''")
    WORD = ("low_cardinality(string)", "''", "TEXT NOT NULL DEFAULT ''")
    MAP = ("map(string, string)", "", "TEXT NOT NULL DEFAULT '{}'")
    TIME = ("datetime64", "", "TEXT NOT NULL")
    MAYBE_TIME = ("nullable(datetime64(3, 'UTC'))", "", "TEXT")
    STATUS = ("int", "", "INTEGER NOT NULL DEFAULT 0")
    FLAG = ("bool", "false", "INTEGER NOT NULL DEFAULT 0")
    SIZE = ("int64", "0", "INTEGER NOT NULL DEFAULT 0")
    COUNT = ("nullable(int64)", "", "INTEGER")

    @property
    def proton_type(self) -> str:
        return self.value[0]

    @property
    def proton_default(self) -> str:
        return self.value[1]

    @property
    def sqlite_type(self) -> str:
        return self.value[2]


class Outcome(StrEnum):
    """How a call ended, told from the payload first and from the connection second."""

    OK = "ok"
    HTTP_ERROR = "http_error"  # status >= 400
    API_ERROR = "api_error"  # an error inside a stream that began with 200
    CLIENT_CANCELLED = "client_cancelled"  # the app hung up before the answer was complete
    SERVER_CUT = "server_cut"  # the upstream broke off, or what it sent was not HTTP
    CONNECT_FAILED = "connect_failed"  # refused, unknown host, untrusted certificate
    TIMEOUT = "timeout"  # nothing came for so long that the proxy gave up
    INTERRUPTED = "interrupted"  # the proxy ended while the call was under way


def _column(kind: Kind, meaning: str, **default: Any) -> Any:
    return field(metadata={"kind": kind, "meaning": meaning}, **default)


def _map(meaning: str, **default: Any) -> Any:
    return _column(Kind.MAP, meaning, **default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One row. Times are whole milliseconds since 1970 in UTC; None is "unknown", which is never written as 0."""

    request_method: str = _column(Kind.TEXT, "HTTP method; CONNECT when the call got no further than that")
    request_url: str = _column(Kind.TEXT, "URL as the app meant it, credentials in the query masked")
    request_headers: dict[str, str] = _map(
        "names in lower case; values of secrets masked; repeated ones joined by ', '"
    )
    request_content: str = _column(Kind.TEXT, "request body, decoded; README tells how binary bodies are represented")
    request_time: int = _column(Kind.TIME, "when the request's head reached the proxy")
    response_time: int = _column(Kind.TIME, "when the response's last byte reached the proxy, or when the call failed")
    response_status_code: int = _column(Kind.STATUS, "HTTP status; 0 when no response came")
    response_text: str = _column(Kind.TEXT, "response body as it came over the wire, decoded")

    call_id: str = _column(Kind.TEXT, "UUIDv7: identifies the call, in every store")
    operation: str = _column(Kind.WORD, "what was asked for: chat, embeddings, responses, …", default="")
    server_address: str = _column(
        Kind.WORD, "host of the server, with the port where that is not the usual one", default=""
    )
    request_model: str = _column(Kind.WORD, "model that the request named", default="")
    response_model: str = _column(Kind.WORD, "model that answered", default="")
    response_id: str = _column(Kind.TEXT, "id of the completion, response or object", default="")
    request_id: str = _column(Kind.TEXT, "the server's x-request-id (Azure: apim-request-id)", default="")
    stream: bool = _column(Kind.FLAG, "the answer was streamed", default=False)
    first_byte_time: int | None = _column(Kind.MAYBE_TIME, "when the response's head came", default=None)
    first_token_time: int | None = _column(Kind.MAYBE_TIME, "when the first generated token came", default=None)
    input_tokens: int | None = _column(Kind.COUNT, "input tokens, cached ones included", default=None)
    cached_input_tokens: int | None = _column(Kind.COUNT, "the part of input_tokens read from a cache", default=None)
    output_tokens: int | None = _column(Kind.COUNT, "output tokens, reasoning included", default=None)
    reasoning_tokens: int | None = _column(Kind.COUNT, "the part of output_tokens spent on reasoning", default=None)
    finish_reason: str = _column(Kind.WORD, "why generation ended; several choices: joined by ','", default="")
    service_tier: str = _column(Kind.WORD, "tier that served the call", default="")
    retry_count: int | None = _column(Kind.COUNT, "x-stainless-retry-count: this try's number, from 0", default=None)
    server_processing_ms: int | None = _column(Kind.COUNT, "openai-processing-ms: the server's own time", default=None)
    outcome: str = _column(Kind.WORD, "how the call ended: see Outcome", default="")
    error: str = _column(Kind.TEXT, "what went wrong, in one line: 'type (code): message'", default="")
    response_headers: dict[str, str] = _map("as request_headers", default_factory=dict)
    response_json: str = _column(Kind.TEXT, "the answer as JSON, a stream put together: one shape for both", default="")
    request_bytes: int = _column(Kind.SIZE, "size of the request body on the wire", default=0)
    response_bytes: int = _column(Kind.SIZE, "size of the response body on the wire", default=0)
    truncated: bool = _column(Kind.FLAG, "a body was longer than what is kept", default=False)
    request_sha256: str = _column(Kind.TEXT, "SHA-256 of the whole body, when it is not kept whole", default="")
    response_sha256: str = _column(Kind.TEXT, "SHA-256 of the whole body, when it is not kept whole", default="")
    api_key_hash: str = _column(Kind.WORD, "keyed hash of the API key: groups calls, tells nothing of it", default="")
    user_agent: str = _column(Kind.WORD, "the client's User-Agent", default="")
    tags: dict[str, str] = _map("x-llm-calls-tag-* headers; metadata, user, … of the body", default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the row, in whichever store."""

    name: str
    kind: Kind
    meaning: str


COLUMNS: tuple[Column, ...] = tuple(
    Column(f.name, f.metadata["kind"], f.metadata["meaning"]) for f in dataclasses.fields(Call)
)
SPECIFIED = COLUMNS[:8]


def new_call_id() -> uuid.UUID:
    """Return a UUIDv7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, then random bits; sorts by time."""
    return _uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def derived_call_id(session: uuid.UUID, number: int, milliseconds: int) -> uuid.UUID:
    """Return the UUIDv7 of a session's response of that number: the same each time that the session is read."""
    return _uuid7(milliseconds, hashlib.sha256(b"%b %d" % (session.bytes, number)).digest()[:10])


def _uuid7(milliseconds: int, random_bits: bytes) -> uuid.UUID:
    number = milliseconds << 80 | int.from_bytes(random_bits)
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=number)
