"""A server that answers as OpenAI does and costs next to nothing, as a process of its own.

    POST /v1/chat/completions                         a chat completion of about 1.3 KB
    POST /v1/chat/completions?chunks=N&pause=MS       a stream of N events, each with the time at which it was sent
    POST /v1/files                                    takes a body of any size

It writes its port, as a line, once it listens, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 180, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 200,
            "completion_tokens": 180,
            "total_tokens": 380,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
    }
).encode()
_HEAD = b"HTTP/1.1 200 OK\r\nx-request-id: req_bench\r\nopenai-processing-ms: 7\r\ncontent-type: "
WHOLE = _HEAD + b"application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
STREAM_HEAD = _HEAD + b"text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"sent":%d}\n\n'
)
DONE = b"data: [DONE]\n\n"


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._head = b""
        self._path = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            self._head = b""
            self._path = head.split(b" ", 2)[1]
            self._left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self._left -= len(data)
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        query = dict(word.split(b"=") for word in self._path.partition(b"?")[2].split(b"&") if word)
        if not query:
            self._transport.write(WHOLE)
            return
        self._transport.write(STREAM_HEAD)
        pause = float(query[b"pause"]) / 1000
        self._event(int(query[b"chunks"]), pause, asyncio.get_running_loop().time())

    def _event(self, left: int, pause: float, due: float) -> None:
        if self._transport.is_closing():
            return
        while left:
            self._chunk(EVENT % time.monotonic_ns())
            left, due = left - 1, due + pause
            if pause:
                asyncio.get_running_loop().call_at(due, self._event, left, pause, due)
                return
        self._chunk(DONE)
        self._transport.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


async def serve(chain: str) -> None:
    """Serve with the certificate and key of a PEM file, until the standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, ssl=context, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextlib.contextmanager
def upstream_process(chain: Path) -> Iterator[int]:
    """Run the server beside this process; gives its port."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(chain)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
