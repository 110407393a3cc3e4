"""JSON as it comes from anybody: strict and fast first, then with what others allow, then as much as a cut text has."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[{}\[\],:]', re.DOTALL)
_MOST_MEMBERS = 1000  # of a cut object that are read; OpenAI's have some thirty
_CLOSING = {b"}": b"{", b"]": b"["}


class NotJsonError(Exception):
    """What was read is no JSON text."""


def loads(data: bytes) -> Any:
    """Read a JSON text as `read` does. Raises NotJsonError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return read(data)[0]


def read(data: bytes) -> tuple[Any, bool]:
    """Read a JSON text; tell also whether it is strict JSON in UTF-8. Raises NotJsonError.

    Beyond RFC 8259 it takes a byte order mark, NaN and the infinities (as null), and bytes or escapes that are no
    Unicode text (as U+FFFD or '?'). Nesting deeper than 1024 is refused.
    """
    try:
        return orjson.loads(data), True
    except orjson.JSONDecodeError as error:
        if not data.strip():
            raise NotJsonError("it is empty") from None
        return _loads_loosely(data, error), False


def _loads_loosely(data: bytes, reason: orjson.JSONDecodeError) -> Any:
    try:
        value = json.loads(data.decode("utf-8-sig", "replace"), parse_constant=lambda _: None)
        text = json.dumps(value, ensure_ascii=False)
        return orjson.loads(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise NotJsonError(f"{reason.msg} at offset {reason.pos}") from None


def dumps(value: Any) -> str:
    """Write what `loads` gave; '' where it is nested too deep to be written (orjson reads 1024 levels, writes 254)."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        try:
            return json.dumps(value, ensure_ascii=False)
        except RecursionError:
            return ""


def prefix_members(data: bytes) -> dict[str, Any] | None:
    """Read the members of a JSON object that is cut at its end: those at the top that are whole.

    None when it is not the beginning of one, as far as brackets and strings tell, or is closed. Linear in time; of
    more than 1000 members the first are read.
    """
    members: dict[str, Any] = {}
    stack: list[bytes] = []
    key: bytes | None = None
    start = count = 0  # `start`: of the member's key or value
    for match in _TOKEN.finditer(data):
        token = match[0]
        if token[:1] == b'"':
            if match[1] != b'"':
                break
        elif token in b"{[":
            if not stack and (token != b"{" or data[: match.start()].strip(b" \t\r\n\xef\xbb\xbf")):
                return None
            stack.append(token)
            if len(stack) == 1:
                start = match.end()
        elif not stack:
            return None
        elif token in b"}]":
            if stack.pop() != _CLOSING[token]:
                return None
            if not stack:
                return None
        elif len(stack) == 1:
            if token == b":" and key is None:
                key = data[start : match.start()]
            elif token == b",":
                _add_member(members, key, data[start : match.start()])
                key = None
                count += 1
                if count == _MOST_MEMBERS:
                    break
            start = match.end()
    return members if stack else None


def _add_member(members: dict[str, Any], key: bytes | None, value: bytes) -> None:
    try:
        members[orjson.loads(key or b"")] = orjson.loads(value)
    except (orjson.JSONDecodeError, TypeError):
        return
