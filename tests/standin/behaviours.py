"""What the stand-in can do, by name. Options beyond those of exchange.py are in each one's docstring."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from .exchange import Exchange, Reply
from .websocket import echo, realtime

JSON = [("content-type", "application/json"), ("x-request-id", "req_standin"), ("openai-processing-ms", "7")]
SSE = [("content-type", "text/event-stream; charset=utf-8"), ("x-request-id", "req_standin")]
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 5,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
RESPONSE_USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 16,
}
ERRORS = {
    400: ("invalid_request_error", None, "The request was not understood."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", None, "The engine is currently overloaded."),
}


def word(number: int) -> str:
    """The text of a stream's delta; it has a character of two bytes, so that odd splits show."""
    return f"wörd{number} "


def event(data: dict[str, Any], name: str = "") -> bytes:
    """A server-sent event."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chat_object(model: str, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-standin",
        "object": "chat.completion",
        "created": 1700000000,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        "service_tier": "default",
    }


async def chat(exchange: Exchange) -> None:
    """A chat completion. text: what it says; size: as many bytes of text instead."""
    document = await exchange.document()
    text = "x" * exchange.option("size", 0) or exchange.option("text", "Grüße from the stand-in")
    answer = chat_object(document.get("model", ""), text)
    await exchange.whole(200, JSON, json.dumps(answer, ensure_ascii=False).encode())


def chat_events(model: str, chunks: int, *, usage: bool, done: bool = True) -> list[bytes]:
    """The events of a streamed chat completion, the last one `[DONE]`."""
    base = {
        "id": "chatcmpl-standin",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": model,
    }

    def delta(content: dict[str, Any], reason: str | None = None) -> bytes:
        return event({**base, "choices": [{"index": 0, "delta": content, "finish_reason": reason}]})

    events = [delta({"role": "assistant", "content": ""})]
    events += [delta({"content": word(number)}) for number in range(chunks)]
    events.append(delta({}, "stop"))
    if usage:
        events.append(event({**base, "choices": [], "usage": USAGE}))
    return [*events, b"data: [DONE]\n\n"] if done else events


async def chat_stream(exchange: Exchange) -> None:
    """A streamed chat completion. chunks: deltas with text; done=0: it ends without `[DONE]`;
    fail=1: an error event instead of the rest."""
    document = await exchange.document()
    usage = bool((document.get("stream_options") or {}).get("include_usage"))
    done = bool(exchange.option("done", 1))
    events = chat_events(document.get("model", ""), exchange.option("chunks", 5), usage=usage, done=done)
    if exchange.option("fail", 0):
        events[2:] = [event({"error": _error(500)})]
    await exchange.stream(200, SSE, events)


def response_object(model: str, text: str, status: str = "completed") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    message = {
        "type": "message",
        "id": "msg_standin",
        "role": "assistant",
        "status": status,
        "content": content,
    }
    return {
        "id": "resp_standin",
        "object": "response",
        "created_at": 1700000000,
        "status": status,
        "model": model,
        "output": [message] if text else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": RESPONSE_USAGE if status == "completed" else None,
    }


async def responses(exchange: Exchange) -> None:
    """An answer of the Responses API. text: what it says."""
    document = await exchange.document()
    answer = response_object(document.get("model", ""), exchange.option("text", "Grüße from the stand-in"))
    await exchange.whole(200, JSON, json.dumps(answer, ensure_ascii=False).encode())


async def responses_stream(exchange: Exchange) -> None:
    """A streamed answer of the Responses API. chunks: deltas; last: completed, incomplete, failed, error."""
    document = await exchange.document()
    model = document.get("model", "")
    chunks, last = exchange.option("chunks", 5), exchange.option("last", "completed")
    text = "".join(word(number) for number in range(chunks))
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response_object(model, "", "in_progress")}]
    place = {"item_id": "msg_standin", "output_index": 0, "content_index": 0}
    events += [{"type": "response.output_text.delta", **place, "delta": word(number)} for number in range(chunks)]
    if last == "error":
        kind, code, message = ERRORS[500]
        events.append({"type": "error", "code": code or kind, "message": message, "param": None})
    else:
        events.append({"type": f"response.{last}", "response": response_object(model, text, last)})
    numbered = ({**found, "sequence_number": number} for number, found in enumerate(events))
    await exchange.stream(200, SSE, (event(found, found["type"]) for found in numbered))


async def embeddings(exchange: Exchange) -> None:
    """One embedding of three numbers."""
    document = await exchange.document()
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.125]}],
        "model": document.get("model", ""),
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    await exchange.whole(200, JSON, json.dumps(answer).encode())


async def models(exchange: Exchange) -> None:
    """The list of models: one."""
    await exchange.body()
    one = {"id": "gpt-standin", "object": "model", "created": 1700000000, "owned_by": "stand-in"}
    await exchange.whole(200, JSON, json.dumps({"object": "list", "data": [one]}).encode())


def noise(size: int) -> bytes:
    """Bytes of which some are not UTF-8, the same every time."""
    pattern = bytes(range(256)) * 256
    return (pattern * (size // len(pattern) + 1))[:size]


async def speech(exchange: Exchange) -> None:
    """Binary audio. size: how many bytes."""
    await exchange.body()
    await exchange.whole(200, [("content-type", "audio/mpeg")], noise(exchange.option("size", 3000)))


async def download(exchange: Exchange) -> None:
    """A large body, in pieces of 64 KiB. size: how many bytes; kind: its content type."""
    await exchange.body()
    kind, size = exchange.option("kind", "application/octet-stream"), exchange.option("size", 1_000_000)
    length = size if exchange.option("framing", "length") == "length" else None
    await exchange.head(200, [("content-type", kind)], length)
    block = noise(65536)
    while size:
        await exchange.send(block[:size])
        size -= min(size, len(block))
    await exchange.end()


async def upload(exchange: Exchange) -> None:
    """Takes a body of any size; tells its size and SHA-256."""
    await exchange.body()
    received = exchange.received
    found = {
        "id": "file-standin",
        "object": "file",
        "bytes": received.body_size,
        "sha256": received.body_sha256,
    }
    await exchange.whole(200, JSON, json.dumps(found).encode())


async def early(exchange: Exchange) -> None:
    """Answers after the first `after` bytes of the request's body; then reads the rest (rest=0: closes)."""
    while not exchange.received.complete and exchange.received.body_size < exchange.option("after", 1):
        await exchange.receive()
    status = exchange.option("status", 413)
    await exchange.whole(status, JSON, json.dumps({"error": _error(400)}).encode())
    while exchange.option("rest", 1) and not exchange.received.complete:
        await exchange.receive()


