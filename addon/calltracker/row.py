"""From a capture to its row: what the connection saw, and what the payload says."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from . import openai
from .call import Call, Outcome, derived_call_id
from .capture.capture import Body, Capture
from .capture.records import Ending
from .openai import loose
from .openai.multipart import to_json
from .openai.reading import Exchange, Reading
from .openai.websocket import Done, shrink

_DEEPEST = 32
_NOT_TOLD = {"finished", "failed", "first_token_offset", "error"}
_READ_FIELDS = tuple(f.name for f in dataclasses.fields(Reading) if f.name not in _NOT_TOLD)

_OUTCOMES = {
    Ending.CLIENT_GONE: Outcome.CLIENT_CANCELLED,
    Ending.SERVER_GONE: Outcome.SERVER_CUT,
    Ending.NOT_CONNECTED: Outcome.CONNECT_FAILED,
    Ending.TIMEOUT: Outcome.TIMEOUT,
    Ending.STOPPED: Outcome.INTERRUPTED,
    Ending.INTERRUPTED: Outcome.INTERRUPTED,
}


@dataclass(frozen=True, slots=True)
class Transcript:
    """The messages of a WebSocket, one JSON text a line, each direction bounded; sizes are of all that passed."""

    sent: tuple[str, ...]
    received: tuple[str, ...]
    sent_bytes: int
    received_bytes: int
    truncated: bool


def call_of(capture: Capture) -> Call:
    """Make the row of a call over HTTP. Never raises for what a payload holds: `error` says what could not be read."""
    request_headers = joined(capture.begin["headers"])
    response_headers = joined(capture.response_head.get("headers", ()))
    exchange = Exchange(
        method=capture.begin["method"],
        url=capture.begin["url"],
        request_headers=request_headers,
        request_body=capture.request.data,
        status=capture.response_head.get("status", 0),
        response_headers=response_headers,
        response_body=capture.response.data,
    )
    reading = read(exchange)
    if _is_cut(capture.response) and reading.finished is False:
        # It is we who cut it: that tells nothing of how the call ended, and `truncated` says it.
        reading = dataclasses.replace(reading, finished=None, error="")
    outcome = outcome_of(capture, reading)
    bare = bare_call(capture)
    told = _told(reading)
    told["response_json"], cut = fitted(reading.response_json, capture.begin["body_limit"])
    return dataclasses.replace(
        bare,
        **told,
        truncated=bare.truncated or cut,
        first_token_time=_first_token_time(capture, reading),
        outcome=outcome.value,
        error="; ".join(_reasons(capture, reading, outcome)),
    )


def read(exchange: Exchange) -> Reading:
    """Read an exchange; a defect of the reader costs the columns that it would have filled, never the row."""
    try:
        return openai.read(exchange)
    except Exception as error:  # noqa: BLE001 - the row is worth more than the reason
        return Reading(error=f"the payload could not be read: {type(error).__name__}: {error}")


def session_call(capture: Capture, reading: Reading, transcript: Transcript) -> Call:
    """Make the row of a WebSocket session itself."""
    ending = capture.end.get("ending", Ending.INTERRUPTED)
    outcome = Outcome.OK if ending == Ending.COMPLETE else _OUTCOMES[ending]
    return dataclasses.replace(
        bare_call(capture),
        **_told(reading),
        request_content="\n".join(transcript.sent),
        response_text="\n".join(transcript.received),
        response_time=(capture.begin["time"] + capture.end.get("at", capture.last_seen)) // 1000,
        request_bytes=transcript.sent_bytes,
        response_bytes=transcript.received_bytes,
        truncated=transcript.truncated,
        outcome=outcome.value,
        error="; ".join(_reasons(capture, reading, outcome)),
    )


def response_call(capture: Capture, done: Done, number: int) -> Call:
    """Make the row of one response of a WebSocket session; `capture.end` tells of one that the session cut off."""
    start = capture.begin["time"]
    reading = done.reading
    if reading.failed:
        outcome = Outcome.API_ERROR
    elif reading.finished:
        outcome = Outcome.OK
    else:
        by_client = capture.end.get("websocket", {}).get("by_client", True)
        left = Outcome.CLIENT_CANCELLED if by_client else Outcome.SERVER_CUT
        outcome = _OUTCOMES.get(capture.end.get("ending", Ending.INTERRUPTED), left)
    return dataclasses.replace(
        bare_call(capture),
        **_told(reading),
        call_id=str(derived_call_id(capture.call_id, number, (start + done.start_us) // 1000)),
        request_content=done.request_content,
        response_text=done.response_text,
        request_time=(start + done.start_us) // 1000,
        response_time=(start + done.end_us) // 1000,
        first_byte_time=None,
        first_token_time=(start + done.first_token_us) // 1000 if done.first_token_us is not None else None,
        request_bytes=len(done.request_content.encode()),
        response_bytes=len(done.response_text.encode()),
        truncated=done.truncated,
        outcome=outcome.value,
        error=reading.error,
    )


def unread_call(capture: Capture, why: str) -> Call:
    """Make the row of a capture that could not be made one otherwise: what its first record says."""
    begin, end = capture.begin, capture.end
    return Call(
        call_id=str(capture.call_id),
        request_method=begin["method"],
        request_url=begin["url"],
        request_headers=joined(begin["headers"]),
        request_content="",
        request_time=begin["time"] // 1000,
        response_time=(begin["time"] + end.get("at", capture.last_seen)) // 1000,
        response_status_code=capture.response_head.get("status", 0),
        response_text="",
        server_address=begin["server"],
        api_key_hash=begin["api_key_hash"],
        outcome=_OUTCOMES.get(end.get("ending", Ending.INTERRUPTED), Outcome.OK).value,
        error=f"the capture could not be read: {why}",
        truncated=True,
    )


def without_content(call: Call) -> Call:
    """Leave out what was asked and answered; of the request its model stays, for the queries that look there."""
    request = orjson.dumps({"model": call.request_model}).decode() if call.request_model else ""
    return dataclasses.replace(call, request_content=request, response_text="", response_json="")


def _told(reading: Reading) -> dict[str, Any]:
    told = {name: getattr(reading, name) for name in _READ_FIELDS}
    return {**told, "tags": dict(reading.tags)}


def bare_call(capture: Capture) -> Call:
    """Make a row of what the connection alone tells."""
    request_headers = joined(capture.begin["headers"])
    response_headers = joined(capture.response_head.get("headers", ()))
    begin, end = capture.begin, capture.end
    start = begin["time"]  # microseconds
    finish = _finish(capture)
    head = capture.response_head
    limit = begin["body_limit"]
    return Call(
        call_id=str(capture.call_id),
        request_method=begin["method"],
        request_url=begin["url"],
        request_headers=request_headers,
        request_content=content_of(capture.request, request_headers, limit),
        request_time=(start - end.get("began_before", 0)) // 1000,
        response_time=(start + finish) // 1000,
        response_status_code=head.get("status", 0),
        response_text=content_of(capture.response, response_headers, limit),
        server_address=begin["server"],
        first_byte_time=(start + head["at"]) // 1000 if head else None,
        response_headers=response_headers,
        request_bytes=_size(capture.request),
        response_bytes=_size(capture.response),
        truncated=is_short(capture.request, limit) or is_short(capture.response, limit) or end.get("gap", False),
        request_sha256=_hash(capture.request, limit),
        response_sha256=_hash(capture.response, limit),
        api_key_hash=begin["api_key_hash"],
        user_agent=request_headers.get("user-agent", ""),
    )


def outcome_of(capture: Capture, reading: Reading) -> Outcome:
    """Tell how a call ended, from the payload first: a client that leaves after the last event has a whole answer."""
    ending = capture.end.get("ending", Ending.INTERRUPTED)
    status = capture.response_head.get("status", 0)
    answered = status != 0 and (ending == Ending.COMPLETE or reading.finished is True or _is_whole(capture))
    if status >= 400 and (answered or ending != Ending.INTERRUPTED):
        return Outcome.HTTP_ERROR
    if reading.failed:
        return Outcome.API_ERROR
    if answered:
        cut = reading.stream and reading.finished is False and ending == Ending.COMPLETE
        return Outcome.SERVER_CUT if cut else Outcome.OK
    return _OUTCOMES.get(ending, Outcome.OK)


def _is_whole(capture: Capture) -> bool:
    """Whether as many bytes came as the response's head had promised."""
    length = joined(capture.response_head.get("headers", ())).get("content-length", "")
    return length.isdigit() and bool(capture.response.summary) and _size(capture.response) == int(length) > 0


