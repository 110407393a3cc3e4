"""Streams put together: from the events of one answer to the JSON object that the unstreamed answer would have been.

Each family of streams has an assembler: `add` takes an event and tells whether it carried something generated; `done`
is whether the family's end marker came; `answer` gives what has come so far. The first event that a family knows
chooses it: paths are no help, since compatible servers have their own. An answer whose stream broke off has the
member `"incomplete": true` that no API gives; what the server last said of its status stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from . import loose
from .errors import error_of, line_of
from .merging import Pieces, joined, merge
from .sse import Event
from .usage import usage_of

DONE = b"[DONE]"


class Assembler(Protocol):
    """One family of streams."""

    done: bool | None  # None: it cannot be told

    def add(self, kind: str, event: dict[str, Any]) -> bool: ...

    def answer(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a stream amounts to; `answer` None: nothing that could be understood came."""

    answer: dict[str, Any] | None
    finished: bool | None
    failed: bool
    error: str
    first_token_offset: int | None


_GENERATED = frozenset(
    (
        "content",
        "refusal",
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "tool_calls",
        "function_call",
        "audio",
    )
)


class Choices:
    """Chat completions and, with `text` instead of `delta`, the older completions.

    https://platform.openai.com/docs/api-reference/chat-streaming: choices interleave by index; usage is in a last chunk
    without choices, or, on some servers, cumulative in every chunk: the last one counts.
    """

    def __init__(self) -> None:
        self.done: bool | None = False  # [DONE] alone tells
        self._top: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, kind: str, event: dict[str, Any]) -> bool:
        generated = False
        choices = event.pop("choices", None)
        for choice in choices if type(choices) is list else ():
            if type(choice) is dict and self._add_choice(choice):
                generated = True
        event.pop("obfuscation", None)
        if event != self._last:  # nearly all chunks of a stream say the same at the top
            self._last = event
            for key, value in event.items():
                if key not in self._top or (value is not None and value != ""):
                    self._top[key] = value
        return generated

    def _add_choice(self, choice: dict[str, Any]) -> bool:
        index = choice.get("index")
        whole = self._choices.get(index) if type(index) is int else None
        if whole is None:
            index = index if type(index) is int else 0
            whole = self._choices.setdefault(index, {"index": index})
        generated = False
        for key, value in choice.items():
            if key == "delta" or key == "message":
                if type(value) is dict:
                    generated = _is_generated(value)
                    into = whole.get("message")
                    if into is None:
                        into = whole["message"] = {}
                    merge(into, value)
            elif key == "text":
                generated = generated or bool(value)
                merge(whole, {"text": value})
            elif value is None:
                whole.setdefault(key, None)
            elif key == "logprobs":
                merge(whole, {"logprobs": value})
            elif key != "index":
                whole[key] = value
        return generated

    def answer(self) -> dict[str, Any]:
        whole = dict(self._top)
        whole["object"] = str(whole.get("object") or "chat.completion").removesuffix(".chunk")
        whole["choices"] = [_choice(self._choices[index]) for index in sorted(self._choices)]
        if usage_of(whole) is not None:
            whole["usage"] = usage_of(whole)
        return whole


