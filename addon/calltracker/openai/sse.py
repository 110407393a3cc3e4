"""Server-sent events: bytes in, in any pieces; events out, each with the offset at which it ended.

Follows the WHATWG HTML standard, 9.2.6 "Interpreting an event stream". An event is a block of lines that ends with two
line ends in a row, so the parser looks for those in C, and takes lines apart only within a block that is whole. A CR
at the very end of a piece may be half of a CRLF: it waits for the next byte, so that any split gives the same events.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BLOCK_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")


class Event(NamedTuple):
    """One dispatched event: its type ('' where the stream names none), its data, and the offset just past it."""

    type: bytes
    data: bytes
    end: int


class Parser:
    """`feed` gives the events that the next bytes complete, `finish` those that only the end of the stream does.

    After `finish`, `rest` is what the stream broke off in: an event without its blank line is not dispatched.
    Time is linear in the number of bytes, however they are cut.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []  # the block that is not whole yet
        self._offset = 0  # of the first byte held
        self.rest = b""

    def feed(self, data: bytes) -> list[Event]:
        if not data:
            return []
        if self._held and not self._may_end_block(data):
            self._held.append(data)
            return []
        if self._held:
            data = b"".join([*self._held, data])
        return self._take(data)

    def finish(self) -> list[Event]:
        """End the stream."""
        held = b"".join(self._held)
        events = []
        if held.endswith(b"\r"):
            # The LF that could have followed will not: a second CR or LF stands for the end of the block.
            events = [event._replace(end=self._offset + len(held)) for event in self._take(held + b"\n")]
            held = b"".join(self._held)[:-1] if not events else b""
        self.rest = held
        self._held = []
        return events

    def _may_end_block(self, data: bytes) -> bool:
        """Whether a block may end in these bytes or at the seam: what is held is joined once for each such piece."""
        tail = self._held[-1][-3:] if len(self._held[-1]) >= 3 else b"".join(self._held[-3:])[-3:]
        seam = tail + data
        return b"\n\n" in seam or (b"\r" in seam and _BLOCK_END.search(seam) is not None)

    def _take(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        start = 0
        limit = len(data) - 1 if data.endswith(b"\r") else len(data)
        if b"\r" not in data:
            while (at := data.find(b"\n\n", start)) >= 0:
                if data.startswith(b"data: ", start) and data.find(b"\n", start, at) < 0:
                    events.append(Event(b"", data[start + 6 : at], self._offset + at + 2))
                elif at > start:
                    self._add(events, data, start, at, at + 2)
                start = at + 2
        else:
            while (match := _BLOCK_END.search(data, start, limit)) is not None:
                self._add(events, data, start, match.start(), match.end())
                start = match.end()
        self._offset += start
        self._held = [data[start:]] if start < len(data) else []
        return events

    def _add(self, events: list[Event], data: bytes, start: int, stop: int, end: int) -> None:
        """Interpret the lines of data[start:stop]; the block with its blank line ends at `end`."""
        block = data[start:stop]
        if self._offset + start == 0 and block.startswith(_BOM):
            block = block[len(_BOM) :]
        kind = b""
        values: list[bytes] = []
        for line in block.split(b"\n") if b"\r" not in block else _LINE_END.split(block):
            name, _, value = line.partition(b":")
            if name == b"data":
                values.append(value[1:] if value[:1] == b" " else value)
            elif name == b"event":
                kind = value[1:] if value[:1] == b" " else value
        if values:
            events.append(Event(kind, b"\n".join(values), self._offset + end))


def parse(body: bytes) -> tuple[list[Event], bytes]:
    """Read a whole body: return its events, and what it broke off in (b'' when it ends with an event)."""
    parser = Parser()
    events = parser.feed(body)
    events += parser.finish()
    return events, parser.rest
