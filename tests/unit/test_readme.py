"""The README's tables are the code's lists."""

from pathlib import Path

from calltracker.call import COLUMNS, Outcome
from calltracker.settings import OPTIONS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_column_is_told():
    for column in COLUMNS:
        assert f"| `{column.name}` {column.kind.proton_type} | {column.meaning} |" in README


def test_every_option_is_told():
    for option in OPTIONS:
        assert f"| `{option.name}` | `{option.variable}` | {option.help}" in README


def test_every_outcome_is_told():
    for outcome in Outcome:
        assert f"| `{outcome.value}` |" in README
