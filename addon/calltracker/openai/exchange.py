"""Reading one exchange over HTTP: request and response, whole or cut, to the columns of its row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from . import batches, loose, multipart, sse, streams
from .answers import Answer, answer_of, text_of
from .errors import error_of
from .operations import Operation, operation_of
from .reading import Exchange, Reading
from .usage import Tokens

_TAG_HEADER = "x-llm-calls-tag-"
_SHOWN = 200  # bytes of an unreadable payload that its explanation quotes


def read(exchange: Exchange) -> Reading:
    """Read an exchange; never raises, whatever the bytes; linear in their number.

    Sources: OpenAI's API reference (https://platform.openai.com/docs/api-reference), and for names and words of columns
    OpenTelemetry's GenAI conventions. What is absent is unknown: '' or None, never 0.

    Usage is counted where it arises. A request that only reads, changes or deletes what was generated before
    (`GET /v1/responses/{id}`, polling a background response or a run, cancelling) has no tokens, although the object
    that it gives may tell some: `response_json` has them, `operation` says what it was (`responses.retrieve`), and
    `response_id` is that of the call that generated. A batch's output file has operation `batches.output`, the usage
    of all its answers added up, and the file's id as response_id, so that a second download can be told.

    response_json is the text of a JSON answer, or what a stream amounts to in the same shape; an object made of a
    stream or text that was cut has `"incomplete": true`.
    """
    operation = operation_of(exchange.method, exchange.url)
    asked, request_error = _request(exchange)
    came = _response(exchange, operation)
    session = asked.get("session")
    headers = exchange.response_headers
    return Reading(
        operation=came.operation or operation.name,
        request_model=text_of(asked, "model")
        or operation.model
        or (text_of(session, "model") if isinstance(session, dict) else ""),
        response_model=came.answer.response_model,
        response_id=came.answer.response_id,
        request_id=headers.get("x-request-id") or headers.get("apim-request-id", ""),
        stream=came.stream,
        first_token_offset=came.first_token_offset,
        finish_reason=came.answer.finish_reason,
        service_tier=came.answer.service_tier,
        retry_count=_number(exchange.request_headers.get("x-stainless-retry-count")),
        server_processing_ms=_number(headers.get("openai-processing-ms")),
        error=came.error or request_error,
        response_json=came.json,
        tags=_tags(exchange.request_headers, asked),
        finished=came.finished,
        failed=came.failed,
        **came.answer.tokens._asdict(),
    )


class _Response(NamedTuple):
    answer: Answer = Answer()
    json: str = ""
    error: str = ""
    finished: bool | None = None
    failed: bool = False
    stream: bool = False
    first_token_offset: int | None = None
    operation: str = ""


def _request(exchange: Exchange) -> tuple[Mapping[str, Any], str]:
    """Read the request's members: all of them, of a body that is cut those that are whole."""
    body, content_type = exchange.request_body, exchange.request_headers.get("content-type", "")
    if content_type[:19].lower() == "multipart/form-data":
        return multipart.members(body, content_type) or {}, ""
    if not body:
        return {}, ""
    try:
        asked = loose.loads(body)
    except loose.NotJsonError as reason:
        members = loose.prefix_members(body)
        unreadable = members is None and "json" in content_type.lower()
        return members or {}, f"request body is not JSON: {_quoted(reason, body)}" if unreadable else ""
    return (asked if isinstance(asked, dict) else {}), ""


def _response(exchange: Exchange, operation: Operation) -> _Response:
    body, content_type = exchange.response_body, exchange.response_headers.get("content-type", "").lower()
    start = body[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] not in (b"{", b"[") and ("event-stream" in content_type or start.startswith((b"data:", b"event:"))):
        return _stream(body, operation)
    if operation.content and (output := batches.read(body)) is not None:
        answer = output.answer._replace(response_id=operation.object_id)
        return _Response(answer, output.json, finished=output.finished, operation="batches.output")
    failed = exchange.status >= 400
    if not start and not body.strip():
        return _Response()
    if operation.content and not failed and start[:1] != b"{":
        return _Response()
    try:
        value, strict = loose.read(body)
    except loose.NotJsonError as reason:
        return _unreadable(body, operation, failed or "json" in content_type, reason)
    text = body.decode().strip() if strict else loose.dumps(value)
    if operation.content and not failed:
        return _Response(json=text, finished=True)
    if failed:
        return _Response(error=error_of(value), json=text, finished=True)
    answer = _counted(answer_of(value), operation)
    if not operation.generates:
        return _Response(answer, text, finished=True)
    error = error_of({"error": value["error"]}) if isinstance(value, dict) and value.get("error") else ""
    return _Response(answer, text, error, finished=True, failed=bool(error))


def _stream(body: bytes, operation: Operation) -> _Response:
    streamed = streams.assemble(*sse.parse(body))
    answer = answer_of(streamed.answer)
    return _Response(
        _counted(answer, operation),
        "" if streamed.answer is None else loose.dumps(streamed.answer),
        streamed.error,
        streamed.finished,
        streamed.failed,
        True,
        streamed.first_token_offset,
    )


def _unreadable(body: bytes, operation: Operation, should_be_json: bool, reason: Exception) -> _Response:
    """Say of a body what can be said: the members of a cut object, or why it is none."""
    members = loose.prefix_members(body)
    if members is not None:
        error = f"response body is not whole JSON: it ends after {len(body)} bytes"
        answer = _counted(answer_of(members), operation)
        return _Response(answer, loose.dumps({**members, "incomplete": True}), error, finished=False)
    return _Response(error=f"response body is not JSON: {_quoted(reason, body)}" if should_be_json else "")


def _counted(answer: Answer, operation: Operation) -> Answer:
    return answer if operation.generates else answer._replace(tokens=Tokens())


def _quoted(reason: Exception, body: bytes) -> str:
    shown = " ".join(body[:_SHOWN].decode("utf-8", "replace").split())
    return f"{reason}: {shown}" + ("…" if len(body) > _SHOWN else "")


def _number(text: str | None) -> int | None:
    return int(text) if text and len(text) < 16 and text.isascii() and text.isdigit() else None


def _tags(headers: Mapping[str, str], asked: Mapping[str, Any]) -> dict[str, str]:
    """Tags: metadata, user and safety_identifier of the body; then the headers' own, which win."""
    tags: dict[str, str] = {}
    metadata = asked.get("metadata")
    if isinstance(metadata, dict):
        for name, value in metadata.items():
            tags[name] = value if isinstance(value, str) else loose.dumps(value)
    for name in ("user", "safety_identifier"):
        if text := text_of(asked, name):
            tags[name] = text
    for name, text in headers.items():
        if name.startswith(_TAG_HEADER) and len(name) > len(_TAG_HEADER):
            tags[name[len(_TAG_HEADER) :]] = text
    return tags
