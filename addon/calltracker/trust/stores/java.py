"""Java: the keystore `cacerts` of each installation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..handshake import Client
from ..java import PASSWORD, find_jdks
from ..manifest import Entry
from .store import Runner, first


class JavaStore:
    name = "java"

    def places(self) -> list[str]:
        return list(dict.fromkeys(str(jdk.keystore) for jdk in find_jdks(os.environ)))

    def install(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        if not self.holds(entry, certificate, runner):
            added = ("-importcert", "-noprompt", *_in(entry), "-file", str(certificate))
            runner.change(_keytool(entry), *added, root=_needs_root(entry))

    def uninstall(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        if self.holds(entry, certificate, runner):
            runner.change(_keytool(entry), "-delete", *_in(entry), root=_needs_root(entry))

    def holds(self, entry: Entry, certificate: Path, runner: Runner) -> bool:
        return runner.ask(_keytool(entry), "-list", *_in(entry))[0] == 0

    def client(self, entry: Entry) -> Client | None:
        # every JVM has keytool, and it fetches a list of revoked certificates from where it is told
        store = (f"-J-Djavax.net.ssl.trustStore={entry.place}", f"-J-Djavax.net.ssl.trustStorePassword={PASSWORD}")
        proxy = ("-J-Dhttps.proxyHost=127.0.0.1", "-J-Dhttps.proxyPort=<port>")
        return first(Client((_keytool(entry), "-printcrl", "-file", "https://<name>/", *store, *proxy)))


def _in(entry: Entry) -> tuple[str, ...]:
    return "-keystore", entry.place, "-storepass", PASSWORD, "-alias", entry.name


def _keytool(entry: Entry) -> str:
    """The keytool of the keystore's own Java, else whichever there is."""
    own = [jdk.keytool for jdk in find_jdks(os.environ) if str(jdk.keystore) == entry.place]
    return str(own[0]) if own else shutil.which("keytool") or "keytool"


def _needs_root(entry: Entry) -> bool:
    return not os.access(entry.place, os.W_OK)


JAVA = JavaStore()
