"""Following a call from its first record to its rows."""

from __future__ import annotations

from .call import Call
from .capture.capture import OpenCall
from .capture.records import Record, RecordKind
from .row import call_of


class Following:
    """A call under way. Give it the call's records in order; it gives rows as they are complete."""

    def __init__(self, begin: Record) -> None:
        self._open = OpenCall(begin)

    def take(self, record: Record) -> list[Call]:
        self._open.take(record)
        return [call_of(self._open.capture())] if record.kind is RecordKind.END else []

    def interrupted(self) -> list[Call]:
        """The proxy ended before the call did."""
        return [call_of(self._open.capture())]
