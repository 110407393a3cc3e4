"""The stand-in and the harness themselves, through a mitmdump without the addon."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator

import pytest
from e2e.harness import Client, Proxy, closed_port, until
from standin import Reply, StandIn
from standin.behaviours import chat_events, noise
from standin.codings import decode

CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, StandIn]]:
    with StandIn() as standin:
        routes = {"api.openai.com": standin, "refused.openai.com": closed_port()}
        with Proxy(tmp_path_factory.mktemp("bare"), routes, addon=None) as proxy:
            yield proxy, standin


@pytest.fixture
def openai(bare: tuple[Proxy, StandIn]) -> Iterator[Client]:
    with Client(bare[0], "api.openai.com") as client:
        yield client


def test_two_requests_on_one_connection(openai: Client, bare: tuple[Proxy, StandIn]) -> None:
    first = openai.request("POST", CHAT, BODY)
    second = openai.request("POST", "/v1/embeddings", {"model": "e", "input": "x"})
    assert first.status == second.status == 200
    assert first.json()["choices"][0]["message"]["content"] == "Grüße from the stand-in"
    assert second.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    seen = bare[1].wait_for(lambda log: len(log) >= 2 and log[-1].answered)[-2:]
    assert [(entry.method, entry.path, entry.complete) for entry in seen] == [
        ("POST", CHAT, True),
        ("POST", "/v1/embeddings", True),
    ]
    assert json.loads(seen[0].body) == BODY


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("pieces", [1, 4096])
def test_stream_in_every_coding(openai: Client, coding: str, pieces: int) -> None:
    answer = openai.request(
        "POST", CHAT, {**BODY, "stream": True}, behaviour="chat_stream", coding=coding, pieces=pieces
    )
    assert answer.complete
    assert answer.header("content-encoding") == coding
    assert decode(coding, answer.body) == b"".join(chat_events("gpt-5", 5, usage=False))


def test_reply_given_beforehand(openai: Client, bare: tuple[Proxy, StandIn]) -> None:
    bare[1].on("GET", "/v1/x", Reply(418, [("x-a", "1"), ("x-a", "2")], b"tea"), times=1)
    answer = openai.request("GET", "/v1/x")
    assert (answer.status, answer.body) == (418, b"tea")
    assert [value for name, value in answer.headers if name == "x-a"] == ["1", "2"]
    assert openai.request("GET", "/v1/x").status == 404


def test_binary_download_and_upload(openai: Client) -> None:
    answer = openai.request("GET", "/v1/files/f/content", behaviour="download", size=300_000)
    assert answer.body == noise(300_000)
    sent = noise(200_000)
    answer = openai.request("POST", "/v1/files", sent, {"content-type": "application/octet-stream"})
    assert answer.json()["sha256"] == hashlib.sha256(sent).hexdigest()


@pytest.mark.parametrize("how", ["reset", "abort", "close"])
def test_cut_within_the_body(how: str, tmp_path: object, bare: tuple[Proxy, StandIn]) -> None:
    streamed = {"stream": True, **BODY}
    with Client(None, "localhost", bare[1].port, root=bare[1].root) as client:
        answer = client.request("POST", CHAT, streamed, behaviour="chat_stream", cut=100, how=how)
    assert not answer.complete
    assert answer.body == b"".join(chat_events("gpt-5", 5, usage=False))[:100]


def test_cut_before_the_head_and_garbage_give_502(bare: tuple[Proxy, StandIn]) -> None:
    for behaviour in ({"behaviour": "chat", "cut": "head"}, {"behaviour": "garbage"}):
        with Client(bare[0], "api.openai.com") as client:
            assert client.request("POST", CHAT, BODY, **behaviour).status == 502


def test_gates_and_a_client_that_leaves(bare: tuple[Proxy, StandIn]) -> None:
    proxy, standin = bare
    with Client(proxy, "api.openai.com") as client:
        client.begin("POST", CHAT, BODY, behaviour="chat", gate="leave", gate_at="head")
        standin.gate("leave").wait_reached()
    seen = standin.wait_for(lambda log: log[-1].client_gone)
    assert not seen[-1].answered
    with Client(proxy, "api.openai.com") as client:
        client.begin("POST", CHAT, BODY, behaviour="chat", gate="middle", gate_at=40)
        standin.gate("middle").wait_reached()
        standin.gate("middle").release()
        assert client.answer().complete


def test_early_answer(bare: tuple[Proxy, StandIn]) -> None:
    with Client(None, "localhost", bare[1].port, root=bare[1].root) as client:
        client.send(
            b"POST /v1/files HTTP/1.1\r\nhost: x\r\nx-standin: early; after=10\r\n"
            b"transfer-encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n"
        )
        assert client.answer().status == 413
        client.send(b"0\r\n\r\n")
        assert client.request("GET", "/v1/models").status == 200


def test_continue(bare: tuple[Proxy, StandIn]) -> None:
    with Client(None, "localhost", bare[1].port, root=bare[1].root) as client:
        client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"ok")
        assert client.answer().json()["bytes"] == 2


def test_retries_are_told_by_the_count(openai: Client) -> None:
    for count, status in (("0", 429), ("1", 200)):
        headers = {"x-stainless-retry-count": count}
        assert openai.request("POST", CHAT, BODY, headers, behaviour="flaky", status=429).status == status


def test_refused_and_unknown_names(bare: tuple[Proxy, StandIn]) -> None:
    for name in ("refused.openai.com", "unknown.openai.com"):
        with Client(bare[0], name) as client:
            assert client.connect_status == 502


def test_stop_leaves_nothing(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(addon=None)
    assert "proxy listening" in proxy.log
    assert proxy.stop() == 0
    until(lambda: not proxy.children())
