"""The trust stores of operating systems, browsers and Java: a module for each kind, three verbs in each."""

from __future__ import annotations

from . import arch, folders, java, macos, nss, windows
from .store import Store

STORES: dict[str, Store] = {
    store.name: store for store in (*folders.STORES, arch.ARCH, *macos.STORES, *windows.STORES, nss.NSS, java.JAVA)
}
SYSTEM = (*(store.name for store in folders.STORES), arch.ARCH.name, "macos-user", "windows-user")


def usual() -> list[Store]:
    """What `install` without --store fills: this system's store, the user's browsers and Java."""
    system = [STORES[name] for name in SYSTEM if STORES[name].places()]
    return [*system[:1], *(store for store in (nss.NSS, java.JAVA) if store.places())]
