"""Files never reach the disk; the fields around them do, however the bytes are cut."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise

import pytest
from calltracker.openai import Exchange, read
from calltracker.openai.multipart import LARGEST_FIELD, FileEliding, members, to_json
from hypothesis import given
from hypothesis import strategies as st

TYPE = 'multipart/form-data; boundary="b-1"'


def part(disposition: str, content: bytes, *more: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"Content-Disposition: form-data; {disposition}", *more))
    return b"--b-1\r\n" + head.encode() + b"\r\n" + content + b"\r\n"


AUDIO = b"\x00\r\n--b-2\r\n--b-1x" * 50
BODY = (
    part('name="model"', b"whisper-1")
    + part('name="file"; filename="a b.mp3"', AUDIO, "Content-Type: audio/mpeg")
    + part('name="include[]"', b"logprobs")
    + part('name="include[]"', "größe".encode())
    + b"--b-1--\r\n"
)
DESCRIBED = {"bytes": len(AUDIO), "sha256": hashlib.sha256(AUDIO).hexdigest()}
EXPECTED = {
    "model": "whisper-1",
    "file": {"filename": "a b.mp3", "content_type": "audio/mpeg", **DESCRIBED},
    "include[]": ["logprobs", "größe"],
}


def elided(body: bytes, cuts: list[int], content_type: str = TYPE) -> bytes:
    eliding = FileEliding(content_type)
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [eliding.feed(body[a:b]) for a, b in pairwise(places)]
    return b"".join(pieces) + eliding.finish()


@given(st.lists(st.integers(0, len(BODY)), max_size=40))
def test_any_split_elides_the_same(cuts: list[int]) -> None:
    kept = elided(BODY, cuts)
    assert kept == elided(BODY, []) and AUDIO[:9] not in kept
    assert members(kept, TYPE) == EXPECTED == members(BODY, TYPE)
    assert json.loads(to_json(kept, TYPE) or "") == EXPECTED


@given(
    st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6), st.sampled_from([TYPE, "multipart/form-data"])
)
def test_any_bytes_are_taken(noise: bytes, cuts: list[int], content_type: str) -> None:
    for body in (noise, BODY[:60] + noise, BODY[:170] + noise):
        assert elided(body, cuts, content_type) == elided(body, [], content_type)
        to_json(body, content_type)


def test_what_is_no_multipart_is_described() -> None:
    data = b"x" * 1_000_000
    for content_type in (TYPE, "multipart/form-data"):
        facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        kept = elided(data, [70_000, 500_000], content_type)
        assert json.loads(kept) == facts == json.loads(to_json(kept, content_type) or "")


@pytest.mark.parametrize(("size", "is_kept"), [(LARGEST_FIELD, True), (LARGEST_FIELD + 1, False)])
def test_a_large_field_is_described(size: int, is_kept: bool) -> None:
    body = part('name="prompt"', b"p" * size) + b"--b-1--\r\n"
    kept = elided(body, list(range(0, len(body), 9000)))
    assert kept == elided(body, [])
    value = (members(kept, TYPE) or {})["prompt"]
    assert (value == "p" * size) is is_kept
    assert is_kept or value["bytes"] == size


def test_a_cut_upload_is_described_as_incomplete() -> None:
    body = BODY[: BODY.index(AUDIO) + 40]
    file = (members(elided(body, []), TYPE) or {})["file"]
    assert (file["bytes"], file["incomplete"]) == (40, True)


def test_the_model_of_a_multipart_request() -> None:
    exchange = Exchange(
        method="POST",
        url="https://api.openai.com/v1/audio/transcriptions",
        request_headers={"content-type": TYPE},
        request_body=elided(BODY, []),
        status=200,
        response_headers={"content-type": "application/json"},
        response_body=b'{"text":"hi","usage":{"type":"tokens","input_tokens":3,"output_tokens":2}}',
    )
    reading = read(exchange)
    assert (reading.operation, reading.request_model) == ("audio", "whisper-1")
    assert (reading.input_tokens, reading.output_tokens, reading.cached_input_tokens) == (3, 2, None)
