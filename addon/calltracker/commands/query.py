"""`llm-calls query`: SQL, or a question by its name, on the journal."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .. import journal, paths
from ..sql_functions import register
from .refusal import Refused

QUESTIONS = paths.sql_folder("sqlite")
LONGEST_CELL = 80


@click.command()
@click.argument("question", required=False)
@click.option(
    "--journal", "file", type=click.Path(path_type=Path), help="The SQLite file. Default: the state folder's."
)
@click.option("--json", "form", flag_value="json", help="One JSON object a row.")
@click.option("--csv", "form", flag_value="csv", help="CSV with a header.")
@click.option("--list", "listing", is_flag=True, help="List the questions that have names.")
def query(question: str | None, file: Path | None, form: str | None, listing: bool) -> None:
    """Ask the journal: SQL (SELECT …), or the name of a question such as latency_by_model."""
    if listing or question is None:
        for path in sorted(QUESTIONS.glob("*.sql")):
            click.echo(f"{path.stem:24} {_first_comment(path)}")
        return
    sql = _sql_of(question)
    columns, rows = _ask(file or paths.journal_path(), sql)
    try:
        {"json": _print_json, "csv": _print_csv, None: _print_table}[form](columns, rows)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, less) has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sql_of(question: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+", question):
        return question
    path = QUESTIONS / f"{question}.sql"
    if not path.is_file():
        names = ", ".join(sorted(path.stem for path in QUESTIONS.glob("*.sql")))
        raise Refused(f"there is no question {question!r}; there are {names}; or write SQL in quotes")
    return path.read_text(encoding="utf-8")


def _first_comment(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("--").strip()


def _ask(file: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    if not file.exists():
        raise Refused(f"there is no journal {file}: no call has been recorded yet, or name it with --journal")
    try:
        connection = journal.connect_to_read(file)
        register(connection)
        cursor = connection.execute(sql)
        rows = cursor.fetchall()
    except sqlite3.Error as error:
        if str(error) == "no such table: llm_calls":
            raise Refused(f"no call has been recorded yet in {file}") from None
        raise Refused(f"SQLite says: {error}") from None
    return [column[0] for column in cursor.description or ()], rows


def _print_json(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    escaped = "utf" not in sys.stdout.encoding.lower()
    for row in rows:
        click.echo(json.dumps(dict(zip(columns, map(_plain, row), strict=True)), ensure_ascii=escaped))


def _print_csv(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)


def _print_table(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    room = shutil.get_terminal_size((10_000, 0)).columns
    numbers = [all(isinstance(row[index], int | float | None) for row in rows) for index in range(len(columns))]
    rule = "─" if _can_print("─") else "-"
    for line in (list(columns), [rule * width for width in widths], *cells):
        padded = (
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, numbers, strict=True)
        )
        click.echo("  ".join(padded).rstrip()[:room])


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = _plain(value) if isinstance(value, bytes) else str(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
