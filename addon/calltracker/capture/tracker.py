"""The tracker: what runs in the proxy's process from mitmproxy's `running` to its `done`."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import ipaddress
import json
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mitmproxy import ctx, tls
from mitmproxy.connection import Client
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode

from .. import paths
from ..settings import Settings
from ..worker_settings import WorkerSettings
from .console import mask_output
from .dispatch import ShortDispatch
from .recorder import Recorder
from .spool import Spool
from .supervisor import Supervisor

SPOOL_SECONDS = 2.0  # how long, at the end, captures may still be written
WORKER_SECONDS = 6.0  # how long, at the end, the worker may still make and deliver rows
AFTERMATH_SECONDS = 1.0  # how long after a client has left its flows' own hooks may still come
LEASHED = "LLM_CALLS_LEASH"  # set for the proxy of one program alone (trust/leash.py), which others must not find

log = logging.getLogger("llm_calls")

Hook = TypeVar("Hook", bound=Callable[..., Any])
_failures: set[str] = set()


def guarded(hook: Hook) -> Hook:
    """Make a hook of an addon's that never raises: what goes wrong is logged, each kind of it once."""

    def failed(error: Exception) -> None:
        what = f"{hook.__name__}: {type(error).__name__}: {error}"
        level = logging.DEBUG if what in _failures else logging.WARNING
        _failures.add(what)
        log.log(level, "llm_calls: a call goes on but may not be recorded whole: %s", what)
        log.debug("llm_calls: %s", what, exc_info=error)

    if inspect.iscoroutinefunction(hook):

        @functools.wraps(hook)
        async def awaited(*args: Any) -> None:
            try:
                await hook(*args)
            except Exception as error:  # noqa: BLE001 - the flow goes on, whatever it is
                failed(error)

        return awaited  # type: ignore[return-value]

    @functools.wraps(hook)
    def called(*args: Any) -> None:
        try:
            hook(*args)
        except Exception as error:  # noqa: BLE001 - the flow goes on, whatever it is
            failed(error)

    return called  # type: ignore[return-value]


