"""Exactly one truthful row a call, whatever becomes of it: what the client saw, the row, and that there is one."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import Client, Proxy, closed_port
from standin import StandIn
from standin.behaviours import chat_events

CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}
STREAMED = {**BODY, "stream": True}


def the_row(proxy: Proxy, outcome: str, status: int) -> dict[str, Any]:
    """The one row that there is, once it is there; a second one would be there by the time of a later call's row."""
    [row] = proxy.wait_rows(1)
    assert (row["outcome"], row["response_status_code"]) == (outcome, status), row
    return row


def assert_no_more(proxy: Proxy, client: Client, rows: int) -> None:
    """One more call, and when its row is there, no other has come."""
    assert client.request("GET", "/v1/models").status == 200
    found = proxy.wait_rows(lambda rows: any(row["request_method"] == "GET" for row in rows))
    assert len(found) == rows + 1


def test_plain(proxy: Proxy, client: Client) -> None:
    answer = client.request("POST", CHAT, BODY)
    assert answer.status == 200
    row = the_row(proxy, "ok", 200)
    assert row["request_method"] == "POST"
    assert row["request_url"] == "https://api.openai.com/v1/chat/completions"
    assert row["request_model"] == "gpt-5"
    assert row["response_text"] == answer.body.decode()
    assert row["response_bytes"] == len(answer.body)
    assert row["latency_ms"] >= 0
    assert row["error"] == ""
    assert_no_more(proxy, client, 1)


def test_stream_read_to_its_end(proxy: Proxy, client: Client) -> None:
    answer = client.request("POST", CHAT, STREAMED, behaviour="chat_stream", chunks=20)
    assert answer.complete
    assert answer.body == b"".join(chat_events("gpt-5", 20, usage=False))
    row = the_row(proxy, "ok", 200)
    assert row["response_text"] == answer.body.decode()
    assert row["stream"] == 1
    assert_no_more(proxy, client, 1)


def test_stream_left_after_done_is_ok(proxy: Proxy, client: Client, standin: StandIn) -> None:
    with Client(proxy, "api.openai.com") as sdk:
        sdk.begin("POST", CHAT, STREAMED, behaviour="chat_stream", late_gate="end")
        assert sdk.read_until(b"data: [DONE]\n\n").endswith(b"data: [DONE]\n\n")
    row = the_row(proxy, "ok", 200)
    assert row["response_text"].endswith("data: [DONE]\n\n")
    assert row["error"] == ""
    standin.gate("end").release()
    assert_no_more(proxy, client, 1)


def test_client_cancels_a_stream(proxy: Proxy, client: Client, standin: StandIn) -> None:
    events = chat_events("gpt-5", 20, usage=False)
    with Client(proxy, "api.openai.com") as leaving:
        leaving.begin(
            "POST", CHAT, STREAMED, behaviour="chat_stream", chunks=20, gate="half", gate_at=len(events[0]) + 10
        )
        leaving.read_until(b"\r\n\r\n")
        leaving.read_until(b'"choices"')
    row = the_row(proxy, "client_cancelled", 200)
    assert row["response_text"] and b"".join(events).startswith(row["response_text"].encode())
    assert row["error"]
    standin.gate("half").release()
    assert_no_more(proxy, client, 1)


def test_client_gives_up_before_the_response(proxy: Proxy, client: Client, standin: StandIn) -> None:
    with Client(proxy, "api.openai.com") as leaving:
        leaving.begin("POST", CHAT, BODY, behaviour="silent")
        standin.wait_for(lambda log: len(log) == 1 and log[0].complete)
    row = the_row(proxy, "client_cancelled", 0)
    assert row["request_model"] == "gpt-5"
    assert row["response_text"] == ""
    assert row["first_byte_time"] is None
    assert_no_more(proxy, client, 1)