def _error(status: int) -> dict[str, Any]:
    kind, code, message = ERRORS.get(status, ("error", None, "An error."))
    return {"message": message, "type": kind, "param": None, "code": code}


async def error(exchange: Exchange) -> None:
    """An error as OpenAI gives it. status: its status; retry_ms: retry-after-ms, small for a quick retry."""
    await exchange.body()
    status = exchange.option("status", 500)
    headers = [*JSON, ("retry-after-ms", exchange.option("retry_ms", "5"))]
    await exchange.whole(status, headers, json.dumps({"error": _error(status)}).encode())


async def flaky(exchange: Exchange) -> None:
    """An error for the first `fail` tries of an SDK's call (by its retry count), then what the path gives."""
    tries = int(exchange.received.header("x-stainless-retry-count", "0"))
    await (error if tries < exchange.option("fail", 1) else by_path)(exchange)


async def empty(exchange: Exchange) -> None:
    """204 without a body."""
    await exchange.body()
    await exchange.head(204, [("x-request-id", "req_standin")], None)
    await exchange.end()


async def garbage(exchange: Exchange) -> None:
    """Something that is not HTTP, then the end of the connection."""
    await exchange.body()
    connection = getattr(exchange, "connection", None)
    if connection is None:
        raise ValueError("garbage needs HTTP/1.1")
    await connection.write(b"\x00\x01 this is not HTTP \xff\r\n\r\n")
    await connection.break_off("close")


async def silent(exchange: Exchange) -> None:
    """Takes the request and never answers."""
    await exchange.body()
    await asyncio.Event().wait()


async def replay(exchange: Exchange) -> None:
    """A reply that the test has put into `standin.replies`. id: which one."""
    await give(exchange, exchange.standin.replies[exchange.option("id", "")])


async def give(exchange: Exchange, reply: Reply) -> None:
    """Give a reply."""
    await exchange.body()
    await exchange.whole(reply.status, reply.headers, reply.body)


async def by_path(exchange: Exchange) -> None:
    """What OpenAI has at the path."""
    path = exchange.received.path.partition("?")[0]
    if exchange.received.protocol == "websocket":
        await (echo if path.endswith("/echo") else realtime)(exchange)
    elif exchange.received.method == "POST" and path.endswith(("/chat/completions", "/responses")):
        stream = bool((await exchange.document()).get("stream"))
        if path.endswith("/responses"):
            await (responses_stream if stream else responses)(exchange)
        else:
            await (chat_stream if stream else chat)(exchange)
    else:
        await next((found for end, found in PATHS.items() if path.endswith(end)), _no_such_path)(exchange)


async def _no_such_path(exchange: Exchange) -> None:
    exchange.options["status"] = "404"
    await error(exchange)


PATHS: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    "/embeddings": embeddings,
    "/audio/speech": speech,
    "/files": upload,
    "/audio/transcriptions": upload,
    "/content": download,
    "/models": models,
}
BEHAVIOURS: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    behaviour.__name__: behaviour
    for behaviour in (
        by_path,
        chat,
        chat_stream,
        responses,
        responses_stream,
        embeddings,
        models,
        speech,
        download,
        upload,
        early,
        error,
        flaky,
        empty,
        garbage,
        silent,
        replay,
        echo,
        realtime,
    )
}
