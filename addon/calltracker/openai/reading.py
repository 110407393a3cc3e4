"""What an exchange with OpenAI says: the question (`Exchange`) and the answer (`Reading`). No I/O, no mitmproxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One HTTP request and what came back. Header names are in lower case; bodies are content-decoded.

    A body may be cut at its end (the proxy keeps a bounded part). Multipart requests come with each file part's
    content replaced by a JSON descriptor (see multipart.py).
    """

    method: str
    url: str
    request_headers: Mapping[str, str]
    request_body: bytes
    status: int  # 0: no response
    response_headers: Mapping[str, str]
    response_body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the payloads and headers say; field names and meanings are those of `calltracker.call.Call`.

    `finished` is whether the payload itself is known to be complete: True when its end marker came (`[DONE]`,
    `response.completed`, or a JSON document that closes), False when it is known to be cut, None when it does not tell.
    `failed` is True for an error inside an answer that began with a 2xx status, streamed or not. `first_token_offset`
    is the offset in `response_body` just past the first event that carries generated content (None: not a stream, or
    none).
    """

    operation: str = ""
    request_model: str = ""
    response_model: str = ""
    response_id: str = ""
    request_id: str = ""
    stream: bool = False
    first_token_offset: int | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reason: str = ""
    service_tier: str = ""
    retry_count: int | None = None
    server_processing_ms: int | None = None
    error: str = ""
    response_json: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    finished: bool | None = None
    failed: bool = False
