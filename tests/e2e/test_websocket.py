"""WebSockets: a row for each response, one for the session, and flat memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import wsproto
from e2e.harness import API_KEY, Client, Proxy, until
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage


class WebSocket:
    """A client's end, over a connection through the proxy."""

    def __init__(self, client: Client, path: str, subprotocols: list[str] | None = None, **standin: Any) -> None:
        self._client = client
        self._wire = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        headers = [(b"authorization", f"Bearer {API_KEY}".encode())]
        if standin:
            asked = "; ".join(["by_path", *(f"{key}={value}" for key, value in standin.items())])
            headers.append((b"x-standin", asked.encode()))
        client.send(self._wire.send(Request(client.host, path, subprotocols=subprotocols or [], extra_headers=headers)))
        self._parts: list[str] = []
        assert isinstance(next(self._events()), AcceptConnection)

    def _events(self) -> Any:
        while True:
            yield from self._wire.events()
            self._wire.receive_data(self._client.socket.recv(65536) or None)

    def send(self, message: dict[str, Any]) -> None:
        self._client.send(self._wire.send(TextMessage(json.dumps(message))))

    def receive(self) -> dict[str, Any]:
        for event in self._events():
            if isinstance(event, TextMessage):
                self._parts.append(event.data)
                if event.message_finished:
                    text, self._parts = "".join(self._parts), []
                    found: dict[str, Any] = json.loads(text)
                    return found
        raise AssertionError

    def until(self, kind: str) -> dict[str, Any]:
        while True:
            message = self.receive()
            if message["type"] == kind:
                return message

    def close(self) -> None:
        self._client.send(self._wire.send(CloseConnection(1000)))
        for event in self._events():
            if isinstance(event, CloseConnection):
                return


def test_a_realtime_session(proxy: Proxy, client: Client) -> None:
    key = f"openai-insecure-api-key.{API_KEY}"
    socket = WebSocket(client, "/v1/realtime?model=gpt-realtime", ["realtime", key], audio=5000)
    socket.until("session.created")
    for _ in range(2):
        socket.send({"type": "input_audio_buffer.append", "audio": "B" * 3000})
        socket.send({"type": "response.create", "response": {"metadata": {"k": "v"}}})
        socket.until("response.done")
    assert len(proxy.wait_rows(2)) == 2  # while the session is still open
    socket.close()
    rows = proxy.wait_rows(3)
    responses = [row for row in rows if row["operation"] == "realtime"]
    [session] = [row for row in rows if row["operation"] == "realtime.session"]
    assert [row["response_id"] for row in responses] == ["resp_1", "resp_2"]
    for row in responses:
        assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("ok", 11, 5)
        assert json.loads(row["request_content"])["type"] == "response.create"
        assert row["request_time"] <= row["first_token_time"] <= row["response_time"]
        assert row["tags"] == {"k": "v"}
        assert "AAAA" not in row["response_text"] and "base64_bytes" in row["response_text"]
    assert (session["outcome"], session["response_status_code"]) == ("ok", 101)
    assert session["input_tokens"] is None  # the responses have been counted
    assert json.loads(session["response_json"])["usage"]["input_tokens"] == 22
    assert "BBBB" not in session["request_content"]
    assert len({row["call_id"] for row in rows}) == 3
    assert API_KEY not in json.dumps(rows)
    for line in (session["request_content"] + "\n" + session["response_text"]).splitlines():
        json.loads(line)


def test_responses_over_a_websocket(proxy: Proxy, client: Client) -> None:
    socket = WebSocket(client, "/v1/responses")
    socket.send({"type": "response.create", "model": "gpt-5", "input": "hi"})
    socket.until("response.completed")
    socket.close()
    rows = proxy.wait_rows(2)
    [row] = [row for row in rows if row["operation"] == "responses"]
    assert (row["request_model"], row["outcome"], row["output_tokens"], row["reasoning_tokens"]) == (
        "gpt-5",
        "ok",
        5,
        2,
    )


def test_a_session_that_is_dropped(proxy: Proxy) -> None:
    with Client(proxy, "api.openai.com") as client:
        socket = WebSocket(client, "/v1/responses/echo")
        socket.send({"type": "response.create", "model": "gpt-5"})
        socket.receive()
    rows = proxy.wait_rows(lambda rows: any(row["response_status_code"] == 101 and row["latency_ms"] for row in rows))
    assert {row["outcome"] for row in rows} == {"client_cancelled"}


def test_an_upgrade_that_is_refused_is_an_ordinary_call(proxy: Proxy, client: Client) -> None:
    headers = {
        "upgrade": "websocket",
        "connection": "upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "eA==",
    }
    assert client.request("GET", "/v1/realtime", headers=headers, behaviour="error", status=401).status == 401
    [row] = proxy.wait_rows(1)
    assert (row["outcome"], row["response_status_code"]) == ("http_error", 401)


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_long_session_does_not_grow_the_proxy(proxy: Proxy, client: Client) -> None:
    assert proxy.process
    socket = WebSocket(client, "/v1/realtime?model=gpt-realtime")
    audio = "A" * 100_000

    def upload(times: int) -> None:
        for _ in range(times):
            socket.send({"type": "input_audio_buffer.append", "audio": audio})
        socket.send({"type": "response.create"})
        socket.until("response.done")

    # What an allocator keeps for itself grows for a while and differs between versions, so that a bound on the whole
    # growth proves nothing: but if anything of the messages stayed, each window would add its 20 MB.
    windows = []
    for _ in range(4):
        before = _resident(proxy.process.pid)
        upload(200)
        windows.append(_resident(proxy.process.pid) - before)
    assert min(windows[1:]) < 2 << 20, windows
    socket.close()
    until(lambda: any(row["operation"] == "realtime.session" for row in proxy.rows()))
    [session] = [row for row in proxy.rows() if row["operation"] == "realtime.session"]
    assert session["request_bytes"] > 80_000_000
    assert len(session["request_content"]) < 2 << 20
