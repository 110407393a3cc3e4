"""HTTP/2 on both sides of the proxy: several calls on one connection, and one of them given up."""

from __future__ import annotations

import json
import ssl
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from e2e.harness import API_KEY, Client, Proxy
from standin import StandIn

CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-5", "messages": []}


class Http2:
    """A client's end of one HTTP/2 connection through the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        tunnel = Client(proxy, "api.openai.com", tls=False)
        context = ssl.create_default_context(cafile=str(proxy.root))
        context.set_alpn_protocols(["h2"])
        self.socket = context.wrap_socket(tunnel.socket, server_hostname="api.openai.com")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.wire = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.wire.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.wire.data_to_send())

    def begin(self, body: dict[str, Any], standin: str) -> int:
        stream: int = self.wire.get_next_available_stream_id()
        headers = [(":method", "POST"), (":path", CHAT), (":scheme", "https"), (":authority", "api.openai.com")]
        own = [("authorization", f"Bearer {API_KEY}"), ("content-type", "application/json"), ("x-standin", standin)]
        self.wire.send_headers(stream, headers + own)
        self.wire.send_data(stream, json.dumps(body).encode(), end_stream=True)
        self.bodies[stream] = b""
        self.flush()
        return stream

    def read(self) -> None:
        for event in self.wire.receive_data(self.socket.recv(65536)):
            if isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.wire.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
        self.flush()


@pytest.fixture
def connection(proxy: Proxy) -> Http2:
    return Http2(proxy)


def test_calls_side_by_side(proxy: Proxy, connection: Http2, standin: StandIn) -> None:
    streams = [
        connection.begin(
            {**BODY, "model": f"m{number}", "stream": number % 2 == 1}, "chat_stream" if number % 2 else "chat"
        )
        for number in range(6)
    ]
    while connection.ended != set(streams):
        connection.read()
    rows = proxy.wait_rows(6)
    assert {row["outcome"] for row in rows} == {"ok"}
    texts = {row["request_model"]: row["response_text"].encode() for row in rows}
    assert texts == {f"m{number}": connection.bodies[stream] for number, stream in enumerate(streams)}
    assert {entry.protocol for entry in standin.received()} == {"h2"}


def test_one_is_given_up_and_the_others_go_on(proxy: Proxy, connection: Http2, standin: StandIn) -> None:
    left = connection.begin({**BODY, "model": "left", "stream": True}, "chat_stream; gate=g; gate_at=400")
    while not connection.bodies[left]:
        connection.read()
    connection.wire.reset_stream(left, 8)  # CANCEL
    connection.flush()
    other = connection.begin({**BODY, "model": "other"}, "chat")
    while other not in connection.ended:
        connection.read()
    rows = proxy.wait_rows(2)
    assert {row["request_model"]: row["outcome"] for row in rows} == {"left": "client_cancelled", "other": "ok"}
    standin.gate("g").release()
