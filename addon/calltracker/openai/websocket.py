"""Sessions over WebSocket, Realtime and Responses: messages in, responses out. No I/O.

The unit of a row is the response. The client asks by `response.create`; in Realtime with voice detection the server
begins one by itself, and the message that says which audio it took (`input_audio_buffer.committed`) stands for the
request. An event belongs to the response of its `stream_id` or `response_id`; one that names neither, to the response
that was begun last. What is kept is bounded: of a response 1 MiB of its events and 1 MiB of its text, of the session
its counts.

https://platform.openai.com/docs/api-reference/realtime-server-events, …/responses-streaming
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import loose
from .answers import answer_of, text_of
from .operations import operation_of
from .reading import Reading
from .streams import RESPONSE_ENDS, Response, failure_of
from .usage import Tokens, tokens_of, total

LARGEST_KEPT = 1024 * 1024  # characters of a response's events, and of the text that its deltas make up
_MOST_OPEN = 256  # responses that are under way at once; the oldest is given up for one more
_MOST_MODELS = 16

# Members that hold media in base64 wherever they stand; `delta` only in events of audio.
_MEDIA = frozenset(("audio", "b64_json", "partial_image_b64", "file_data"))
_HINT = re.compile(r'"(?:audio|b64_json|partial_image_b64|file_data|delta)"\s*:\s*"|;base64,')
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,")
_DEEPEST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A response that has ended, or was still open when the session did. Times are those given to `feed`."""

    request_content: str
    response_text: str  # its events as the server sent them, one JSON text a line, media replaced by sizes
    start_us: int
    end_us: int
    first_token_us: int | None
    reading: Reading
    truncated: bool


@dataclass(slots=True)
class _Open:
    request: str
    asked: Mapping[str, Any]
    start_us: int
    stream_id: str
    response_id: str = ""
    begun: bool = False
    first_token_us: int | None = None
    assembler: Response = field(default_factory=Response)
    grown: int = 0
    lines: list[str] = field(default_factory=list)
    kept: int = 0
    truncated: bool = False
    error: str = ""
    failed: bool = False
    ended: bool = False


