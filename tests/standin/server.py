"""The stand-in itself: a thread with an event loop of its own, the rules, the gates and the log."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from . import behaviours
from .authority import Authority
from .exchange import Broken, Exchange, Reply
from .http1 import Connection, Http1Exchange, Inbox, read_head
from .http2 import Session
from .log import Log, Received

NAMES = (
    "api.openai.com",
    "*.api.openai.com",
    "*.openai.azure.com",
    "*.cognitiveservices.azure.com",
    "*.services.ai.azure.com",
    "api.deepseek.com",
    "openrouter.ai",
    "example.com",
    "localhost",
    "127.0.0.1",
)
PROTOCOLS = ("h2", "http/1.1")
WAIT = 60.0  # seconds; a bound on waiting, never a time to wait

Behaviour = str | Reply | Callable[[Exchange], Awaitable[None]]


class Gate:
    """Where responses wait until the test lets them on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open = asyncio.Event()
        self._reached = threading.Semaphore(0)

    async def pass_through(self) -> None:
        self._reached.release()
        await self._open.wait()

    def wait_reached(self, times: int = 1, timeout: float = WAIT) -> None:
        """Wait until a response (or that many more) is at the gate. Raises AssertionError."""
        for _ in range(times):
            assert self._reached.acquire(timeout=timeout), "no response came to the gate"

    def release(self) -> None:
        """Let on what waits, and whatever comes later."""
        self._loop.call_soon_threadsafe(self._open.set)


class StandIn:
    """A server on 127.0.0.1:`port`. Use as a context manager; `root` is the certificate to trust.

    `tls=False` serves plain HTTP; an `authority` of your own lets two servers share a root.
    """

    def __init__(
        self,
        *,
        tls: bool = True,
        protocols: tuple[str, ...] = PROTOCOLS,
        authority: Authority | None = None,
        port: int = 0,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="standin-")
        self.authority = authority or Authority(Path(self._folder.name), NAMES)
        self.log = Log()
        self.port = port
        self.replies: dict[str, Reply] = {}  # for `x-standin: reply; id=…`
        self._context = self.authority.context(list(protocols)) if tls else None
        self._rules: list[tuple[str, str, Behaviour, dict[str, str], list[int]]] = []
        self._gates: dict[str, Gate] = {}
        self._lock = threading.Lock()
        self._connections = 0
        self._mistakes: list[Exception] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stand-in")

    @property
    def root(self) -> Path:
        return self.authority.root

    @property
    def connections(self) -> int:
        """How many connections have been made so far."""
        return self._connections

    def __enter__(self) -> StandIn:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(WAIT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()
        self._folder.cleanup()
        if self._mistakes:
            raise ExceptionGroup("in the stand-in", self._mistakes)

    # what tests say

    def on(self, method: str, path: str, behaviour: Behaviour, *, times: int = 0, **options: Any) -> None:
        """Answer requests of this method and path (without its query) so; the next `times` ones if given."""
        texts = {name: str(value) for name, value in options.items()}
        with self._lock:
            self._rules.insert(0, (method, path, behaviour, texts, [times or -1]))

    def gate(self, name: str) -> Gate:
        """The gate of that name."""
        with self._lock:
            return self._gates.setdefault(name, Gate(self._loop))

    def wait_for(self, condition: Callable[[list[Received]], object], timeout: float = WAIT) -> list[Received]:
        """Wait until a condition on the log holds, and return the log. Raises AssertionError."""
        return self.log.wait_for(condition, timeout)

    def received(self) -> list[Received]:
        """The log as it is now."""
        return self.log.entries()

    # how it answers

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request."""
        self.log.change(lambda entries: entries.append(exchange.received))
        behaviour, exchange.options = self._choose(exchange.received)
        try:
            if isinstance(behaviour, Reply):
                await behaviours.give(exchange, behaviour)
            elif isinstance(behaviour, str):
                await behaviours.BEHAVIOURS[behaviour](exchange)
            else:
                await behaviour(exchange)
        except (Broken, OSError):
            pass  # broken off on purpose, or the client has left
        except Exception as error:  # noqa: BLE001  # a mistake in a test or here: told when the stand-in ends
            self._mistakes.append(error)
            with contextlib.suppress(OSError):
                await exchange.break_off("close")

    def _choose(self, received: Received) -> tuple[Behaviour, dict[str, str]]:
        path = received.path.partition("?")[0]
        with self._lock:
            for method, wanted, behaviour, options, left in self._rules:
                if (method, wanted) == (received.method, path) and left[0]:
                    left[0] -= 1
                    return behaviour, options
        asked = received.header("x-standin")
        name, *rest = [part.strip() for part in asked.split(";")]
        options = dict(part.split("=", 1) for part in rest if part)
        return name or "by_path", options

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self._context, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._connections += 1
        connection = Connection(writer)
        secure = writer.get_extra_info("ssl_object")
        try:
            with contextlib.suppress(OSError):
                if secure and secure.selected_alpn_protocol() == "h2":
                    await Session(self, reader, connection, self._connections).serve()
                else:
                    await self._serve_http1(reader, connection, self._connections)
        except asyncio.CancelledError:
            pass  # the stand-in is closing
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _serve_http1(self, reader: asyncio.StreamReader, connection: Connection, number: int) -> None:
        inbox = Inbox(reader)
        filling = asyncio.create_task(inbox.fill())
        try:
            while received := await read_head(inbox, number):
                exchange = Http1Exchange(self, received, inbox, connection)
                await self._until_left(self.answer(exchange), exchange)
                ended = not exchange.keep_alive or not received.complete or received.protocol == "websocket"
                if ended or inbox.gone.is_set():
                    return
        finally:
            filling.cancel()

    async def _until_left(self, answering: Any, exchange: Http1Exchange) -> None:
        """Answer, but give up when the client leaves before the end."""
        answer = asyncio.create_task(answering)
        left = asyncio.create_task(exchange.inbox.gone.wait())
        try:
            await asyncio.wait([answer, left], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
            elif not exchange.received.answered:
                self.log.change(lambda _: setattr(exchange.received, "client_gone", True))
        finally:
            for task in (answer, left):
                task.cancel()
            await asyncio.gather(answer, left, return_exceptions=True)
