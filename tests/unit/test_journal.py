import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from calltracker import journal, retention
from calltracker.call import COLUMNS, SPECIFIED, Call, new_call_id


def a_call(**values):
    base = {
        "request_method": "POST",
        "request_url": "https://api.openai.com/v1/x",
        "request_headers": {"a": "b", "ü": '"'},
        "request_content": "{}",
        "request_time": 1_790_000_000_123,
        "response_time": 1_790_000_001_500,
        "response_status_code": 200,
        "response_text": "x\0y",
        "call_id": str(new_call_id()),
    }
    return Call(**{**base, **values})


@pytest.fixture
def connection(tmp_path):
    with contextlib.closing(journal.connect(tmp_path / "f" / "j.sqlite3")) as opened:
        yield opened


def put(connection, *calls, for_proton=False):
    with journal.transaction(connection):
        return journal.add(connection, calls, for_proton=for_proton)


def test_the_specified_columns_come_first():
    assert [(column.name, column.kind.proton_type) for column in SPECIFIED] == [
        ("request_method", "string"),
        ("request_url", "string"),
        ("request_headers", "map(string, string)"),
        ("request_content", "string"),
        ("request_time", "datetime64"),
        ("response_time", "datetime64"),
        ("response_status_code", "int"),
        ("response_text", "string"),
    ]


def test_a_call_comes_back_as_it_went_in(connection):
    call = a_call(first_token_time=1_790_000_000_999, input_tokens=0, stream=True, tags={"k": "v"})
    assert put(connection, call) == 1
    row = connection.execute(f"SELECT {journal.NAMES} FROM llm_calls").fetchone()
    assert journal.call_of(row) == call


def test_derived_times(connection):
    put(connection, a_call(first_token_time=1_790_000_000_999))
    row = connection.execute("SELECT request_time, latency_ms, time_to_first_token_ms FROM llm_calls").fetchone()
    assert row == ("2026-09-21 14:13:20.123", 1377, 876)


def test_a_call_is_there_once_and_waits_for_proton_once(connection):
    call = a_call()
    assert put(connection, call, for_proton=True) == 1
    assert put(connection, call, a_call(), for_proton=True) == 1
    assert connection.execute("SELECT count(*) FROM llm_calls").fetchone() == (2,)
    assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (2,)


def test_an_older_journal_gets_the_columns_that_it_lacks(tmp_path):
    path = tmp_path / "old.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE llm_calls (request_method TEXT, request_time TEXT, call_id TEXT, response_time TEXT)")
        old.execute("INSERT INTO llm_calls VALUES ('GET', '2026-01-01 00:00:00.000', 'x', '2026-01-01 00:00:01.000')")
        old.commit()
    with contextlib.closing(journal.connect(path)) as connection:
        put(connection, a_call())
        assert connection.execute("SELECT count(*), count(outcome) FROM llm_calls").fetchone() == (2, 2)


def test_files_are_the_owners_alone(tmp_path):
    path = tmp_path / "made" / "j.sqlite3"
    with contextlib.closing(journal.connect(path)) as connection:
        put(connection, a_call())
        for made in (path.parent, path, *path.parent.iterdir()):
            assert made.stat().st_mode & 0o077 == 0


def test_what_is_no_journal_is_told_and_kept(tmp_path):
    path = tmp_path / "j.sqlite3"
    path.write_bytes(b"no journal" * 500)
    with pytest.raises(sqlite3.Error) as caught:
        journal.connect(path)
    assert journal.is_corrupt(caught.value)
    assert "is kept as" in journal.set_aside(path)
    assert not path.exists()
    [kept] = tmp_path.iterdir()
    assert kept.read_bytes() == b"no journal" * 500


@pytest.mark.parametrize("times", range(20))
def test_many_begin_one_journal_at_once(tmp_path, times):
    def begin(start):
        start.wait()
        with contextlib.closing(journal.connect(tmp_path / "j.sqlite3")) as opened:
            for _ in range(3):
                put(opened, a_call())

    start = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(begin, start) for _ in range(4)]:
            done.result()
    with contextlib.closing(journal.connect_to_read(tmp_path / "j.sqlite3")) as reader:
        assert reader.execute("SELECT count(*) FROM llm_calls").fetchone() == (12,)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("CREATE TABLE llm_calls (a)")
connection.execute("INSERT INTO llm_calls VALUES (1)")
connection.execute("BEGIN")
connection.execute("UPDATE llm_calls SET a = 2")
connection.execute("WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n LIMIT 9999) "
                   "INSERT INTO llm_calls SELECT i FROM n")
os._exit(0)
"""


def test_a_reader_rolls_back_what_a_killed_writer_left(tmp_path):
    """As a worker leaves it that is killed while it creates the journal, which is in WAL mode only after that."""
    path = tmp_path / "j.sqlite3"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=True)
    strict = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    with contextlib.closing(strict), pytest.raises(sqlite3.OperationalError, match="readonly"):
        strict.execute("SELECT * FROM llm_calls")
    with contextlib.closing(journal.connect_to_read(path)) as reader:
        assert reader.execute("SELECT * FROM llm_calls").fetchall() == [(1,)]


def test_a_reader_cannot_write(connection, tmp_path):
    with (
        contextlib.closing(journal.connect_to_read(tmp_path / "f" / "j.sqlite3")) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        reader.execute("DELETE FROM llm_calls")


def test_every_column_has_a_meaning_and_a_default_after_the_specified():
    assert all(column.meaning for column in COLUMNS)
    fields = dataclasses.fields(Call)
    for field in fields[9:]:
        assert field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


DAY = 86_400_000


def test_retention_by_age_spares_what_proton_lacks(connection):
    now = time.time_ns() // 1_000_000
    old, waiting, young = (a_call(response_time=now - age * DAY) for age in (9, 9, 1))
    put(connection, old, young)
    put(connection, waiting, for_proton=True)
    assert retention.prune(connection, keep_days=5, keep_bytes=0) == 1
    left = {row[0] for row in connection.execute("SELECT call_id FROM llm_calls")}
    assert left == {waiting.call_id, young.call_id}


def test_retention_by_size_takes_the_oldest(connection):
    now = time.time_ns() // 1_000_000
    calls = [a_call(response_time=now - (2000 - n) * DAY, response_text="x" * 2000) for n in range(1000)]
    put(connection, *calls)
    assert retention.prune(connection, keep_days=0, keep_bytes=10 << 20) == 0
    assert retention.prune(connection, keep_days=0, keep_bytes=1 << 20) == retention.BATCH
    left = {row[0] for row in connection.execute("SELECT call_id FROM llm_calls")}
    assert left == {call.call_id for call in calls[retention.BATCH :]}
    assert retention.prune(connection, keep_days=0, keep_bytes=10 << 20) == 0