def _reasons(capture: Capture, reading: Reading, outcome: Outcome) -> Iterator[str]:
    if reading.error:
        yield reading.error
    if outcome is not Outcome.OK and capture.end.get("message"):
        yield capture.end["message"]
    if not capture.end and outcome is Outcome.INTERRUPTED:
        yield "the proxy ended while the call was under way"
    for what, body in (("request", capture.request), ("response", capture.response)):
        if body.summary.get("error"):
            yield f"{what}: {body.summary['error']}"
    if capture.end.get("gap"):
        yield "a part of a body was not recorded"


def _first_token_time(capture: Capture, reading: Reading) -> int | None:
    if reading.first_token_offset is None:
        return None
    arrivals = capture.response.arrivals
    index = bisect.bisect_left(arrivals, (reading.first_token_offset, 0))
    if index == len(arrivals):
        return None
    return int(capture.begin["time"] + arrivals[index][1]) // 1000


def _finish(capture: Capture) -> int:
    """Microseconds from the begin to the last byte; to the end where the response had none."""
    if capture.end.get("ending") == Ending.COMPLETE and capture.response.arrivals:
        return capture.response.arrivals[-1][1]
    return int(capture.end.get("at", capture.last_seen))


def joined(headers: Sequence[Sequence[str]]) -> dict[str, str]:
    """Make a map of header fields; repeated ones are joined by ', ' (RFC 9110, 5.3)."""
    values: dict[str, str] = {}
    for name, value in headers:
        values[name] = f"{values[name]}, {value}" if name in values else value
    return values


