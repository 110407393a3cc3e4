"""`llm-calls ca`: put the proxy's CA into trust stores, take it out again, tell where it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click
from cryptography.hazmat.primitives import hashes

from .. import settings
from ..paths import state_folder
from ..trust import authority, bundle, java
from ..trust.manifest import Entry, Manifest, ManifestError
from ..trust.stores import STORES, proof, usual
from ..trust.stores.store import RealRunner, Store, StoreError
from .refusal import Refused

dry_run_option = click.option("--dry-run", is_flag=True, help="Print the commands, change no store.")
folder_option = click.option(
    "--ca",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Another CA's folder, mitmproxy's own for example: ~/.mitmproxy. It must hold one.",
)


@click.group()
def ca() -> None:
    """Trust stores: install the proxy's CA, uninstall it, tell where it is.

    `llm-calls run` needs none of this. Apps that you start otherwise do, and browsers.
    """


@ca.command()
@click.option("--store", "chosen", multiple=True, type=click.Choice(list(STORES)), help="Only this store.")
@dry_run_option
@folder_option
def install(chosen: tuple[str, ...], dry_run: bool, folder: Path | None) -> None:
    """Put the CA's root into this system's trust store, the browsers' and Java's."""
    _refusing(lambda: _install([STORES[name] for name in chosen] or usual(), dry_run, folder))


@ca.command()
@click.option("--delete", is_flag=True, help="Delete the CA itself, too.")
@dry_run_option
def uninstall(delete: bool, dry_run: bool) -> None:
    """Take out of every store what `install` put there; needs its own list alone."""
    _refusing(lambda: _uninstall(delete, dry_run))


@ca.command()
@folder_option
def status(folder: Path | None) -> None:
    """Tell which CA there is, whom it can vouch for, and which stores make programs trust it."""
    _refusing(lambda: _status(folder))


@ca.command()
def rotate() -> None:
    """Make a new CA for exactly the hosts that are configured now."""
    _refusing(_rotate)


def _refusing(work: Callable[[], None]) -> None:
    try:
        work()
    except (authority.AuthorityError, ManifestError, StoreError, settings.OptionError, ValueError) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"{error.filename or 'the state folder'} cannot be used ({error.strerror})") from error


def _folder() -> Path:
    return state_folder() / "ca"


def _hosts() -> list[str]:
    return settings.read({}, os.environ).capture.hosts.names


def _install(stores: list[Store], dry_run: bool, folder: Path | None) -> None:
    trusted = _other(folder.expanduser()) if folder else authority.ensure(_folder(), _hosts())
    for warning in trusted.warnings():
        click.echo(f"llm-calls: {warning}", err=True)
    if trusted.permitted is None:
        click.echo(
            f"llm-calls: {trusted.root_path} can vouch for every site: whoever gets its key can read all", err=True
        )
    manifest, runner = Manifest.read(_folder()), RealRunner(click.echo, dry_run)
    places = [(store, place) for store in stores for place in store.places()]
    if not places:
        raise StoreError("no such trust store is on this machine; `llm-calls run` needs none")
    failed = []
    for store, place in places:
        entry = _entry(trusted, store.name, place)
        try:
            manifest, words = _put_in(manifest, store, entry, trusted, runner)
        except StoreError as error:
            failed.append(f"{store.name}: {place}: {error}")
            manifest = Manifest.read(manifest.folder)  # with the entry, which says what uninstall has to look for
            continue
        if words:
            click.echo(f"installed {entry.name} in {store.name}: {place}: {words}")
    if failed:
        raise StoreError("; ".join(failed))


def _put_in(
    manifest: Manifest, store: Store, entry: Entry, trusted: authority.Authority, runner: RealRunner
) -> tuple[Manifest, str]:
    """Put a CA into a store in the place of an older one of ours; the manifest after that, and how it was proved."""
    for old in manifest.entries:
        replaced = entry.name.startswith(authority.OWN) and old.name.startswith(authority.OWN)
        if replaced and (old.store, old.place) == (entry.store, entry.place) and old.sha256 != entry.sha256:
            manifest = _take_out(manifest, old, runner)
    known = entry.key in {each.key for each in manifest.entries}
    if not runner.dry_run:
        manifest = manifest.add(entry)  # before the change: a change without an entry could not be undone
    if not (known and store.holds(entry, trusted.root_path, runner)):
        store.install(entry, trusted.root_path, runner)
    elif runner.dry_run:
        runner.tell(f"# {store.name}: {entry.place} has {entry.name} already")
    if runner.dry_run:
        return manifest, ""
    found = proof.prove(store, entry, trusted, runner)
    if not found.trusted:
        raise StoreError(f"{entry.name} was put in, and then: {found.words}")
    return manifest, found.words


def _uninstall(delete: bool, dry_run: bool) -> None:
    manifest, runner = Manifest.read(_folder()), RealRunner(click.echo, dry_run)
    failed = []
    for entry in reversed(manifest.entries):
        try:
            manifest = _take_out(manifest, entry, runner)
        except StoreError as error:
            failed.append(str(error))
            continue
        if not dry_run:
            click.echo(f"removed {entry.name} from {entry.store}: {entry.place}")
    if failed:
        raise StoreError("; ".join(failed))
    if not manifest.entries:
        click.echo("no trust store holds a CA of llm-calls")
    if delete and not dry_run:
        for path in (*authority.delete(_folder()), *bundle.delete(_folder()), *java.delete(_folder())):
            click.echo(f"deleted {path}")


def _take_out(manifest: Manifest, entry: Entry, runner: RealRunner) -> Manifest:
    with proof.certificate(entry, manifest.folder) as certificate:
        STORES[entry.store].uninstall(entry, certificate, runner)
    return manifest if runner.dry_run else manifest.remove(entry)


def _status(folder: Path | None) -> None:
    try:
        trusted = _other(folder.expanduser()) if folder else authority.read(_folder())
    except FileNotFoundError:
        click.echo("there is no CA yet: `llm-calls start`, `run` and `ca install` make one")
        return
    click.echo(f"{trusted.name}: {trusted.root_path}, until {trusted.expires:%Y-%m-%d}, SHA-256 {trusted.fingerprint}")
    click.echo(f"  vouches for {', '.join(trusted.permitted) if trusted.permitted is not None else 'every site'}")
    runner = RealRunner(click.echo)
    for entry in Manifest.read(_folder()).entries:
        found = proof.prove(STORES[entry.store], entry, trusted, runner)
        click.echo(f"  {entry.name} in {entry.store}: {entry.place}: {found.words}")
    for warning in trusted.warnings():
        click.echo(f"llm-calls: {warning}", err=True)


def _rotate() -> None:
    trusted = authority.rotate(_folder(), _hosts())
    for line in trusted.notes:
        click.echo(f"llm-calls: {line}", err=True)
    click.echo(f"made {trusted.name}: {trusted.root_path}, until {trusted.expires:%Y-%m-%d}")


def _other(folder: Path) -> authority.Authority:
    try:
        return authority.read(folder)
    except FileNotFoundError as error:
        raise StoreError(f"there is no CA in {folder}: mitmproxy makes one there at its first start") from error


def _entry(trusted: authority.Authority, store: str, place: str) -> Entry:
    sha1 = trusted.root.fingerprint(hashes.SHA1()).hex()  # what `security` and `certutil` call a certificate by
    return Entry(store, place, trusted.name, trusted.fingerprint, sha1, trusted.root_pem.decode())
