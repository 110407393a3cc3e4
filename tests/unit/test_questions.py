"""The questions that have names: each runs on a journal, with or without rows, and says what is so."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from calltracker import journal, paths
from calltracker.call import Call
from calltracker.cli import main
from click.testing import CliRunner

SQLITE = sorted(path.stem for path in paths.sql_folder("sqlite").glob("*.sql"))
BEGAN = 1_760_000_000_000


def call(number: int, latency: int, **changes: Any) -> Call:
    values: dict[str, Any] = {
        "request_method": "POST",
        "request_url": "https://api.openai.com/v1/chat/completions",
        "request_headers": {},
        "request_content": '{"model": "gpt-4o"}',
        "request_time": BEGAN + number,
        "response_time": BEGAN + number + latency,
        "response_status_code": 200,
        "response_text": "{}",
        "call_id": f"call-{number}",
        "operation": "chat",
        "request_model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "outcome": "ok",
        "api_key_hash": "aaaa",
    }
    return Call(**(values | changes))


CALLS = [
    call(1, 100, input_tokens=10, output_tokens=5, tags={"team": "search", "user": "u1"}),
    call(2, 200, input_tokens=20, output_tokens=None, tags={"team": "search"}),
    # 21 visible tokens in the second after the first one came: 20 a second
    call(
        3, 1300, stream=True, first_token_time=BEGAN + 303, output_tokens=31, reasoning_tokens=10, tags={"team": "ads"}
    ),
    call(4, 50, response_status_code=429, outcome="http_error", error="rate_limit", api_key_hash="bbbb"),
    call(5, 60, response_status_code=429, outcome="http_error", error="rate_limit", retry_count=1),
    call(6, 7000, request_content="not JSON", request_model="", response_model="", operation="", outcome="server_cut"),
    call(7, 5, request_content="17", request_model="", response_model="", operation=""),
]

BACKGROUND = [
    # Asked for in the background, and looked at three times; resp_2 had told its tokens to the call that asked for it.
    call(8, 5, operation="responses", response_id="resp_1", response_model="o3", response_json='{"usage": null}'),
    *(
        call(number, 5, operation="responses.retrieve", response_id=name, response_model="o3", response_json=usage)
        for number, name, usage in (
            (9, "resp_1", '{"status": "in_progress", "usage": null}'),
            (10, "resp_1", '{"usage": {"input_tokens": 7, "output_tokens": 90}}'),
            (11, "resp_1", '{"usage": {"input_tokens": 7, "output_tokens": 90}}'),
            (12, "resp_2", '{"usage": {"input_tokens": 1, "output_tokens": 2}}'),
            (13, "resp_3", ""),
        )
    ),
    call(14, 5, operation="responses", response_id="resp_2", response_model="o3", input_tokens=1, output_tokens=2),
    call(15, 5, operation="threads", response_id="run_1", response_json='{"usage": {"completion_tokens": 4}}'),
]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    journal.connect(tmp_path / "empty.sqlite3").close()
    return tmp_path / "empty.sqlite3"


def file_of(path: Path, calls: list[Call]) -> Path:
    with contextlib.closing(journal.connect(path)) as connection, journal.transaction(connection):
        journal.add(connection, calls, for_proton=False)
    return path


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return file_of(tmp_path / "filled.sqlite3", CALLS)


@pytest.fixture
def background(tmp_path: Path) -> Path:
    return file_of(tmp_path / "background.sqlite3", BACKGROUND)


def ask(question: str, file: Path) -> list[dict[str, Any]]:
    result = CliRunner().invoke(main, ["query", question, "--json", "--journal", str(file)])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("question", SQLITE)
def test_every_question_runs(question: str, empty: Path, filled: Path, background: Path) -> None:
    assert ask(question, empty) == []
    assert ask(question, background if question == "background_tokens" else filled) != []


@pytest.mark.parametrize("path", sorted(paths.sql_folder("sqlite").parent.glob("*/*.sql")), ids=lambda path: path.name)
def test_every_file_says_what_it_answers(path: Path) -> None:
    first = path.read_text().partition("\n")[0]
    assert first.startswith("-- ")
    assert first.endswith(".")


def test_latency_by_model(filled: Path) -> None:
    nameless, named = ask("latency_by_model", filled)
    assert nameless == {"max": 7000, "min": 5, "avg": 3502.5, "p90": pytest.approx(6300.5), "model": ""}
    assert named == {"max": 1300, "min": 50, "avg": 342, "p90": pytest.approx(860), "model": "gpt-4o"}


def test_latency_percentiles(filled: Path) -> None:
    first, _ = ask("latency_percentiles", filled)
    assert first == {"model": "gpt-4o", "calls": 3, "p50": 200, "p90": 1080, "p95": 1190, "p99": pytest.approx(1278)}


def test_first_token_and_speed(filled: Path) -> None:
    assert ask("time_to_first_token", filled) == [
        {"model": "gpt-4o", "calls": 1, "p50": 300, "p90": 300, "p95": 300, "p99": 300}
    ]
    assert ask("output_speed", filled) == [{"model": "gpt-4o", "calls": 1, "p50": 20, "p90": 20, "p95": 20, "p99": 20}]


def test_errors_and_limits(filled: Path) -> None:
    errors = ask("errors", filled)
    assert [(row["model"], row["outcome"], row["status"], row["calls"]) for row in errors] == [
        ("gpt-4o", "http_error", 429, 2),
        ("", "server_cut", 200, 1),
    ]
    assert ask("rate_limited", filled) == [
        {"model": "gpt-4o", "calls": 5, "limited": 2, "retries": 1, "limited_percent": 40}
    ]


def test_tokens(filled: Path) -> None:
    assert ask("tokens_by_model", filled) == [
        {
            "model": "gpt-4o-2024-08-06",
            "calls": 3,
            "input": 30,
            "cached_input": None,
            "output": 36,
            "reasoning": 10,
        }
    ]


def test_by_key_and_by_tag(filled: Path) -> None:
    keys = ask("by_key", filled)
    assert [(row["key"], row["calls"], row["failed"], row["limited"]) for row in keys] == [
        ("aaaa", 6, 2, 1),
        ("bbbb", 1, 1, 1),
    ]
    tags = ask("by_tag", filled)
    assert [(row["tag"], row["value"], row["calls"], row["input"], row["latency_p50"]) for row in tags] == [
        ("team", "search", 2, 30, 150),
        ("team", "ads", 1, None, 1300),
        ("user", "u1", 1, 10, 100),
    ]


def test_slowest_and_counts(filled: Path) -> None:
    assert [row["call_id"] for row in ask("slowest_calls", filled)][:2] == ["call-6", "call-3"]
    counted = ask("calls_by_model", filled)
    assert [(row["model"], row["calls"], row["failed"], row["streamed"]) for row in counted] == [
        ("gpt-4o", 5, 2, 1),
        ("", 2, 1, 0),
    ]


def test_background_tokens(background: Path) -> None:
    assert ask("background_tokens", background) == [
        {"model": "o3", "answers": 1, "input": 7, "output": 90},
        {"model": "gpt-4o-2024-08-06", "answers": 1, "input": None, "output": 4},
    ]
