"""A gate between driver and server: a TCP relay that cuts, delays or swallows at any byte."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Plan:
    """What becomes of one connection. Numbers of bytes count from its beginning; None: no end.

    cut_up, cut_down: after that many bytes from the driver, or from the server, both sides are closed (with a
    reset where `reset`). mute_down: what the server sends after that many bytes never arrives.
    """

    cut_up: int | None = None
    cut_down: int | None = None
    mute_down: int | None = None
    reset: bool = False
    delay: float = 0.0


class Gate:
    """Relays from a free port to the server's; `plan` is asked for a Plan for each new connection."""

    def __init__(self, port: int, plan: Callable[[], Plan] = Plan) -> None:
        self.target, self.plan = port, plan
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Close every connection that there is."""
        with self._lock:
            sockets, self._open = list(self._open), set()
        for one in sockets:
            _close(one, False)

    def _accept(self) -> None:
        while True:
            try:
                driver, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                _close(driver, True)
                continue
            server.settimeout(None)
            for one in (driver, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plan = self.plan()
            with self._lock:
                self._open |= {driver, server}
            for source, sink, cut, mute in (
                (driver, server, plan.cut_up, None),
                (server, driver, plan.cut_down, plan.mute_down),
            ):
                threading.Thread(target=self._relay, args=(source, sink, cut, mute, plan), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, cut: int | None, mute: int | None, plan: Plan) -> None:
        passed = 0
        reset = False
        try:
            while data := source.recv(65536):
                if plan.delay:
                    threading.Event().wait(plan.delay)
                if cut is not None and passed + len(data) >= cut:
                    sink.sendall(data[: cut - passed])
                    reset = plan.reset
                    break
                if mute is None or passed < mute:
                    sink.sendall(data if mute is None else data[: mute - passed])
                passed += len(data)
        except OSError:
            pass
        for one in (source, sink):
            _close(one, reset)
        with self._lock:
            self._open -= {source, sink}


def _close(one: socket.socket, reset: bool) -> None:
    try:
        if reset:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Also before a reset: it wakes the thread that reads from it, without which nothing is closed.
        one.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()
