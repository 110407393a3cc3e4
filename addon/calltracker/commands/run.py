"""`llm-calls run`: start a program whose calls to OpenAI go through the proxy; nothing on the machine is
changed.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click

from ..capture.hosts import Hosts
from ..paths import journal_path, state_folder
from ..trust import authority, bundle, child, java, launch, proxy
from .refusal import Refused

RESTARTS = 5


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--java", "for_java", is_flag=True, help="Also for JVMs (each prints a line on stderr about it).")
@click.option("--plain-http", is_flag=True, help="Also unencrypted http, for your own compatible servers without TLS.")
@click.option("--own", is_flag=True, help="Start a proxy for this program even where one is running.")
@click.option(
    "--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option for that proxy (mitmproxy's --set)."
)
@click.option(
    "-s",
    "--script",
    "scripts",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="A further mitmproxy script for that proxy.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    for_java: bool,
    plain_http: bool,
    own: bool,
    settings: tuple[str, ...],
    scripts: tuple[str, ...],
    command: tuple[str, ...],
) -> None:
    """Run a program whose calls to OpenAI become rows: `llm-calls run -- python app.py`.

    The program alone gets the proxy and its CA, through its environment; it sees nothing else of this
    command, and its exit status is this command's. A running proxy is used; without one, one runs for the
    program's life.
    """
    try:
        ctx.exit(_run(command, settings, scripts, own or bool(settings or scripts), for_java, plain_http))
    except KeyboardInterrupt:
        ctx.exit(128 + signal.SIGINT)  # before the program had begun
    except launch.LaunchError as error:
        click.echo(f"llm-calls: {error}", err=True)
        ctx.exit(error.status)
    except (authority.AuthorityError, proxy.ProxyError, java.JavaError, ValueError) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(
            f"{error.filename or 'the state folder'} cannot be used ({error.strerror}); LLM_CALLS_HOME names another"
        ) from error


def _run(
    command: tuple[str, ...],
    settings: tuple[str, ...],
    scripts: tuple[str, ...],
    own: bool,
    for_java: bool,
    plain_http: bool,
) -> int:
    state, environ = state_folder(), dict(os.environ)
    if not own and _inside_another(environ):
        return launch.become(command, environ)
    given = next((s.partition("=")[2] for s in settings if s.startswith("llm_calls_hosts=")), None)
    hosts = Hosts.with_own(environ.get("LLM_CALLS_HOSTS", "") if given is None else given)
    running = None if own else usable(state, hosts.names)
    if running is not None:
        ca = authority.read(running.confdir)
        changes = child.changes(
            environ,
            (running.host, running.port),
            bundle.build(ca, environ),
            hosts.patterns,
            java=java.trust_for_child(ca) if for_java else None,
            plain_http=plain_http,
        )
        _say(changes.notes)
        return launch.become(command, changes.applied_to(environ))
    ca = authority.ensure(state / "ca", hosts.names)
    bundles = bundle.build(ca, environ)
    options = [*proxy.upstream_options(environ)]
    for setting in settings:
        options += ["--set", setting]
    for script in scripts:
        options += ["-s", script]
    private = proxy.PrivateProxy(state, ca.folder, bundles.upstream, options)
    private.start()
    try:
        changes = child.changes(
            environ,
            ("127.0.0.1", private.port),
            bundles,
            hosts.patterns,
            java=java.trust_for_child(ca) if for_java else None,
            plain_http=plain_http,
        )
        _say((*ca.warnings(), *changes.notes))
        return launch.attend(command, changes.applied_to(environ), _Nurse(private), private.life)
    finally:
        if not private.stop():
            _say((f"the proxy did not stop within {proxy.STOP_BOUND:.0f} s and was killed; its log: {private.log}",))
        _tell(private)


def usable(state: Path, names: list[str]) -> proxy.Running | None:
    """The running proxy, if its rows go where this environment wants them and its CA covers the names."""
    running = proxy.find_running(state)
    if running is None or (running.journal is not None and running.journal != journal_path()):
        return None
    try:
        return running if authority.read(running.confdir).covers(authority.dns_names(names)) else None
    except (OSError, authority.AuthorityError):
        return None


def _inside_another(environ: dict[str, str]) -> bool:
    """Whether this environment leads through a proxy of ours already: a second one would see every call
    again.
    """
    url = environ.get(child.MARK)
    if not url or environ.get("HTTPS_PROXY") != url:
        return False
    host, _, port = url.removeprefix("http://").rpartition(":")
    return proxy.answers(host.strip("[]"), int(port))


class _Nurse:
    """Starts the proxy again, on its port, where it ends before the program does."""

    def __init__(self, private: proxy.PrivateProxy) -> None:
        self._private, self._left = private, RESTARTS

    def __call__(self) -> None:
        while self._private.ended() and self._left:
            self._left -= 1
            _say((f"the proxy stopped and is started again; its log: {self._private.log}",))
            try:
                self._private.start()
                return
            except proxy.ProxyError as error:
                _say((str(error),))
                time.sleep(0.5)


def _say(lines: tuple[str, ...]) -> None:
    for line in lines:
        click.echo(f"llm-calls: {line}", err=True)


def _tell(private: proxy.PrivateProxy) -> None:
    """Pass on the first of the proxy's warnings; a log without any is not kept."""
    words = private.words()
    if not words:
        private.log.unlink(missing_ok=True)
        return
    more = f" (and {len(words) - 1} lines more in {private.log})" if len(words) > 1 else f" (in {private.log})"
    _say((f"the proxy says: {words[0].strip()}{more}",))