def content_of(body: Body, headers: Mapping[str, str], limit: int) -> str:
    """Write a body as text, of which at most `limit` bytes are kept.

    Text is decoded by its charset, bytes that do not fit become \\xNN. A binary body becomes a JSON object with its
    content_type, bytes and sha256; a multipart one an object of its fields, each file as filename, content_type, bytes
    and sha256.
    """
    kept = body.summary.get("kept", "text")
    content_type = headers.get("content-type", "")
    if kept == "binary" and body.summary["size"]:
        facts = {
            "content_type": content_type,
            "bytes": body.summary["size"],
            "sha256": body.summary["sha256"],
        }
        return orjson.dumps(facts).decode()
    data = _cut(body.data, limit)
    if kept == "elided" or content_type.startswith("multipart/form-data"):
        text = to_json(data, content_type)
        if text is not None:
            return text
    return _text(data, content_type)


def _text(data: bytes, content_type: str) -> str:
    _, _, charset = content_type.partition("charset=")
    charset = charset.partition(";")[0].strip(" \"'").lower() or "utf-8"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        charset = "utf-16"
    try:
        text = data.decode(charset, "backslashreplace")
    except (LookupError, UnicodeError):
        text = data.decode("utf-8", "backslashreplace")
    # UTF-7 and its like can decode to what UTF-8 has no place for.
    return text.encode("utf-8", "backslashreplace").decode()


def _size(body: Body) -> int:
    return int(body.summary["size"]) if body.summary else len(body.data)


def _is_cut(body: Body) -> bool:
    return bool(body.summary.get("truncated", False))


def _cut(data: bytes, limit: int) -> bytes:
    """Cut at the limit, but not within a character of UTF-8."""
    end = min(limit, len(data))
    while 0 < end < len(data) and data[end] & 0xC0 == 0x80 and limit - end < 3:
        end -= 1
    return data[:end]


def is_short(body: Body, limit: int) -> bool:
    """Whether a row that keeps `limit` bytes has less than the body."""
    return _is_cut(body) or len(body.data) > limit


def fitted(text: str, limit: int) -> tuple[str, bool]:
    """Make a JSON text fit into about `limit` characters, and tell whether something had to go for it.

    Media become their sizes, then long strings are cut, so that it stays JSON of the same shape; '' where that is not
    enough.
    """
    if len(text) <= limit:
        return text, False
    text = shrink(text)
    if len(text) > limit:
        text = loose.dumps(_shortened(loose.loads(text.encode()), max(limit // 64, 16)))
    return (text if len(text) <= limit else ""), True


def _shortened(value: Any, longest: int, depth: int = 0) -> Any:
    if type(value) is str:
        return value if len(value) <= longest else value[: longest - 1] + "…"
    if type(value) is dict and depth < _DEEPEST:
        return {key: _shortened(item, longest, depth + 1) for key, item in value.items()}
    if type(value) is list and depth < _DEEPEST:
        return [_shortened(item, longest, depth + 1) for item in value]
    return value


def _hash(body: Body, limit: int) -> str:
    whole = body.summary.get("kept", "text") == "text" and not is_short(body, limit) and not body.summary.get("error")
    return "" if whole or not body.summary["size"] else str(body.summary["sha256"])