@pytest.mark.parametrize("how", ["reset", "close", "abort"])
def test_upstream_breaks_off_a_stream(proxy: Proxy, how: str) -> None:
    with Client(proxy, "api.openai.com") as client:
        answer = client.request("POST", CHAT, STREAMED, behaviour="chat_stream", chunks=9, cut=700, how=how)
    assert answer.status == 200
    assert not answer.complete
    row = the_row(proxy, "server_cut", 200)
    assert answer.body.startswith(row["response_text"].encode())
    assert row["error"]


def test_upstream_breaks_off_a_body_of_known_length(proxy: Proxy) -> None:
    with Client(proxy, "api.openai.com") as client:
        answer = client.request("POST", CHAT, BODY, behaviour="chat", size=5000, cut=700, how="reset")
    assert answer.status == 502
    row = the_row(proxy, "server_cut", 200)
    assert row["error"]


@pytest.mark.parametrize("how", ["reset", "close"])
def test_upstream_closes_before_the_response(proxy: Proxy, how: str) -> None:
    with Client(proxy, "api.openai.com") as client:
        assert client.request("POST", CHAT, BODY, behaviour="chat", cut="head", how=how).status == 502
    assert the_row(proxy, "server_cut", 0)["error"]


def test_garbage_is_no_response(proxy: Proxy) -> None:
    with Client(proxy, "api.openai.com") as client:
        assert client.request("POST", CHAT, BODY, behaviour="garbage").status == 502
    assert the_row(proxy, "server_cut", 0)["error"]


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_errors_of_openai(proxy: Proxy, client: Client, status: int) -> None:
    answer = client.request("POST", CHAT, BODY, behaviour="error", status=status)
    assert answer.status == status
    row = the_row(proxy, "http_error", status)
    assert row["response_text"] == answer.body.decode()
    assert row["error"]
    assert_no_more(proxy, client, 1)


def test_an_error_inside_a_stream(proxy: Proxy, client: Client) -> None:
    answer = client.request("POST", CHAT, STREAMED, behaviour="chat_stream", fail=1)
    assert answer.status == 200
    row = the_row(proxy, "api_error", 200)
    assert "server_error" in row["error"]
    assert_no_more(proxy, client, 1)


def test_refused(make_proxy: Any) -> None:
    proxy = make_proxy(routes={"api.openai.com": closed_port()})
    with Client(proxy, "api.openai.com") as client:
        assert client.connect_status == 502
    row = the_row(proxy, "connect_failed", 0)
    assert row["request_method"] == "CONNECT"
    assert row["request_url"] == "api.openai.com:443"
    assert "refused" in row["error"].lower() or "connect" in row["error"].lower()


def test_unknown_name(make_proxy: Any) -> None:
    proxy = make_proxy(routes={"api.openai.com": None})
    with Client(proxy, "api.openai.com") as client:
        assert client.connect_status == 502
    assert the_row(proxy, "connect_failed", 0)["server_address"] == "api.openai.com"


def test_untrusted_upstream(make_proxy: Any, tmp_path: Path) -> None:
    with StandIn() as standin:
        proxy = make_proxy(routes={"api.openai.com": standin.port})  # its root is not given to the proxy
        with Client(proxy, "api.openai.com") as client:
            assert client.request("POST", CHAT, BODY).status == 502
    row = the_row(proxy, "connect_failed", 0)
    assert "ertificate" in row["error"]
    assert row["request_model"] == "gpt-5"


def test_a_client_that_does_not_trust_the_ca_is_warned_of(proxy: Proxy, client: Client, tmp_path: Path) -> None:
    with pytest.raises(OSError), Client(proxy, "api.openai.com", root=_other_root(tmp_path)):
        pass
    log = proxy.wait_log("does not trust the proxy's CA")
    assert "mitmproxy-ca-cert.pem" in log
    assert_no_more(proxy, client, 0)


def _other_root(folder: Path) -> Path:
    with StandIn() as other:
        copy = folder / "other-root.pem"
        copy.write_bytes(other.root.read_bytes())
        return copy


