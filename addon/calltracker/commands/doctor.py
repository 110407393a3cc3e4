"""`llm-calls doctor`: what is installed, running, trusted and delivered, and which clients' calls are captured."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from .. import settings
from ..paths import state_folder
from ..trust import authority, bundle, child, java, proxy
from ..trust.doctor import probes, state, trial
from ..trust.doctor.finding import Finding, Level, Trial, Verdict

ANSWERING = Path(probes.__file__).with_name("answering.py")
SECTIONS = ("installed", "running", "trusted", "delivered")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
@click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="A further Python whose libraries are tried, that of an app's environment for example.",
)
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, pythons: tuple[str, ...]) -> None:
    """Tell what is installed, running, trusted and delivered, and let every client of this machine make a call.

    The calls ask OpenAI for its list of models without a key, which costs nothing: through the running proxy, into its
    journal, marked ?llm-calls-doctor=…; where none runs or it is offline, through one of doctor's own that answers
    them itself and keeps no rows. Exit status 1 where something is wrong.
    """
    environ = dict(os.environ)
    report = _examine(environ, pythons)
    click.echo(report.as_json() if as_json else report.as_text())
    ctx.exit(0 if report.healthy else 1)


@dataclass(frozen=True)
class Report:
    """All that was found. through: the proxy that the clients' calls went through."""

    findings: tuple[Finding, ...]
    through: str
    trials: tuple[Trial, ...]

    @property
    def healthy(self) -> bool:
        return all(finding.level is not Level.PROBLEM for finding in self.findings) and all(t.well for t in self.trials)

    def as_json(self) -> str:
        data = {
            "healthy": self.healthy,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "through": self.through,
            "clients": [dataclasses.asdict(each) for each in self.trials],
        }
        return json.dumps(data, indent=2)

    def as_text(self) -> str:
        lines = []
        for section in SECTIONS:
            lines.append(section)
            for finding in self.findings:
                if finding.section == section:
                    lines += _entry(finding.level, finding.text, "", finding.advice)
        lines.append(f"clients, each as llm-calls run starts it, through {self.through}")
        for each in self.trials:
            lines += _entry(each.verdict, each.client, each.detail, each.advice)
        if not self.trials:
            lines += _entry(Level.NOTE, "no client was tried", "", "")
        return "\n".join(lines)


def _entry(word: str, text: str, detail: str, advice: str) -> list[str]:
    lines = [f"  {word:9}{text}{f': {detail}' if detail else ''}"]
    return [*lines, f"  {'':9}→ {advice}"] if advice else lines


def _examine(environ: Mapping[str, str], pythons: Sequence[str]) -> Report:
    folder = state_folder() / "ca"
    chosen, findings = state.options(environ)
    found = proxy.recorded(state_folder())
    findings += state.installed(chosen, folder)
    findings += state.running(found, chosen.journal)
    usable = found if found is not None and found.forwards and found.alive else None
    if usable is not None:
        findings.append(state.line(usable))
        if findings[-1].level is Level.PROBLEM:
            usable = None
    findings += state.trusted(folder)
    findings += state.delivered(found.journal if found is not None and found.journal else chosen.journal, chosen)
    clients, unusable = probes.find(environ, pythons)
    broken = [Trial(each.program, each.program, Verdict.UNTRIED, each.reason) for each in unusable]
    through, trials = "no proxy", list[Trial]()
    try:
        if clients and usable is not None and usable.journal is not None:
            through, trials = (
                f"the running one ({usable.url})",
                _through(usable, usable.journal, clients, chosen, environ),
            )
        elif clients:
            through, trials = "one of doctor's own, which answers them itself", _privately(clients, chosen, environ)
    except (authority.AuthorityError, proxy.ProxyError, java.JavaError, OSError, ValueError, sqlite3.Error) as error:
        findings.append(Finding("running", Level.PROBLEM, f"no client could be tried: {error}"))
    return Report(tuple(findings), through, (*trials, *broken))


def _through(
    found: proxy.Running,
    journal: Path,
    clients: Sequence[probes.Probe],
    chosen: settings.Settings,
    environ: Mapping[str, str],
) -> list[Trial]:
    """Through a running proxy, whose journal gets the rows."""
    ca = authority.read(found.confdir)
    environment = _environment(ca, chosen, environ)
    attempts = trial.attempt_all(clients, (found.host, found.port), environment)
    return trial.judge(attempts, trial.marks(journal, attempts))


def _privately(clients: Sequence[probes.Probe], chosen: settings.Settings, environ: Mapping[str, str]) -> list[Trial]:
    """Through a proxy of doctor's own, whose rows are gone with it."""
    with tempfile.TemporaryDirectory(prefix="llm-calls-doctor-") as name:
        folder = Path(name)
        ca = _authority(folder, chosen)
        environment = _environment(ca, chosen, environ)
        journal = folder / "journal.sqlite3"
        options = ["-s", str(ANSWERING), "--set", "connection_strategy=lazy", "--set", f"llm_calls_journal={journal}"]
        kept = {word: value for word, value in environ.items() if not word.startswith(("PROTON_", "LLM_CALLS_"))}
        if "LLM_CALLS_HOSTS" in environ:
            options += ["--set", f"llm_calls_hosts={environ['LLM_CALLS_HOSTS']}"]
        private = proxy.PrivateProxy(
            folder, ca.folder, bundle.build(ca, environ).upstream, options, environ={**kept, "LLM_CALLS_HOME": name}
        )
        with _running(private):
            attempts = trial.attempt_all(clients, ("127.0.0.1", private.port), environment)
            captured = trial.marks(journal, attempts)
        return trial.judge(attempts, captured)


@contextlib.contextmanager
def _running(private: proxy.PrivateProxy) -> Iterator[None]:
    private.start()
    try:
        yield
    finally:
        private.stop()


def _authority(folder: Path, chosen: settings.Settings) -> authority.Authority:
    """The user's CA where it is good for these hosts, else one for the moment: nothing of the user's is changed."""
    names = chosen.capture.hosts.names
    with contextlib.suppress(FileNotFoundError, authority.AuthorityError):
        ca = authority.read(state_folder() / "ca")
        if ca.covers(authority.dns_names(names)) and not ca.warnings():
            return ca
    return authority.ensure(folder / "ca", names)


def _environment(ca: authority.Authority, chosen: settings.Settings, environ: Mapping[str, str]) -> trial.Environment:
    """What `llm-calls run` gives a client, by the port where that client finds the proxy."""
    bundles = bundle.build(ca, environ)
    jdk = java.trust_for_child(ca, environ) if java.find_jdks(environ, places=()) else None

    def environment(port: int) -> Mapping[str, str]:
        hosts = chosen.capture.hosts.patterns
        return child.changes(environ, ("127.0.0.1", port), bundles, hosts, java=jdk).applied_to(environ)

    return environment
