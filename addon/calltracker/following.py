"""Following a call from its first record to its rows: one for a call over HTTP, more for a WebSocket session.

A defect of ours costs the call its columns, never its row, and no other call anything: a worker that fell over the same
capture at every start would make no rows any more.
"""

from __future__ import annotations

import json
import logging

from .call import Call
from .capture.capture import OpenCall
from .capture.records import Message, Record, RecordKind
from .openai.websocket import Done, Session, shrink
from .row import Transcript, call_of, joined, response_call, session_call, unread_call

LONGEST_TRANSCRIPT = 1024 * 1024  # characters kept of the messages of one direction

log = logging.getLogger("llm_calls")


class Following:
    """A call under way. Give it the call's records in order; it gives rows as they are complete."""

    def __init__(self, begin: Record) -> None:
        self._open = OpenCall(begin)
        self._socket: _Socket | None = None

    def take(self, record: Record) -> list[Call]:
        message = self._open.take(record)
        try:
            if message is not None:
                return self._take_message(message)
            return self._rows() if record.kind is RecordKind.END else []
        except Exception as error:  # noqa: BLE001 - see above
            return self._unread(error, ended=message is None)

    def interrupted(self) -> list[Call]:
        """The proxy ended before the call did."""
        try:
            return self._rows()
        except Exception as error:  # noqa: BLE001 - see above
            return self._unread(error, ended=True)

    def _unread(self, error: Exception, *, ended: bool) -> list[Call]:
        what = f"{type(error).__name__}: {error}"
        log.warning("a capture could not be read whole (%s); please report this", what)
        return [unread_call(self._open.capture(), what)] if ended else []

    def _take_message(self, message: Message) -> list[Call]:
        if self._socket is None:
            begin = self._open.begin
            self._socket = _Socket(Session(begin["url"], joined(begin["headers"])))
        done = self._socket.take(message)
        if not done:
            return []
        capture = self._open.capture()
        return [response_call(capture, one, number) for number, one in done]

    def _rows(self) -> list[Call]:
        capture = self._open.capture()
        if self._socket is None:
            return [call_of(capture)]
        end = capture.end.get("at", capture.last_seen)
        rows = [response_call(capture, one, number) for number, one in self._socket.close(end)]
        return [*rows, session_call(capture, self._socket.session.reading(), self._socket.transcript())]


class _Socket:
    """A WebSocket session: its responses, numbered, and its transcript."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._responses = 0
        self._sent = _Lines()
        self._received = _Lines()

    def take(self, message: Message) -> list[tuple[int, Done]]:
        (self._sent if message.from_client else self._received).add(message)
        if not message.is_text:
            return []
        return self._numbered(self.session.feed(message.from_client, message.content, message.at))

    def close(self, at: int) -> list[tuple[int, Done]]:
        return self._numbered(self.session.close(at))

    def transcript(self) -> Transcript:
        sent, received = self._sent, self._received
        truncated = sent.truncated or received.truncated
        return Transcript(tuple(sent.lines), tuple(received.lines), sent.bytes, received.bytes, truncated)

    def _numbered(self, done: list[Done]) -> list[tuple[int, Done]]:
        self._responses += len(done)
        return list(enumerate(done, self._responses - len(done)))


class _Lines:
    """The messages of one direction as lines of JSON, up to a bound."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bytes = 0
        self.truncated = False
        self._left = LONGEST_TRANSCRIPT

    def add(self, message: Message) -> None:
        self.bytes += message.size
        if self._left <= 0:
            self.truncated = True
            return
        line = _line_of(message)
        self._left -= len(line)
        self.lines.append(line)


def _line_of(message: Message) -> str:
    """A message as one line: the JSON text that it is, its media replaced by sizes; other text as a JSON string."""
    if not message.is_text:
        return f'{{"binary_bytes":{message.size}}}'
    if len(message.content) < message.size:
        return f'{{"text_bytes":{message.size}}}'
    text = message.content.decode("utf-8", "backslashreplace")
    try:
        json.loads(text)
    except ValueError:
        return json.dumps(text, ensure_ascii=False)
    return " ".join(shrink(text).splitlines())