class Session:
    """One WebSocket. Never raises for what a message holds."""

    def __init__(self, url: str, request_headers: Mapping[str, str] | None = None) -> None:
        """`request_headers`: of the upgrade, names in lower case; their tags are those of every response."""
        operation = operation_of("GET", url)
        self._operation = operation.name
        self._model = operation.model
        headers = request_headers or {}
        self._tags = {
            name.removeprefix("x-llm-calls-tag-"): value
            for name, value in headers.items()
            if name.startswith("x-llm-calls-tag-")
        }
        self._open: list[_Open] = []
        self._heard = ("", 0)  # the audio that the server took last: message, time
        self._models: dict[str, None] = {}
        self._responses = 0
        self._failed = 0
        self._counted: list[Tokens] = [Tokens(), Tokens()]  # of responses; of what belongs to none (transcriptions)
        self._session_id = ""
        self._error = ""

    def feed(self, from_client: bool, content: str | bytes, time_us: int) -> list[Done]:
        """Take the next message; return the responses that it ended."""
        data = content.encode("utf-8", "replace") if isinstance(content, str) else bytes(content)
        try:
            event = loose.loads(data)
        except loose.NotJsonError:
            event = loose.prefix_members(data)  # one that the proxy cut
        if not isinstance(event, dict):
            return []
        kind = text_of(event, "type")
        if from_client:
            return self._ask(event, content, time_us) if kind == "response.create" else []
        return self._hear(kind, event, content, time_us)

    def close(self, time_us: int) -> list[Done]:
        """End the session; return what was still open, as far as it came."""
        left, self._open = self._open, []
        return [self._finish(one, time_us) for one in left]

    def reading(self) -> Reading:
        """Tell of the session itself.

        Its token columns count only what no response counts (transcription of the input), so that a sum over rows is
        right; response_json has the number of responses and, as `usage`, the sum of all.
        """
        models = list(self._models)
        everything = total(self._counted)
        summary = {
            "object": f"{self._operation or 'websocket'}.session",
            "id": self._session_id,
            "responses": self._responses,
            "failed": self._failed,
            "models": models,
            "usage": {name: number for name, number in everything._asdict().items() if number is not None},
        }
        return Reading(
            operation=f"{self._operation or 'websocket'}.session",
            request_model=self._model,
            response_model=models[0] if len(models) == 1 else "",
            response_id=self._session_id,
            stream=True,
            error=self._error,
            response_json=loose.dumps(summary),
            tags=self._tags,
            **self._counted[1]._asdict(),
        )

    def _ask(self, event: dict[str, Any], content: str | bytes, time_us: int) -> list[Done]:
        request = shrink(content)
        # Responses has the members at the top or, like Realtime, under `response`.
        inner = event.get("response")
        asked = {**event, **inner} if isinstance(inner, dict) else event
        asked = {name: asked[name] for name in ("model", "metadata", "event_id") if name in asked}
        one = _Open(request[:LARGEST_KEPT], asked, time_us, text_of(event, "stream_id"))
        one.truncated = len(request) > LARGEST_KEPT
        self._open.append(one)
        return [self._finish(self._open.pop(0), time_us)] if len(self._open) > _MOST_OPEN else []

    def _hear(self, kind: str, event: dict[str, Any], content: str | bytes, time_us: int) -> list[Done]:
        if kind in ("session.created", "session.updated"):
            self._note_session(event.get("session"))
        elif kind == "input_audio_buffer.committed":
            self._heard = (shrink(content), time_us)
        elif kind.startswith("conversation.item.input_audio_transcription."):
            self._counted[1] = total((self._counted[1], tokens_of(event.get("usage"))))
        elif kind == "error":
            return self._hear_error(event, content, time_us)
        elif kind.startswith("response."):
            given_up = []
            one = self._of(event)
            if one is None:
                given_up = self._begin_unasked(time_us)
                one = self._open[-1]
            return given_up + self._add(one, kind, event, content, time_us)
        return []

    def _note_session(self, session: Any) -> None:
        if isinstance(session, dict):
            self._model = text_of(session, "model") or self._model
            self._session_id = text_of(session, "id") or self._session_id

    def _begin_unasked(self, time_us: int) -> list[Done]:
        heard, heard_us = self._heard
        self._heard = ("", 0)
        self._open.append(_Open(heard, {}, heard_us or time_us, "", begun=True))
        return [self._finish(self._open.pop(0), time_us)] if len(self._open) > _MOST_OPEN else []

    def _of(self, event: dict[str, Any]) -> _Open | None:
        """Find the response that an event is of; None for the first of one that nobody asked for."""
        stream_id = text_of(event, "stream_id")
        response = event.get("response")
        response_id = text_of(event, "response_id") or (text_of(response, "id") if isinstance(response, dict) else "")
        candidates = [one for one in self._open if one.stream_id == stream_id] if stream_id else self._open
        if response_id:
            known = next((one for one in candidates if one.response_id == response_id), None)
            if known is not None:
                return known
            waiting = next((one for one in candidates if not one.begun or not one.response_id), None)
            if waiting is not None:
                waiting.response_id, waiting.begun = response_id, True
            return waiting
        begun = [one for one in candidates if one.begun]
        if begun:
            return begun[-1]
        return candidates[0] if candidates else None

    def _add(self, one: _Open, kind: str, event: dict[str, Any], content: str | bytes, time_us: int) -> list[Done]:
        one.begun = True
        self._keep(one, content)
        delta = event.get("delta")
        one.grown += len(delta) if isinstance(delta, str) and "audio.delta" not in kind else 0
        if one.grown <= LARGEST_KEPT or not kind.endswith(".delta"):
            generated = one.assembler.add(kind, _without_media(event, 0))
        else:
            generated, one.truncated = bool(delta), True
        if generated and one.first_token_us is None:
            one.first_token_us = time_us
        if kind not in RESPONSE_ENDS:
            return []
        one.ended = True
        response = event.get("response")
        if isinstance(response, dict) and response.get("status") == "failed":
            one.failed, one.error = True, _failure(kind, event, response)
        self._open.remove(one)
        return [self._finish(one, time_us)]

    def _hear_error(self, event: dict[str, Any], content: str | bytes, time_us: int) -> list[Done]:
        """An error ends the response that it is about; Realtime names the client's message that caused it."""
        error = failure_of("error", event)
        one = self._blamed(event)
        if one is None:
            self._error = self._error or error
            return []
        self._keep(one, content)
        one.failed, one.error, one.ended = True, error, True
        self._open.remove(one)
        return [self._finish(one, time_us)]

    def _blamed(self, event: dict[str, Any]) -> _Open | None:
        inner = event.get("error")
        cause = text_of(inner, "event_id") if isinstance(inner, dict) else ""
        if cause:
            return next((one for one in self._open if text_of(one.asked, "event_id") == cause), None)
        if self._operation == "realtime":
            return None  # most of its errors leave the responses under way alone
        return self._of(event)

    def _keep(self, one: _Open, content: str | bytes) -> None:
        line = " ".join(shrink(content).splitlines())  # line ends in JSON are white space
        if one.kept + len(line) > LARGEST_KEPT:
            one.truncated = True
            return
        one.lines.append(line)
        one.kept += len(line)

    def _finish(self, one: _Open, time_us: int) -> Done:
        answer = one.assembler.answer()
        if not one.ended:
            answer = {**answer, "incomplete": True}
        facts = answer_of(answer)
        model = facts.response_model or (self._model if one.begun else "")
        self._responses += 1
        self._failed += one.failed
        self._counted[0] = total((self._counted[0], facts.tokens))
        if model and len(self._models) < _MOST_MODELS:
            self._models[model] = None
        metadata = one.asked.get("metadata")
        tags = {k: v for k, v in metadata.items() if isinstance(v, str)} if isinstance(metadata, dict) else {}
        reading = Reading(
            operation=self._operation,
            request_model=text_of(one.asked, "model") or self._model,
            response_model=model,
            response_id=facts.response_id or one.response_id,
            stream=True,
            finish_reason=facts.finish_reason,
            service_tier=facts.service_tier,
            error=one.error,
            response_json=loose.dumps(answer),
            tags={**tags, **self._tags},
            finished=one.ended,
            failed=one.failed,
            **facts.tokens._asdict(),
        )
        return Done(
            request_content=one.request,
            response_text="\n".join(one.lines),
            start_us=one.start_us,
            end_us=time_us,
            first_token_us=one.first_token_us,
            reading=reading,
            truncated=one.truncated,
        )


