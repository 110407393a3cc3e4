"""`llm-calls env`: the variables of `llm-calls run`, as words of a shell."""

from __future__ import annotations

import os
import re
import shlex

import click

from ..capture.hosts import Hosts
from ..paths import state_folder
from ..trust import authority, bundle, child, java, proxy
from .refusal import Refused

SHELLS = ("sh", "fish", "powershell")


@click.command()
@click.option(
    "--shell", type=click.Choice(SHELLS), help="Whose words to print; else that of SHELL, or PowerShell on Windows."
)
@click.option("--java", "for_java", is_flag=True, help="Also for JVMs (each prints a line on stderr about it).")
@click.option("--plain-http", is_flag=True, help="Also unencrypted http, for your own compatible servers without TLS.")
def env(shell: str | None, for_java: bool, plain_http: bool) -> None:
    """Print what points a shell's programs at the running proxy: `eval "$(llm-calls env)"`.

    fish: `llm-calls env | source`; PowerShell: `llm-calls env | Out-String | Invoke-Expression`.
    """
    environ = dict(os.environ)
    running = proxy.find_running(state_folder())
    if running is None:
        raise Refused(_why_none())
    try:
        ca = authority.read(running.confdir)
        changes = child.changes(
            environ,
            (running.host, running.port),
            bundle.build(ca, environ),
            Hosts.with_own(environ.get("LLM_CALLS_HOSTS", "")).patterns,
            java=java.trust_for_child(ca) if for_java else None,
            plain_http=plain_http,
        )
    except FileNotFoundError as error:
        raise Refused(f"the running proxy's CA is not in {running.confdir}: start it again") from error
    except (authority.AuthorityError, java.JavaError, ValueError, OSError) as error:
        raise Refused(str(error)) from error
    for line in changes.notes:
        click.echo(f"llm-calls: {line}", err=True)
    click.echo(render(changes, shell or _this_shell(environ)))


def _why_none() -> str:
    other = proxy.recorded(state_folder())
    if other is not None and other.alive:
        return (
            f"the proxy at {other.url} is a {other.mode}, which needs no CA but OPENAI_BASE_URL={other.url}/…; "
            "for all else start one without --reverse"
        )
    return "no proxy is running: `llm-calls start` starts one, `llm-calls run -- …` brings its own"


def render(changes: child.Changes, shell: str) -> str:
    """The changes as commands of a shell of SHELLS, one a line."""
    if shell == "fish":
        lines = [f"set -e {name}" for name in changes.unset]
        lines += [f"set -gx {name} {_fish_quoted(value)}" for name, value in changes.set.items()]
    elif shell == "powershell":
        lines = [f"Remove-Item -ErrorAction SilentlyContinue Env:{name}" for name in changes.unset]
        lines += [f"$Env:{name} = {_powershell_quoted(value)}" for name, value in changes.set.items()]
    else:
        lines = [f"unset {name}" for name in changes.unset]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in changes.set.items()]
    return "\n".join(lines)


def _fish_quoted(value: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def _powershell_quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _this_shell(environ: dict[str, str]) -> str:
    if environ.get("SHELL", "").endswith("fish"):
        return "fish"
    return "powershell" if os.name == "nt" and "SHELL" not in environ else "sh"
