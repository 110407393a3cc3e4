"""A TLS server of the tests' own, with a certificate that a CA has signed."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calltracker.trust import authority


@contextmanager
def server(ca: authority.Authority, name: str, folder: Path) -> Iterator[int]:
    """A TLS server with a leaf for the name, which says ok to every request; its port."""
    pem = folder / "leaf.pem"
    pem.write_bytes(b"".join(authority.sign_leaf(ca, name)))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # the listener is closed at the end
            while True:
                plain, _ = listener.accept()
                plain.settimeout(20)
                with suppress(OSError), context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)
