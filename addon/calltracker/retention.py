"""Retention: what the journal may forget. Rows that Proton has not got yet, or has refused, are never removed."""

from __future__ import annotations

import sqlite3
import time

from .journal import time_text

FRESH_MS = 3_600_000  # a row younger than this is kept: the worker may yet read its capture a second time
BATCH = 500  # rows removed in one transaction, so that nobody waits long

_OLDEST = """DELETE FROM llm_calls WHERE rowid IN (
  SELECT rowid FROM llm_calls
  WHERE response_time < :before AND call_id NOT IN (SELECT call_id FROM outbox)
  ORDER BY response_time LIMIT :most)"""


def prune(connection: sqlite3.Connection, *, keep_days: float, keep_bytes: int) -> int:
    """Remove some of the rows that are too old, or the oldest of a journal that is too large; return how many.

    To be called again while it returns as many as BATCH. The file does not shrink, its free pages are used again.
    """
    now = time.time_ns() // 1_000_000
    removed = 0
    if keep_days:
        before = now - max(int(keep_days * 86_400_000), FRESH_MS)
        removed += connection.execute(_OLDEST, {"before": time_text(before), "most": BATCH}).rowcount
    if keep_bytes and _used_bytes(connection) > keep_bytes:
        before = now - FRESH_MS
        removed += connection.execute(_OLDEST, {"before": time_text(before), "most": BATCH}).rowcount
    return removed


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _SIZES)
    return int((pages - free) * size)


_SIZES = ("page_count", "freelist_count", "page_size")
