"""What was put into which trust store: the list from which everything can be taken out again.

It is one JSON file in the CA's folder. An entry carries the certificate itself and the place in the store, so
that it is enough by itself: the CA may be gone, the folder may have been moved.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import orjson

from ..paths import make_private
from . import files

FILE = "manifest.json"


class ManifestError(Exception):
    """The manifest cannot be read; one line that says what to do."""


@dataclass(frozen=True)
class Entry:
    """One certificate in one store.

    store: the store's name ("debian", "nss", …). place: what the store's own commands call it (a file, a
    database's folder, a keychain). name: the nickname or alias. sha256, sha1, pem: the certificate. backups:
    files of the store as they were before, path → name of the copy beside the manifest.
    """

    store: str
    place: str
    name: str
    sha256: str
    sha1: str
    pem: str
    backups: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.store, self.place, self.sha256


@dataclass(frozen=True)
class Manifest:
    """The entries, in the order in which they were made. Each change is on the disk before it returns."""

    folder: Path
    entries: tuple[Entry, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The folder's manifest, empty where there is none. Raises ManifestError."""
        path = folder / FILE
        try:
            items = orjson.loads(path.read_bytes())["entries"]
            return cls(folder, tuple(Entry(**item) for item in items))
        except FileNotFoundError:
            return cls(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{path} cannot be read ({error}): move it away, then run `llm-calls ca uninstall`"
            ) from error

    def add(self, entry: Entry) -> Manifest:
        """Add an entry, or replace the one of the same store, place and certificate. Raises OSError."""
        return self._save((*(e for e in self.entries if e.key != entry.key), entry))

    def remove(self, entry: Entry) -> Manifest:
        """Forget an entry and the copies that belong to it. Raises OSError."""
        manifest = self._save(tuple(e for e in self.entries if e.key != entry.key))
        for copy in entry.backups.values():
            (self.folder / copy).unlink(missing_ok=True)
        return manifest

    def _save(self, entries: tuple[Entry, ...]) -> Manifest:
        path = self.folder / FILE
        if entries:
            make_private(self.folder)
            data = {"entries": [dataclasses.asdict(entry) for entry in entries]}
            files.write(path, orjson.dumps(data, option=orjson.OPT_INDENT_2), 0o600)
        else:
            path.unlink(missing_ok=True)
        return dataclasses.replace(self, entries=entries)
