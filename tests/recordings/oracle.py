"""What the official `openai` package makes of recorded exchanges: run by the clients' environment, prints JSON.

    python oracle.py RECORDINGS.jsonl   → one JSON object a line, in the recordings' order

It shares no code with what it judges: the package's own decoder of event streams, its types and its accumulators read
the same bytes. A column that the package has no view on is left out.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import openai
from openai._streaming import SSEDecoder
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import (
    Completion,
    CreateEmbeddingResponse,
    FileDeleted,
    FileObject,
    ImageGenCompletedEvent,
    ImagesResponse,
    Model,
    ModerationCreateResponse,
)
from openai.types.audio import Transcription, TranscriptionTextDoneEvent
from openai.types.beta.threads import Run
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response


def main(path: str) -> None:
    with Path(path).open(encoding="utf-8") as lines:
        for line in lines:
            try:
                found = columns(json.loads(line))
            except Exception as error:  # noqa: BLE001 - one exchange that the package cannot take hides no other
                found = {"oracle_error": f"{type(error).__name__}: {error}"}
            print(json.dumps(found))


def columns(recording: dict[str, Any]) -> dict[str, Any]:
    request, response = recording["request"], recording["response"]
    path = request["url"].partition("?")[0]
    body = base64.b64decode(response["body_b64"])
    headers = {name.lower(): value for name, value in response["headers"]}
    found: dict[str, Any] = {"request_id": headers.get("x-request-id") or headers.get("apim-request-id", "")}
    found["request_model"] = request_model(base64.b64decode(request["body_b64"]))
    if found["request_model"] is None:
        del found["request_model"]
    if body.lstrip().startswith((b"data:", b"event:")) and response["status"] < 400:
        return found | streamed(path, body)
    try:
        payload = json.loads(body)
    except ValueError:
        return found | {"stream": False}
    if response["status"] >= 400:
        return found | error(payload) | {"stream": False, "finished": True} | nothing()
    if not isinstance(payload, dict):
        return found | {"stream": False, "finished": True}
    return found | {"stream": False, "finished": True} | whole(request["method"], path, payload)


def request_model(body: bytes) -> str | None:
    """The model that a JSON request names; None for a body of another kind, on which the package has no view."""
    if not body:
        return ""
    try:
        asked = json.loads(body)
    except ValueError:
        return None
    model = asked.get("model") if isinstance(asked, dict) else ""
    return model if isinstance(model, str) else ""


def error(body: Any) -> dict[str, Any]:
    """As the package's exceptions have it: type, code and message of the body's `error`, or of the body itself."""
    data = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(data, dict) or not isinstance(data.get("message"), str):
        return {}
    raised = openai.APIError(data["message"], request=None, body=data)  # type: ignore[arg-type]
    if not raised.type or not raised.code:
        return {}  # how a part that is missing is left out is ours to choose
    return {"error": " ".join(f"{raised.type} ({raised.code}): {raised.message}".split())}


def nothing() -> dict[str, Any]:
    return {
        "response_model": "",
        "response_id": "",
        "service_tier": "",
        "finish_reason": "",
        "input_tokens": None,
        "cached_input_tokens": None,
        "output_tokens": None,
        "reasoning_tokens": None,
    }


def whole(method: str, path: str, payload: dict[str, Any]) -> dict[str, Any]:
    if method == "POST" and path.endswith("/completions") and isinstance(payload.get("choices"), list):
        chatting = path.endswith("/chat/completions")
        return chat(ChatCompletion.construct(**payload)) if chatting else completion(Completion.construct(**payload))
    if method == "POST" and path.endswith("/responses") and isinstance(payload.get("output"), list):
        return response_of(Response.construct(**payload))
    if path.endswith("/embeddings"):
        made = CreateEmbeddingResponse.construct(**payload)
        tokens = {"input_tokens": getattr(made.usage, "prompt_tokens", None)}
        return nothing() | {"operation": "embeddings", "response_model": made.model or ""} | tokens
    if "/images/" in path:
        made_images = ImagesResponse.construct(**payload)
        shown = [image.model_dump(exclude_unset=True) for image in made_images.data or []]
        return nothing() | {"operation": "images", "images": shown} | tokens_of(made_images.usage)
    if path.endswith(("/audio/transcriptions", "/audio/translations")):
        heard = Transcription.construct(**payload)
        return nothing() | {"operation": "audio"} | tokens_of(heard.usage)
    if path.endswith("/moderations"):
        checked = ModerationCreateResponse.construct(**payload)
        return nothing() | {"operation": "moderations", "response_model": checked.model, "response_id": checked.id}
    if "/files" in path and payload.get("object") == "file":
        kept = FileDeleted.construct(**payload) if method == "DELETE" else FileObject.construct(**payload)
        return nothing() | {"operation": "files", "response_id": kept.id}
    if "/models/" in path and payload.get("object") == "model":
        return nothing() | {"operation": "models", "response_id": Model.construct(**payload).id}
    return other(method, path, payload)


def other(method: str, path: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Of what the package reads as an object of any kind, its id and model."""
    resource = path.rpartition("/v1/")[2].partition("/")[0]
    made = openai.BaseModel.construct(**payload)
    found = nothing() | {
        "response_id": text_of(getattr(made, "id", None)),
        "response_model": text_of(getattr(made, "model", None)),
    }
    # Why it ended, and the name of what only reads or changes what was generated before, are ours to choose; usage told
    # there was counted where it arose, which `nothing` asserts.
    found.pop("finish_reason")
    if method == "POST" and "usage" in payload:
        found = {name: value for name, value in found.items() if not name.endswith("tokens")}
    return found if resource in ("responses", "chat") or "/v1/" not in path else found | {"operation": resource}


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def number_of(made: Any, *names: str) -> Any:
    """A member of a member: None where any of them is missing, as on servers that tell less than OpenAI's."""
    for name in names:
        made = getattr(made, name, None)
    return made


