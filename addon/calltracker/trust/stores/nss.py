"""NSS databases: those of Chromium and of Firefox's profiles, wherever each keeps them."""

from __future__ import annotations

from pathlib import Path

from ..handshake import Client
from ..manifest import Entry
from .store import Runner, first

SHARED = (
    "~/.pki/nssdb",
    "~/.local/share/pki/nssdb",  # Chromium, where the one before does not exist
    "~/snap/chromium/current/.pki/nssdb",
    "~/.var/app/org.chromium.Chromium/.pki/nssdb",
    "~/.var/app/com.google.Chrome/.pki/nssdb",
)
PROFILES = (
    "~/.mozilla/firefox",
    "~/.config/mozilla/firefox",  # since Firefox 147
    "~/snap/firefox/common/.mozilla/firefox",
    "~/.var/app/org.mozilla.firefox/.mozilla/firefox",
    "~/.var/app/org.mozilla.firefox/config/mozilla/firefox",
    "~/Library/Application Support/Firefox/Profiles",
)
DATABASE = "cert9.db"
# NSS's own TLS client: Debian puts it on the PATH, Fedora does not.
TSTCLNT = ("tstclnt", "/usr/lib64/nss/unsupported-tools/tstclnt", "/usr/lib/nss/unsupported-tools/tstclnt")


class Nss:
    name = "nss"

    def places(self) -> list[str]:
        shared = [Path(folder).expanduser() for folder in SHARED]
        profiles = [
            file.parent for folder in PROFILES for file in sorted(Path(folder).expanduser().glob(f"*/{DATABASE}"))
        ]
        return [str(folder) for folder in (*shared, *profiles) if (folder / DATABASE).is_file()]

    def install(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        database = ("-d", f"sql:{entry.place}", "-n", entry.name)
        runner.change("certutil", "-A", *database, "-t", "C,,", "-i", str(certificate))

    def uninstall(self, entry: Entry, certificate: Path, runner: Runner) -> None:
        database = ("-d", f"sql:{entry.place}", "-n", entry.name)
        if runner.ask("certutil", "-L", *database)[0] == 0:
            runner.change("certutil", "-D", *database)

    def holds(self, entry: Entry, certificate: Path, runner: Runner) -> bool:
        return runner.ask("certutil", "-V", "-u", "L", "-d", f"sql:{entry.place}", "-n", entry.name)[0] == 0

    def client(self, entry: Entry) -> Client | None:
        where = ("-h", "127.0.0.1", "-p", "<port>", "-a", "<name>", "-d", f"sql:{entry.place}")
        return first(*(Client((program, *where)) for program in TSTCLNT))


NSS = Nss()
