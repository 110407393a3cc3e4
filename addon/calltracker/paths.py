"""Where things are: one state folder, readable by its owner alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs


def state_folder() -> Path:
    """The tool's own folder: LLM_CALLS_HOME, or the platform's place for state (Linux: ~/.local/state/llm-calls)."""
    chosen = os.environ.get("LLM_CALLS_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_state_path("llm-calls", appauthor=False)


def journal_path() -> Path:
    """The journal: LLM_CALLS_JOURNAL, or journal.sqlite3 in the state folder."""
    chosen = os.environ.get("LLM_CALLS_JOURNAL")
    return Path(chosen).expanduser() if chosen else state_folder() / "journal.sqlite3"


def spool_folder(journal: Path) -> Path:
    """The folder beside a journal in which captures wait for the worker."""
    return journal.with_name(journal.name + "-spool")


def sql_folder(dialect: str) -> Path:
    """The folder of the SQL files, "proton" or "sqlite": in a checkout sql/, where a wheel was installed share/."""
    checkout = Path(__file__).resolve().parents[2] / "sql" / dialect
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "llm-calls" / "sql" / dialect


def make_private(folder: Path) -> None:
    """Create a folder where it is missing, and what is missing above it, with mode 0700. Raises OSError.

    So does the XDG Base Directory Specification ask for folders that have to be made.
    """
    if not folder.is_dir():
        if folder.parent != folder:
            make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