class Tracker:
    """The spool, its recorder and the worker's supervisor, under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._warned_of: set[str] = set()
        self._spool = Spool(
            paths.spool_folder(settings.journal), limit=settings.spool_limit, fsync=settings.fsync, say=self._say
        )
        self.recorder = Recorder(settings.capture, self._spool, _install_secret())
        worker = WorkerSettings(
            journal=settings.journal,
            run=str(self._spool.run),
            bodies=settings.bodies,
            fsync=settings.fsync,
            keep_days=settings.keep_days,
            keep_bytes=settings.keep_bytes,
            proton=settings.proton,
        )
        self._supervisor = Supervisor(worker.to_line(), self._say)
        self._dispatch = ShortDispatch(ctx.master.addons)

    def start(self) -> None:
        mask_output(lambda: self._settings.capture.redaction)
        self._spool.start()
        self._supervisor.start()
        self._dispatch.begin()

    def announce(self) -> None:
        """The proxy listens: warn of what should not be, and let the other commands find it."""
        self._warn_of_listening()
        self._write_address()

    def stop(self) -> None:
        """End what is under way, write it down, and give the worker a bounded time for the rest."""
        self._dispatch.end()
        self.recorder.shutdown()
        self._spool.stop(SPOOL_SECONDS)
        self._supervisor.stop(WORKER_SECONDS)
        self._remove_address()
        lost = self.recorder.counts.lost
        if lost:
            log.warning("llm_calls: %d calls were not recorded: %s", lost, self._spool.counts.last_error)

    def reconfigure(self, settings: Settings) -> None:
        """Take what can change while calls are under way; say what cannot."""
        if dataclasses.replace(settings, capture=self._settings.capture) != self._settings:
            log.warning("llm_calls: only hosts, redact and body_limit change at once; the rest at the next start")
        self._settings = settings
        self.recorder.settings = settings.capture

    def flush(self) -> bool:
        """Write down what has been captured; tell whether the disk took it."""
        return self._spool.commit_now(SPOOL_SECONDS)

    def stats(self) -> list[str]:
        counts, spool = self.recorder.counts, self._spool.counts
        return [
            f"calls begun: {counts.begun}, ended: {counts.ended}, under way: {counts.begun - counts.ended}",
            f"calls lost: {counts.lost}, with a part of a body missing: {counts.gaps}, errors: {counts.errors}",
            f"spool: {spool.written_bytes} bytes written, {spool.failed_writes} writes failed, "
            f"{spool.late_commits} times the disk did not answer in time",
            f"worker: process {self._supervisor.worker_pid}, started {self._supervisor.starts} times",
            f"journal: {self._settings.journal}",
        ]

    # Connections

    def pass_on_if_foreign(self, data: tls.ClientHelloData) -> None:
        """Leave a connection undecrypted that is for none of the hosts; the user's own host options go before."""
        if ctx.options.allow_hosts or ctx.options.ignore_hosts:
            return
        host, port = (data.context.server.address or (None, 443))[:2]
        hosts = self._settings.capture.hosts
        if not hosts.wanted(data.client_hello.sni, port) and not hosts.wanted(host, port):
            data.ignore_connection = True

    def warn_of_distrust(self, data: tls.TlsData) -> None:
        """A client hung up on our certificate: there is no call, and only this tells why."""
        host = data.conn.sni or (data.context.server.address or ("a host",))[0]
        if host in self._warned_of or not data.conn.error:
            return
        self._warned_of.add(host)
        log.warning(
            "llm_calls: a client broke off the TLS handshake for %s (%s). If it does not trust the proxy's CA: start "
            "it with `llm-calls run -- …`, or give it the CA file %s (SSL_CERT_FILE, REQUESTS_CA_BUNDLE, "
            "NODE_EXTRA_CA_CERTS). Until then its calls fail and are not recorded.",
            host,
            data.conn.error,
            Path(ctx.options.confdir).expanduser() / "mitmproxy-ca-cert.pem",
        )

    def client_disconnected(self, client: Client) -> None:
        self._loop.call_later(AFTERMATH_SECONDS, self.recorder.client_gone, client.id)

    def _warn_of_listening(self) -> None:
        modes = [ProxyMode.parse(mode) for mode in ctx.options.mode]
        for mode in modes:
            host = mode.listen_host(ctx.options.listen_host)
            if mode.type_name in ("regular", "reverse", "upstream") and not _is_loopback(host) and not _asks_password():
                log.warning(
                    "llm_calls: the proxy listens on %s without a password: whoever reaches this machine can use it, "
                    "in your name. Add --listen-host 127.0.0.1, or --proxyauth user:password.",
                    host or "all interfaces",
                )
            if isinstance(mode, ReverseMode) and not self._settings.capture.hosts.wanted(*mode.address):
                log.warning(
                    "llm_calls: calls to %s are not recorded, it is none of OpenAI's hosts: add "
                    "--set llm_calls_hosts=%s",
                    mode.address[0],
                    mode.address[0],
                )

    # The file by which `llm-calls run` and `doctor` find a proxy that runs.

    def _write_address(self) -> None:
        proxyserver = ctx.master.addons.get("proxyserver")
        servers = [server for server in proxyserver.servers if server.listen_addrs] if proxyserver is not None else []
        if not servers or LEASHED in os.environ:
            return
        # of several, one that HTTPS_PROXY can name
        server = min(servers, key=lambda server: server.mode.type_name not in ("regular", "upstream"))
        facts = {
            "pid": os.getpid(),
            "host": server.listen_addrs[0][0],
            "port": server.listen_addrs[0][1],
            "mode": server.mode.full_spec,
            "confdir": str(Path(ctx.options.confdir).expanduser()),
            "journal": str(self._settings.journal),
        }
        file = paths.state_folder() / "proxy.json"
        try:
            paths.make_private(file.parent)
            fresh = file.with_name(f"proxy.json.{os.getpid()}")
            fresh.write_text(json.dumps(facts))
            fresh.replace(file)
        except OSError as error:
            log.info("llm_calls: other commands will not find this proxy: %s", error)

    def _remove_address(self) -> None:
        file = paths.state_folder() / "proxy.json"
        try:
            if json.loads(file.read_text())["pid"] == os.getpid():
                file.unlink()
        except (OSError, ValueError, KeyError) as error:
            log.debug("llm_calls: %s was not there to be removed: %s", file, error)

    def _say(self, line: str) -> None:
        # Called in other threads, while mitmproxy's handlers belong to the event loop.
        try:
            self._loop.call_soon_threadsafe(log.warning, "llm_calls: %s", line)
        except RuntimeError:
            log.warning("llm_calls: %s", line)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _asks_password() -> bool:
    return bool(ctx.options.proxyauth)


def _install_secret() -> bytes:
    """The secret of this installation, made at first use; one of this process alone where none can be kept."""
    file = paths.state_folder() / "key-hash-secret"
    try:
        paths.make_private(file.parent)
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return file.read_bytes() or secrets.token_bytes(32)
        fresh = secrets.token_bytes(32)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(fresh)
    except OSError as error:
        log.warning("llm_calls: api_key_hash will change with the next start: %s cannot be kept: %s", file, error)
        return secrets.token_bytes(32)
    return fresh