def tokens_of(usage: Any) -> dict[str, Any]:
    """Images and transcriptions; a transcription billed by its length has no tokens."""
    return {name: getattr(usage, name, None) for name in ("input_tokens", "output_tokens")}


def streamed(path: str, body: bytes) -> dict[str, Any]:
    events = [event for event in SSEDecoder().iter_bytes(iter([body])) if event.data]
    done = bool(events) and events[-1].data == "[DONE]"
    found: dict[str, Any] = {"stream": True}
    payloads = [(event.event, event.json()) for event in events if not event.data.startswith("[DONE]")]
    failures = [payload for name, payload in payloads if name == "error" or payload.get("error")]
    if failures:
        return found | error(failures[0])
    if any("choices" in payload for _, payload in payloads):
        chunks = [payload for _, payload in payloads if "choices" in payload]
        assemble = chat_stream if path.endswith("/chat/completions") else completion_stream
        return found | {"finished": done} | assemble(chunks)
    for name, payload in reversed(payloads):
        kind = payload.get("type") or name
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            return found | {"finished": True} | response_of(Response.construct(**payload["response"]))
        if kind.startswith("image_") and kind.endswith(".completed"):
            return (
                found
                | {"finished": True, "operation": "images"}
                | tokens_of(ImageGenCompletedEvent.construct(**payload).usage)
            )
        if kind == "transcript.text.done":
            return (
                found
                | {"finished": True, "operation": "audio"}
                | tokens_of(TranscriptionTextDoneEvent.construct(**payload).usage)
            )
        if kind.startswith("thread.run.") and payload.get("object") == "thread.run":
            return found | run_of(Run.construct(**payload))
    return found


def chat_stream(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    state = ChatCompletionStreamState()
    for chunk in chunks:
        for choice in chunk["choices"]:
            choice.setdefault("delta", {})  # Azure leaves it out of some chunks; the accumulator needs one
        state.handle_chunk(ChatCompletionChunk.construct(**chunk))
    snapshot = state.current_completion_snapshot
    # The accumulator keeps the first chunk's identity; Azure's first chunk has an empty one.
    for name in ("id", "model", "service_tier"):
        setattr(snapshot, name, next((chunk[name] for chunk in chunks if chunk.get(name)), None))
    return chat(snapshot)


def completion_stream(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    made = [Completion.construct(**chunk) for chunk in chunks]
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for chunk in made:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    result = completion(made[-1]) | {"texts": [texts[i] for i in sorted(texts)]}
    return result | {"finish_reason": ",".join(reasons[i] for i in sorted(reasons))}


def chat(made: Any) -> dict[str, Any]:
    messages = [choice.message for choice in made.choices]
    return {
        "operation": "chat",
        "response_model": text_of(made.model),
        "response_id": text_of(number_of(made, "id")),
        "service_tier": text_of(number_of(made, "service_tier")),
        "finish_reason": ",".join(choice.finish_reason for choice in made.choices if choice.finish_reason),
        "input_tokens": number_of(made, "usage", "prompt_tokens"),
        "cached_input_tokens": number_of(made, "usage", "prompt_tokens_details", "cached_tokens"),
        "output_tokens": number_of(made, "usage", "completion_tokens"),
        "reasoning_tokens": number_of(made, "usage", "completion_tokens_details", "reasoning_tokens"),
        "texts": [message.content for message in messages],
        "refusals": [number_of(message, "refusal") for message in messages],
        "tool_calls": [
            [tool_call(call.to_dict()) for call in number_of(message, "tool_calls") or ()] for message in messages
        ],
    }


def tool_call(call: dict[str, Any]) -> list[Any]:
    made = call.get("function") or call["custom"]
    return [call.get("id"), made.get("name"), made.get("arguments", made.get("input"))]


def completion(made: Completion) -> dict[str, Any]:
    return nothing() | {
        "operation": "text_completion",
        "response_model": text_of(made.model),
        "response_id": text_of(number_of(made, "id")),
        "finish_reason": ",".join(choice.finish_reason for choice in made.choices if choice.finish_reason),
        "input_tokens": number_of(made, "usage", "prompt_tokens"),
        "output_tokens": number_of(made, "usage", "completion_tokens"),
        "texts": [choice.text for choice in made.choices],
    }


_UNENDED = ("queued", "in_progress", "requires_action")


def response_of(made: Response) -> dict[str, Any]:
    reason = number_of(made, "incomplete_details", "reason") or made.status
    return {
        "operation": "responses",
        "response_model": made.model,
        "response_id": made.id,
        "service_tier": made.service_tier or "",
        "finish_reason": "" if reason in _UNENDED else reason,
        "input_tokens": number_of(made, "usage", "input_tokens"),
        "cached_input_tokens": number_of(made, "usage", "input_tokens_details", "cached_tokens"),
        "output_tokens": number_of(made, "usage", "output_tokens"),
        "reasoning_tokens": number_of(made, "usage", "output_tokens_details", "reasoning_tokens"),
        "output_text": made.output_text,
        "output_types": [item.type for item in made.output],
    }


def run_of(made: Run) -> dict[str, Any]:
    reason = number_of(made, "incomplete_details", "reason") or made.status
    return {
        "operation": "threads",
        "response_model": made.model,
        "response_id": made.id,
        "finish_reason": "" if reason in _UNENDED else reason,
        "input_tokens": number_of(made, "usage", "prompt_tokens"),
        "output_tokens": number_of(made, "usage", "completion_tokens"),
    }


if __name__ == "__main__":
    main(sys.argv[1])
