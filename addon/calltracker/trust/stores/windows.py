"""Windows: the Root store of the user (Windows asks in a window) or of the machine (from an elevated prompt)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ..handshake import Client
from ..manifest import Entry
from .store import Runner, curl, first


@dataclass(frozen=True)
class RootStore:
    name: str
    scope: tuple[str, ...]
    force: tuple[str, ...]

    def places(self) -> list[str]:
        return ["Root"] if sys.platform == "win32" else []

    def install(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        runner.change("certutil", *self.scope, "-addstore", *self.force, entry.place, str(certificate))

    def uninstall(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        runner.change("certutil", *self.scope, "-delstore", entry.place, entry.sha1)

    def holds(self, entry: Entry, certificate: Path, runner: Runner) -> bool:
        return runner.ask("certutil", *self.scope, "-store", entry.place, entry.sha1)[0] == 0

    def client(self, entry: Entry) -> Client | None:
        # Windows' own asks both Root stores; no list of revoked certificates exists for this CA
        system = Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32"
        return first(curl(str(system / "curl.exe"), "--ssl-no-revoke"))


STORES = (RootStore("windows-user", ("-user",), ()), RootStore("windows-machine", (), ("-f",)))
