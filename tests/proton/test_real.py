"""On a real Proton, where LLM_CALLS_TEST_PROTON=host:port names one: the rows arrive, and every question runs.

It uses streams of its own, whose names begin with llm_calls_test_, and drops them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from calltracker import paths
from calltracker.cli import main
from calltracker.proton.settings import Settings
from click.testing import CliRunner
from proton_driver import Client

from .conftest import fill, left, wait_for
from .gate import Gate, Plan
from .test_commands import without_comments

ADDRESS = os.environ.get("LLM_CALLS_TEST_PROTON", "")
BOUNDED = sorted(paths.sql_folder("sqlite").glob("*.sql"))
LIVE = sorted(paths.sql_folder("proton").glob("live_*.sql"))

pytestmark = pytest.mark.skipif(not ADDRESS, reason="LLM_CALLS_TEST_PROTON=host:port names no Proton")


@pytest.fixture
def stream() -> Iterator[str]:
    name = f"llm_calls_test_{uuid.uuid4().hex[:12]}"
    yield name
    client().execute(f"DROP STREAM IF EXISTS {name}")


def client() -> Client:
    host, _, port = ADDRESS.rpartition(":")
    return Client(host, int(port))


def proton(path: Path, stream: str, *arguments: str) -> str:
    host, _, port = ADDRESS.rpartition(":")
    settings = {"PROTON_HOST": host, "PROTON_PORT": port, "PROTON_STREAM": stream, "LLM_CALLS_JOURNAL": str(path)}
    result = CliRunner().invoke(main, ["proton", *arguments], env=settings)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_each_row_arrives_once(path: Path, stream: str) -> None:
    proton(path, stream, "init")
    assert "has every column" in proton(path, stream, "init")
    ids = fill(path, 2500)
    assert "2500 rows delivered" in proton(path, stream, "deliver")
    query = f"SELECT call_id FROM table({stream})"
    wait_for(lambda: len(client().execute(query)) >= len(ids), 15)
    assert sorted(row[0] for row in client().execute(query)) == sorted(ids)
    assert "delivered    2500 of 2500 rows" in proton(path, stream, "status")


@pytest.mark.skipif(not ADDRESS.startswith(("127.", "localhost:")), reason="the gate leads to this machine alone")
def test_a_cut_connection_loses_and_doubles_nothing(path: Path, stream: str, export) -> None:
    proton(path, stream, "init")
    cuts = iter([5_000, 20_000, 40_000, 60_000])
    ids = fill(path, 600)
    with Gate(Settings.from_url(f"proton://{ADDRESS}").port, lambda: Plan(cut_up=next(cuts, None))) as gate:
        export(gate.port, stream=stream, visibility=10, timeout=10)
        wait_for(lambda: not left(path), 120)
    query = f"SELECT call_id FROM table({stream})"
    wait_for(lambda: len(client().execute(query)) >= len(ids), 15)
    assert sorted(row[0] for row in client().execute(query)) == sorted(ids)


@pytest.mark.parametrize("file", BOUNDED, ids=lambda file: file.stem)
def test_every_question_runs(path: Path, stream: str, file: Path) -> None:
    proton(path, stream, "init")
    fill(path, 20)
    proton(path, stream, "deliver")
    sql = without_comments(paths.sql_folder("proton") / file.name)
    client().execute(sql.replace("llm_calls)", f"{stream})"))


@pytest.mark.parametrize("file", LIVE, ids=lambda file: file.stem)
def test_every_live_query_is_accepted(path: Path, stream: str, file: Path) -> None:
    proton(path, stream, "init")
    asking = client()
    explained = asking.execute("EXPLAIN " + without_comments(file).replace("tumble(llm_calls,", f"tumble({stream},"))
    assert explained
