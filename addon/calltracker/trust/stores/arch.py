"""Arch Linux: p11-kit's `trust`, which finds its own places."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..handshake import Client
from ..manifest import Entry
from .store import Runner, curl, first, openssl


class Arch:
    name = "arch"

    def places(self) -> list[str]:
        return ["p11-kit"] if Path("/etc/arch-release").exists() and shutil.which("trust") else []

    def install(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        runner.change("trust", "anchor", "--store", str(certificate), root=True)

    def uninstall(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        runner.change("trust", "anchor", "--remove", str(certificate), root=True)

    def holds(self, entry: Entry, certificate: Path, runner: Runner) -> bool:
        return runner.ask("openssl", "verify", "-CApath", "/etc/ssl/certs", str(certificate))[0] == 0

    def client(self, entry: Entry) -> Client | None:
        return first(openssl(), curl("/usr/bin/curl"))


ARCH = Arch()
