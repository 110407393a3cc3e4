"""Whether a store really makes programs trust the CA: by a TLS handshake of one that reads this very store."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..authority import OWN, ROOT_FILE, Authority
from ..handshake import trusts
from ..manifest import Entry
from .store import Runner, Store


@dataclass(frozen=True)
class Proof:
    """What is known of an entry. words: a clause for the user."""

    trusted: bool
    words: str


def prove(store: Store, entry: Entry, ca: Authority, runner: Runner) -> Proof:
    """Whether the store holds the entry, and whether its programs trust what this CA signs, where that can be tried."""
    with certificate(entry, ca.folder) as path:
        if not store.holds(entry, path, runner):
            return Proof(False, "no longer there: `llm-calls ca install` puts it back")
    if entry.sha256 != ca.fingerprint:
        if entry.name.startswith(OWN):
            return Proof(False, f"there, but replaced by {ca.name}: `llm-calls ca install` puts that in its place")
        return Proof(True, "there; it is another program's CA: `llm-calls ca status --ca DIR` tries its own")
    client = store.client(entry)
    if client is None:
        return Proof(True, "there; no program that reads it is on this machine to try a TLS handshake with")
    try:
        trusted = trusts(client, ca)
    except OSError as error:
        return Proof(True, f"there; the TLS handshake could not be tried: {client.program}: {error.strerror}")
    if trusted:
        return Proof(True, f"trusted, as a TLS handshake by {client.program} proves")
    return Proof(
        False, f"there, but {client.program} refuses it in a TLS handshake: uninstall it, and install it again"
    )


@contextlib.contextmanager
def certificate(entry: Entry, ca: Path) -> Iterator[Path]:
    """A file with the entry's certificate, for programs that want one: the CA folder's, where it is still that one."""
    root = ca / ROOT_FILE
    if root.is_file() and root.read_text() == entry.pem:
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="llm-calls-") as folder:
        path = Path(folder) / f"{entry.name}.pem"
        path.write_text(entry.pem)
        yield path
