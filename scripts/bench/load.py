"""Clients that cost next to nothing: HTTP/1.1 over TLS, one thread for all of them, answers read but not parsed."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HOST = "api.openai.com"
BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"' + b"word " * 200 + b'"}]}'
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_SENT = re.compile(rb'"sent":(\d+)\}')
_BLOCK = 65536
RAMP_SECONDS = 0.0107


@dataclass(frozen=True, slots=True)
class Target:
    """Where calls go: the port of the upstream, or of a proxy (`tunnel`); `root` vouches for what answers there."""

    port: int
    root: Path
    tunnel: bool


@dataclass(slots=True)
class Answers:
    """What came of some load: seconds that each call took, and all of them together."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.latencies) / self.seconds


@dataclass(slots=True)
class Chunks:
    """What came of some streams, in seconds: from the request to the first event, from an event's sending to its
    receipt."""

    first: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)


def request(path: str = "/v1/chat/completions", body: bytes = BODY, *, length: int = 0, more: str = "") -> bytes:
    """A request as an SDK makes it; `length`: of its body, where that is sent apart; `more`: header lines."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer sk-bench-0123456789abcdefghijklmnopqrstuv\r\n"
        f"accept: application/json\r\naccept-encoding: gzip, deflate\r\nuser-agent: OpenAI/Python 2.0.0\r\n"
        f"x-stainless-lang: python\r\nx-stainless-package-version: 2.0.0\r\nx-stainless-os: Linux\r\n"
        f"x-stainless-arch: x64\r\nx-stainless-runtime: CPython\r\nx-stainless-retry-count: 0\r\n{more}"
        f"content-type: application/json\r\ncontent-length: {length or len(body)}\r\n\r\n"
    ).encode() + body


CALL = request()


class Connections:
    """Makes connections to a target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = ssl.create_default_context(cafile=str(target.root))

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self._target.port), 30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._target.tunnel:
            plain.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += plain.recv(_BLOCK)
            assert b" 200 " in answer, answer
        return self._context.wrap_socket(plain, server_hostname=HOST)


