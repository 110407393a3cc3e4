"""The proxy that a program's calls go through: one that runs already, or one for that program's life alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import orjson

import calltracker

from .. import paths

LEASH = Path(__file__).with_name("leash.py")
ADDON = Path(calltracker.__file__).parent.with_name("llm_calls.py")
RECORD_FILE = "proxy.json"
START_BOUND = 60.0  # seconds: a cold start on a busy machine took 4
STOP_BOUND = 30.0
LOGS_KEPT = 20
SILENCE_BOUND = 3700  # seconds without a byte: longer than the hour that OpenAI gives the longest of its sessions


class ProxyError(Exception):
    """The proxy cannot be had; one line that says why and what to do."""


@dataclass(frozen=True)
class Running:
    """A proxy that recorded itself. mode: as mitmproxy writes it ("regular", "reverse:https://…"). confdir holds its
    CA; journal is where its rows go, None if it does not say.
    """

    host: str
    port: int
    pid: int
    mode: str
    confdir: Path
    journal: Path | None

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def forwards(self) -> bool:
        """Whether HTTPS_PROXY can name it: a reverse proxy, for one, knows no CONNECT."""
        return self.mode.startswith(("regular", "upstream"))

    @property
    def alive(self) -> bool:
        """Whether its process lives and its port answers."""
        return _alive(self.pid) and answers(self.host, self.port)


def recorded(state: Path) -> Running | None:
    """The proxy that recorded itself last in the state folder; it may have ended since, without taking that back."""
    try:
        record = orjson.loads((state / RECORD_FILE).read_bytes())
        return Running(
            _reachable(str(record["host"])),
            int(record["port"]),
            int(record["pid"]),
            str(record["mode"]),
            Path(record["confdir"]).expanduser(),
            Path(record["journal"]) if record.get("journal") else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_running(state: Path) -> Running | None:
    """The proxy that recorded itself in the state folder, if it lives, answers and can be a program's HTTPS_PROXY."""
    found = recorded(state)
    return found if found is not None and found.forwards and found.alive else None


def answers(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def upstream_options(environ: Mapping[str, str]) -> list[str]:
    """Options of mitmdump that send its own traffic through the proxy that the user's environment names, if
    any.
    """
    url = environ.get("https_proxy") or environ.get("HTTPS_PROXY")
    if not url:
        return []
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProxyError(f"HTTPS_PROXY={url} is no http proxy, and mitmproxy can be put before no other kind: unset it")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port or (443 if parts.scheme == "https" else 80)
    options = ["--mode", f"upstream:{parts.scheme}://{host}:{port}"]
    if parts.username is not None:
        options += ["--upstream-auth", f"{unquote(parts.username)}:{unquote(parts.password or '')}"]
    return options


def usual_options(confdir: Path, upstream_bundle: Path) -> dict[str, str]:
    """Options of mitmproxy that go with our CA, and with calls that may say nothing for long."""
    return {
        "confdir": str(confdir),
        "upstream_cert": "false",  # the CA may not vouch for all the names that a server's certificate has
        "ssl_verify_upstream_trusted_ca": str(upstream_bundle),
        "flow_detail": "0",
        "tcp_timeout": str(SILENCE_BOUND),  # since mitmproxy 12.2.1; an older one passes over it, and waits 600 s
    }


class PrivateProxy:
    """A mitmdump on a port of the system's choice, for the life of one program.

    It holds one end of a pipe; `life` is the other. When nobody holds `life` any more, it stops by itself, so
    that neither a killed `run` leaves it behind nor a program that survives `run` loses it.
    """

    def __init__(
        self,
        state: Path,
        confdir: Path,
        upstream_bundle: Path,
        options: Sequence[str],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._environ = environ
        self._logs = state / "logs"
        self._arguments = [
            *(f"--set={name}={value}" for name, value in usual_options(confdir, upstream_bundle).items()),
            "--set=termlog_verbosity=warn",
            *("--listen-host", "127.0.0.1"),
            *("-s", str(LEASH), "-s", str(ADDON)),
            *options,
        ]
        self.port = 0
        self.log = self._logs / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.life = -1

    def start(self) -> None:
        """Start it, on the port that it had before if it had one, and wait until it listens. Raises
        ProxyError.
        """
        paths.make_private(self._logs)
        _prune(self._logs)
        program = Path(sys.executable).with_name("mitmdump.exe" if os.name == "nt" else "mitmdump")
        if not program.exists():
            raise ProxyError(f"there is no {program}: install llm-calls again into this environment")
        if self.life >= 0:
            os.close(self.life)
        end, self.life = os.pipe()
        with tempfile.TemporaryDirectory(prefix="llm-calls-") as folder, self.log.open("ab") as log:
            report = Path(folder) / "port"
            try:
                self._process = subprocess.Popen(
                    [str(program), "-p", str(self.port), *self._arguments],
                    stdin=end,
                    stdout=log,
                    stderr=log,
                    env={**self._environ, "LLM_CALLS_LEASH": str(report), "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,  # the terminal's Ctrl-C is the program's, not the proxy's
                    preexec_fn=_unblock_signals if os.name != "nt" else None,
                )
            finally:
                os.close(end)
            self.port = self._wait_for(report)

    def _wait_for(self, report: Path) -> int:
        assert self._process is not None
        deadline = time.monotonic() + START_BOUND
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                return int(report.read_text())
            if self._process.poll() is not None:
                raise ProxyError(
                    f"the proxy did not start: {(self.words() or ['it said nothing'])[-1]} (its log: {self.log})"
                )
            time.sleep(0.02)
        self.stop()
        raise ProxyError(f"the proxy did not listen within {START_BOUND:.0f} s (its log: {self.log})")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ended(self) -> bool:
        """Whether it has stopped by itself."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> bool:
        """Stop it and wait for its end, by which all rows are written; False where it had to be killed."""
        if self.life >= 0:
            os.close(self.life)
            self.life = -1
        if self._process is None or self._process.poll() is not None:
            return True
        if os.name != "nt":  # there, the pipe's end alone stops it in order
            self._process.terminate()
        try:
            self._process.wait(STOP_BOUND)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True

    def words(self) -> list[str]:
        """What it has said, warnings and errors, a line each."""
        with contextlib.suppress(OSError):
            return [line for line in self.log.read_text(errors="replace").split("\n") if line.strip()]
        return []


def _unblock_signals() -> None:
    """In the new process: what `launch.attend` has blocked in this one must reach the proxy."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _prune(logs: Path) -> None:
    for old in sorted(logs.glob("run-*.log"))[: -LOGS_KEPT or None]:
        with contextlib.suppress(OSError):
            old.unlink()


def _reachable(host: str) -> str:
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill(pid, 0) would send it a Ctrl-C; the port tells
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