def _failure(kind: str, event: dict[str, Any], response: dict[str, Any]) -> str:
    """Realtime has the error of a failed response under `status_details`."""
    details = response.get("status_details")
    return failure_of(kind, details if isinstance(details, dict) and details.get("error") else event)


def shrink(content: str | bytes) -> str:
    """Write a message without its media: base64 text becomes {"base64_bytes": length of that text}.

    A message that is no text becomes {"binary_bytes": its length}; one that is no JSON is given as it is.
    """
    if isinstance(content, bytes | bytearray):
        try:
            content = content.decode()
        except UnicodeDecodeError:
            return f'{{"binary_bytes":{len(content)}}}'
    if not _HINT.search(content):
        return content
    try:
        message = loose.loads(content.encode("utf-8", "replace"))
    except loose.NotJsonError:
        return content
    return loose.dumps(_without_media(message, 0))


def _without_media(value: Any, depth: int) -> Any:
    if type(value) is dict and depth < _DEEPEST:
        audio_delta = text_of(value, "type").endswith("audio.delta")
        return {
            key: {"base64_bytes": len(item)}
            if type(item) is str and item and (key in _MEDIA or (audio_delta and key == "delta"))
            else _without_media(item, depth + 1)
            for key, item in value.items()
        }
    if type(value) is list and depth < _DEEPEST:
        return [_without_media(item, depth + 1) for item in value]
    if type(value) is str and value.startswith("data:") and (match := _DATA_URL.match(value)):
        return {"base64_bytes": len(value) - match.end()}
    return value
