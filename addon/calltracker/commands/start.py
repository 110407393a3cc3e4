"""`llm-calls start`: the proxy, with the CA, the journal and what an app must be told."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from .. import settings
from ..capture.hosts import DEFAULT_HOSTS, Hosts
from ..paths import state_folder
from ..trust import authority, bundle, launch, proxy
from .refusal import Refused

OPENAI = "https://api.openai.com/v1"
AZURE = tuple(host.removeprefix("*") for host in DEFAULT_HOSTS if host.endswith(".azure.com"))


@click.command(context_settings={"ignore_unknown_options": False})
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Port to listen at.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--journal", default="", metavar="FILE", help="SQLite file for the rows.")
@click.option("--hosts", default="", metavar="LIST", help="Hosts beside OpenAI's: name, *.suffix, name:port.")
@click.option(
    "--reverse",
    metavar="URL",
    help=f"Stand in for this server, so that apps need no CA but its address as OPENAI_BASE_URL: {OPENAI}, …",
)
@click.option(
    "--ca",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Sign with another CA than llm-calls' own: mitmproxy's is in ~/.mitmproxy.",
)
@click.option("--web", is_flag=True, help="Run mitmweb, which shows the flows in a browser.")
@click.argument("mitmproxy", nargs=-1, type=click.UNPROCESSED)
def start(
    port: int,
    host: str,
    journal: str,
    hosts: str,
    reverse: str | None,
    folder: Path | None,
    web: bool,
    mitmproxy: tuple[str, ...],
) -> None:
    """Start the proxy that makes a row of every call to OpenAI.

    What comes after `--` is for mitmdump itself: `llm-calls start -- --set proxyauth=user:password`.
    """
    environ = dict(os.environ)
    try:
        server = Reverse.parse(reverse) if reverse else None
        if server:
            hosts = ",".join(filter(None, [hosts or environ.get("LLM_CALLS_HOSTS", ""), server.address]))
        chosen = settings.read({"llm_calls_hosts": hosts, "llm_calls_journal": journal}, environ)
        _check_free(host, port)
        trusted = _authority(chosen.capture.hosts, folder)
        options = {
            "listen_host": host,
            "listen_port": str(port),
            **proxy.usual_options(trusted.folder, bundle.build(trusted, environ).upstream),
            "llm_calls_journal": str(chosen.journal),
            **({"llm_calls_hosts": hosts} if hosts else {}),
            **({} if web else {"termlog_verbosity": "warn"}),  # mitmweb says its address at the level info
        }
        modes = ["--mode", f"reverse:{server.mode}"] if server else _upstream(environ, host, port)
    except (settings.OptionError, authority.AuthorityError, proxy.ProxyError, ValueError) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(
            f"{error.filename or 'the state folder'} cannot be used ({error.strerror}); LLM_CALLS_HOME names another"
        ) from error
    for warning in [*trusted.warnings(), *_old_python()]:
        click.echo(f"llm-calls: {warning}", err=True)
    click.echo(_welcome(host, port, chosen, server, trusted))
    tool = Path(sys.executable).with_name("mitmweb" if web else "mitmdump")
    words = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    try:
        launch.become([str(tool), "-s", str(proxy.ADDON), *words, *modes, *mitmproxy], environ)
    except launch.LaunchError as error:
        raise Refused(f"{error}: install llm-calls again into this environment") from error


@dataclass(frozen=True)
class Reverse:
    """The server behind a reverse proxy. mode: what mitmproxy is told of it; path: where its API begins, if said."""

    mode: str
    address: str
    path: str

    @classmethod
    def parse(cls, url: str) -> Reverse:
        """Read an URL. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--reverse: {url!r} is not the URL of a server; write {OPENAI}")
        name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = parts.port or (443 if parts.scheme == "https" else 80)
        usual = parts.scheme == "https" and port == 443
        address = name if usual else f"{name}:{port}"
        return cls(f"{parts.scheme}://{name}:{port}", address, parts.path.rstrip("/"))

    def variables(self, url: str) -> list[str]:
        """What an app is given in its environment, each of which will do, where this proxy is at `url`."""
        if self.address.endswith(AZURE):
            path = self.path or "/openai/v1"
            return [f"AZURE_OPENAI_ENDPOINT={url}", f"OPENAI_BASE_URL={url}{path}"]
        return [f"OPENAI_BASE_URL={url}{self.path or '/v1'}"]


def _authority(hosts: Hosts, folder: Path | None) -> authority.Authority:
    if folder:
        try:
            return authority.read(folder.expanduser())
        except FileNotFoundError as error:
            raise Refused(f"--ca: there is no CA in {folder}: mitmproxy makes one there at its first start") from error
    return authority.ensure(state_folder() / "ca", hosts.names)


def _check_free(host: str, port: int) -> None:
    """Raises Refused where nothing can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise Refused(f"--host: {host!r} is no address of this machine ({error.strerror})") from error
    with socket.socket(family, kind, protocol) as probe:
        with contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            raise Refused(_why_not(host, port, error)) from error


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        running = proxy.recorded(state_folder())
        if running is not None and running.port == port and running.alive:
            return f"a proxy of llm-calls runs at port {port} already (process {running.pid}); use it, or choose --port"
        return f"port {port} of {host} is taken by another program: stop that one, or choose another with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be used by this user: choose one from 1024 on with --port"
    return f"--host: cannot listen at {host} ({error.strerror})"


def _upstream(environ: Mapping[str, str], host: str, port: int) -> list[str]:
    """Through the user's own proxy, unless that is the very one which is about to start."""
    url = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.port == port and parts.hostname in {host, "localhost", "127.0.0.1", "::1"}:
        return []
    return proxy.upstream_options(environ)


def _old_python() -> list[str]:
    if sys.version_info >= (3, 12):
        return []
    version = ".".join(str(part) for part in sys.version_info[:2])
    return [f"this is Python {version} with mitmproxy 11; Python 3.12 or newer brings a newer mitmproxy"]


def _welcome(
    host: str, port: int, chosen: settings.Settings, server: Reverse | None, trusted: authority.Authority
) -> str:
    """What the user must know, in a few lines."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url, command = f"http://{reached}:{port}", _command()
    if server:
        titles = ("Set in your app", "or, for Azure's v1 API")
        lines = list(zip(titles, server.variables(url), strict=False))
    else:
        lines = [
            ("Run an app through it", f"{command} run -- python app.py"),
            ("or in a shell, once", f'eval "$({command} env)"'),
            ("or set by yourself", f"HTTPS_PROXY={url} and trust {trusted.root_path}"),
        ]
    lines += [("Rows", str(chosen.journal))]
    if chosen.proton is not None:
        lines += [("and in Proton", f"{chosen.proton.host}:{chosen.proton.port}, stream {chosen.proton.stream}")]
    lines += [("Look at them", f"{command} query latency_by_model"), ("Stop", "Ctrl-C")]
    target = f"standing in for {server.mode}" if server else "every call to OpenAI becomes a row"
    return "\n".join([f"llm-calls at {url}: {target}", *(f"  {title:22} {text}" for title, text in lines)])


def _command() -> str:
    """How this command is called from here: its name where the PATH has it, else its path."""
    own = Path(sys.argv[0]).absolute()
    found = shutil.which("llm-calls")
    if found and Path(found).absolute() == own:
        return "llm-calls"
    try:
        return str(own.relative_to(Path.cwd()))
    except ValueError:
        return str(own)
