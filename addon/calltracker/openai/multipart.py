"""Multipart requests (RFC 7578): a filter that keeps files off the disk, and the JSON object that the rest becomes.

In the proxy, `FileEliding` replaces what a file holds by {"bytes": N, "sha256": "…"} as it streams by, and marks that
part with a header of ours. In the worker, `members` makes of the body the fields as an object. Both take the body apart
with the same delimiter rule: CRLF, two hyphens, the boundary, and a line end or two hyphens after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from python_multipart.multipart import parse_options_header

LARGEST_FIELD = 256 * 1024  # bytes of a field without a filename that are kept
_LARGEST_HEAD = 16 * 1024
_ELIDED = b"X-LLM-Calls-Elided"


def boundary_of(content_type: str) -> bytes:
    """Give the boundary that a Content-Type names (RFC 2046, 5.1.1); b'' where it names none."""
    try:
        kind, options = parse_options_header(content_type)
    except (ValueError, UnicodeError):
        return b""
    return options.get(b"boundary", b"") if kind.startswith(b"multipart/") else b""


class FileEliding:
    """Filters a multipart body (RFC 7578): `feed` gives what may be written now, `finish` the rest; never raises.

    Part heads and fields pass through. The content of a part with a filename, and of a field above 256 KiB, becomes a
    JSON object of its size and SHA-256. What is no multipart (no boundary in the type, or none found in the body)
    becomes one such object. Any split of the input gives the same output; at most 256 KiB and one piece are held.
    """

    def __init__(self, content_type: str) -> None:
        boundary = boundary_of(content_type)
        self._delimiter = b"\r\n--" + boundary
        self._held = bytearray(b"\r\n" if boundary else b"")  # so that the first delimiter is like the others
        self._step: Callable[[list[bytes]], bool] = self._find_part if boundary else self._elide_all
        self._searched = 0  # bytes of what is held in which no delimiter or end of a head begins
        self._head = b""  # of the field that is coming
        self._hash = hashlib.sha256()
        self._size = 0
        self._any_part = False

    def feed(self, data: bytes) -> bytes:
        if not self._any_part:
            self._count(data)
        self._held += data
        pieces: list[bytes] = []
        while self._step(pieces):
            pass
        return b"".join(pieces)

    def finish(self) -> bytes:
        """End the body. A part that was cut is given as far as it came; its description says `"incomplete": true`."""
        if not self._any_part:
            return self._description() if self._size else b""
        if self._step == self._read_file:
            self._count(self._held)
            return self._description(incomplete=True)
        return self._head + self._held

    def _find_part(self, pieces: list[bytes]) -> bool:
        """Before the first delimiter: what is there is nobody's."""
        at, undecided = find_delimiter(self._held, self._delimiter)
        if at < 0:
            del self._held[: len(self._held) - undecided]
            return False
        self._any_part = True
        return self._take_delimiter(at + 2, at, pieces)

    def _take_delimiter(self, start: int, at: int, pieces: list[bytes]) -> bool:
        end = at + len(self._delimiter)
        pieces.append(bytes(self._held[start:end]))
        del self._held[:end]
        self._head, self._searched, self._step = b"", 0, self._read_head
        return True

    def _read_head(self, pieces: list[bytes]) -> bool:
        """The line of the delimiter is to end, and a head to follow, up to its empty line."""
        if self._held.startswith(b"--"):
            pieces.append(b"--\r\n")
            self._held.clear()
            self._step = self._drop
            return True
        end = self._held.find(b"\r\n\r\n", max(0, self._searched - 3))
        self._searched = len(self._held)
        if end < 0 and len(self._held) < _LARGEST_HEAD:
            return False
        if not 0 <= end < _LARGEST_HEAD:
            self._begin_file(pieces, b"")  # no head: all that follows is content
            return True
        head = bytes(self._held[:end])
        del self._held[: end + 4]
        self._searched = 0
        if _filename_of(head):
            self._begin_file(pieces, head)
        else:
            self._head, self._step = head + b"\r\n\r\n", self._read_field
        return True

    def _begin_file(self, pieces: list[bytes], head: bytes) -> None:
        pieces.append(head + b"\r\n" + _ELIDED + b": 1\r\n\r\n")
        self._head = b""
        self._hash, self._size = hashlib.sha256(), 0
        self._step = self._read_file

    def _read_field(self, pieces: list[bytes]) -> bool:
        at, undecided = find_delimiter(self._held, self._delimiter, self._searched)
        if at < 0 and len(self._held) - undecided <= LARGEST_FIELD:
            self._searched = len(self._held) - undecided
            return False
        if not 0 <= at <= LARGEST_FIELD:
            self._begin_file(pieces, self._head[:-4])
            return True
        pieces.append(self._head)
        return self._take_delimiter(0, at, pieces)

    def _read_file(self, pieces: list[bytes]) -> bool:
        at, undecided = find_delimiter(self._held, self._delimiter)
        end = at if at >= 0 else len(self._held) - undecided
        with memoryview(self._held) as view:
            self._count(view[:end])
        del self._held[:end]
        if at < 0:
            return False
        pieces.append(self._description())
        return self._take_delimiter(0, 0, pieces)

    def _elide_all(self, pieces: list[bytes]) -> bool:
        self._held.clear()
        return False

    _drop = _elide_all  # after the last delimiter nothing is of interest

    def _count(self, data: bytes | bytearray | memoryview) -> None:
        self._hash.update(data)
        self._size += len(data)

    def _description(self, *, incomplete: bool = False) -> bytes:
        facts = {"bytes": self._size, "sha256": self._hash.hexdigest()}
        return orjson.dumps({**facts, "incomplete": True} if incomplete else facts)


