"""Whether a program trusts a CA, as a TLS server learns it: from a real handshake, not from an exit status.

A server of ours on the loopback shows a certificate that the CA has signed. A program that does not trust the CA
breaks the handshake off; of one that does, the server gets a request.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .authority import Authority, sign_leaf

SECONDS = 30.0  # for one handshake: a JVM on a busy machine took 5
REQUEST = b"GET / HTTP/1.0\r\n\r\n"  # for programs that send what they read
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
# All that such a program gets of the environment: anything more may name other certificates, or a proxy.
KEPT = ("PATH", "HOME", "LANG", "SYSTEMROOT", "TEMP", "TMP", "USERPROFILE")


@dataclass(frozen=True)
class Client:
    """A program that reads one trust store and no other certificates.

    words: its command line, where <name> and <port> stand for the server's; the program connects to 127.0.0.1, or
    takes that for a proxy.
    """

    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0]

    def command(self, name: str, port: int) -> list[str]:
        return [word.replace("<name>", name).replace("<port>", str(port)) for word in self.words[1:]]


def trusts(client: Client, ca: Authority, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the program accepts a certificate that the CA signs for one of its hosts. Raises OSError where the
    program cannot be run.
    """
    name = ca.permitted[0] if ca.permitted else "api.openai.com"
    kept = {word: environ[word] for word in KEPT if word in environ}
    with _server(ca, name) as (port, asked):
        process = subprocess.Popen(
            [client.program, *client.command(name, port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=kept,
        )
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(REQUEST)
                process.stdin.flush()
            deadline = time.monotonic() + SECONDS
            while not asked.wait(0.02) and process.poll() is None and time.monotonic() < deadline:
                pass
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
    return asked.is_set()  # by now the server has seen all that there was


@contextlib.contextmanager
def _server(ca: Authority, name: str) -> Iterator[tuple[int, threading.Event]]:
    """A TLS server, by CONNECT too, with a certificate for the name: its port, and whether it was asked something."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="llm-calls-") as folder:
        pem = Path(folder) / "leaf.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(b"".join(sign_leaf(ca, name)))
        context.load_cert_chain(pem)
    asked, ending = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])

    def serve() -> None:
        while not ending.is_set():
            plain, _ = listener.accept()
            plain.settimeout(SECONDS)
            with contextlib.suppress(OSError), plain:  # a client that breaks off: that is the answer
                if _greeted(plain, context):
                    asked.set()

    thread = threading.Thread(target=serve, name="handshake", daemon=True)
    thread.start()
    try:
        yield port, asked
    finally:
        ending.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), SECONDS).close()  # wakes `accept`
        thread.join(SECONDS)
        listener.close()


def _greeted(plain: socket.socket, context: ssl.SSLContext) -> bool:
    """Serve one connection; whether a request came through the handshake. Raises OSError."""
    if plain.recv(1, socket.MSG_PEEK) == b"C":
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = plain.recv(1)
            if not byte:
                return False
            head += byte
        plain.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    with context.wrap_socket(plain, server_side=True) as secure:
        if not secure.recv(65536):
            return False
        secure.sendall(ANSWER)
        return True
