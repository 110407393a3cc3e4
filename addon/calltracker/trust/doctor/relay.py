"""A port of one client's own before the proxy: it tells whether that client ever came."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Relay:
    """port: where the client finds the proxy. used: whether a connection came."""

    port: int
    used: bool = False


class Relays:
    """Relays to a proxy, in one thread of their own. Use as a context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)

    def __enter__(self) -> Relays:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextlib.contextmanager
    def open(self) -> Iterator[Relay]:
        """A relay for one client. Raises OSError."""
        relay = Relay(0)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            relay.used = True
            try:
                theirs, ours = await asyncio.open_connection(*self._target)
                await asyncio.gather(_pump(reader, ours), _pump(theirs, writer))
            except OSError:
                pass  # one end has left; the client sees the end of its connection
            finally:
                writer.close()

        async def listen() -> asyncio.Server:
            return await asyncio.start_server(connected, "127.0.0.1", 0)

        server = asyncio.run_coroutine_threadsafe(listen(), self._loop).result()
        relay.port = int(server.sockets[0].getsockname()[1])
        try:
            yield relay
        finally:
            self._loop.call_soon_threadsafe(server.close)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
