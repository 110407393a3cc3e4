"""What there is on this machine, apart from client programs: installed, running, trusted, delivered."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
import socket
import sqlite3
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ... import __version__, journal, settings
from ...proton import outbox
from .. import authority, proxy
from ..manifest import Manifest, ManifestError
from ..stores import STORES
from ..stores.proof import prove
from ..stores.store import RealRunner, StoreError
from .finding import Finding, Level

HOST = "api.openai.com"
USUAL_PORT = 8080
SECONDS = 10.0


def installed(chosen: settings.Settings, folder: Path) -> Iterator[Finding]:
    """Versions, the hosts, and the CA in its folder."""
    mitmproxy = importlib.metadata.version("mitmproxy")
    text = f"llm-calls {__version__}, mitmproxy {mitmproxy}, Python {platform.python_version()} ({sys.executable})"
    yield Finding("installed", Level.OK, text)
    hosts = chosen.capture.hosts.names
    yield Finding("installed", Level.OK, f"hosts: {', '.join(hosts)}")
    try:
        ca = authority.read(folder)
    except FileNotFoundError:
        yield Finding("installed", Level.NOTE, "there is no CA yet: start, run and ca install make one")
        return
    except authority.AuthorityError as error:
        yield Finding("installed", Level.PROBLEM, str(error), "the next start makes a new one, or: llm-calls ca rotate")
        return
    text = f"CA {ca.name}, until {ca.expires:%Y-%m-%d}: {ca.root_path}"
    warnings = ca.warnings()
    yield Finding("installed", Level.PROBLEM if warnings else Level.OK, text, "; ".join(warnings))
    if not ca.covers(authority.dns_names(hosts)):
        yield Finding(
            "installed", Level.NOTE, "the CA does not cover all of these hosts", "the next start makes one that does"
        )


def running(found: proxy.Running | None, wanted_journal: Path) -> Iterator[Finding]:
    """The proxy that recorded itself, if there is one."""
    if found is None or not found.alive:
        if found is not None:
            text = f"the proxy at {found.url} (process {found.pid}) has ended without saying so"
            yield Finding("running", Level.NOTE, text, "nothing has to be done: the next start takes its place")
        if proxy.answers("127.0.0.1", USUAL_PORT):
            text = f"port {USUAL_PORT}, the usual one, is taken by another program"
            yield Finding("running", Level.NOTE, text, "choose another: llm-calls start --port")
        yield Finding("running", Level.NOTE, "no proxy runs: llm-calls start starts one, llm-calls run brings its own")
        return
    text = f"a proxy at {found.url}, mode {found.mode}, process {found.pid}, rows in {found.journal}"
    if not found.forwards:
        text += f"; apps set OPENAI_BASE_URL={found.url}/…"
    yield Finding("running", Level.OK, text)
    if found.journal is not None and found.journal != wanted_journal:
        text = f"here, rows are wanted in {wanted_journal}: llm-calls run brings its own proxy"
        yield Finding(
            "running", Level.NOTE, text, "for the running one, set LLM_CALLS_JOURNAL to its journal, or unset it"
        )


def line(found: proxy.Running) -> Finding:
    """Whether the proxy opens a connection to OpenAI and shows a certificate of its CA; no call is made."""
    try:
        ca = authority.read(found.confdir)
        status, issuer = _connect(found, [ca.root, *authority.previous_roots(found.confdir)])
    except ssl.SSLCertVerificationError as error:
        text = f"what answers at {found.url} does not show a certificate of the CA in {found.confdir}: {error.reason}"
        advice = "start the proxy again; where allow_hosts or ignore_hosts is set, OpenAI's hosts must not be left out"
        return Finding("running", Level.PROBLEM, text, advice)
    except (OSError, ValueError, authority.AuthorityError) as error:
        text = f"the proxy at {found.url} opens no connection: {error}"
        return Finding("running", Level.PROBLEM, text, "start it again: llm-calls start")
    if status == 407:
        text = f"the proxy at {found.url} asks for a password, which llm-calls run and env do not know"
        return Finding("running", Level.PROBLEM, text, "set HTTPS_PROXY=http://user:password@… in the app yourself")
    if status != 200:
        text = f"the proxy at {found.url} does not reach {HOST} (it answers {status})"
        return Finding(
            "running", Level.PROBLEM, text, "is this machine online? Behind a proxy, set HTTPS_PROXY for start"
        )
    text = f"it reaches {HOST} and shows a certificate that {issuer} has signed"
    if issuer != ca.issuing.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value:
        return Finding("running", Level.NOTE, f"{text}, the CA before today's", "a new start takes today's")
    return Finding("running", Level.OK, text)


def _connect(found: proxy.Running, roots: Sequence[x509.Certificate]) -> tuple[int, str]:
    """The status of a CONNECT, and who issued the certificate that is shown behind it. Raises OSError, ValueError."""
    with socket.create_connection((found.host, found.port), SECONDS) as plain:
        plain.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = plain.recv(4096)
            if not data:
                raise ValueError("it hung up")
            head += data
        answer = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if answer is None:
            raise ValueError("it is no HTTP proxy")
        if int(answer[1]) != 200:
            return int(answer[1]), ""
        pem = b"".join(root.public_bytes(Encoding.PEM) for root in roots).decode()
        with ssl.create_default_context(cadata=pem).wrap_socket(plain, server_hostname=HOST) as secure:
            certificate = secure.getpeercert() or {}
    issuer = dict(pair for group in certificate.get("issuer", ()) for pair in group)  # type: ignore[misc]
    return 200, str(issuer.get("commonName", ""))


def trusted(folder: Path) -> Iterator[Finding]:
    """What the manifest lists, each proved."""
    try:
        entries = Manifest.read(folder).entries
        ca = authority.read(folder) if entries else None
    except (ManifestError, authority.AuthorityError) as error:
        yield Finding("trusted", Level.PROBLEM, str(error))
        return
    except FileNotFoundError:
        text = f"{len(entries)} trust stores hold a CA that is no longer in {folder}"
        yield Finding("trusted", Level.PROBLEM, text, "take it out: llm-calls ca uninstall")
        return
    if ca is None:
        text = "no trust store holds the CA: llm-calls run and env need none, browsers and other apps do"
        yield Finding("trusted", Level.NOTE, text)
    for entry in entries:
        place = f"{entry.name} in {entry.store}: {entry.place}"
        try:
            assert ca is not None
            found = prove(STORES[entry.store], entry, ca, RealRunner(lambda _: None))
        except (StoreError, OSError) as error:
            yield Finding("trusted", Level.PROBLEM, f"{place}: {error}")
            continue
        yield Finding("trusted", Level.OK if found.trusted else Level.PROBLEM, f"{place}: {found.words}")


def delivered(file: Path, chosen: settings.Settings) -> Iterator[Finding]:
    """The journal, and how delivery to Proton goes where one is configured."""
    if not file.exists():
        yield Finding("delivered", Level.NOTE, f"journal {file}: not there, no call has been recorded yet")
        return
    try:
        with contextlib.closing(journal.connect_to_read(file)) as connection:
            rows, last = connection.execute("SELECT count(*), max(request_time) FROM llm_calls").fetchone()
            counts, notes = outbox.counts(connection), outbox.notes(connection)
    except sqlite3.Error as error:
        if "no such table" in str(error):  # the worker has just made the file
            yield Finding("delivered", Level.NOTE, f"journal {file}: no call has been recorded yet")
            return
        text = f"journal {file} cannot be read: {error}"
        yield Finding("delivered", Level.PROBLEM, text, "the proxy sets a damaged one aside at its next start")
        return
    since = f", the last call at {last} UTC" if last else ""
    yield Finding("delivered", Level.OK, f"journal {file}: {rows} rows{since}")
    if chosen.proton is None:
        return
    goal = f"Proton {chosen.proton.address}, stream {chosen.proton.database}.{chosen.proton.stream}"
    text = f"{goal}: {counts.delivered} rows delivered, {counts.waiting} wait, {counts.refused} refused"
    failing = "error" in notes and not notes.get("recovered", "") > notes.get("error_time", "")
    if "error" in notes:
        text += f"; last error {notes.get('error_time', '')}: {notes['error']}"
    well = not counts.refused and not (counts.waiting and failing)
    yield Finding(
        "delivered",
        Level.OK if well else Level.PROBLEM,
        text,
        "" if well else "llm-calls proton status tells more, llm-calls proton deliver tries again",
    )


def options(environ: Mapping[str, str]) -> tuple[settings.Settings, list[Finding]]:
    """The options of this environment; those that cannot be used are told, and the usual ones taken."""
    try:
        return settings.read({}, environ), []
    except settings.OptionError as error:
        kept = {name: value for name, value in environ.items() if not name.startswith(("LLM_CALLS_", "PROTON_"))}
        return settings.read({}, kept), [Finding("installed", Level.PROBLEM, str(error), "no proxy starts with this")]
