"""The stream: the SQL that makes it, and how a stream that is there compares with the row.

sql/proton/create_stream.sql holds the same statement for people to read; a test keeps the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..call import COLUMNS, SPECIFIED, Column, Kind

RETENTION = "30 DAY"
LOG_RETENTION_MS = 86_400_000

# Columns that the server computes when it is asked: no bytes in an insert, nor on its disk.
ALIASES = (("latency_ms", "int64", "date_diff('ms', request_time, response_time)"),)


class SchemaError(Exception):
    """The stream cannot take our rows; the message is one line that says what to do."""


def definition(column: Column) -> str:
    """A column as CREATE STREAM and ADD COLUMN write it: the specified ones bare, others with a default."""
    bare = column in SPECIFIED or not column.kind.proton_default
    default = "" if bare else f" DEFAULT {column.kind.proton_default}"
    return f"`{column.name}` {column.kind.proton_type}{default}"


def create_statement(stream: str) -> str:
    """CREATE STREAM with every column; sql/proton/create_stream.sql explains its times and retention."""
    columns = [definition(column) for column in COLUMNS]
    columns += [f"`{name}` {kind} ALIAS {expression}" for name, kind, expression in ALIASES]
    lines = ",\n  ".join(columns)
    return (
        f"CREATE STREAM IF NOT EXISTS `{stream}`\n(\n  {lines}\n)\n"
        f"TTL to_datetime(_tp_time) + INTERVAL {RETENTION}\n"
        f"SETTINGS event_time_column = 'response_time', logstore_retention_ms = {LOG_RETENTION_MS}"
    )


def alter_statements(stream: str, missing: Iterable[str]) -> list[str]:
    """The ALTER STREAM that adds the columns, one statement each (they work on both lines of Proton)."""
    wanted = set(missing)
    statements = [definition(column) for column in COLUMNS if column.name in wanted]
    statements += [f"`{name}` {kind} ALIAS {sql}" for name, kind, sql in ALIASES if name in wanted]
    return [f"ALTER STREAM `{stream}` ADD COLUMN IF NOT EXISTS {statement}" for statement in statements]


@dataclass(frozen=True, slots=True)
class Target:
    """What we write into a stream: its columns that are ours, and how each value is sent."""

    stream: str
    columns: tuple[Column, ...]
    scales: tuple[int, ...]  # ticks of a time column a second; 0 for the others
    missing: tuple[str, ...]
    names: frozenset[str] = frozenset()  # of all the stream's columns

    @property
    def insert(self) -> str:
        names = ", ".join(f"`{column.name}`" for column in self.columns)
        return f"INSERT INTO `{self.stream}` ({names}) VALUES"

    @property
    def has_call_id(self) -> bool:
        return any(column.name == "call_id" for column in self.columns)


def compare(stream: str, described: Sequence[Sequence[Any]]) -> Target:
    """Match DESCRIBE's rows (name, type, default_kind, …) with the row. Raises SchemaError.

    A stream may lack any column but the specified eight; columns that are not ours keep their defaults.
    """
    types = {str(row[0]): str(row[1]) for row in described if row[2] not in ("ALIAS", "MATERIALIZED")}
    names = {str(row[0]) for row in described}
    lacking = [column.name for column in SPECIFIED if column.name not in types]
    if lacking:
        raise SchemaError(
            f"the stream {stream} lacks the column {lacking[0]}: it is not one for calls; "
            "choose another name with PROTON_STREAM, or rename that stream"
        )
    columns, scales = [], []
    for column in COLUMNS:
        if column.name not in types:
            continue
        scale = _scale(column.kind, types[column.name])
        if scale is None:
            raise SchemaError(
                f"in the stream {stream} the column {column.name} is {types[column.name]} and cannot take a "
                f"{column.kind.proton_type}; rename that stream or choose another with PROTON_STREAM"
            )
        columns.append(column)
        scales.append(scale)
    expected = [column.name for column in COLUMNS] + [name for name, _, _ in ALIASES]
    missing = tuple(name for name in expected if name not in names)
    return Target(stream, tuple(columns), tuple(scales), missing, frozenset(names))


_TEXT = re.compile(r"(low_cardinality\()?(nullable\()?string\)*")
_WHOLE = re.compile(r"(nullable\()?int64\)?")
_TYPES: dict[Kind, re.Pattern[str]] = {
    Kind.TEXT: _TEXT,
    Kind.WORD: _TEXT,
    Kind.MAP: re.compile(r"map\((low_cardinality\()?string\)?, *string\)"),
    Kind.STATUS: re.compile(r"(nullable\()?(int16|int32|int64|uint16|uint32|uint64)\)?"),
    Kind.FLAG: re.compile(r"bool|u?int8"),
    Kind.SIZE: _WHOLE,
    Kind.COUNT: re.compile(r"nullable\(int64\)"),
}
_TIME = re.compile(r"datetime64\((\d)(, *'[^']*')?\)")


def _scale(kind: Kind, spelled: str) -> int | None:
    """Ticks a second of a time column, 0 for another kind; None if the column cannot take the kind."""
    if kind is Kind.TIME or kind is Kind.MAYBE_TIME:
        nullable = re.fullmatch(r"nullable\((.*)\)", spelled)
        if kind is Kind.MAYBE_TIME and not nullable:
            return None
        match = _TIME.fullmatch(nullable[1] if nullable else spelled)
        return 10 ** int(match[1]) if match else None
    return 0 if _TYPES[kind].fullmatch(spelled) else None


def ticks(scale: int) -> Callable[[int], int]:
    """How whole milliseconds become a datetime64's raw ticks (no time zone can touch those)."""
    if scale >= 1000:
        factor = scale // 1000
        return lambda milliseconds: milliseconds * factor
    divisor = 1000 // scale
    return lambda milliseconds: milliseconds // divisor
