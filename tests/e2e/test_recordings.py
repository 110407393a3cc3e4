"""Recorded exchanges through a real mitmdump, in every content coding and cut up at odd places: bytes and rows."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from e2e.harness import Client, Proxy
from recordings import comparing
from standin import Reply, StandIn
from standin.codings import decode

MOST_PIECES = 8192  # a vector of 100 kB in pieces of one byte would take long and show nothing more
FRAMING = {"host", "content-length", "transfer-encoding", "connection", "content-encoding", "expect"}

pytestmark = pytest.mark.skipif(not comparing.files(), reason="there are no recordings beside the checkout")


@pytest.fixture(scope="module")
def openai(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, StandIn]]:
    urls = [recording["request"]["url"] for path in comparing.files() for recording in comparing.recordings(path)]
    hosts = sorted({str(urlsplit(url).hostname) for url in urls})
    with StandIn() as standin:
        options = {"llm_calls_hosts": ",".join(hosts)}
        routes = dict.fromkeys(hosts, standin)
        with Proxy(tmp_path_factory.mktemp("recordings"), routes, options=options) as proxy:
            yield proxy, standin


def replay(proxy: Proxy, standin: StandIn, recording: dict[str, Any], name: str, coding: str, pieces: int) -> bytes:
    """Send a recorded request, answered by the recorded response; return the body that the client got, decoded."""
    request, response = recording["request"], recording["response"]
    headers = [(key, value) for key, value in response["headers"] if key.lower() not in FRAMING]
    standin.replies[name] = Reply(response["status"], headers, base64.b64decode(response["body_b64"]))
    url = urlsplit(request["url"])
    own = {key: value for key, value in request["headers"] if key.lower() not in FRAMING}
    asked = f"replay; id={name}; pieces={pieces}" + (f"; coding={coding}" if coding else "")
    body = base64.b64decode(request["body_b64"])
    path = url.path + (f"?{url.query}" if url.query else "")
    with Client(proxy, str(url.hostname)) as client:
        client.send(Client.encode(request["method"], path, body, {**own, "x-standin": asked}, str(url.hostname)))
        answer = client.answer()
    assert answer.status == response["status"]
    return decode(coding, answer.body)


@pytest.mark.parametrize(
    ("coding", "pieces"), [("", 1), ("", 10_000), ("gzip", 7), ("deflate", 97), ("br", 13), ("zstd", 31)]
)
@pytest.mark.parametrize("path", comparing.files(), ids=lambda path: path.stem)
def test_recordings(openai: tuple[Proxy, StandIn], path: Path, coding: str, pieces: int) -> None:
    proxy, standin = openai
    before = len(proxy.rows())
    recordings = comparing.recordings(path)
    for number, recording in enumerate(recordings):
        sent = base64.b64decode(recording["response"]["body_b64"])
        name = f"{path.stem}-{coding}-{pieces}-{number}"
        size = max(pieces, len(sent) // MOST_PIECES)
        assert replay(proxy, standin, recording, name, coding, size) == sent, recording["name"]
    rows = proxy.wait_rows(before + len(recordings))[before:]
    assert len(rows) == len(recordings)
    oracle = comparing.expected(path) if comparing.CLIENTS in os.environ else [{}] * len(recordings)
    found = []
    for recording, row, expected in zip(recordings, rows, oracle, strict=True):
        found += [f"{recording['name']}: {line}" for line in differing(recording, row, expected)]
    assert found == []


def differing(recording: dict[str, Any], row: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Compare a row with the recording's bytes and the oracle's columns; give a line for each difference."""
    columns = {**row, "stream": bool(row["stream"])}
    found = comparing.differences(expected, columns)
    status = recording["response"]["status"]
    outcome = "ok" if status < 400 else "http_error"
    facts = {"response_status_code": status, "outcome": outcome, "request_method": recording["request"]["method"]}
    if json_like(recording["request"]):
        facts["request_content"] = base64.b64decode(recording["request"]["body_b64"]).decode()
    if not row["response_sha256"]:  # what is kept whole
        facts["response_text"] = base64.b64decode(recording["response"]["body_b64"]).decode("utf-8", "backslashreplace")
    return found + [f"{name}: {row[name]!r} for {value!r}" for name, value in facts.items() if row[name] != value]


def json_like(message: dict[str, Any]) -> bool:
    try:
        json.loads(base64.b64decode(message["body_b64"]))
    except ValueError:
        return False
    return True
