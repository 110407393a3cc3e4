"""Sessions over WebSocket: each response once, several at a time, audio as sizes, flat in memory."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from calltracker.openai.websocket import LARGEST_KEPT, Done, Session, shrink
from hypothesis import given
from hypothesis import strategies as st

REALTIME = "wss://api.openai.com/v1/realtime?model=gpt-realtime"
RESPONSES = "wss://api.openai.com/v1/responses"


def play(session: Session, messages: list[tuple[bool, dict[str, Any]]]) -> list[Done]:
    return [done for at, (mine, text) in enumerate(messages) for done in session.feed(mine, json.dumps(text), at)]


def created(response_id: str, **more: Any) -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": response_id, "status": "in_progress", "output": []}, **more}


def text_delta(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text, **more}


def ended(kind: str, response_id: str, **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 7, "output_tokens": 3, "input_token_details": {"cached_tokens": 2}}
    response = {"id": response_id, "status": "completed", "output": [], "usage": usage}
    return {"type": kind, "response": response, **more}


def test_multiplexed_responses_are_told_apart() -> None:
    session = Session(RESPONSES, {"x-llm-calls-tag-team": "a"})
    ask = {"type": "response.create", "input": "hi", "metadata": {"k": "v"}}
    done = play(
        session,
        [
            (True, {**ask, "model": "m-1", "stream_id": "1"}),
            (True, {**ask, "model": "m-2", "stream_id": "2"}),
            (False, created("r2", stream_id="2")),
            (False, created("r1", stream_id="1")),
            (False, text_delta("one", stream_id="1")),
            (False, text_delta("two", stream_id="2")),
            (False, ended("response.completed", "r2", stream_id="2")),
            (False, {"type": "error", "stream_id": "1", "error": {"code": "c", "message": "bad"}}),
        ],
    )
    two, one = done
    assert json.loads(two.request_content)["model"] == two.reading.request_model == "m-2"
    assert (two.start_us, two.first_token_us, two.end_us) == (1, 5, 6)
    assert (two.reading.input_tokens, two.reading.cached_input_tokens, two.reading.output_tokens) == (7, 2, 3)
    assert two.reading.tags == {"k": "v", "team": "a"} and two.reading.finished and not two.reading.failed
    assert json.loads(two.reading.response_json)["output"][0]["content"][0]["text"] == "two"
    assert (one.reading.failed, one.reading.error, one.reading.response_id) == (True, "c: bad", "r1")
    assert one.reading.input_tokens is None
    assert [json.loads(line)["stream_id"] for line in one.response_text.splitlines()] == ["1"] * 3
    assert session.close(9) == []


def test_voice_detection_and_what_belongs_to_no_response() -> None:
    session = Session(REALTIME)
    transcribed = {"type": "tokens", "input_tokens": 5, "output_tokens": 1}
    done = play(
        session,
        [
            (False, {"type": "session.created", "session": {"id": "sess_1", "model": "gpt-realtime-2"}}),
            (False, {"type": "input_audio_buffer.committed", "item_id": "i"}),
            (False, created("r1")),
            (False, {"type": "response.output_audio.delta", "response_id": "r1", "delta": "QUJD" * 100}),
            (False, {"type": "conversation.item.input_audio_transcription.completed", "usage": transcribed}),
            (False, {"type": "error", "error": {"type": "invalid_request_error", "message": "not of the response"}}),
            (False, ended("response.done", "r1")),
        ],
    )
    [one] = done
    assert json.loads(one.request_content)["item_id"] == "i"
    assert (one.start_us, one.first_token_us, one.reading.request_model) == (1, 3, "gpt-realtime-2")
    assert json.loads(one.response_text.splitlines()[1])["delta"] == {"base64_bytes": 400}
    whole = session.reading()
    assert (whole.operation, whole.response_id, whole.input_tokens) == ("realtime.session", "sess_1", 5)
    assert whole.error == "invalid_request_error: not of the response"
    summary = json.loads(whole.response_json)
    assert summary["responses"] == 1 and summary["usage"]["input_tokens"] == 12


def test_an_error_that_names_the_message_ends_that_response() -> None:
    session = Session(REALTIME)
    messages = [
        (True, {"type": "response.create", "event_id": "e1"}),
        (False, {"type": "error", "error": {"type": "t", "code": "c", "message": "m", "event_id": "e1"}}),
    ]
    [one] = play(session, messages)
    assert (one.reading.failed, one.reading.error) == (True, "t (c): m")


def test_a_failed_response_tells_why() -> None:
    session = Session(REALTIME)
    details = {"type": "failed", "error": {"type": "server_error", "code": "x", "message": "m"}}
    failed = {"id": "r1", "status": "failed", "status_details": details, "output": []}
    [one] = play(session, [(False, created("r1")), (False, {"type": "response.done", "response": failed})])
    assert (one.reading.failed, one.reading.error, one.reading.finish_reason) == (True, "server_error (x): m", "failed")


def test_what_is_open_at_the_end_is_incomplete() -> None:
    session = Session(REALTIME)
    assert (
        play(session, [(True, {"type": "response.create"}), (False, created("r1")), (False, text_delta("Par"))]) == []
    )
    [one] = session.close(50)
    answer = json.loads(one.reading.response_json)
    assert one.reading.finished is False and answer["incomplete"] is True
    assert answer["output"][0]["content"][0]["text"] == "Par"
    assert one.end_us == 50


def test_an_hour_of_audio_stays_flat() -> None:
    session = Session(REALTIME)
    session.feed(False, json.dumps(created("r1")), 0)
    audio = json.dumps({"type": "response.output_audio.delta", "response_id": "r1", "delta": "A" * 8000})
    text = json.dumps(text_delta("w" * 500, response_id="r1"))
    append = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 8000})
    tracemalloc.start()
    for at in range(12_000):
        session.feed(True, append, at)
        session.feed(False, audio, at)
        session.feed(False, text, at)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * LARGEST_KEPT
    [one] = session.feed(False, json.dumps(ended("response.done", "r1")), 20_000)
    assert one.truncated and len(one.response_text) < 2 * LARGEST_KEPT and one.reading.input_tokens == 7


def test_media_become_sizes() -> None:
    message = {
        "item": {"content": [{"type": "input_image", "image_url": "data:image/png;base64,QUJD"}]},
        "audio": "QQ==",
    }
    part = {"type": "input_image", "image_url": {"base64_bytes": 4}}
    assert json.loads(shrink(json.dumps(message))) == {"item": {"content": [part]}, "audio": {"base64_bytes": 4}}
    assert shrink(b"\xff\xfe\x00") == '{"binary_bytes":3}'
    assert shrink('{"delta": "text"}') and shrink('"audio": "') == '"audio": "'


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_kinds = st.sampled_from(
    ["response.create", "response.created", "response.done", "error", "session.created", "response.output_text.delta",
     "response.output_item.added", "response.content_part.added", "input_audio_buffer.committed"]
)  # fmt: skip
_names = st.sampled_from(
    ["response", "delta", "item", "part", "output_index", "error", "stream_id", "session", "usage"]
)
_messages = st.builds(lambda kind, rest: {**rest, "type": kind}, _kinds, st.dictionaries(_names, _values, max_size=4))


@given(st.lists(st.tuples(st.booleans(), st.one_of(_messages.map(json.dumps), st.text(), st.binary())), max_size=12))
def test_any_messages_are_taken(messages: list[tuple[bool, str | bytes]]) -> None:
    session = Session(REALTIME)
    for at, (mine, content) in enumerate(messages):
        session.feed(mine, content, at)
    session.close(99)
    session.reading()
