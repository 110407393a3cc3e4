"""Real exchanges: each column equals what the official `openai` package makes of the same bytes, whole or cut."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from calltracker.openai import read, sse
from recordings.comparing import differences, exchange_of, recordings

Place = tuple[Path, int]

# Files of which the package reads every exchange; in other recordings there may be some that are not OpenAI's.
ENDING = re.compile(
    r"response\.(completed|incomplete|failed)|thread\.run\.(?!created|queued|in_progress|step)\w+"
    r"|image_\w+\.completed|transcript\.text\.done|speech\.audio\.done"
)
READ_WHOLE = ("dd-trace-openai.jsonl", "opentelemetry-openai-v2.jsonl")


def test_equals_the_official_package(place: Place, oracle: dict[str, Any]) -> None:
    path, number = place
    reading = read(exchange_of(recordings(path)[number]))
    if "oracle_error" in oracle:
        assert path.name not in READ_WHOLE
        pytest.skip(f"the openai package cannot read it: {oracle['oracle_error']}")
    assert differences(oracle, dataclasses.asdict(reading)) == []


def test_any_split_gives_the_same_events(stream: Place) -> None:
    path, number = stream
    body = exchange_of(recordings(path)[number]).response_body
    for line_end in (b"\n", b"\r\n", b"\r"):
        data = body.replace(b"\n", line_end)
        whole, rest = sse.parse(data)
        assert whole and not rest.strip()
        for size in (1, random.Random(number).randrange(2, 900)):
            parser = sse.Parser()
            events = [event for at in range(0, len(data), size) for event in parser.feed(data[at : at + size])]
            assert events + parser.finish() == whole


def test_cut_anywhere_gives_a_prefix(stream: Place) -> None:
    """A cut stream is never whole before its end marker, says so, and has a prefix of the text."""
    path, number = stream
    exchange = exchange_of(recordings(path)[number])
    whole = read(exchange)
    assert whole.stream
    body = exchange.response_body
    texts = _texts(whole.response_json)
    ends = [event.end for event in sse.parse(body)[0]]
    # Every byte of the first and last events, and a place in each event between.
    cuts = {*range(ends[:2][-1]), *range(ends[-3:][0], len(body)), *[end - 5 for end in ends], *ends}
    headers = {**exchange.response_headers, "content-type": "text/event-stream"}
    for cut in sorted(cuts):
        part = dataclasses.replace(exchange, response_headers=headers, response_body=body[:cut])
        reading = read(part)
        assert reading.stream
        if body[:cut].rstrip() != body.rstrip() and not _has_end(body[:cut]):
            assert reading.finished is False, cut
            if reading.response_json:
                assert json.loads(reading.response_json)["incomplete"] is True
        for some, all_ in zip(_texts(reading.response_json), texts, strict=False):
            assert all_.startswith(some)


def _has_end(body: bytes) -> bool:
    """Whether one of the events tells that the stream is over, whatever its family."""
    events, rest = sse.parse(body)
    if rest.rstrip() == b"data: [DONE]":
        return True
    for kind, data, _ in events:
        event = json.loads(data) if data.startswith(b"{") else {}
        name = event.get("type") if isinstance(event.get("type"), str) else kind.decode()
        if data == b"[DONE]" or event.get("error") or name == "error" or ENDING.fullmatch(name or kind.decode()):
            return True
    return False


def _texts(response_json: str) -> list[str]:
    if not response_json:
        return []
    answer = json.loads(response_json)
    choices = [
        choice.get("text") or choice.get("message", {}).get("content") or "" for choice in answer.get("choices", [])
    ]
    parts = [part for item in answer.get("output", []) for part in item.get("content", [])]
    return choices + [part.get("text", "") for part in parts]
