"""The journal: one SQLite file that is the embedded store and, by its table `outbox`, what is still to be delivered.

It is in WAL mode, so any SQLite tool can read it while the worker writes. A row enters `llm_calls` and, where a Proton
is configured, `outbox` in one transaction; its call_id is unique, so that a capture that is read twice (a worker was
killed between its commit and its note of how far it had come) gives one row.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from . import paths
from .call import COLUMNS, Call, Kind

BUSY_SECONDS = 5.0
NAMES = ", ".join(f'"{column.name}"' for column in COLUMNS)
_PLACES = ", ".join("?" * len(COLUMNS))

TABLES = (
    "CREATE TABLE IF NOT EXISTS llm_calls (\n  "
    + ",\n  ".join(f'"{column.name}" {column.kind.sqlite_type}' for column in COLUMNS)
    + """,
  latency_ms INTEGER AS (CAST(round((julianday(response_time) - julianday(request_time)) * 86400000) AS INTEGER)),
  time_to_first_token_ms INTEGER
    AS (CAST(round((julianday(first_token_time) - julianday(request_time)) * 86400000) AS INTEGER))
)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS llm_calls_call_id ON llm_calls (call_id)",
    "CREATE INDEX IF NOT EXISTS llm_calls_request_time ON llm_calls (request_time)",
    """CREATE TABLE IF NOT EXISTS outbox (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  call_id TEXT NOT NULL UNIQUE,
  refused TEXT NOT NULL DEFAULT ''
)""",
    # How far the worker has read the run of a proxy, and the calls that were open there (see worker.py).
    """CREATE TABLE IF NOT EXISTS spool_progress (
  run TEXT PRIMARY KEY,
  segment INTEGER NOT NULL,
  open_calls BLOB NOT NULL
)""",
)


def time_text(milliseconds: int) -> str:
    """Write a time as SQLite's date functions and people read it: '2026-01-31 12:00:00.123', in UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:03d}"


def time_number(text: str) -> int:
    """Read what `time_text` wrote."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def to_sqlite(kind: Kind, value: Any) -> Any:
    """A column's value as SQLite keeps it: maps as JSON objects, times as text, booleans as 0 and 1."""
    if value is None:
        return None
    if kind is Kind.MAP:
        return orjson.dumps(value).decode()
    if kind is Kind.TIME or kind is Kind.MAYBE_TIME:
        return time_text(value)
    return int(value) if kind is Kind.FLAG else value


def from_sqlite(kind: Kind, value: Any) -> Any:
    """The inverse of `to_sqlite`."""
    if value is None:
        return None
    if kind is Kind.MAP:
        return orjson.loads(value)
    if kind is Kind.TIME or kind is Kind.MAYBE_TIME:
        return time_number(value)
    return bool(value) if kind is Kind.FLAG else value


def call_of(row: Sequence[Any]) -> Call:
    """Make the call of a row that was selected as `NAMES`."""
    values = {c.name: from_sqlite(c.kind, value) for c, value in zip(COLUMNS, row, strict=True)}
    return Call(**values)


def connect(path: Path, *, fsync: bool = False) -> sqlite3.Connection:
    """Open the journal for writing, creating it (0600, in a 0700 folder) or the columns that an older one lacks.

    Transactions are explicit (`with transaction(connection)`). `fsync`: what is committed survives a power cut too.
    Raises OSError and sqlite3.Error.
    """
    paths.make_private(path.parent)
    with contextlib.suppress(FileExistsError):
        # Only where there is none: to close a file takes away the locks that SQLite holds on it in this process.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        _enter_wal_mode(connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        with transaction(connection):
            for statement in TABLES:
                connection.execute(statement)
            present = {row[1] for row in connection.execute("PRAGMA table_xinfo(llm_calls)")}
            for column in COLUMNS:
                if column.name not in present:
                    kind = column.kind.sqlite_type
                    connection.execute(f'ALTER TABLE llm_calls ADD COLUMN "{column.name}" {kind}')
    except BaseException:
        connection.close()
        raise
    return connection


def _enter_wal_mode(connection: sqlite3.Connection) -> None:
    # SQLite itself does not wait here for another connection that is at the same: several that begin one journal.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def identity(path: Path) -> tuple[int, int] | None:
    """What tells the file that is at this path from another that takes its place; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_corrupt(error: Exception) -> bool:
    """Whether an error means that the file is no journal any more, and no waiting will mend it."""
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def set_aside(path: Path) -> str:
    """Rename a corrupt journal, so that a new one can take its place; return a line that says so. Raises OSError."""
    kept = path.with_name(f"{path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
    return f"the journal {path} was corrupt: it is kept as {kept.name}, and a new one has been begun"


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the journal for reading only. Raises sqlite3.Error, also when there is none.

    Not with mode=ro: where a writer was killed at a bad moment, the next connection has to put in order what it left,
    and one of that mode may not ("attempt to write a readonly database": SQLITE_READONLY_ROLLBACK and _RECOVERY,
    https://sqlite.org/rescode.html). A file that the user cannot write is opened read-only by SQLite itself.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)
    connection.execute("PRAGMA query_only = ON")
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: committed as a whole at the end of the block, rolled back by an exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def add(connection: sqlite3.Connection, calls: Iterable[Call], *, for_proton: bool) -> int:
    """Insert the calls that are not there yet, inside the caller's transaction; return how many were new."""
    new = 0
    for call in calls:
        values = [to_sqlite(column.kind, getattr(call, column.name)) for column in COLUMNS]
        added = connection.execute(f"INSERT OR IGNORE INTO llm_calls ({NAMES}) VALUES ({_PLACES})", values)
        if added.rowcount == 1:
            new += 1
            if for_proton:
                connection.execute("INSERT OR IGNORE INTO outbox (call_id) VALUES (?)", (call.call_id,))
    return new
