"""What is captured of every kind of body, and that it passes unchanged."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from e2e.harness import API_KEY, Client, Proxy
from standin import StandIn
from standin.behaviours import chat_events, noise
from standin.codings import decode

CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-5", "messages": [{"role": "user", "content": "Grüße"}]}


def one_row(proxy: Proxy) -> dict[str, Any]:
    [row] = proxy.wait_rows(1)
    assert row["outcome"] == "ok", row
    return row


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("behaviour", ["chat", "chat_stream"])
@pytest.mark.parametrize("pieces", [1, 100_000])
def test_coded_responses(proxy: Proxy, client: Client, coding: str, behaviour: str, pieces: int) -> None:
    answer = client.request("POST", CHAT, BODY, behaviour=behaviour, coding=coding, pieces=pieces)
    assert answer.header("content-encoding") == coding
    row = one_row(proxy)
    assert row["response_text"].encode() == decode(coding, answer.body)
    assert row["response_bytes"] == len(answer.body)
    assert row["response_headers"]["content-encoding"] == coding


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data)[2:-4]),  # without zlib's header, as some clients send it
        ("br", brotli.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
        ("gzip, zstd", lambda data: zstandard.ZstdCompressor().compress(gzip.compress(data))),
    ],
)
def test_coded_requests(proxy: Proxy, client: Client, standin: StandIn, coding: str, encode: Any) -> None:
    body = encode(json.dumps(BODY, ensure_ascii=False).encode())
    client.request(
        "POST", CHAT, body, {"content-encoding": coding, "content-type": "application/json"}, behaviour="empty"
    )
    row = one_row(proxy)
    assert json.loads(row["request_content"]) == BODY
    assert row["request_model"] == "gpt-5"
    assert row["request_bytes"] == len(body)
    assert standin.received()[-1].body == body


def test_a_coding_that_is_a_lie(proxy: Proxy, client: Client) -> None:
    client.request("POST", CHAT, b'{"model":"gpt-5"}', {"content-encoding": "gzip"}, behaviour="empty")
    row = one_row(proxy)
    assert row["request_content"] == ""
    assert "content-encoding" in row["error"]


def test_chunks_come_one_by_one(proxy: Proxy, client: Client, standin: StandIn) -> None:
    events = chat_events("gpt-5", 3, usage=False)
    client.begin(
        "POST", CHAT, {**BODY, "stream": True}, behaviour="chat_stream", chunks=3, gate="g", gate_at=len(events[0])
    )
    client.head()
    assert client.read_until(events[0]).endswith(events[0])  # the first is here while the rest is not even sent
    standin.gate("g").release()
    client.read_until(b"0\r\n\r\n")
    row = one_row(proxy)
    assert row["response_text"].encode() == b"".join(events)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_large_downloads_pass_whole_and_are_kept_in_part(proxy: Proxy, framing: str) -> None:
    with Client(proxy, "api.openai.com") as client:
        answer = client.request(
            "GET", "/v1/x", behaviour="download", size=5_000_000, kind="text/plain", framing=framing
        )
    assert answer.body == noise(5_000_000)
    row = one_row(proxy)
    assert row["response_bytes"] == 5_000_000
    assert row["response_sha256"] == hashlib.sha256(answer.body).hexdigest()


def test_a_long_text_is_cut_at_the_limit(make_proxy: Any) -> None:
    proxy = make_proxy(options={"llm_calls_body_limit": "10k"})
    with Client(proxy, "api.openai.com") as client:
        answer = client.request("POST", CHAT, {**BODY, "pad": "x" * 20_000}, behaviour="chat", size=30_000)
    row = one_row(proxy)
    assert (len(row["request_content"]), len(row["response_text"]), row["truncated"]) == (10_240, 10_240, 1)
    assert row["response_text"] == answer.body[:10_240].decode()
    assert row["response_sha256"] == hashlib.sha256(answer.body).hexdigest()
    assert row["request_model"] == "gpt-5"
    assert row["error"] == ""


def test_a_long_stream_that_is_cut_at_the_limit_has_not_failed(make_proxy: Any) -> None:
    proxy = make_proxy(options={"llm_calls_body_limit": "1k"})
    with Client(proxy, "api.openai.com") as client:
        client.request("POST", CHAT, {**BODY, "stream": True}, behaviour="chat_stream", chunks=50)
    row = one_row(proxy)
    assert (row["truncated"], len(row["response_text"].encode())) == (1, 1024)


def test_what_is_beyond_the_limit_is_read_all_the_same(make_proxy: Any) -> None:
    """The SDK puts the model behind the messages; a stream tells its tokens last, and the SDK leaves at [DONE]."""
    proxy = make_proxy(options={"llm_calls_body_limit": "64k"})
    messages = [{"role": "user", "content": "ß" * 40_000}]
    last = {"model": "gpt-5", "stream": True, "stream_options": {"include_usage": True}, "user": "u"}
    body = json.dumps({"messages": messages, **last}, ensure_ascii=False).encode()
    with Client(proxy, "api.openai.com") as client:
        kind = {"content-type": "application/json"}
        client.begin("POST", CHAT, body, kind, behaviour="chat_stream", chunks=500, late_gate="end")
        assert client.read_until(b"data: [DONE]\n\n").endswith(b"data: [DONE]\n\n")
    row = one_row(proxy)
    assert (row["request_model"], row["tags"], row["truncated"]) == ("gpt-5", {"user": "u"}, 1)
    assert (row["input_tokens"], row["output_tokens"], row["finish_reason"]) == (11, 5, "stop")
    for text, sha256 in (("request_content", "request_sha256"), ("response_text", "response_sha256")):
        assert 65_536 >= len(row[text].encode()) > 65_536 - 4
        assert "\\x" not in row[text] and row[sha256]
    answer = json.loads(row["response_json"])
    assert answer["usage"]["completion_tokens"] == 5


def test_an_answer_that_does_not_fit_keeps_its_shape(make_proxy: Any) -> None:
    proxy = make_proxy(options={"llm_calls_body_limit": "4k"})
    with Client(proxy, "api.openai.com") as client:
        client.request("POST", CHAT, BODY, behaviour="chat", size=30_000)
    row = one_row(proxy)
    answer = json.loads(row["response_json"])
    assert answer["choices"][0]["message"]["content"].endswith("…")
    assert (answer["usage"]["completion_tokens"], row["output_tokens"], row["truncated"]) == (5, 5, 1)


def test_binary_answers_are_told_and_not_kept(proxy: Proxy, client: Client) -> None:
    answer = client.request("POST", "/v1/audio/speech", {"model": "tts-1", "input": "x"}, behaviour="speech", size=3000)
    row = one_row(proxy)
    digest = hashlib.sha256(answer.body).hexdigest()
    assert json.loads(row["response_text"]) == {"content_type": "audio/mpeg", "bytes": 3000, "sha256": digest}
    assert row["response_sha256"] == digest


def test_text_that_is_not_utf_8_is_written_in_utf_8(proxy: Proxy, client: Client) -> None:
    client.request(
        "POST", CHAT, b'{"model": "gpt-5", "x": "\xff\xe9"}', {"content-type": "text/plain"}, behaviour="upload"
    )
    assert one_row(proxy)["request_content"] == '{"model": "gpt-5", "x": "\\xff\\xe9"}'


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_uploads_pass_whole_and_their_files_are_described(
    proxy: Proxy, client: Client, standin: StandIn, framing: str
) -> None:
    audio = os.urandom(3_000_000)
    parts = [
        b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n'
        + audio,
        b'--xx\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1',
        b"--xx--\r\n",
    ]
    body = b"\r\n".join(parts)
    headers = {"content-type": "multipart/form-data; boundary=xx", "x-standin": "upload"}
    if framing == "chunked":
        pieces = [body[at : at + 70_000] for at in range(0, len(body), 70_000)]
        body_sent = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        head = {**headers, "transfer-encoding": "chunked", "content-length": ""}
        client.send(Client.encode("POST", "/v1/audio/transcriptions", b"", head) + body_sent)
    else:
        client.send(Client.encode("POST", "/v1/audio/transcriptions", body, headers))
    assert client.answer().json()["sha256"] == hashlib.sha256(body).hexdigest()
    row = one_row(proxy)
    assert row["request_bytes"] == len(body)
    assert row["request_model"] == "whisper-1"
    content = json.loads(row["request_content"])
    assert content["model"] == "whisper-1"
    assert content["file"]["filename"] == "a.mp3"
    assert content["file"]["sha256"] == hashlib.sha256(audio).hexdigest()


def test_expect_100_continue(proxy: Proxy, client: Client) -> None:
    head = {"expect": "100-continue", "content-length": "17", "x-standin": "upload"}
    client.send(Client.encode("POST", CHAT, b"", head))
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
    client.send(b'{"model":"gpt-5"}')
    assert client.answer().status == 200
    assert one_row(proxy)["request_content"] == '{"model":"gpt-5"}'


def test_empty_bodies(proxy: Proxy, client: Client) -> None:
    assert client.request("DELETE", "/v1/x", behaviour="empty").status == 204
    row = one_row(proxy)
    assert (row["request_content"], row["response_text"], row["response_bytes"]) == ("", "", 0)


def test_tags_are_recorded_and_not_sent_on(proxy: Proxy, client: Client, standin: StandIn) -> None:
    client.request("POST", CHAT, {**BODY, "user": "u1"}, {"X-LLM-Calls-Tag-Team": "search"})
    assert not any("tag" in name.lower() for name, _ in standin.received()[-1].headers)
    assert one_row(proxy)["tags"]["team"] == "search"


def test_without_bodies_only_the_facts_are_kept(make_proxy: Any) -> None:
    proxy = make_proxy(options={"llm_calls_bodies": "off"})
    with Client(proxy, "api.openai.com") as client:
        answer = client.request("POST", CHAT, BODY)
        client.request("POST", CHAT, {**BODY, "stream": True}, behaviour="chat_stream")
    rows = proxy.wait_rows(2)
    kept = {(row["request_content"], row["response_text"], row["response_json"]) for row in rows}
    assert kept == {('{"model":"gpt-5"}', "", "")}
    assert {row["outcome"] for row in rows} == {"ok"}
    assert (rows[0]["response_bytes"], rows[0]["output_tokens"]) == (len(answer.body), 5)
    proxy.stop()
    for path in proxy.journal.parent.rglob("*"):
        assert not path.is_file() or "Grüße".encode() not in path.read_bytes(), path


def test_foreign_hosts_are_tunnelled_and_leave_no_row(make_proxy: Any, standin: StandIn) -> None:
    proxy = make_proxy(routes={"api.openai.com": standin, "example.com": standin})
    with Client(proxy, "example.com", root=standin.root) as client:  # the upstream's own certificate: not decrypted
        assert client.request("GET", "/v1/models").status == 200
    with Client(proxy, "api.openai.com") as client:
        client.request("POST", CHAT, BODY)
    assert one_row(proxy)["server_address"] == "api.openai.com"


def test_hosts_of_the_user(make_proxy: Any, standin: StandIn) -> None:
    proxy = make_proxy(routes={"openrouter.ai": standin}, options={"llm_calls_hosts": "openrouter.ai:8443"})
    with Client(proxy, "openrouter.ai", 8443) as client:
        client.request("POST", CHAT, BODY)
    row = one_row(proxy)
    assert row["server_address"] == "openrouter.ai:8443"
    assert row["request_url"] == "https://openrouter.ai:8443/v1/chat/completions"


def test_reverse_mode_needs_no_certificate(make_proxy: Any) -> None:
    proxy = make_proxy(arguments=["--mode", "reverse:https://api.openai.com"])
    with Client(None, "127.0.0.1", proxy.port, tls=False) as client:
        assert client.request("POST", CHAT, BODY).status == 200
    assert one_row(proxy)["request_url"] == "https://api.openai.com/v1/chat/completions"


def test_replayed_calls(make_proxy: Any, tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    first = make_proxy(arguments=["-w", str(flows)])
    with Client(first, "api.openai.com") as client:
        client.request("POST", CHAT, BODY)
    original = one_row(first)
    first.stop()
    again = make_proxy(arguments=["-C", str(flows)])
    row = one_row(again)
    assert row["request_content"] == original["request_content"]
    assert row["call_id"] != original["call_id"]
    read = make_proxy(arguments=["-r", str(flows)])
    with Client(read, "api.openai.com") as client:
        client.request("GET", "/v1/models")
    assert one_row(read)["request_method"] == "GET"


@pytest.mark.parametrize("detail", ["1", "3"])
def test_no_key_is_written_anywhere(make_proxy: Any, detail: str) -> None:
    # wide enough that mitmdump does not cut a URL before its parameters; with 3 it prints headers and bodies, too
    proxy = make_proxy(options={"flow_detail": detail}, environment={"COLUMNS": "500"})
    with Client(proxy, "api.openai.com") as client:
        assert_no_key_is_written_anywhere(proxy, client)
    assert "?api-key=[masked]&x=1" in proxy.log
    assert ("cookie: [masked]" in proxy.log) is (detail == "3")


def assert_no_key_is_written_anywhere(proxy: Proxy, client: Client) -> None:
    secret = "ek_" + base64.urlsafe_b64encode(os.urandom(20)).decode().rstrip("=") + "1"
    mcp = "mcp-token-of-somebody"
    client.request("POST", CHAT, {**BODY, "echo": API_KEY}, {"api-key": API_KEY, "cookie": "c=" + mcp})
    client.request("POST", f"{CHAT}?api-key={API_KEY}&x=1", BODY, behaviour="chat_stream")
    client.request(
        "POST", CHAT, {**BODY, "tools": [{"type": "mcp", "authorization": mcp}]}, behaviour="error", status=401
    )
    client.request("POST", CHAT, gzip.compress(API_KEY.encode()), {"content-encoding": "gzip"}, behaviour="upload")
    client.request("POST", "/v1/x", {"client_secret": {"value": secret}}, behaviour="chat", text=API_KEY)
    rows = proxy.wait_rows(5)
    assert len({row["api_key_hash"] for row in rows}) == 1
    assert rows[0]["api_key_hash"]
    proxy.stop()
    files = [path for path in proxy.folder.rglob("*") if path.is_file() and "upstream" not in path.name]
    assert len(files) > 5
    for path in files:
        data = path.read_bytes()
        for key in (API_KEY, secret, mcp):
            assert key.encode() not in data, path


def test_files_are_the_owners_alone(proxy: Proxy, client: Client) -> None:
    client.request("POST", CHAT, BODY)
    one_row(proxy)
    for path in [proxy.journal.parent, *proxy.journal.parent.rglob("*"), proxy.home]:
        assert path.stat().st_mode & 0o077 == 0 or path.name.endswith(".lock"), path
