"""`llm-calls query` as a program: what it prints, in which form and encoding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from calltracker import journal
from calltracker.call import Call, new_call_id

COMMAND = Path(sys.executable).with_name("llm-calls")
TEXT = "naïve 日本"
SQL = "SELECT request_url, response_status_code AS status, response_text FROM llm_calls"


@pytest.fixture
def file(tmp_path):
    connection = journal.connect(tmp_path / "j.sqlite3")
    call = Call(
        request_method="GET",
        request_url="https://api.openai.com/v1/models",
        request_headers={},
        request_content="",
        request_time=1_790_000_000_123,
        response_time=1_790_000_001_500,
        response_status_code=200,
        response_text=TEXT,
        call_id=str(new_call_id()),
    )
    with journal.transaction(connection):
        journal.add(connection, [call], for_proton=False)
    connection.close()
    return tmp_path / "j.sqlite3"


def printed(file, *arguments, encoding):
    environ = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [str(COMMAND), "query", SQL, "--journal", str(file), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode(encoding)


@pytest.mark.parametrize(("encoding", "seen", "rule"), [("utf-8", TEXT, "─"), ("latin-1", r"naïve \u65e5\u672c", "-")])
def test_a_table_is_aligned_and_escapes_what_the_terminal_lacks(file, encoding, seen, rule):
    head, line, row = printed(file, encoding=encoding).splitlines()
    assert head.split() == ["request_url", "status", "response_text"]
    assert set(line) == {rule, " "}
    assert row == f"https://api.openai.com/v1/models     200  {seen}"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252"])
def test_json_loses_nothing_in_any_encoding(file, encoding):
    row = json.loads(printed(file, "--json", encoding=encoding))
    assert row == {"request_url": "https://api.openai.com/v1/models", "status": 200, "response_text": TEXT}


def test_csv(file):
    text = printed(file, "--csv", encoding="utf-8")
    assert text == f"request_url,status,response_text\nhttps://api.openai.com/v1/models,200,{TEXT}\n"
    assert r"\u65e5" in printed(file, "--csv", encoding="latin-1")


def test_a_journal_that_is_just_being_made_has_no_rows(tmp_path):
    (tmp_path / "j.sqlite3").touch()
    done = subprocess.run([str(COMMAND), "query", SQL, "--journal", str(tmp_path / "j.sqlite3")], capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"llm-calls: no call has been recorded yet in ")


def test_a_reader_that_has_had_enough_ends_it_in_silence(file):
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT * FROM n"
    command = f"{COMMAND} query '{many}' --csv --journal {file} | head -2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("i\n1\n", "")
