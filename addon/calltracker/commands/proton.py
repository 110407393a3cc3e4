"""`llm-calls proton`: make the stream, see how delivery goes, deliver what waits."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click
import filelock

from .. import journal, paths
from ..proton import outbox, schema
from ..proton.client import Failure, Proton
from ..proton.exporter import Exporter
from ..proton.settings import Settings, SettingsError
from .refusal import Refused

ALTER_WARNING = (
    "On Proton 1.6, rows that come after an ALTER STREAM are missing from table() until the server is restarted; "
    "then they are all there."
)

journal_option = click.option(
    "--journal", "file", type=click.Path(path_type=Path), help="The SQLite file. Default: the state folder's."
)


class Failed(Refused):
    """What Proton or the journal did not allow: one line on stderr, exit status 1."""

    exit_code = 1


@click.group()
def proton() -> None:
    """The stream in Timeplus Proton: PROTON_HOST or PROTON_URL says where it is."""


@proton.command()
@click.option("--alter", is_flag=True, help="Add the columns that the stream lacks.")
def init(alter: bool) -> None:
    """Create the stream where it is missing; show what an existing one lacks."""
    settings = _settings()
    stream = f"{settings.database}.{settings.stream}"
    with _connected(settings) as server:
        described = server.describe()
        if described is None:
            server.create()
            click.echo(f"created the stream {stream}")
            return
        missing = schema.compare(settings.stream, described).missing
        if not missing:
            click.echo(f"the stream {stream} is there and has every column")
            return
        click.echo(f"the stream {stream} is there and lacks: {', '.join(missing)}")
        click.echo("Calls are delivered without these. " + ALTER_WARNING)
        statements = schema.alter_statements(settings.stream, missing)
        for statement in statements:
            if alter:
                server.execute(statement)
            click.echo(f"  {statement};")
        click.echo(f"added {len(statements)} columns" if alter else "To add them: llm-calls proton init --alter")


@proton.command()
@journal_option
def status(file: Path | None) -> None:
    """Show what is delivered, what waits, what was refused, the last error and the server's version."""
    settings = _settings()
    path = file or paths.journal_path()
    click.echo(f"server       {settings.address}, stream {settings.database}.{settings.stream}")
    if path.exists():
        with _reading(path) as connection:
            _print_counts(connection)
    else:
        click.echo(f"journal      {path}: not there, no call has been recorded yet")
    with _connected(settings) as server:
        server.execute("SELECT 1")
        click.echo(f"version      {server.version}")
        described = server.describe()
        if described is None:
            click.echo("stream       not there yet: the first row creates it, or llm-calls proton init")
        elif missing := schema.compare(settings.stream, described).missing:
            click.echo(f"stream       lacks {', '.join(missing)}: see llm-calls proton init")
        else:
            click.echo("stream       has every column")


@proton.command()
@journal_option
@click.option("--refused", is_flag=True, help="Try the refused rows again, too.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=3600.0, show_default=True, help="At most so long."
)
def deliver(file: Path | None, refused: bool, seconds: float) -> None:
    """Deliver what waits in the journal and exit; status 1 when something is left."""
    settings = _settings()
    path = file or paths.journal_path()
    if not path.exists():
        raise Refused(f"there is no journal {path}: no call has been recorded yet, or name it with --journal")
    try:
        with contextlib.closing(outbox.connect(path)) as connection:
            if refused:
                click.echo(f"{outbox.retry_refused(connection)} refused rows wait again")
            before = outbox.counts(connection)
            failure = _drain(path, settings, seconds)
            after = outbox.counts(connection)
            reasons = outbox.reasons(connection)
    except (sqlite3.Error, OSError) as error:
        raise Failed(f"the journal {path} cannot be used: {error}") from None
    left = f"; {after.waiting} wait" if after.waiting else ""
    click.echo(f"{max(0, after.delivered - before.delivered)} rows delivered{left}")
    if after.refused > before.refused:
        _print_reasons(reasons)
        failure = failure or f"{after.refused - before.refused} rows were refused; the others are delivered"
    if failure:
        raise Failed(failure)


def _drain(path: Path, settings: Settings, seconds: float) -> str:
    """Deliver in this thread; return why something is left, '' when nothing is."""
    try:
        complete = Exporter(path, settings).drain(seconds)
    except filelock.Timeout:
        return "a running proxy delivers this journal already: wait for it, or stop it"
    except (Failure, schema.SchemaError) as failure:
        return str(failure)
    return "" if complete else f"not all was delivered within {seconds:g} s; what is left waits in the journal"


def _settings() -> Settings:
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        raise Refused(str(error)) from None
    if settings is None:
        raise Refused(
            "no Proton is configured: set PROTON_HOST, or PROTON_URL=proton://user:password@host:8463/default"
        )
    return settings


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[Proton]:
    server = Proton(settings)
    try:
        yield server
    except (Failure, schema.SchemaError) as failure:
        raise Failed(str(failure)) from None
    finally:
        server.close()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(journal.connect_to_read(path)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise Failed(f"the journal {path} cannot be read: {error}") from None


def _print_counts(connection: sqlite3.Connection) -> None:
    counts, notes = outbox.counts(connection), outbox.notes(connection)
    click.echo(f"delivered    {counts.delivered} of {counts.rows} rows")
    on_their_way = f", {counts.unconfirmed} of them sent and not confirmed" if counts.unconfirmed else ""
    click.echo(f"waiting      {counts.waiting}{on_their_way}")
    click.echo(f"refused      {counts.refused}")
    _print_reasons(outbox.reasons(connection))
    if "error" in notes:
        since = (
            f"; delivered again since {notes['recovered']}" if notes.get("recovered", "") > notes["error_time"] else ""
        )
        click.echo(f"last error   {notes['error_time']} {notes['error']}{since}")


def _print_reasons(reasons: list[tuple[str, int]]) -> None:
    for reason, count in reasons:
        click.echo(f"  {count} x {reason}")
