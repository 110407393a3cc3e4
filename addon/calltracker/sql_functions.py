"""SQL functions that SQLite lacks and the questions need: Proton's quantiles."""

from __future__ import annotations

import sqlite3
from typing import Any


class Quantile:
    """quantile(value, q): linear between ranks, at q·(n-1), as Proton's quantile; NULL values do not count."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._q = 0.5

    def step(self, value: Any, q: float) -> None:
        self._q = q
        if value is not None:
            self._values.append(value)

    def finalize(self) -> float | None:
        if not self._values:
            return None
        values = sorted(self._values)
        rank = self._q * (len(values) - 1)
        low = int(rank)
        high = min(low + 1, len(values) - 1)
        return values[low] + (values[high] - values[low]) * (rank - low)


def register(connection: sqlite3.Connection) -> None:
    """Make the functions known to a connection."""
    connection.create_aggregate("quantile", 2, Quantile)  # type: ignore[arg-type]
