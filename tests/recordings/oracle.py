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
    ImagesResponse,
    Model,
    ModerationCreateResponse,
)
from openai.types.audio import Transcription
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
    if response["status"] >= 400:
        return found | error(json.loads(body), response["status"])
    if body.lstrip().startswith((b"data:", b"event:")):
        return found | streamed(path, body)
    try:
        payload = json.loads(body)
    except ValueError:
        return found | {"response_json": "", "stream": False}
    return found | {"stream": False, "finished": True} | whole(request["method"], path, payload)


def request_model(body: bytes) -> str:
    try:
        return json.loads(body).get("model") or ""
    except ValueError:
        return ""


def error(body: dict[str, Any], status: int) -> dict[str, Any]:
    """As the package's exceptions have it."""
    data = body.get("error", body)
    raised = openai.APIError(data["message"], request=None, body=data)  # type: ignore[arg-type]
    return {"error": f"{raised.type} ({raised.code}): {raised.message}", "stream": False, "finished": True} | nothing()


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
    if path.endswith("/chat/completions") and method == "POST":
        return chat(ChatCompletion.construct(**payload))
    if path.endswith("/completions") and method == "POST":
        return completion(Completion.construct(**payload))
    if path.endswith("/responses") and method == "POST":
        return response_of(Response.construct(**payload))
    if path.endswith("/embeddings"):
        made = CreateEmbeddingResponse.construct(**payload)
        tokens = {"input_tokens": made.usage.prompt_tokens}
        return nothing() | {"operation": "embeddings", "response_model": made.model} | tokens
    if "/images/" in path:
        made_images = ImagesResponse.construct(**payload)
        shown = [image.model_dump(exclude_unset=True) for image in made_images.data or []]
        return nothing() | {"operation": "images", "images": shown} | tokens_of(made_images.usage)
    if path.endswith("/audio/transcriptions"):
        heard = Transcription.construct(**payload)
        return nothing() | {"operation": "audio"} | tokens_of(heard.usage)
    if path.endswith("/moderations"):
        checked = ModerationCreateResponse.construct(**payload)
        return nothing() | {"operation": "moderations", "response_model": checked.model, "response_id": checked.id}
    if "/files" in path and payload.get("object") == "file":
        kept = FileDeleted.construct(**payload) if method == "DELETE" else FileObject.construct(**payload)
        return nothing() | {"operation": "files", "response_id": kept.id}
    if "/models/" in path:
        return nothing() | {"operation": "models", "response_id": Model.construct(**payload).id}
    resource = path.rpartition("/v1/")[2].partition("/")[0]
    other = openai.BaseModel.construct(**payload)
    found = nothing() | {
        "response_id": getattr(other, "id", None) or "",
        "response_model": getattr(other, "model", None) or "",
    }
    # Why it ended, and the name of what only reads or changes what was generated before, are ours to choose; usage told
    # there was counted where it arose, which `nothing` asserts.
    found.pop("finish_reason")
    return found if resource in ("responses", "chat") else found | {"operation": resource}


def tokens_of(usage: Any) -> dict[str, Any]:
    """Images and transcriptions; a transcription billed by its length has no tokens."""
    return {name: getattr(usage, name, None) for name in ("input_tokens", "output_tokens")}


def streamed(path: str, body: bytes) -> dict[str, Any]:
    events = [event for event in SSEDecoder().iter_bytes(iter([body])) if event.data]
    done = events[-1].data == "[DONE]"
    payloads = [event.json() for event in events if event.data != "[DONE]"]
    found: dict[str, Any] = {"stream": True}
    if path.endswith("/chat/completions"):
        state = ChatCompletionStreamState()
        for payload in payloads:
            for choice in payload["choices"]:
                choice.setdefault("delta", {})  # Azure leaves it out of some chunks; the accumulator needs one
            state.handle_chunk(ChatCompletionChunk.construct(**payload))
        snapshot = state.current_completion_snapshot
        # The accumulator keeps the first chunk's identity; Azure's first chunk has an empty one.
        identity = {
            name: next((payload[name] for payload in payloads if payload.get(name)), None)
            for name in ("id", "model", "service_tier")
        }
        for name, value in identity.items():
            setattr(snapshot, name, value)
        return found | {"finished": done} | chat(snapshot)
    if path.endswith("/completions"):
        chunks = [Completion.construct(**payload) for payload in payloads]
        last = chunks[-1]
        texts: dict[int, str] = {}
        reasons: dict[int, str] = {}
        for chunk in chunks:
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + choice.text
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
        result = completion(last)
        result |= {"texts": [texts[i] for i in sorted(texts)]}
        result |= {"finish_reason": ",".join(reasons[i] for i in sorted(reasons))}
        return found | {"finished": done} | result
    ends = [p for p in payloads if p["type"] in ("response.completed", "response.incomplete", "response.failed")]
    return found | {"finished": bool(ends)} | response_of(Response.construct(**ends[-1]["response"]))


def chat(made: Any) -> dict[str, Any]:
    usage = made.usage
    details = usage and usage.prompt_tokens_details
    output = usage and usage.completion_tokens_details
    messages = [choice.message for choice in made.choices]
    return {
        "operation": "chat",
        "response_model": made.model,
        "response_id": made.id,
        "service_tier": made.service_tier or "",
        "finish_reason": ",".join(choice.finish_reason for choice in made.choices if choice.finish_reason),
        "input_tokens": usage and usage.prompt_tokens,
        "cached_input_tokens": details and details.cached_tokens,
        "output_tokens": usage and usage.completion_tokens,
        "reasoning_tokens": output and output.reasoning_tokens,
        "texts": [message.content for message in messages],
        "refusals": [message.refusal for message in messages],
        "tool_calls": [[tool_call(call.to_dict()) for call in message.tool_calls or ()] for message in messages],
    }


def tool_call(call: dict[str, Any]) -> list[str]:
    made = call.get("function") or call["custom"]
    return [call["id"], made["name"], made.get("arguments") or made["input"]]


def completion(made: Completion) -> dict[str, Any]:
    return nothing() | {
        "operation": "text_completion",
        "response_model": made.model,
        "response_id": made.id,
        "finish_reason": ",".join(choice.finish_reason for choice in made.choices if choice.finish_reason),
        "input_tokens": made.usage and made.usage.prompt_tokens,
        "output_tokens": made.usage and made.usage.completion_tokens,
        "texts": [choice.text for choice in made.choices],
    }


def response_of(made: Response) -> dict[str, Any]:
    reason = made.incomplete_details and made.incomplete_details.reason
    return {
        "operation": "responses",
        "response_model": made.model,
        "response_id": made.id,
        "service_tier": made.service_tier or "",
        "finish_reason": reason or made.status,
        "input_tokens": made.usage and made.usage.input_tokens,
        "cached_input_tokens": made.usage and made.usage.input_tokens_details.cached_tokens,
        "output_tokens": made.usage and made.usage.output_tokens,
        "reasoning_tokens": made.usage and made.usage.output_tokens_details.reasoning_tokens,
        "output_text": made.output_text,
        "output_types": [item.type for item in made.output],
    }


if __name__ == "__main__":
    main(sys.argv[1])