def _choice(merged: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = joined(merged)
    if "text" not in choice:
        message = {"role": "assistant", "content": None, **choice.pop("message", {})}
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            message["tool_calls"] = [
                {key: value for key, value in call.items() if key != "index"} if isinstance(call, dict) else call
                for call in calls
            ]
        choice["message"] = message
    choice.setdefault("finish_reason", None)
    return choice


def _is_generated(delta: dict[str, Any]) -> bool:
    """Whether a delta has something that the model made: text, refusal, reasoning, tool call, audio."""
    for key, value in delta.items():  # noqa: SIM110 - any() costs twice as much, and this runs for each token
        if value and key in _GENERATED:
            return True
    return False


# Deltas of a response's items: event type → (the item's list, the place in it, the part's type, the field that grows).
# https://platform.openai.com/docs/api-reference/responses-streaming; the `response.audio`, `response.text` and
# `response.output_audio` ones are Realtime's.
_PARTS: dict[str, tuple[str, str, str, str]] = {
    "response.output_text.delta": ("content", "content_index", "output_text", "text"),
    "response.refusal.delta": ("content", "content_index", "refusal", "refusal"),
    "response.reasoning_text.delta": ("content", "content_index", "reasoning_text", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index", "summary_text", "text"),
    "response.text.delta": ("content", "content_index", "text", "text"),
    "response.audio_transcript.delta": ("content", "content_index", "audio", "transcript"),
    "response.output_audio_transcript.delta": ("content", "content_index", "output_audio", "transcript"),
}
# … and of items that have no parts: event type → where in the item the text grows.
_FIELDS: dict[str, tuple[str, ...]] = {
    "response.function_call_arguments.delta": ("arguments",),
    "response.mcp_call_arguments.delta": ("arguments",),
    "response.mcp_call.arguments.delta": ("arguments",),
    "response.custom_tool_call_input.delta": ("input",),
    "response.code_interpreter_call_code.delta": ("code",),
    "response.apply_patch_call_operation_diff.delta": ("operation", "diff"),
    "response.shell_call_command.delta": ("action", "commands"),  # a list: `command_index` tells which
}
RESPONSE_ENDS = frozenset(
    ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done")
)


class Response:
    """The Responses API, and a response of Realtime: the last event has the whole object; before it, items grow.

    https://platform.openai.com/docs/api-reference/responses-streaming, …/realtime-server-events
    """

    def __init__(self) -> None:
        self.done: bool | None = False
        self._response: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._whole: set[int] = set()  # items that their `done` event gave whole
        self._parts: dict[tuple[int, str, int], dict[str, Any]] = {}
        self._fields: dict[tuple[int, tuple[str, ...], int | None], Pieces] = {}

    def add(self, kind: str, event: dict[str, Any]) -> bool:
        if kind.endswith(".delta"):
            self._grow(kind, event)
            return bool(event.get("delta"))
        response = event.get("response")
        if type(response) is dict:
            self._response = response
            self.done = self.done or kind in RESPONSE_ENDS
            return False
        place = event.get("output_index")
        item, part = event.get("item"), event.get("part")
        if type(place) is int and type(item) is dict:
            self._items[place] = item
            if kind.endswith(".done"):
                self._whole.add(place)
        elif type(place) is int and type(part) is dict:
            # Realtime's parts have no list of their own event: both kinds are of the item's content, save summaries.
            name = "summary" if "summary" in kind else "content"
            index = event.get(f"{name}_index")
            known = self._parts.setdefault((place, name, index if type(index) is int else 0), {})
            merge(known, {key: value for key, value in part.items() if key not in known})
        return kind.endswith("partial_image")

    def _grow(self, kind: str, event: dict[str, Any]) -> None:
        delta, place = event.get("delta"), event.get("output_index", 0)
        if type(delta) is not str or type(place) is not int:
            return
        if kind in _PARTS:
            name, index_name, part_type, field = _PARTS[kind]
            index = event.get(index_name, 0)
            key = (place, name, index if type(index) is int else 0)
            part = self._parts.get(key)
            if part is None:
                part = self._parts[key] = {"type": part_type}
            merge(part, {field: delta})
        elif kind in _FIELDS:
            index = event.get("command_index")
            field_key = (place, _FIELDS[kind], index if type(index) is int else None)
            self._fields.setdefault(field_key, Pieces()).append(delta)

    def answer(self) -> dict[str, Any]:
        if self.done and self._response.get("output"):
            return self._response
        items = {place: dict(item) for place, item in self._items.items()}
        for (place, name, _), part in sorted(self._parts.items(), key=lambda pair: pair[0]):
            if place not in self._whole:
                item = items.setdefault(place, {"type": "reasoning" if name == "summary" else "message"})
                grown = item.get(f"{name} grown")
                if grown is None:
                    grown = item[f"{name} grown"] = []
                grown.append(joined(part))
        for (place, path, index), pieces in self._fields.items():
            if place not in self._whole:
                _put(items.setdefault(place, {}), path, index, "".join(pieces))
        for item in items.values():
            for name in ("content", "summary"):
                if f"{name} grown" in item:
                    item[name] = item.pop(f"{name} grown")
        output = [items[place] for place in sorted(items)]
        return {**self._response, "output": output} if output or not self.done else self._response


def _put(item: dict[str, Any], path: tuple[str, ...], index: int | None, text: str) -> None:
    """Set a text in a copy of what lies on its path; with an index, as the next of a list."""
    *outer, last = path
    for name in outer:
        item[name] = dict(item[name]) if type(item.get(name)) is dict else {}
        item = item[name]
    if index is None:
        item[last] = text
    else:
        item[last] = [*(item[last] if type(item.get(last)) is list else ()), text]


_ENVELOPE = ("type", "sequence_number")  # of an event, no part of the answer


class Images:
    """Image generation and edits: each finished image comes in an event of its own; partial ones are not kept.

    https://platform.openai.com/docs/api-reference/images-streaming
    """

    def __init__(self) -> None:
        self.done: bool | None = False
        self._top: dict[str, Any] = {}
        self._data: list[dict[str, Any]] = []

    def add(self, kind: str, event: dict[str, Any]) -> bool:
        if kind.endswith(".completed"):
            self.done = True
            image: dict[str, Any] = {key: event[key] for key in ("b64_json", "url", "revised_prompt") if key in event}
            self._data.append(image)
            self._top |= {key: value for key, value in event.items() if key not in image and key not in _ENVELOPE}
        else:
            self._top.setdefault("created_at", event.get("created_at"))
        return "b64_json" in event or "url" in event

    def answer(self) -> dict[str, Any]:
        top = dict(self._top)
        return {"created": top.pop("created_at", None), **top, "data": self._data}


class Transcript:
    """Transcriptions: text in deltas, and whole in the event that ends the stream; segments with diarization.

    https://platform.openai.com/docs/api-reference/audio/transcript-text-delta-event
    """

    def __init__(self) -> None:
        self.done: bool | None = False
        self._last: dict[str, Any] = {}
        self._text = Pieces()
        self._segments: list[Any] = []

    def add(self, kind: str, event: dict[str, Any]) -> bool:
        if kind == "transcript.text.done":
            self.done, self._last = True, event
        elif kind == "transcript.text.segment":
            self._segments.append({key: value for key, value in event.items() if key != "type"})
            return True
        elif type(event.get("delta")) is str:
            self._text.append(event["delta"])
        return bool(event.get("delta") or event.get("text"))

    def answer(self) -> dict[str, Any]:
        whole = {key: value for key, value in self._last.items() if key != "type"}
        whole.setdefault("text", "".join(self._text))
        return {**whole, "segments": self._segments} if self._segments else whole


class Speech:
    """Speech as events: audio in base64, of which the size is kept.

    https://platform.openai.com/docs/api-reference/audio/speech-audio-delta-event
    """

    def __init__(self) -> None:
        self.done: bool | None = False
        self._last: dict[str, Any] = {}
        self._size = 0

    def add(self, kind: str, event: dict[str, Any]) -> bool:
        if kind == "speech.audio.done":
            self.done, self._last = True, event
        audio = event.get("audio") or event.get("delta")
        self._size += len(audio) if type(audio) is str else 0
        return bool(audio)

    def answer(self) -> dict[str, Any]:
        rest = {key: value for key, value in self._last.items() if key != "type"}
        return {"audio": {"base64_bytes": self._size}, **rest}


_RUN_ENDS = ("completed", "incomplete", "failed", "cancelled", "expired", "requires_action")


class Run:
    """A run of an assistant: the run object as it last was, and, beside its own members, the messages that it wrote.

    https://platform.openai.com/docs/api-reference/assistants-streaming/events
    """

    def __init__(self) -> None:
        self.done: bool | None = False
        self._run: dict[str, Any] = {}
        self._messages: dict[str, dict[str, Any]] = {}
        self._growing: set[str] = set()

    def add(self, kind: str, event: dict[str, Any]) -> bool:
        what, _, state = kind.rpartition(".")
        if what == "thread.run":
            self._run = event
            self.done = self.done or state in _RUN_ENDS
        elif what == "thread.message":
            return self._add_message(state, event)
        return kind == "thread.run.step.delta"

    def _add_message(self, state: str, event: dict[str, Any]) -> bool:
        key = str(event.get("id"))
        if state != "delta":
            self._messages[key] = event
            self._growing.discard(key)
            return False
        if key not in self._growing:
            self._growing.add(key)
            self._messages[key] = {**self._messages.get(key, {"id": key}), "content": None}
        message = self._messages[key]
        delta = event.get("delta")
        if type(delta) is dict:
            merge(message, delta)
        return True

    def answer(self) -> dict[str, Any]:
        messages = []
        for key, merged in self._messages.items():
            message: dict[str, Any] = joined(merged)
            if key in self._growing and isinstance(message.get("content"), list):
                message["content"] = [
                    {key: value for key, value in part.items() if key != "index"} if isinstance(part, dict) else part
                    for part in message["content"]
                ]
            messages.append(message)
        return {**self._run, "messages": messages} if messages else self._run


_FAMILIES: tuple[tuple[str, type[Assembler]], ...] = (
    ("response.", Response),
    ("image_generation.", Images),
    ("image_edit.", Images),
    ("transcript.", Transcript),
    ("speech.", Speech),
    ("thread.", Run),
)
# What ends a response or a run without an answer.
_FAILURES = ("response.failed", "thread.run.failed", "thread.run.expired")


def family_of(kind: str, event: dict[str, Any]) -> Assembler | None:
    """Choose the assembler for a stream by one of its events; None when none knows it."""
    if "choices" in event:
        return Choices()
    return next((family() for start, family in _FAMILIES if kind.startswith(start)), None)


def assemble(events: Iterable[Event], rest: bytes) -> Streamed:
    """Put the events of one stream together; `rest` is what it broke off in. Linear in time; never raises."""
    family: Assembler | None = None
    error = ""
    failed = done = known = False
    first_token: int | None = None
    for name, data, end in events:
        if data == DONE:
            done = True
            continue
        try:
            event = loose.loads(data)
        except loose.NotJsonError as reason:
            error = error or f"an event of the stream is not JSON: {reason}"
            continue
        if type(event) is not dict:
            if name != b"done":
                error = error or "an event of the stream is not a JSON object"
            continue
        known = True
        # A step of a run has a `type` of its own; servers that name no event have the type in the data alone.
        kind = event.get("type")
        if (name and name != b"message") or type(kind) is not str:
            kind = name.decode("utf-8", "replace")
        if family is None:
            family = family_of(kind, event)
        if family is not None and family.add(kind, event) and first_token is None:
            first_token = end
        if kind == "error" or event.get("error") or kind in _FAILURES:
            failed, error = True, failure_of(kind, event) or error
    done = done or rest.strip() == b"data: " + DONE
    finished = done or failed or (family.done if family is not None else None)
    if family is None:
        return Streamed(None, finished or (None if known else False), failed, error, first_token)
    answer = family.answer()
    if finished is False:
        answer = {**answer, "incomplete": True}
    return Streamed(answer, finished, failed, error, first_token)


def failure_of(kind: str, event: dict[str, Any]) -> str:
    """Read the error of an event that ends a stream without an answer."""
    response = event.get("response")
    if type(response) is dict:
        event = response
    if type(event.get("last_error")) is dict:
        return line_of(event["last_error"])
    return error_of(event) or (kind if kind != "error" else "")