KILL = """
def requestheaders(flow):
    if "x-kill-request" in flow.request.headers:
        flow.kill()

def responseheaders(flow):
    if "x-kill-response" in flow.request.headers:
        flow.kill()
"""


@pytest.mark.parametrize("when", ["request", "response"])
def test_killed_by_the_user(make_proxy: Any, tmp_path: Path, when: str) -> None:
    script = tmp_path / "kill.py"
    script.write_text(KILL)
    proxy = make_proxy(scripts=[script])
    with Client(proxy, "api.openai.com") as client:
        assert not client.request("POST", CHAT, BODY, {f"x-kill-{when}": "1"}).complete
    row = the_row(proxy, "interrupted", 0 if when == "request" else 200)
    assert "killed" in row["error"]


def test_each_try_of_an_sdk_is_a_row(proxy: Proxy, client: Client) -> None:
    for count, status in (("0", 429), ("1", 429), ("2", 200)):
        headers = {"x-stainless-retry-count": count}
        assert client.request("POST", CHAT, BODY, headers, behaviour="flaky", fail=2, status=429).status == status
    rows = proxy.wait_rows(3)
    assert [(row["retry_count"], row["outcome"]) for row in rows] == [(0, "http_error"), (1, "http_error"), (2, "ok")]


def test_an_early_answer_during_an_upload(proxy: Proxy) -> None:
    size = 8 << 20
    with Client(proxy, "api.openai.com") as client:
        head = {
            "content-length": str(size),
            "content-type": "application/octet-stream",
            "x-standin": "early; after=70000",
        }
        client.send(Client.encode("POST", "/v1/files", headers=head))
        client.send(b"a" * 200_000)
        answer = client.answer()
    assert answer.status == 413
    row = the_row(proxy, "http_error", 413)
    assert 70_000 <= row["request_bytes"] < size


def test_two_requests_on_one_connection(proxy: Proxy, client: Client) -> None:
    for model in ("a", "b"):
        assert client.request("POST", CHAT, {**BODY, "model": model}).status == 200
    assert [row["request_model"] for row in proxy.wait_rows(2)] == ["a", "b"]
    assert_no_more(proxy, client, 2)


def test_fifty_at_once(proxy: Proxy, client: Client) -> None:
    def call(number: int) -> int:
        with Client(proxy, "api.openai.com") as own:
            if number % 2:
                return own.request("POST", CHAT, {**STREAMED, "model": f"m{number}"}, behaviour="chat_stream").status
            return own.request("POST", CHAT, {**BODY, "model": f"m{number}"}).status

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(call, range(50))) == {200}
    rows = proxy.wait_rows(50)
    assert sorted(row["request_model"] for row in rows) == sorted(f"m{number}" for number in range(50))
    assert {row["outcome"] for row in rows} == {"ok"}
    assert all(f'"{row["request_model"]}"' in row["response_text"] for row in rows)  # nobody got another's answer
    assert_no_more(proxy, client, 50)


IMPATIENT = """
from mitmproxy import ctx
from mitmproxy.proxy import server

if hasattr(server, "TCP_TIMEOUT"):
    server.TCP_TIMEOUT = 2

def running():
    if hasattr(ctx.options, "tcp_timeout"):
        ctx.options.tcp_timeout = 2
"""


def test_a_connection_without_a_byte_times_out(make_proxy: Any, tmp_path: Path) -> None:
    script = tmp_path / "impatient.py"
    script.write_text(IMPATIENT)
    proxy = make_proxy(scripts=[script])
    with Client(proxy, "api.openai.com") as client:
        client.begin("POST", CHAT, BODY, behaviour="silent")
        assert client.receive() == b""
    the_row(proxy, "timeout", 0)


def test_a_client_that_resets_its_connection(proxy: Proxy, standin: StandIn) -> None:
    with Client(proxy, "api.openai.com") as leaving:
        leaving.begin("POST", CHAT, BODY, behaviour="silent")
        standin.wait_for(lambda log: len(log) == 1 and log[0].complete)
        leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    the_row(proxy, "client_cancelled", 0)
