"""The outbox's side of the journal: which rows wait for Proton, which are on their way, which were refused.

A batch is written down here before it is sent (`take`) and struck out when Proton has it (`delivered`), so
that a worker that was killed in between knows which rows may have arrived: they are sent again only once it
is known that they did not. The exporter's connection commits with synchronous=FULL: what was sent is known
after a power cut, too.
"""

from __future__ import annotations

import operator
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from .. import journal
from ..call import COLUMNS, Kind

Row = tuple[Any, ...]  # the position in the outbox, then COLUMNS as SQLite holds them

_SENT = """CREATE TABLE IF NOT EXISTS outbox_sent (
  id TEXT PRIMARY KEY,
  positions TEXT NOT NULL
)"""
_NOTES = "CREATE TABLE IF NOT EXISTS outbox_notes (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
_NAMES = ", ".join(f'c."{column.name}"' for column in COLUMNS)
_ROWS = f"SELECT o.position, {_NAMES} FROM outbox o CROSS JOIN llm_calls c ON c.call_id = o.call_id"
_TEXTS = operator.itemgetter(*(i for i, column in enumerate(COLUMNS, 1) if column.kind in (Kind.TEXT, Kind.MAP)))
_ROW_SIZE = 500  # of the columns that are not text, roughly
_REASON_LENGTH = 500
_CALL_ID = 1 + [column.name for column in COLUMNS].index("call_id")
_WITNESS, _FORGOTTEN = "witness", "forgotten"  # names in outbox_notes
_LIKE = " AND ".join(
    f"{size.format('d')} = {size.format('c')}"
    for size in (
        "{}.response_time",
        "{}.request_method",
        "{}.request_url",
        "{}.response_status_code",
        "length(CAST({}.request_content AS BLOB))",
        "length(CAST({}.response_text AS BLOB))",
    )
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are sent in one INSERT, in this order, under this id (for the server's idempotency)."""

    id: str
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Witness:
    """A row that Proton acknowledged, and the stream's columns at that time.

    While table() does not show it, that it does not show another row proves nothing.
    """

    row: Row
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows were ever to go to Proton, and how many of them are in each state."""

    rows: int
    waiting: int
    unconfirmed: int
    refused: int

    @property
    def delivered(self) -> int:
        return self.rows - self.waiting - self.refused


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal for the exporter. Raises OSError and sqlite3.Error."""
    connection = journal.connect(path)
    connection.execute("PRAGMA synchronous = FULL")
    with journal.transaction(connection):
        connection.execute(_SENT)
        connection.execute(_NOTES)
    return connection


def take(connection: sqlite3.Connection, most_rows: int, most_bytes: int) -> tuple[Batch, list[Row]] | None:
    """Take the next rows that wait, at least one, and write down that they are being sent."""
    query = (
        f"{_ROWS} WHERE o.refused = '' AND o.position NOT IN"
        " (SELECT value FROM outbox_sent, json_each(outbox_sent.positions)) ORDER BY o.position LIMIT ?"
    )
    taken = _read(connection, lambda: _up_to(most_bytes, connection.execute(query, (most_rows,))))
    if not taken:
        return None
    batch = Batch(uuid.uuid4().hex, tuple(row[0] for row in taken))
    with journal.transaction(connection):
        _write_down(connection, batch)
    return batch, taken


def _read(connection: sqlite3.Connection, fetch: Callable[[], list[Row]]) -> list[Row]:
    try:
        return fetch()
    except sqlite3.OperationalError:
        # A text that is not UTF-8? Read it as it is: the driver will refuse that row, not every row.
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        return fetch()


def _up_to(most_bytes: int, rows: Iterable[Row]) -> list[Row]:
    taken: list[Row] = []
    for row in rows:
        most_bytes -= _ROW_SIZE + _size(_TEXTS(row))
        if most_bytes < 0 and taken:
            break
        taken.append(row)
    return taken


def _size(texts: Sequence[Any]) -> int:
    """Bytes of a row's texts in UTF-8; one join is several times as fast as a look at each."""
    try:
        text = "".join(texts)
    except TypeError:  # another program put a BLOB there
        return sum(len(str(text)) * 4 for text in texts)
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _write_down(connection: sqlite3.Connection, batch: Batch) -> None:
    positions = orjson.dumps(batch.positions).decode()
    connection.execute("INSERT INTO outbox_sent VALUES (?, ?)", (batch.id, positions))


def sent(connection: sqlite3.Connection) -> list[Batch]:
    """The batches that are written down: of a worker that ended before it knew whether they had arrived."""
    rows = connection.execute("SELECT id, positions FROM outbox_sent ORDER BY rowid")
    return [Batch(name, tuple(orjson.loads(positions))) for name, positions in rows]


def rows(connection: sqlite3.Connection, batch: Batch) -> list[Row]:
    """A batch's rows in its order; one that was deleted from the journal meanwhile is left out."""
    query = f"{_ROWS} WHERE o.position IN (SELECT value FROM json_each(?)) ORDER BY o.position"
    positions = orjson.dumps(batch.positions).decode()
    return _read(connection, lambda: connection.execute(query, (positions,)).fetchall())


def delivered(connection: sqlite3.Connection, batch: Batch, witness: Witness | None = None) -> None:
    """Strike out a batch and its rows: Proton has them. The witness is kept, if there is one."""
    with journal.transaction(connection):
        _strike_out(connection, batch, batch.positions)
        if witness is not None:
            text = orjson.dumps([witness.row[_CALL_ID], sorted(witness.columns)]).decode()
            connection.execute("INSERT OR REPLACE INTO outbox_notes VALUES (?, ?)", (_WITNESS, text))


def partly_delivered(connection: sqlite3.Connection, batch: Batch, positions: Iterable[int]) -> None:
    """Strike out a batch of which only the rows at those positions are delivered; the others wait again."""
    with journal.transaction(connection):
        _strike_out(connection, batch, positions)


def _strike_out(connection: sqlite3.Connection, batch: Batch, positions: Iterable[int]) -> None:
    gone = orjson.dumps(list(positions)).decode()
    connection.execute("DELETE FROM outbox WHERE position IN (SELECT value FROM json_each(?))", (gone,))
    connection.execute("DELETE FROM outbox_sent WHERE id = ?", (batch.id,))


def witness(connection: sqlite3.Connection) -> Witness | None:
    """The witness that `delivered` kept last; None if there was none, or its row has left the journal."""
    kept = connection.execute("SELECT value FROM outbox_notes WHERE name = ?", (_WITNESS,)).fetchone()
    if kept is None:
        return None
    call_id, columns = orjson.loads(kept[0])
    query = f"SELECT 0, {_NAMES} FROM llm_calls c WHERE c.call_id = ?"
    found = _read(connection, lambda: connection.execute(query, (call_id,)).fetchall())
    return Witness(found[0], frozenset(columns)) if found else None


def delivered_like(connection: sqlite3.Connection, positions: Iterable[int]) -> dict[int, int]:
    """For those rows of which others, delivered already, agree with them in time, target, status and sizes: how many.

    They are what a stream without call_id cannot tell apart.
    """
    query = f"""SELECT o.position, count(*)
      FROM outbox o CROSS JOIN llm_calls c ON c.call_id = o.call_id
      CROSS JOIN llm_calls d ON d.request_time = c.request_time AND d.call_id <> c.call_id AND {_LIKE}
      WHERE o.position IN (SELECT value FROM json_each(?)) AND d.call_id NOT IN (SELECT call_id FROM outbox)
      GROUP BY o.position"""
    return dict(connection.execute(query, (orjson.dumps(list(positions)).decode(),)).fetchall())


def returned(connection: sqlite3.Connection, batch: Batch) -> None:
    """Strike out a batch that is known not to have arrived: its rows wait again."""
    partly_delivered(connection, batch, ())


def refused(connection: sqlite3.Connection, batches: Iterable[tuple[Batch, str]]) -> None:
    """Set batches of one row apart, each with the reason for which it was refused."""
    with journal.transaction(connection):
        for batch, reason in batches:
            connection.executemany(
                "UPDATE outbox SET refused = ? WHERE position = ?",
                [(reason[:_REASON_LENGTH] or "refused", position) for position in batch.positions],
            )
            connection.execute("DELETE FROM outbox_sent WHERE id = ?", (batch.id,))


def retry_refused(connection: sqlite3.Connection) -> int:
    """Let the refused rows wait again; return how many there were."""
    with journal.transaction(connection):
        return connection.execute("UPDATE outbox SET refused = '' WHERE refused <> ''").rowcount


def forget_deleted(connection: sqlite3.Connection) -> None:
    """Take out of the outbox, and out of the counts, what somebody removed from the journal before it was delivered."""
    with journal.transaction(connection):
        gone = connection.execute("DELETE FROM outbox WHERE call_id NOT IN (SELECT call_id FROM llm_calls)").rowcount
        forgotten = gone + int(notes(connection).get(_FORGOTTEN, 0))
        connection.execute("INSERT OR REPLACE INTO outbox_notes VALUES (?, ?)", (_FORGOTTEN, str(forgotten)))


def counts(connection: sqlite3.Connection) -> Counts:
    """Count the rows by state; works on a journal that no exporter has opened yet, too."""
    # Positions are given once and never again (AUTOINCREMENT).
    (total,) = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    total -= int(notes(connection).get(_FORGOTTEN, 0))
    waiting, set_apart = connection.execute(
        "SELECT count(*) FILTER (WHERE refused = ''), count(*) FILTER (WHERE refused <> '') FROM outbox"
    ).fetchone()
    unconfirmed = 0
    if _exists(connection, "outbox_sent"):
        query = "SELECT coalesce(sum(json_array_length(positions)), 0) FROM outbox_sent"
        (unconfirmed,) = connection.execute(query).fetchone()
    return Counts(total, waiting, unconfirmed, set_apart)


def reasons(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    """Why rows were refused, and how many for each reason, the most frequent first."""
    return connection.execute(
        "SELECT refused, count(*) FROM outbox WHERE refused <> '' GROUP BY refused ORDER BY 2 DESC LIMIT 20"
    ).fetchall()


def note(connection: sqlite3.Connection, **values: str) -> None:
    """Keep facts about the delivery for whoever asks later, from another process."""
    with journal.transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO outbox_notes VALUES (?, ?)", values.items())


def notes(connection: sqlite3.Connection) -> dict[str, str]:
    """What `note` kept; empty on a journal that no exporter has opened yet."""
    if not _exists(connection, "outbox_notes"):
        return {}
    return dict(connection.execute("SELECT name, value FROM outbox_notes").fetchall())


def _exists(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
    return found.fetchone() is not None
