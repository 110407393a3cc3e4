"""Tokens: under which names each API and each compatible server tells them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# Paths into `usage`; the first that holds a number counts. Cached and reasoning tokens are parts of the totals.
# OpenAI: chat and completions say prompt and completion, everything newer input and output; Realtime, images and
# transcription say `input_token_details`. DeepSeek: prompt_cache_hit_tokens. Moonshot: cached_tokens.
_PATHS: dict[str, tuple[tuple[str, ...], ...]] = {
    "input_tokens": (("prompt_tokens",), ("input_tokens",)),
    "cached_input_tokens": (
        ("prompt_tokens_details", "cached_tokens"),
        ("input_tokens_details", "cached_tokens"),
        ("input_token_details", "cached_tokens"),
        ("prompt_cache_hit_tokens",),
        ("cached_tokens",),
    ),
    "output_tokens": (("completion_tokens",), ("output_tokens",)),
    "reasoning_tokens": (
        ("completion_tokens_details", "reasoning_tokens"),
        ("output_tokens_details", "reasoning_tokens"),
        ("output_token_details", "reasoning_tokens"),
        ("reasoning_tokens",),
    ),
}
_LARGEST = 2**63


class Tokens(NamedTuple):
    """None is unknown."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


def usage_of(answer: Mapping[str, Any]) -> Any:
    """Find the usage of an answer or a chunk; Groq's streams have it under `x_groq`."""
    usage = answer.get("usage")
    if usage is None and isinstance(x_groq := answer.get("x_groq"), dict):
        return x_groq.get("usage")
    return usage


def tokens_of(usage: Any) -> Tokens:
    """Read a `usage` object: of https://platform.openai.com/docs/api-reference, or of a compatible server."""
    if not isinstance(usage, dict):
        return Tokens()
    return Tokens(*[_first(usage, paths) for paths in _PATHS.values()])


def _first(usage: dict[str, Any], paths: tuple[tuple[str, ...], ...]) -> int | None:
    for path in paths:
        value: Any = usage
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if type(value) is int and 0 <= value < _LARGEST:
            return value
    return None


def total(many: Iterable[Tokens]) -> Tokens:
    """Add up what is known; what none of them knows stays unknown."""
    sums: list[int | None] = [None] * len(Tokens._fields)
    for tokens in many:
        for place, number in enumerate(tokens):
            if number is not None:
                sums[place] = min((sums[place] or 0) + number, _LARGEST - 1)
    return Tokens(*sums)
