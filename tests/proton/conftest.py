"""A journal, calls to fill it with, and exporters that end with the test."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calltracker import journal
from calltracker.call import Call, new_call_id
from calltracker.proton.exporter import Exporter
from calltracker.proton.settings import Settings

from proton.server import Server

# Fast versions of the times that matter: a driver that gives up soon, a table() that shows rows soon.
QUICK = {
    "timeout": 0.5,
    "connect_timeout": 0.5,
    "visibility": 0.25,
    "backoff_first": 0.01,
    "backoff_most": 0.05,
    "batch_rows": 100,
}
SHOWN_WITHIN = 0.08  # the test server's delay, below the exporter's Settings.visibility by a wide margin


def make_call(number: int = 0, **changes: Any) -> Call:
    values: dict[str, Any] = {
        "request_method": "POST",
        "request_url": "https://api.openai.com/v1/chat/completions",
        "request_headers": {"content-type": "application/json", "x-ü": "é"},
        "request_content": f'{{"model": "gpt-4o", "n": {number}}}',
        "request_time": int(time.time() * 1000) - 700,
        "response_time": int(time.time() * 1000),
        "response_status_code": 200,
        "response_text": '{"usage": {"total_tokens": 3}}',
        "call_id": str(new_call_id()),
        "operation": "chat",
        "request_model": "gpt-4o",
        "input_tokens": 1,
        "stream": bool(number % 2),
        "tags": {"n": str(number)},
    }
    return Call(**(values | changes))


def fill(path: Path, count: int, **changes: Any) -> list[str]:
    """Commit calls that are to go to Proton; return their ids in order."""
    calls = [make_call(number, **changes) for number in range(count)]
    add(path, *calls)
    return [call.call_id for call in calls]


def add(path: Path, *calls: Call) -> None:
    connection = journal.connect(path)
    with contextlib.closing(connection), journal.transaction(connection):
        assert journal.add(connection, calls, for_proton=True) == len(calls)


def left(path: Path) -> list[tuple[int, str, str]]:
    """The outbox as it is: position, call_id, reason of refusal."""
    with contextlib.closing(journal.connect_to_read(path)) as connection:
        return connection.execute("SELECT position, call_id, refused FROM outbox ORDER BY position").fetchall()


def waiting(path: Path) -> int:
    return sum(not row[2] for row in left(path))


def wait_for(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Wait until a condition holds; fail when it does not within the bound."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.005)
    return result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite3"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(visibility=SHOWN_WITHIN) as one:
        yield one


@pytest.fixture
def export(path: Path) -> Iterator[Callable[..., Exporter]]:
    """Start an exporter of the journal to a port."""
    started: list[Exporter] = []

    def start(port: int, **changes: Any) -> Exporter:
        settings = Settings(host="127.0.0.1", port=port, **(QUICK | changes))
        started.append(Exporter(path, settings))
        started[-1].start()
        return started[-1]

    yield start
    for exporter in started:
        exporter.stop(0)
