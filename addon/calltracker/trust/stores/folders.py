"""Systems that keep a folder of added certificates and a program that makes their bundle from it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..handshake import Client
from ..java import PASSWORD
from ..manifest import Entry
from .store import Runner, curl, first, openssl

JAVA_KEYSTORE = "/etc/ssl/certs/java/cacerts"


@dataclass(frozen=True)
class FolderStore:
    """folder: the added certificates. suffix: what a file there must end in. refresh, cleanup: the programs to run
    after a file was added or removed. bundle: what they make, a PEM file. marks: files of which this system has one.
    """

    name: str
    folder: str
    suffix: str
    refresh: tuple[str, ...]
    cleanup: tuple[str, ...]
    bundle: str
    marks: tuple[str, ...]

    def places(self) -> list[str]:
        here = any(Path(mark).exists() for mark in self.marks) and shutil.which(self.refresh[0])
        return [self.folder] if here else []

    def install(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        runner.change("install", "-D", "-m", "0644", str(certificate), self._file(entry), root=True)
        runner.change(*self.refresh, root=True)

    def uninstall(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        runner.change("rm", "-f", self._file(entry), root=True)
        runner.change(*self.cleanup, root=True)
        # Debian's hook for Java adds the certificate to a keystore and never takes it out again
        alias = ("-keystore", JAVA_KEYSTORE, "-storepass", PASSWORD, "-alias", f"debian:{entry.name}.pem")
        if self.name == "debian" and runner.ask("keytool", "-list", *alias)[0] == 0:
            runner.change("keytool", "-delete", *alias, root=True)

    def holds(self, entry: Entry, certificate: Path, runner: Runner) -> bool:
        try:
            return "".join(entry.pem.split()) in "".join(Path(self.bundle).read_text(errors="replace").split())
        except OSError:
            return False

    def client(self, entry: Entry) -> Client | None:
        return first(openssl(), curl("/usr/bin/curl"))

    def _file(self, entry: Entry) -> str:
        return f"{entry.place}/{entry.name}{self.suffix}"


UPDATE = ("update-ca-certificates",)
DEBIAN_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
ADDED = "/usr/local/share/ca-certificates"
STORES = (
    # without --fresh, links to a certificate that is gone stay behind
    FolderStore("debian", ADDED, ".crt", UPDATE, (*UPDATE, "--fresh"), DEBIAN_BUNDLE, ("/etc/debian_version",)),
    FolderStore("alpine", ADDED, ".crt", UPDATE, UPDATE, DEBIAN_BUNDLE, ("/etc/alpine-release",)),
    FolderStore(
        "fedora",
        "/etc/pki/ca-trust/source/anchors",
        ".pem",
        ("update-ca-trust",),
        ("update-ca-trust",),
        "/etc/pki/tls/certs/ca-bundle.crt",
        ("/etc/fedora-release", "/etc/redhat-release"),
    ),
    FolderStore(
        "opensuse", "/etc/pki/trust/anchors", ".pem", UPDATE, UPDATE, "/etc/ssl/ca-bundle.pem", ("/etc/SUSE-brand",)
    ),
)
