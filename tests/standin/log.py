"""What the stand-in has received: one entry a request, from its head on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

KEPT = 4 * 1024 * 1024  # bytes of a request's body that an entry keeps


@dataclass
class Received:
    """A request as the upstream saw it; its fields change while it goes on."""

    connection: int  # number of the connection, from 1
    protocol: str  # "http/1.1", "h2" or "websocket"
    method: str
    path: str  # with the query
    headers: list[tuple[str, str]]  # names in lower case
    body: bytearray = field(default_factory=bytearray)  # its beginning, at most KEPT
    body_size: int = 0
    body_sha256: str = ""  # set when the body is complete
    complete: bool = False  # the request's body came to its end
    answered: bool = False  # the response was written to its end
    client_gone: bool = False  # the client left before that
    messages: list[str | bytes] = field(default_factory=list)  # what came over a WebSocket

    def header(self, name: str, default: str = "") -> str:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name), default)


class Log:
    """The entries, shared by the server's thread (which changes them in `change`) and the test's."""

    def __init__(self) -> None:
        self._entries: list[Received] = []
        self._changed = threading.Condition()

    def change(self, work: Callable[[list[Received]], None]) -> None:
        """Do something to the entries, then wake whoever waits."""
        with self._changed:
            work(self._entries)
            self._changed.notify_all()

    def entries(self) -> list[Received]:
        """The entries as they are now."""
        with self._changed:
            return list(self._entries)

    def wait_for(self, condition: Callable[[list[Received]], object], timeout: float) -> list[Received]:
        """Wait until the condition holds. Raises AssertionError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition(self._entries):
                rest = deadline - time.monotonic()
                if rest <= 0:
                    raise AssertionError(f"upstream, after {timeout} s: {self._entries!r}")
                self._changed.wait(rest)
            return list(self._entries)