class Client:
    """One connection with one call under way at a time."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.connection = connection
        self.sent = 0.0
        self._got = b""
        self._missing = -1  # bytes of an answer of known length; -1: its head has not come whole, or it is chunked
        connection.setblocking(False)

    def send(self, data: bytes) -> None:
        self.sent = time.monotonic()
        self._got, self._missing = b"", -1
        assert self.connection.send(data) == len(data)

    def read(self) -> Iterator[bytes]:
        """What there is to read now. Raises ConnectionError."""
        while True:
            try:
                data = self.connection.recv(_BLOCK)
            except ssl.SSLWantReadError:
                return
            if not data:
                raise ConnectionError("the connection ended within an answer")
            yield data

    def answered(self) -> bool:
        """Read what there is; whether the answer is whole."""
        for data in self.read():
            if self._missing >= 0:
                self._missing -= len(data)
                continue
            self._got += data
            head, blank, rest = self._got.partition(b"\r\n\r\n")
            if not blank:
                continue
            assert head.startswith(b"HTTP/1.1 200"), head
            if found := _LENGTH.search(head):
                self._missing = int(found[1]) - len(rest)
            else:
                self._got = head[:16] + blank + rest[-16:]
        return self._missing == 0 or self._got.endswith(b"\r\n0\r\n\r\n")


def keep_alive(
    target: Target,
    clients: int,
    *,
    seconds: float = float("inf"),
    calls: int = 1 << 60,
    make: Callable[[int], bytes] = lambda number: CALL,
    done: Callable[[int], None] = lambda number: None,
) -> Answers:
    """Let clients call again as soon as they have their answers, for that long or so often.

    `make` gives the request of a number, `done` is told when that call has its answer.
    """
    connections = Connections(target)
    numbers: dict[Client, int] = {}
    answers = Answers()
    with contextlib.ExitStack() as closing, selectors.DefaultSelector() as selector:
        for _ in range(clients):
            client = Client(closing.enter_context(connections.connect()))
            selector.register(client.connection, selectors.EVENT_READ, client)
        started = time.monotonic()
        begun = 0
        for key in list(selector.get_map().values()):
            numbers[key.data] = begun
            key.data.send(make(begun))
            begun += 1
        while numbers:
            for key, _ in selector.select(30):
                client = key.data
                if not client.answered():
                    continue
                now = time.monotonic()
                done(numbers.pop(client))
                answers.latencies.append(now - client.sent)
                if now - started < seconds and begun < calls:
                    numbers[client] = begun
                    client.send(make(begun))
                    begun += 1
        answers.seconds = time.monotonic() - started
    return answers


def new_connections(target: Target, *, seconds: float) -> Answers:
    """Make one call after the other, each on a connection of its own."""
    connections = Connections(target)
    answers = Answers()
    started = now = time.monotonic()
    while now - started < seconds:
        began = now
        with connections.connect() as connection, selectors.DefaultSelector() as selector:
            client = Client(connection)
            client.send(CALL)
            selector.register(connection, selectors.EVENT_READ)
            while not client.answered():
                selector.select(30)
        now = time.monotonic()
        answers.latencies.append(now - began)
    answers.seconds = now - started
    return answers


def streams(target: Target, number: int, *, chunks: int, pause: float) -> Chunks:
    """Read so many streams at once to their ends; `pause`: seconds between the events of one.

    They begin RAMP_SECONDS apart, which is no divisor of the pauses: so their events do not come all at once.
    """
    connections = Connections(target)
    found = Chunks()
    data = request(f"/v1/chat/completions?chunks={chunks}&pause={1000 * pause:g}")
    with contextlib.ExitStack() as closing, selectors.DefaultSelector() as selector:
        waiting = [Client(closing.enter_context(connections.connect())) for _ in range(number)]
        started = time.monotonic()
        left = number
        while left:
            while waiting and time.monotonic() - started >= (number - len(waiting)) * RAMP_SECONDS:
                client = waiting.pop()
                client.send(data)
                selector.register(client.connection, selectors.EVENT_READ, _Events(client, found))
            for key, _ in selector.select(RAMP_SECONDS / 4 if waiting else 30):
                if key.data.ended():
                    selector.unregister(key.fileobj)
                    left -= 1
    return found


class _Events:
    """The events of one stream, as they come."""

    def __init__(self, client: Client, found: Chunks) -> None:
        self._client = client
        self._found = found
        self._rest = b""
        self._begun = False

    def ended(self) -> bool:
        """Read what there is; whether the stream has come to its end."""
        for data in self._client.read():
            now = time.monotonic_ns()
            self._rest += data
            last = 0
            for match in _SENT.finditer(self._rest):
                self._found.delays.append((now - int(match[1])) / 1e9)
                last = match.end()
            if last and not self._begun:
                self._begun = True
                self._found.first.append(now / 1e9 - self._client.sent)
            self._rest = self._rest[last:]
        return self._rest.endswith(b"[DONE]\n\n\r\n0\r\n\r\n")


def upload(target: Target, size: int) -> float:
    """Upload a file of so many bytes as a form; return the seconds that it took."""
    start = b'--bench\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    start += b'--bench\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n'
    start += b"content-type: application/octet-stream\r\n\r\n"
    end = b"\r\n--bench--\r\n"
    head = request("/v1/files", b"", length=len(start) + size + len(end))
    head = head.replace(b"content-type: application/json", b"content-type: multipart/form-data; boundary=bench")
    block = (b"0123456789abcdef" * (_BLOCK // 16))[:_BLOCK]
    with Connections(target).connect() as connection:
        began = time.monotonic()
        connection.sendall(head + start)
        for sent in range(0, size, _BLOCK):
            connection.sendall(block[: size - sent])
        connection.sendall(end)
        answer = b""
        while b"req_bench" not in answer:
            data = connection.recv(_BLOCK)
            assert data, "the connection ended before the answer"
            answer += data
        return time.monotonic() - began
