"""The event stream parser against the WHATWG rules, and any split of any stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from calltracker.openai import sse
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data:a\n\ndata:  b\n\n", [(b"", b"a"), (b"", b" b")]),
        (b"\xef\xbb\xbfdata: bom\n\n", [(b"", b"bom")]),
        (b"data: one\rdata: two\r\r", [(b"", b"one\ntwo")]),
        (b"event: e\r\ndata: x\r\nid: 7\r\nretry: 1\r\n\r\n", [(b"e", b"x")]),
        (b": comment\n\ndata: x\n: another\n\n", [(b"", b"x")]),
        (b"event: lost\n\ndata: x\n\n", [(b"", b"x")]),
        (b"data\n\n", [(b"", b"")]),
        (b"data: x\n", []),
        (b"data: x", []),
        (b"\n\n\ndata: x\n\n\n", [(b"", b"x")]),
        (b"data: x\n\r\ndata: y\r\n\n", [(b"", b"x"), (b"", b"y")]),
    ],
)
def test_rules(stream: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    events, rest = sse.parse(stream)
    assert [(event.type, event.data) for event in events] == expected
    assert bool(rest.strip()) == (not expected)
    ends = [event.end for event in events]
    assert ends == sorted(ends) and all(stream[:end].endswith((b"\n", b"\r")) for end in ends)


_lines = st.sampled_from(
    [b"data: x", b"data:", b"data: \xe2\x82\xac", b"event: e", b": c", b"", b"\xef\xbb\xbf", b'data: {"a":1}']
)
_streams = st.lists(st.tuples(_lines, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30).map(
    lambda pairs: b"".join(line + end for line, end in pairs)
)


@given(st.one_of(_streams, st.binary(max_size=200)), st.lists(st.integers(0, 400), max_size=8))
def test_any_split_gives_the_same(stream: bytes, places: list[int]) -> None:
    parser = sse.Parser()
    cuts = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    events = [event for a, b in pairwise(cuts) for event in parser.feed(stream[a:b])]
    events += parser.finish()
    assert (events, parser.rest) == sse.parse(stream)


@given(_streams, st.integers(0, 400))
def test_a_cut_stream_gives_the_first_events(stream: bytes, at: int) -> None:
    whole = [(event.type, event.data) for event in sse.parse(stream)[0]]
    part = [(event.type, event.data) for event in sse.parse(stream[:at])[0]]
    assert part == whole[: len(part)]
