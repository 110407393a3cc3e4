"""macOS: a keychain holds the certificate, trust settings say what it is good for."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..handshake import Client
from ..manifest import Entry
from .store import Runner, StoreError, curl, first


@dataclass(frozen=True)
class Keychain:
    """machine: the settings for all users, which only root may change."""

    name: str
    keychain: str
    machine: bool

    def places(self) -> list[str]:
        return [str(Path(self.keychain).expanduser())] if sys.platform == "darwin" else []

    def install(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        scope = (
            ("-d", "-r", "trustRoot", "-p", "ssl", "-p", "basic") if self.machine else ("-r", "trustRoot", "-p", "ssl")
        )
        runner.change("security", "add-trusted-cert", *scope, "-k", entry.place, str(certificate), root=self.machine)

    def uninstall(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        scope = ("-d",) if self.machine else ()
        try:
            runner.change("security", "remove-trusted-cert", *scope, str(certificate), root=self.machine)
        except StoreError as error:
            if "No Trust Settings were found" not in str(error):  # already gone
                raise
        runner.change("security", "delete-certificate", "-Z", entry.sha1, entry.place, root=self.machine)

    def holds(self, entry: Entry, certificate: Path, runner: Runner) -> bool:
        return runner.ask("security", "verify-cert", "-p", "ssl", "-c", str(certificate))[0] == 0

    def client(self, entry: Entry) -> Client | None:
        return first(curl("/usr/bin/curl"))  # the system's own, which asks the keychains


STORES = (
    Keychain("macos-user", "~/Library/Keychains/login.keychain-db", machine=False),
    Keychain("macos-machine", "/Library/Keychains/System.keychain", machine=True),
)