def find_delimiter(data: bytes | bytearray, delimiter: bytes, start: int = 0) -> tuple[int, int]:
    """Find a delimiter with what must follow it: (its place or -1, how many last bytes may be the begin of one)."""
    at = data.find(delimiter, start)
    while at >= 0:
        after = bytes(data[at + len(delimiter) : at + len(delimiter) + 2])
        if after in (b"--", b"\r\n") or after[:1] in (b" ", b"\t"):
            return at, 0
        if after in (b"", b"-", b"\r"):
            return -1, len(data) - at
        at = data.find(delimiter, at + 1)
    return -1, min(len(data), len(delimiter) - 1)


def to_json(body: bytes, content_type: str) -> str | None:
    """Write a multipart body, elided or not, as the JSON object that the row has; None when it is not multipart.

    Fields are strings, or lists of them where a name repeats; a file is an object of filename, content_type, bytes and
    sha256.
    """
    fields = members(body, content_type)
    if fields is not None:
        return orjson.dumps(fields).decode()
    described = _json_object(body)
    return orjson.dumps(described).decode() if described is not None else None


def members(body: bytes, content_type: str) -> dict[str, Any] | None:
    """Read the fields and files of a multipart body, elided or not, whole or cut; None when it is not multipart."""
    boundary = boundary_of(content_type)
    parts = _parts(b"\r\n" + body, b"\r\n--" + boundary) if boundary else []
    found: dict[str, list[Any]] = {}
    for head, content in parts:
        name, value = _part(head, content)
        found.setdefault(name, []).append(value)
    if not found:
        return None
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _parts(data: bytes, delimiter: bytes) -> list[tuple[bytes, bytes]]:
    """Split a body to (head, content); the last content ends with the body when that was cut."""
    parts = []
    at, _ = find_delimiter(data, delimiter)
    while at >= 0 and not data.startswith(b"--", at + len(delimiter)):
        start = at + len(delimiter)
        at, _ = find_delimiter(data, delimiter, start)
        end = at if at >= 0 else len(data)
        blank = data.find(b"\r\n\r\n", start, end)
        if blank >= 0:
            parts.append((data[start:blank], data[blank + 4 : end]))
    return parts


def _part(head: bytes, content: bytes) -> tuple[str, Any]:
    headers = dict(_headers(head))
    options = _disposition(headers)
    name = _decoded(options.get(b"name", b""))
    described = _json_object(content) if _ELIDED.lower() in headers else None
    if b"filename" not in options and described is None:
        return name, _decoded(content)
    facts = described or {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    kind = _decoded(headers.get(b"content-type", b""))
    if b"filename" in options:
        facts = {"filename": _decoded(options[b"filename"]), "content_type": kind, **facts}
    return name, facts


def _headers(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            yield name.strip().lower(), value.strip()


def _filename_of(head: bytes) -> bool:
    return b"filename" in _disposition(dict(_headers(head)))


def _disposition(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    try:
        return parse_options_header(headers.get(b"content-disposition", b""))[1]
    except (ValueError, UnicodeError):
        return {}


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
