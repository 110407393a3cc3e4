"""What `read` tells of made-up exchanges: shapes that the recordings do not have, and anything at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from calltracker.openai import Exchange, Reading, read
from calltracker.openai.operations import operation_of
from hypothesis import given
from hypothesis import strategies as st


def ask(
    body: bytes,
    *,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    request: Any = None,
    status: int = 200,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Reading:
    return read(
        Exchange(
            method=method,
            url=f"https://api.openai.com{path}",
            request_headers={"content-type": "application/json", **(headers or {})},
            request_body=request if isinstance(request, bytes) else json.dumps(request or {}).encode(),
            status=status,
            response_headers={"content-type": content_type},
            response_body=body,
        )
    )


def stream(*events: Any, names: bool = False, done: bool = False, **more: Any) -> Reading:
    """Read a stream of events: objects, or (name, object)."""
    text = ""
    for event in events:
        name, data = event if isinstance(event, tuple) else (event.get("type") if names else None, event)
        text += (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"
    body = (text + ("data: [DONE]\n\n" if done else "")).encode()
    return ask(body, content_type="text/event-stream", **more)


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": list(choices), **more}


def delta(value: dict[str, Any], index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "delta": value, "finish_reason": None, **more}


def test_chat_with_everything() -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    reading = stream(
        chunk(delta({"role": "assistant", "content": ""})),
        chunk(delta({"reasoning_content": "Hm"}), obfuscation="xx"),
        chunk(delta({"reasoning_content": "m."}), usage={"prompt_tokens": 5, "completion_tokens": 1}),
        chunk(delta({"content": "Hel"}), delta({"refusal": "No"}, 1)),
        chunk(delta({"content": "lo"}, logprobs={"content": [{"token": "lo"}]}), delta({"refusal": " way"}, 1)),
        chunk(delta({"tool_calls": [call]})),
        chunk(delta({"tool_calls": [{"index": 1, "id": "call_2", "function": {"name": "g", "arguments": "{}"}}]})),
        chunk(delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]})),
        chunk(delta({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]})),
        chunk(delta({"audio": {"id": "au", "transcript": "he"}}, 1)),
        chunk(delta({"audio": {"transcript": "y", "data": "QUJD"}}, 1)),
        chunk(delta({}, finish_reason="tool_calls"), delta({}, 1, finish_reason="stop")),
        chunk(usage={"prompt_tokens": 5, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}),
        done=True,
    )
    answer = json.loads(reading.response_json)
    first, second = (choice["message"] for choice in answer["choices"])
    assert (first["content"], first["reasoning_content"]) == ("Hello", "Hmm.")
    assert [call["function"]["arguments"] for call in first["tool_calls"]] == ['{"a":1}', "{}"]
    assert "index" not in first["tool_calls"][0] and first["tool_calls"][0]["id"] == "call_1"
    assert second["refusal"] == "No way" and second["audio"] == {"id": "au", "transcript": "hey", "data": "QUJD"}
    assert answer["object"] == "chat.completion" and "obfuscation" not in answer and "incomplete" not in answer
    assert (reading.finish_reason, reading.input_tokens, reading.cached_input_tokens) == ("tool_calls,stop", 5, 4)
    assert (reading.output_tokens, reading.reasoning_tokens, reading.finished) == (9, None, True)
    assert reading.first_token_offset is not None


def test_an_error_in_a_stream() -> None:
    error = {"error": {"type": "server_error", "code": "overloaded", "message": "later"}}
    reading = stream(chunk(delta({"content": "He"})), error)
    assert (reading.failed, reading.error) == (True, "server_error (overloaded): later")
    named = stream(("error", {"message": "m", "type": "server_error", "code": None}), path="/v1/threads/t/runs")
    assert (named.failed, named.error) == (True, "server_error: m")


ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
RESPONSE = {"id": "resp_1", "object": "response", "model": "m", "status": "in_progress", "output": []}


def response_events(text: list[str]) -> list[dict[str, Any]]:
    place = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    part = {"type": "output_text", "text": "", "annotations": []}
    return [
        {"type": "response.created", "response": RESPONSE},
        {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
        {"type": "response.content_part.added", **place, "part": part},
        *[{"type": "response.output_text.delta", **place, "delta": piece} for piece in text],
    ]


@pytest.mark.parametrize("names", [True, False])
def test_a_cut_response_gives_what_had_come(names: bool) -> None:
    reading = stream(*response_events(["Hel", "lo"]), names=names, path="/v1/responses")
    answer = json.loads(reading.response_json)
    assert answer["output"][0]["content"][0] == {"type": "output_text", "text": "Hello", "annotations": []}
    assert (answer["incomplete"], answer["status"]) == (True, "in_progress")
    assert (reading.finished, reading.response_id, reading.finish_reason) == (False, "resp_1", "")
    assert (reading.input_tokens, reading.output_tokens) == (None, None)


@pytest.mark.parametrize(
    ("item", "kind", "grown"),
    [
        ({"type": "function_call"}, "function_call_arguments", {"arguments": "ab"}),
        (
            {"type": "shell_call", "action": {"commands": [], "timeout_ms": 1}},
            "shell_call_command",
            {"action": {"commands": ["ab", "ab"], "timeout_ms": 1}},
        ),
        (
            {"type": "apply_patch_call", "operation": {"path": "x", "diff": ""}},
            "apply_patch_call_operation_diff",
            {"operation": {"path": "x", "diff": "ab"}},
        ),
    ],
)
def test_a_tool_call_that_was_cut_gives_what_had_come(item: dict[str, Any], kind: str, grown: dict[str, Any]) -> None:
    indexes = [{"command_index": 0}, {"command_index": 1}] if "shell" in kind else [{}]
    deltas = [
        {"type": f"response.{kind}.delta", "output_index": 0, "delta": piece, **index}
        for index in indexes
        for piece in "ab"
    ]
    added = {"type": "response.output_item.added", "output_index": 0, "item": item}
    reading = stream({"type": "response.created", "response": RESPONSE}, added, *deltas, path="/v1/responses")
    assert json.loads(reading.response_json)["output"] == [{**item, **grown}]
    assert reading.first_token_offset is not None


@pytest.mark.parametrize(
    ("kind", "more", "reason", "error"),
    [
        ("completed", {}, "completed", ""),
        ("incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens", ""),
        ("failed", {"error": {"code": "server_error", "message": "oops"}}, "failed", "server_error: oops"),
    ],
)
def test_how_a_response_ends(kind: str, more: dict[str, Any], reason: str, error: str) -> None:
    last = {**RESPONSE, "status": kind, **more}
    reading = stream(*response_events(["x"]), {"type": f"response.{kind}", "response": last}, path="/v1/responses")
    assert (reading.finished, reading.finish_reason, reading.error) == (True, reason, error)
    assert reading.failed is (kind == "failed")


def test_images_and_transcripts_and_speech() -> None:
    usage = {"input_tokens": 4, "output_tokens": 6, "total_tokens": 10}
    image = stream(
        {"type": "image_generation.partial_image", "b64_json": "AA==", "partial_image_index": 0},
        {"type": "image_generation.completed", "b64_json": "QUI=", "created_at": 5, "size": "auto", "usage": usage},
        path="/v1/images/generations",
    )
    assert json.loads(image.response_json)["data"] == [{"b64_json": "QUI="}]
    assert (image.input_tokens, image.output_tokens, image.finished) == (4, 6, True)
    spoken = {"type": "transcript.text.done", "text": "Hello", "usage": usage}
    heard = [{"type": "transcript.text.delta", "delta": text} for text in ("Hel", "lo")]
    whole = stream(*heard, spoken, path="/v1/audio/transcriptions")
    assert json.loads(whole.response_json) == {"text": "Hello", "usage": usage} and whole.finished
    cut = stream(*heard, path="/v1/audio/transcriptions")
    assert json.loads(cut.response_json) == {"text": "Hello", "incomplete": True} and cut.finished is False
    speech = stream(
        {"type": "speech.audio.delta", "audio": "QUJD"},
        {"type": "speech.audio.done", "usage": usage},
        path="/v1/audio/speech",
    )
    assert json.loads(speech.response_json) == {"audio": {"base64_bytes": 4}, "usage": usage}


def test_a_run_of_an_assistant() -> None:
    run = {"id": "run_1", "object": "thread.run", "model": "m", "status": "in_progress", "usage": None}
    text = [{"index": 0, "type": "text", "text": {"value": value, "annotations": []}} for value in ("Hi", " there")]
    step = {"id": "s", "type": "message_creation", "object": "thread.run.step"}
    events = [
        ("thread.run.created", run),
        ("thread.run.step.created", step),
        ("thread.message.created", {"id": "msg", "object": "thread.message", "content": []}),
        *[("thread.message.delta", {"id": "msg", "delta": {"content": [part]}}) for part in text],
    ]
    cut = stream(*events, path="/v1/threads/t/runs")
    assert cut.finished is False and cut.first_token_offset is not None
    assert json.loads(cut.response_json)["messages"][0]["content"][0]["text"]["value"] == "Hi there"
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    done = stream(
        *events, ("thread.run.completed", {**run, "status": "completed", "usage": usage}), path="/v1/threads/t/runs"
    )
    assert (done.finished, done.finish_reason, done.input_tokens, done.response_id) == (True, "completed", 3, "run_1")


def test_a_read_is_not_counted_again() -> None:
    usage = {"input_tokens": 10, "output_tokens": 20}
    body = json.dumps({**RESPONSE, "status": "completed", "usage": usage}).encode()
    made = ask(body, path="/v1/responses", request={"model": "m"})
    again = ask(body, path="/v1/responses/resp_1", method="GET")
    assert (made.operation, made.input_tokens, made.output_tokens) == ("responses", 10, 20)
    assert (again.operation, again.input_tokens, again.output_tokens) == ("responses.retrieve", None, None)
    assert again.response_id == "resp_1" and json.loads(again.response_json)["usage"] == usage


def test_a_batch_output_is_added_up_and_marked() -> None:
    def line(number: int, status: int, usage: dict[str, int]) -> str:
        response = {"status_code": status, "body": {"model": "m", "usage": usage}}
        return json.dumps({"id": f"b{number}", "custom_id": str(number), "response": response, "error": None})

    lines = [
        line(1, 200, {"prompt_tokens": 1, "completion_tokens": 2}),
        line(2, 200, {"input_tokens": 10}),
        line(3, 500, {}),
    ]
    path = "/v1/files/file-9/content"
    whole = ask("\n".join(lines).encode(), method="GET", path=path, content_type="application/octet-stream")
    assert (whole.operation, whole.response_id, whole.response_model) == ("batches.output", "file-9", "m")
    assert (whole.input_tokens, whole.output_tokens, whole.cached_input_tokens) == (11, 2, None)
    assert json.loads(whole.response_json)["failed"] == 1 and whole.finished
    cut = ask("\n".join(lines).encode()[:-9], method="GET", path=path)
    assert cut.finished is False and json.loads(cut.response_json)["requests"] == 2


def test_unreadable_and_cut_payloads_are_explained() -> None:
    page = ask(b"<html>Bad Gateway</html>", status=502, content_type="text/html")
    assert page.error.startswith("response body is not JSON: ") and "<html>Bad Gateway</html>" in page.error
    cut = ask(b'{"id": "c1", "model": "m", "choices": [{"mess')
    assert (cut.finished, cut.response_model, json.loads(cut.response_json)["incomplete"]) == (False, "m", True)
    assert cut.error == "response body is not whole JSON: it ends after 45 bytes"
    assert ask(b"{}", request=b'{"model": "m", "messages": [{"content": "aaa').request_model == "m"
    assert ask(b"{}", request=b"{'model'}").error.startswith("request body is not JSON: ")
    assert ask(b"1\n00:00 --> 00:01", path="/v1/audio/transcriptions", content_type="text/plain").error == ""


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c"}}, "t (c): m"),
        ({"error": {"message": "m", "type": "t", "code": None}}, "t: m"),
        ({"error": "plain"}, "plain"),
        ({"object": "error", "message": "m", "type": "BadRequest", "code": 400}, "BadRequest (400): m"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"msg": "a"}, {"msg": "b"}]}, "a; b"),
        ([{"error": {"code": 400, "message": "m"}}], "400: m"),
        ({"statusCode": 401, "message": "Access denied"}, "401: Access denied"),
    ],
)
def test_errors_of_many_servers(body: Any, error: str) -> None:
    assert ask(json.dumps(body).encode(), status=400).error == error


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 0}, (3, None, 0, None)),
        ({"prompt_tokens": 3, "prompt_cache_hit_tokens": 2, "prompt_cache_miss_tokens": 1}, (3, 2, None, None)),
        ({"input_tokens": -1, "output_tokens": True}, (None, None, None, None)),
        ({"input_tokens": 2**70, "output_tokens": 1.5}, (None, None, None, None)),
        (None, (None, None, None, None)),
    ],
)
def test_unknown_is_not_zero(usage: Any, tokens: tuple[int | None, ...]) -> None:
    reading = ask(json.dumps({"id": "c", "choices": [], "usage": usage}).encode())
    told = (reading.input_tokens, reading.cached_input_tokens, reading.output_tokens, reading.reasoning_tokens)
    assert told == tokens


def test_tags() -> None:
    request = {"metadata": {"a": "1", "b": 2}, "user": "u", "safety_identifier": "s"}
    reading = ask(b"{}", request=request, headers={"x-llm-calls-tag-a": "header", "x-stainless-retry-count": "2"})
    assert reading.tags == {"a": "header", "b": "2", "user": "u", "safety_identifier": "s"}
    assert reading.retry_count == 2


@pytest.mark.parametrize(
    ("method", "path", "name", "generates", "model"),
    [
        ("POST", "/v1/chat/completions", "chat", True, ""),
        ("POST", "//openai/deployments/chat/embeddings?api-version=1", "embeddings", True, ""),
        ("POST", "/openai/v1/responses", "responses", True, ""),
        ("POST", "/v1/engines/ada/completions", "text_completion", True, "ada"),
        ("POST", "/models/chat/completions", "chat", True, ""),
        ("POST", "/v1/responses/r/cancel", "responses.cancel", False, ""),
        ("POST", "/v1/responses/compact", "responses", True, ""),
        ("GET", "/v1/responses/r/input_items", "responses.input_items", False, ""),
        ("GET", "/v1/chat/completions", "chat.list", False, ""),
        ("DELETE", "/v1/chat/completions/c", "chat.delete", False, ""),
        ("GET", "/v1/vector_stores/v/files", "vector_stores", False, ""),
        ("GET", "/v1/realtime?model=gpt-realtime", "realtime", False, "gpt-realtime"),
        ("GET", "/v1/models/curie", "models", False, ""),
        ("GET", "/", "", False, ""),
    ],
)
def test_operations(method: str, path: str, name: str, generates: bool, model: str) -> None:
    operation = operation_of(method, f"https://host.example{path}")
    assert (operation.name, operation.generates, operation.model) == (name, generates, model)


_names = [
    "id",
    "type",
    "choices",
    "delta",
    "index",
    "usage",
    "output",
    "response",
    "item",
    "error",
    "text",
    "content",
    "model",
    "status",
    "object",
    "tool_calls",
    "message",
    "metadata",
    "prompt_tokens",
    "output_index",
    "part",
    "data",
    "body",
    "custom_id",
    "incomplete_details",
]
_texts = st.sampled_from(["response.completed", "response.output_text.delta", "response", "thread.run"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_names), inner | _texts, max_size=5),
    max_leaves=12,
)
_kinds = st.sampled_from(
    [
        "",
        "response.created",
        "response.output_item.added",
        "response.output_text.delta",
        "error",
        "thread.message.delta",
        "thread.run.completed",
        "image_edit.completed",
        "transcript.text.done",
        "speech.audio.delta",
        "response.failed",
    ]
)
_bodies = st.one_of(
    st.binary(max_size=200),
    _json.map(lambda value: json.dumps(value).encode()),
    st.lists(st.tuples(_kinds, _json), max_size=8).map(
        lambda events: "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events).encode()
    ),
)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "\\ud800", "id": NaN, "choices": [{"finish_reason": "\\udfff"}]}',
        b'{"model": "\xff\xfe"}',
        b'data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"usage": {"prompt_tokens": ' + b"9" * 5000 + b"}}",
        b'data: {"choices": [{"delta": ' + b'{"content": ' * 900 + b"1" + b"}" * 900 + b"}]}\n\n",
        b'{"error": ' + b'{"error": ' * 900,
    ],
)
def test_what_others_call_json(body: bytes) -> None:
    reading = ask(body, request=body)
    for text in (reading.response_json, reading.error, reading.response_model, reading.finish_reason):
        text.encode()
    assert not reading.response_json or json.loads(reading.response_json) is not None


@given(
    _bodies,
    st.one_of(st.binary(max_size=50), _json.map(lambda value: json.dumps(value).encode())),
    st.sampled_from(
        ["/v1/chat/completions", "/v1/responses", "/v1/files/f/content", "/v1/images/edits", "/%ff?model=%ff"]
    ),
    st.sampled_from(["POST", "GET"]),
    st.sampled_from([0, 200, 400]),
    st.sampled_from(["application/json", "text/event-stream", "multipart/form-data; boundary=b", ""]),
    st.integers(0, 300),
)
def test_any_bytes_are_taken(
    body: bytes, request: bytes, path: str, method: str, status: int, content_type: str, cut: int
) -> None:
    for part in (body, body[:cut]):
        reading = ask(part, request=request, path=path, method=method, status=status, content_type=content_type)
        if reading.response_json:
            json.loads(reading.response_json)
        for text in (
            reading.error,
            reading.request_model,
            reading.response_json,
            *reading.tags,
            *reading.tags.values(),
        ):
            text.encode()
