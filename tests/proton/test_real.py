"""On a real Proton, where LLM_CALLS_TEST_PROTON=host:port names one: the rows arrive, and every question runs.

It uses streams of its own, whose names begin with llm_calls_test_, and drops them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calltracker import paths
from calltracker.cli import main
from calltracker.proton.exporter import Exporter
from click.testing import CliRunner
from proton_driver import Client

from .conftest import add, fill, left, make_call, wait_for
from .gate import Gate, Plan
from .test_commands import EIGHT, without_comments

ADDRESS = os.environ.get("LLM_CALLS_TEST_PROTON", "")
QUESTIONS = paths.sql_folder("proton")
BOUNDED = sorted(path.stem for path in paths.sql_folder("sqlite").glob("*.sql"))
LIVE = sorted(path.stem for path in QUESTIONS.glob("live_*.sql"))

pytestmark = pytest.mark.skipif(not ADDRESS, reason="LLM_CALLS_TEST_PROTON=host:port names no Proton")
through_a_gate = pytest.mark.skipif(
    not ADDRESS.startswith(("127.", "localhost:")), reason="the gate leads to this machine alone"
)


def host() -> str:
    return ADDRESS.rpartition(":")[0]


def port() -> int:
    return int(ADDRESS.rpartition(":")[2])


@contextlib.contextmanager
def connected() -> Iterator[Client]:
    client = Client(host(), port())
    try:
        yield client
    finally:
        client.disconnect()


def ask(query: str) -> Any:
    with connected() as client:
        return client.execute(query)


@pytest.fixture
def stream() -> Iterator[str]:
    name = f"llm_calls_test_{uuid.uuid4().hex[:12]}"
    yield name
    ask(f"DROP VIEW IF EXISTS {name}_view")
    ask(f"DROP STREAM IF EXISTS {name}_minutes")
    ask(f"DROP STREAM IF EXISTS {name}")


def proton(path: Path, stream: str, *arguments: str) -> str:
    settings = {"PROTON_HOST": host(), "PROTON_PORT": str(port()), "PROTON_STREAM": stream}
    result = CliRunner().invoke(main, ["proton", *arguments], env={**settings, "LLM_CALLS_JOURNAL": str(path)})
    assert result.exit_code == 0, result.output
    return result.stdout


def statement(name: str, stream: str) -> str:
    """A file of sql/proton for the test's own streams."""
    sql = without_comments(QUESTIONS / f"{name}.sql")
    renamed = sql.replace("llm_calls_per_minute", f"{stream}_minutes").replace("llm_calls_rollup", f"{stream}_view")
    return renamed.replace("table(llm_calls)", f"table({stream})").replace("tumble(llm_calls,", f"tumble({stream},")


def assert_each_once(stream: str, ids: list[str]) -> None:
    query = f"SELECT call_id FROM table({stream})"
    wait_for(lambda: len(ask(query)) >= len(ids), 15)
    assert sorted(row[0] for row in ask(query)) == sorted(ids)


def test_each_row_arrives_once(path: Path, stream: str) -> None:
    proton(path, stream, "init")
    assert "has every column" in proton(path, stream, "init")
    ids = fill(path, 2500)
    assert "2500 rows delivered" in proton(path, stream, "deliver")
    assert_each_once(stream, ids)
    assert "delivered    2500 of 2500 rows" in proton(path, stream, "status")


@through_a_gate
@pytest.mark.parametrize("columns", ["all", "eight"])
def test_cut_connections_lose_and_double_nothing(
    path: Path, stream: str, export: Callable[..., Exporter], columns: str
) -> None:
    """Cuts within a block, before the driver has its answer, and within that."""
    if columns == "all":
        proton(path, stream, "init")
        before_answers = 7_000  # bytes from the server: DESCRIBE's answer, and the columns that it tells at an INSERT
    else:
        ask(EIGHT.replace("llm_calls", stream))
        before_answers = 1_600
    plans = itertools.chain(
        (Plan(cut_up=5_000), Plan(mute_down=before_answers), Plan(cut_up=40_000), Plan(cut_down=before_answers)),
        itertools.repeat(Plan()),
    )
    ids = fill(path, 600)
    with Gate(port(), lambda: next(plans)) as gate:
        export(gate.port, stream=stream, visibility=10, timeout=2)
        wait_for(lambda: not left(path), 120)
    if columns == "all":
        assert_each_once(stream, ids)
    else:
        time.sleep(3)  # what is there twice would be shown by now
        assert ask(f"SELECT count() FROM table({stream})") == [(len(ids),)]


@pytest.mark.parametrize("name", BOUNDED)
def test_every_question_runs(path: Path, stream: str, name: str) -> None:
    proton(path, stream, "init")
    fill(path, 20, outcome="http_error", response_status_code=429, first_token_time=int(time.time() * 1000) - 500)
    fill(path, 20, outcome="ok", output_tokens=50, stream=True, first_token_time=int(time.time() * 1000) - 500)
    proton(path, stream, "deliver")
    wait_for(lambda: ask(f"SELECT count() FROM table({stream})") == [(40,)], 15)
    assert ask(statement(name, stream))


@pytest.mark.parametrize("name", LIVE)
def test_every_live_query_is_accepted(path: Path, stream: str, name: str) -> None:
    proton(path, stream, "init")
    with connected() as client:
        names = [column for column, _ in next(client.execute_iter(statement(name, stream), with_column_types=True))]
    assert names[0] == "window_start"


def test_the_rollup_counts_each_minute(path: Path, stream: str) -> None:
    proton(path, stream, "init")
    ((version,),) = ask("SELECT version()")
    ask(statement("rollup_stream", stream))
    ask(statement(f"rollup_view_v{'1' if version.startswith('1.') else '3'}", stream))
    minute = int(time.time()) // 60 * 60_000 - 3_600_000
    query = f"SELECT calls, model FROM table({stream}_minutes)"
    deadline = time.monotonic() + 90
    while not (found := ask(query)):  # the view is built in the background, and begins with what comes then
        assert time.monotonic() < deadline
        ends = [minute + 1000 * second for second in (1, 20, 40)]
        add(path, *(make_call(request_time=end - 500, response_time=end) for end in ends))
        proton(path, stream, "deliver")
        minute += 60_000
        time.sleep(1)
    assert set(found) == {(3, "gpt-4o")}
