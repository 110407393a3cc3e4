"""Deltas put together, in linear time: text is kept as pieces until the end, list items are found by their `index`."""

from __future__ import annotations

from typing import Any

# Said once, or repeated whole by some servers: the last one stands.
_NOT_TEXT = frozenset(("id", "type", "role", "name", "index", "object", "format", "status", "signature"))
_DEEPEST = 8  # nesting that is merged; what lies deeper is replaced


class Pieces(list[str]):
    """Text that is still coming."""


class Indexed(list[Any]):
    """A list whose items say their place by `index`."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[int, dict[str, Any]] = {}


def merge(into: dict[str, Any], delta: dict[str, Any], depth: int = 0) -> None:
    """Add what a delta says: texts and lists grow, objects are merged, anything else is replaced; null says nothing."""
    for key, value in delta.items():
        old = into.get(key)
        kind = type(value)
        if kind is str and old is not None and key not in _NOT_TEXT:
            if type(old) is Pieces:
                old.append(value)
            else:
                into[key] = Pieces((old, value)) if type(old) is str else value
        elif value is None or (kind is str and not value and old):
            into.setdefault(key, None)
        elif depth < _DEEPEST and kind is dict:
            if type(old) is not dict:
                old = into[key] = {}
            merge(old, value, depth + 1)
        elif depth < _DEEPEST and kind is list:
            if not isinstance(old, list):
                old = into[key] = Indexed()
            _extend(old, value, depth)
        else:
            into[key] = value


def _extend(old: list[Any], items: list[Any], depth: int) -> None:
    for item in items:
        index = item.get("index") if type(item) is dict else None
        if type(index) is not int or not isinstance(old, Indexed):
            old.append(item)
            continue
        place = old.places.get(index)
        if place is None:
            place = old.places[index] = {}
            old.append(place)
        merge(place, item, depth + 1)


def joined(value: Any, depth: int = 0) -> Any:
    """Give what was merged as plain JSON values; indexed items in their order."""
    if type(value) is Pieces:
        return "".join(value)
    if depth > 2 * _DEEPEST:
        return value
    if type(value) is dict:
        return {key: joined(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Indexed):
        if len(value.places) == len(value):
            return [joined(value.places[index], depth + 1) for index in sorted(value.places)]
        return [joined(item, depth + 1) for item in value]
    return value
