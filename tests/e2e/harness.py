"""A real mitmdump with our addon between client programs and the stand-in, for tests of the whole.

    with Proxy(folder, routes={"api.openai.com": standin}) as proxy:
        with Client(proxy, "api.openai.com") as client:
            answer = client.request("POST", "/v1/chat/completions", {"model": "gpt-5", "messages": []})
        [row] = proxy.wait_rows(1)

Names are resolved inside the proxy by the routes alone: a name without a route does not exist, so that no
test ever reaches the network. Everything that a proxy writes is under its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standin import StandIn

ROOT = Path(__file__).resolve().parents[2]
ADDON = ROOT / "addon" / "llm_calls.py"
ROUTER = Path(__file__).with_name("router.py")
WAIT = 60.0  # seconds; a bound on waiting, never a time to wait
API_KEY = "sk-test-0123456789abcdefghijklmnopqrstuvwxyz"

Row = dict[str, Any]
Route = StandIn | int | None  # a stand-in, a port of 127.0.0.1, or None: the name does not exist


def until(condition: Callable[[], Any], timeout: float = WAIT, what: Callable[[], str] = str) -> Any:
    """Wait until the condition gives something true, and return that. Raises AssertionError."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout} s: {what()}")
        time.sleep(0.01)
    return found


def closed_port() -> int:
    """A port of 127.0.0.1 at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment for a child without this machine's certificates, proxies, Proton and state folders."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT") if name in os.environ}
    folder.mkdir(parents=True, exist_ok=True)
    return {**kept, "HOME": str(folder), "PYTHONUTF8": "1", **more}


class Proxy:
    """A mitmdump of the environment that runs the tests.

    routes: host → where its connections go, whatever the port. options: as `--set name=value`. arguments:
    further ones for the command line, `--mode` for example. scripts: further ones to load after the addon.
    addon: the addon's script, or None for a bare mitmdump.
    """

    def __init__(
        self,
        folder: Path,
        routes: Mapping[str, Route],
        *,
        options: Mapping[str, str] | None = None,
        arguments: Iterable[str] = (),
        scripts: Iterable[Path] = (),
        environment: Mapping[str, str] | None = None,
        addon: Path | None = ADDON,
        tool: str = "mitmdump",
        port: int = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.home = folder / "home"  # LLM_CALLS_HOME
        self.confdir = folder / "confdir"
        self.journal = folder / "journal" / "calls.sqlite3"
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._routes = dict(routes)
        self._options = dict(options or {})
        self._arguments = list(arguments)
        self._scripts = list(scripts)
        self._environment = dict(environment or {})
        self._addon = addon
        self._tool = tool
        self._log = folder / "proxy.log"
        self._mark = uuid.uuid4().hex  # in the environment of the proxy and of whatever it starts
        self._ready = folder / "listening.json"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def root(self) -> Path:
        """The certificate that clients must trust."""
        return self.confdir / "mitmproxy-ca-cert.pem"

    @property
    def log(self) -> str:
        """What the proxy has printed so far."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # life

    def command(self) -> list[str]:
        """The command line that starts it."""
        trusted = [route.root for route in self._routes.values() if isinstance(route, StandIn)]
        roots = self.folder / "upstream-roots.pem"
        roots.write_bytes(b"".join(path.read_bytes() for path in dict.fromkeys(trusted)))
        options = {
            "listen_host": "127.0.0.1",
            "listen_port": str(self.port),
            "confdir": str(self.confdir),
            **({"ssl_verify_upstream_trusted_ca": str(roots)} if trusted else {}),
            **({"llm_calls_journal": str(self.journal)} if self._addon else {}),
            **self._options,
        }
        scripts = [*([self._addon] if self._addon else []), *self._scripts, ROUTER]
        return [
            str(Path(sys.executable).with_name(self._tool)),
            *(part for path in scripts for part in ("-s", str(path))),
            *(part for name, value in options.items() for part in ("--set", f"{name}={value}")),
            *self._arguments,
        ]

    def spawn(self) -> None:
        """Start it without waiting: for starts that are to fail."""
        self._ready.unlink(missing_ok=True)
        routes = {name: route.port if isinstance(route, StandIn) else route for name, route in self._routes.items()}
        settings = json.dumps({"routes": routes, "ready": str(self._ready)})
        environment = clean_environment(
            self.folder / "user", LLM_CALLS_HOME=str(self.home), LLM_CALLS_TEST_ROUTER=settings, PYTHONUNBUFFERED="1"
        )
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, **self._environment, "LLM_CALLS_TEST_MARK": self._mark},
                start_new_session=True,  # so that Ctrl-C ends the tests and they end it
            )

    def start(self) -> None:
        """Start it, and wait until it listens. Raises AssertionError when it does not."""
        self.spawn()
        until(lambda: self._ready.exists() or self.exited, what=lambda: f"no proxy\n{self.log}")
        assert not self.exited, f"the proxy ended\n{self.log}"
        self.port = json.loads(self._ready.read_text())["port"]

    @property
    def exited(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self, timeout: float = WAIT) -> int:
        """Stop it by SIGTERM; return its exit status."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Kill the proxy's process, and it alone, by SIGKILL."""
        assert self.process
        self.process.kill()
        self.process.wait(WAIT)

    def children(self) -> list[int]:
        """The process ids of what else was started for this proxy, itself or by it, and runs: its worker."""
        assert self.process
        return [pid for pid in _processes(self._mark) if pid != self.process.pid]

    def close(self) -> None:
        """End it and whatever it has left behind."""
        if self.process is None:
            return
        if not self.exited:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        with contextlib.suppress(AssertionError):  # a worker that ends by itself may do so
            until(lambda: not self.children(), timeout=5)
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # what came of it

    def rows(self, where: str = "1") -> list[Row]:
        """The journal's rows that there are now, in the order in which the calls began."""
        if not self.journal.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"{self.journal.as_uri()}?mode=rw", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            try:
                found = connection.execute(f"SELECT * FROM llm_calls WHERE {where} ORDER BY request_time, call_id")
                return [_readable(row) for row in found]
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []  # the worker has just made the file
                raise

    def remove_journal(self) -> None:
        """Remove the journal as people do, with what SQLite keeps beside it."""
        for suffix in ("", "-wal", "-shm"):
            self.journal.with_name(self.journal.name + suffix).unlink(missing_ok=True)

    def wait_rows(self, wanted: int | Callable[[list[Row]], Any], timeout: float = WAIT) -> list[Row]:
        """Wait until there are at least so many rows, or until the condition holds, and return them."""
        found: list[Row] = []

        def enough() -> bool:
            found[:] = self.rows()
            return len(found) >= wanted if isinstance(wanted, int) else bool(wanted(found))

        until(enough, timeout, lambda: f"{len(found)} rows: {found!r}\n{self.log}")
        return found

    def wait_log(self, text: str, timeout: float = WAIT) -> str:
        """Wait until the proxy has printed that text; return all that it has printed."""
        until(lambda: text in self.log, timeout, lambda: f"{text!r} is not in the log:\n{self.log}")
        return self.log

    # clients

    def client_environment(self, **more: str) -> dict[str, str]:
        """An environment in which a program uses this proxy and trusts it."""
        root = str(self.root)
        return clean_environment(
            self.folder / "client",
            HTTPS_PROXY=self.url,
            https_proxy=self.url,
            SSL_CERT_FILE=root,
            REQUESTS_CA_BUNDLE=root,
            CURL_CA_BUNDLE=root,
            NODE_EXTRA_CA_CERTS=root,
            OPENAI_API_KEY=API_KEY,
            **more,
        )

    def run_client(
        self,
        program: str | Path,
        *arguments: str,
        python: str | None = None,
        timeout: float = 60,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python program (a file, or the text of one) as a client; its exit status must be 0.

        python: the interpreter; usually the one of LLM_CALLS_TEST_CLIENTS.
        """
        source = [str(program)] if isinstance(program, Path) else ["-c", program]
        done = subprocess.run(
            [python or clients_python(), *source, *arguments],
            env=self.client_environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"client exited {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log}"
        return done


def clients_python(variable: str = "LLM_CALLS_TEST_CLIENTS") -> str:
    """The Python of the clients' environment. Skips the test where scripts/test has not made one."""
    found = os.environ.get(variable)
    if not found:
        import pytest

        pytest.skip(f"{variable} is not set: scripts/test makes the clients' environments")
    return found


def _readable(row: sqlite3.Row) -> Row:
    maps = ("request_headers", "response_headers", "tags")
    return {name: json.loads(row[name]) if name in maps else row[name] for name in row.keys()}  # noqa: SIM118


def _processes(mark: str) -> list[int]:
    """The living processes that have this in their environment (Linux); zombies have none."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


# a client whose every byte is in the test's hands


@dataclass
class Answer:
    """A response as the client saw it."""

    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)  # names in lower case
    body: bytes = b""  # framing removed, content coding not
    chunks: list[bytes] = field(default_factory=list)  # HTTP chunks, where it came chunked
    complete: bool = False

    def header(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.headers if key == name), default)

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """HTTP/1.1 through a proxy's CONNECT, byte by byte.

    `proxy=None`: straight to a server at that port of 127.0.0.1. host: the name to ask for and to verify.
    """

    def __init__(
        self,
        proxy: Proxy | None,
        host: str,
        port: int = 443,
        *,
        root: Path | None = None,
        tls: bool = True,
        timeout: float = WAIT,
    ) -> None:
        self.host = host
        self.buffer = b""
        reached = proxy.port if proxy else port
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", reached), timeout)
        self.connect_status = 0
        try:
            if proxy:
                self.socket.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
                answer = Answer()
                self._head(answer)
                self.connect_status = answer.status
                if answer.status != 200:
                    return
            if tls:
                trusted = root or (proxy.root if proxy else None)
                context = ssl.create_default_context(cafile=str(trusted) if trusted else None)
                self.socket = context.wrap_socket(self.socket, server_hostname=host)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """Some bytes, as they come; b"" at the end of the connection."""
        data = self.socket.recv(65536)
        self.buffer += data
        return data

    def read_until(self, mark: bytes) -> bytes:
        """The bytes up to and with the mark; fewer when the connection ends before it."""
        while mark not in self.buffer:
            if not self.receive():
                taken, self.buffer = self.buffer, b""
                return taken
        head, mark, self.buffer = self.buffer.partition(mark)
        return head + mark

    def read_exactly(self, size: int) -> bytes:
        """That many bytes; fewer when the connection ends before."""
        while len(self.buffer) < size and self.receive():
            pass
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    @staticmethod
    def encode(
        method: str,
        path: str,
        body: bytes | dict[str, Any] = b"",
        headers: Mapping[str, str] | None = None,
        host: str = "api.openai.com",
    ) -> bytes:
        """A request's bytes, as `request` sends them. A header given as "" is left out."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers = {"content-type": "application/json", **(headers or {})}
        usual = {"host": host, "authorization": f"Bearer {API_KEY}"}
        if body or method in ("POST", "PUT", "PATCH"):
            usual["content-length"] = str(len(body))
        fields = {**usual, **(headers or {})}
        lines = [f"{name}: {value}" for name, value in fields.items() if value]
        return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body

    def request(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] = b"",
        headers: Mapping[str, str] | None = None,
        **standin: Any,
    ) -> Answer:
        """Send a request, read its answer. standin: behaviour=… and options, as the header x-standin."""
        self.begin(method, path, body, headers, **standin)
        return self.answer(method)

    def begin(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] = b"",
        headers: Mapping[str, str] | None = None,
        **standin: Any,
    ) -> None:
        """Send a request only."""
        if standin:
            name = standin.pop("behaviour", "by_path")
            asked = "; ".join([name, *(f"{key}={value}" for key, value in standin.items())])
            headers = {**(headers or {}), "x-standin": asked}
        self.send(self.encode(method, path, body, headers, self.host))

    def answer(self, method: str = "") -> Answer:
        """Read an answer to its end, or to the end of the connection: then it is not `complete`."""
        answer = Answer()
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            self._head(answer)
            self._body(answer, method)
        return answer

    def head(self) -> Answer:
        """Read an answer's head only; the rest is for `receive` and the like."""
        answer = Answer()
        self._head(answer)
        return answer

    def _head(self, answer: Answer) -> None:
        while True:
            text = self.read_until(b"\r\n\r\n").decode("latin-1")
            if not text.endswith("\r\n\r\n"):
                raise ConnectionError(f"the connection ended within the head: {text!r}")
            first, *lines = text[:-4].split("\r\n")
            _, status, answer.reason = [*first.split(" ", 2), ""][:3]
            answer.status = int(status)
            answer.headers = [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
            if answer.status != 100:
                return

    def _body(self, answer: Answer, method: str) -> None:
        if answer.status in (204, 304) or method == "HEAD":
            answer.complete = True
        elif answer.header("transfer-encoding") == "chunked":
            while True:
                line = self.read_until(b"\r\n")
                if not line.endswith(b"\r\n"):
                    return
                size = int(line, 16)
                chunk = self.read_exactly(size + 2)
                if size and chunk:
                    answer.chunks.append(chunk[:size])
                    answer.body += chunk[:size]
                if len(chunk) < size + 2:
                    return
                if not size:
                    answer.complete = True
                    return
        elif length := answer.header("content-length"):
            answer.body = self.read_exactly(int(length))
            answer.complete = len(answer.body) == int(length)
        else:
            while self.receive():
                pass
            answer.body, self.buffer = self.buffer, b""
            answer.complete = True
