"""`llm-calls proton`: what it says, what it does, and with which status it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest
from calltracker import journal, paths
from calltracker.call import COLUMNS
from calltracker.cli import main
from calltracker.proton import outbox, schema
from calltracker.proton.exporter import Exporter, lock_path
from calltracker.proton.settings import Settings
from calltracker.settings import OPTIONS
from click.testing import CliRunner, Result
from proton_driver import Client
from standin.authority import Authority

from .conftest import QUICK, fill, left, make_call, wait_for
from .server import Say, Server

EIGHT = """CREATE STREAM llm_calls (
  request_method string, request_url string, request_headers map(string, string), request_content string,
  request_time datetime64, response_time datetime64, response_status_code int, response_text string
)"""

Run = Callable[..., Result]


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `llm-calls proton …` on the test's journal; keywords are PROTON_* settings."""

    def invoke(*arguments: str, **settings: Any) -> Result:
        values = {"host": "127.0.0.1", **QUICK, **settings}
        environment = {f"PROTON_{name.upper()}": str(value) for name, value in values.items()}
        environment["LLM_CALLS_JOURNAL"] = str(path)
        return CliRunner().invoke(main, ["proton", *arguments], env=environment)

    return invoke


def ends(result: Result, status: int, *words: str) -> None:
    """It ended so, and with a failure said one line that holds the words."""
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    text = result.stderr if status else result.stdout
    assert all(word in text for word in words), text
    assert not status or text.count("\n") == 1


def test_init_creates_the_stream_once(run: Run, server: Server) -> None:
    ends(run("init", port=server.port), 0, "created the stream default.llm_calls")
    names = [name for name, *_ in server.streams["llm_calls"].columns]
    assert names == [*(column.name for column in COLUMNS), *(name for name, _, _ in schema.ALIASES), "_tp_time"]
    ends(run("init", port=server.port), 0, "is there and has every column")


def test_init_shows_what_a_stream_lacks_and_alters_only_when_told(run: Run, server: Server) -> None:
    Client("127.0.0.1", server.port).execute(EIGHT)
    ends(run("init", port=server.port), 0, "ADD COLUMN IF NOT EXISTS `call_id`", "until the server is restarted")
    assert len(server.streams["llm_calls"].columns) == 9
    altered = run("init", "--alter", port=server.port)
    ends(altered, 0, "added 31 columns")
    assert altered.stdout.index("restarted") < altered.stdout.index("ALTER STREAM `")
    ends(run("init", port=server.port), 0, "has every column")


def test_deliver_and_status(run: Run, server: Server, path: Path) -> None:
    ends(run("status", port=server.port), 0, "no call has been recorded yet", "version      1.6.1", "not there yet")
    ids = fill(path, 250)
    ends(run("status", port=server.port), 0, "delivered    0 of 250 rows", "waiting      250")
    ends(run("deliver", port=server.port), 0, "250 rows delivered")
    assert [row[0] for row in server.rows("llm_calls", "call_id")] == ids
    done = ("delivered    250 of 250 rows", "waiting      0", "refused      0", "stream       has every column")
    ends(run("status", port=server.port), 0, *done)
    ends(run("deliver", port=server.port), 0, "0 rows delivered")


def test_the_eight_columns_alone_are_filled(run: Run, server: Server, path: Path) -> None:
    Client("127.0.0.1", server.port).execute(EIGHT)
    fill(path, 30)
    ends(run("deliver", port=server.port), 0, "30 rows delivered")
    assert server.count() == 30


def test_refused_rows_are_set_apart_and_tried_again(run: Run, server: Server, path: Path) -> None:
    [poison] = fill(path, 1, request_content="x" * 11_000_000)
    fill(path, 5)
    result = run("deliver", port=server.port)
    ends(result, 1, "1 rows were refused")
    assert "5 rows delivered" in result.stdout
    assert [row[1] for row in left(path)] == [poison]
    ends(run("status", port=server.port), 0, "refused      1", "1 x Proton takes records of at most 10 MiB")
    again = run("deliver", "--refused", port=server.port)
    assert "1 refused rows wait again" in again.stdout
    ends(again, 1, "refused")


def test_status_counts_what_was_to_go_to_proton(run: Run, server: Server, path: Path) -> None:
    """Rows that were recorded while no Proton was configured are not delivered, and are not said to be."""
    with contextlib.closing(journal.connect(path)) as connection, journal.transaction(connection):
        journal.add(connection, [make_call(number) for number in range(7)], for_proton=False)
    fill(path, 3)
    ends(run("deliver", port=server.port), 0, "3 rows delivered")
    ends(run("status", port=server.port), 0, "delivered    3 of 3 rows")


def test_status_tells_the_last_error(run: Run, server: Server, path: Path, export: Callable[..., Exporter]) -> None:
    fill(path, 3)
    server.stop()
    export(server.port)
    connection = journal.connect_to_read(path)
    wait_for(lambda: "error" in outbox.notes(connection))
    server.start()
    ends(run("status", port=server.port), 0, "last error", "nothing listens")
    wait_for(lambda: not left(path))
    wait_for(lambda: "recovered" in outbox.notes(connection))
    connection.close()
    ends(run("status", port=server.port), 0, "last error", "delivered again since")


def test_an_outage_is_one_line_and_keeps_the_rows(run: Run, server: Server, path: Path) -> None:
    fill(path, 3)
    server.stop()
    ends(run("deliver", port=server.port), 1, "nothing listens")
    ends(run("init", port=server.port), 1, "nothing listens")
    ends(run("status", port=server.port), 1, "nothing listens")
    assert len(left(path)) == 3


def test_two_do_not_deliver_one_journal(run: Run, server: Server, path: Path) -> None:
    fill(path, 3)
    with filelock.FileLock(lock_path(path)):
        ends(run("deliver", port=server.port), 1, "a running proxy delivers this journal already")
    assert len(left(path)) == 3


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"host": ""}, "set PROTON_HOST"),
        ({"host": "http://h"}, "PROTON_HOST"),
        ({"port": "x"}, "PROTON_PORT"),
        ({"secure": "maybe"}, "PROTON_SECURE"),
        ({"url": "http://h:8463"}, "PROTON_URL"),
        ({"ca_certs": "/nowhere.pem", "secure": "on"}, "PROTON_CA_CERTS"),
        ({"ca_certs": __file__, "secure": "on"}, "holds no certificate"),
        ({"ca_certs": __file__}, "PROTON_SECURE=true"),
    ],
)
@pytest.mark.parametrize("command", ["init", "status", "deliver"])
def test_bad_settings_are_one_line(run: Run, command: str, settings: dict[str, str], word: str) -> None:
    ends(run(command, **settings), 2, word)


def test_no_journal_no_delivery(run: Run, server: Server) -> None:
    ends(run("deliver", port=server.port), 2, "there is no journal")


def test_wrong_password_database_and_rights(run: Run) -> None:
    with Server(users={"default": "right"}) as server:
        ends(run("init", port=server.port, password="wrong"), 1, "PROTON_PASSWORD")
    with Server() as server:
        ends(run("init", port=server.port, database="other"), 1, "PROTON_DATABASE")
    with Server(may_create=False) as server:
        ends(run("init", port=server.port), 1, "Not enough privileges", "sql/proton/create_stream.sql")


def test_a_column_of_another_type(run: Run, server: Server) -> None:
    changed = EIGHT.replace("request_headers map(string, string)", "request_headers string")
    Client("127.0.0.1", server.port).execute(changed)
    ends(run("init", port=server.port), 1, "request_headers is string", "PROTON_STREAM")


def test_a_server_that_says_what_we_do_not_know(run: Run, server: Server, path: Path) -> None:
    def hook(stage: str, stream: str, rows: int) -> None:
        raise Say(243, "Cannot reserve 1 MiB, not enough space")

    fill(path, 2)
    server.hook = hook
    ends(run("deliver", port=server.port, visibility=0.05, timeout=0.3), 1, "disk is full")
    assert len(left(path)) == 2


def test_tls_is_verified(run: Run, path: Path, tmp_path: Path) -> None:
    ours, other = (Authority(tmp_path / name, ["127.0.0.1"]) for name in ("ours", "other"))
    fill(path, 4)
    with Server(tls=ours.context([])) as server:
        secure = {"port": server.port, "secure": "on"}
        for untrusted in ({}, {"ca_certs": other.root}):
            ends(run("deliver", **secure, **untrusted), 1, "is not trusted", "PROTON_CA_CERTS")
        assert server.queries == []
        ends(run("deliver", **secure, ca_certs=ours.root), 0, "4 rows delivered")
        ends(run("status", **secure, verify="off"), 0, "delivered    4 of 4 rows")


def test_tls_for_another_name_is_not_trusted(run: Run, tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours", ["proton.example"])
    with Server(tls=ours.context([])) as server:
        ends(run("init", port=server.port, secure="on", ca_certs=ours.root), 1, "is not trusted", "set PROTON_HOST")
    assert server.queries == []


def test_tls_that_has_expired_is_not_trusted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    past = SimpleNamespace(now=lambda zone: datetime.now(zone) - timedelta(days=60))
    monkeypatch.setattr("standin.authority.datetime", SimpleNamespace(datetime=past, UTC=UTC))
    ours = Authority(tmp_path / "ours", ["127.0.0.1"])
    with Server(tls=ours.context([])) as server:
        ends(run("init", port=server.port, secure="on", ca_certs=ours.root), 1, "expired", "renew it")


def test_tls_with_a_port_that_has_none(run: Run, server: Server) -> None:
    ends(run("init", port=server.port, secure="on"), 1, "no TLS with", "PROTON_SECURE")


def test_no_tls_with_a_port_that_has_it(run: Run, tmp_path: Path) -> None:
    with Server(tls=Authority(tmp_path / "ours", ["127.0.0.1"]).context([])) as server:
        ends(run("init", port=server.port), 1, "PROTON_SECURE")


def test_a_port_that_says_nothing(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ends(run("init", port=silent.getsockname()[1], timeout=0.1), 1, "says nothing", "PROTON_PORT")


def test_a_port_that_speaks_http(run: Run) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        http.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign,assignment]
        threading.Thread(target=http.handle_request).start()
        ends(run("init", port=http.server_port), 1, "does not speak Proton's native protocol", "PROTON_PORT")


def test_a_host_that_does_not_exist(run: Run) -> None:
    ends(run("init", host="no-such-host.invalid"), 1, "there is no host", "PROTON_HOST")


def test_the_file_creates_what_init_creates(server: Server) -> None:
    statement = without_comments(paths.sql_folder("proton") / "create_stream.sql")
    assert statement == schema.create_statement("llm_calls")
    Client("127.0.0.1", server.port).execute(statement)
    names = [name for name, *_ in server.streams["llm_calls"].columns]
    assert names[:8] == [column.name for column in COLUMNS[:8]]
    types = [kind for _, kind, *_ in server.streams["llm_calls"].columns][:8]
    times = ["datetime64(3)", "datetime64(3)"]
    assert types == ["string", "string", "map(string, string)", "string", *times, "int32", "string"]


def without_comments(file: Path) -> str:
    return "\n".join(line for line in file.read_text().splitlines() if not line.startswith("--")).strip()


def test_both_stores_answer_the_same_questions() -> None:
    sqlite, proton = ({file.stem for file in paths.sql_folder(name).glob("*.sql")} for name in ("sqlite", "proton"))
    rollup = {"rollup_stream", "rollup_view_v1", "rollup_view_v3"}
    made = {"create_stream", *rollup, "kafka_stream", "kafka_view", "alert_v3"}
    assert {name for name in proton - made if not name.startswith("live_")} == sqlite
    assert made <= proton


def test_the_rollups_of_both_lines_differ_in_what_they_wait_for() -> None:
    folder = paths.sql_folder("proton")
    old, new = (without_comments(folder / f"rollup_view_{line}.sql").splitlines() for line in ("v1", "v3"))
    assert old[:-1] == new[:-1]
    assert (old[-1], new[-1]) == (
        "EMIT STREAM AFTER WATERMARK WITH DELAY 5s",
        "EMIT AFTER WINDOW CLOSE WITH DELAY 5s",
    )


def test_the_specified_query_stands_as_it_is() -> None:
    specified = (
        "WITH llm_latency AS (SELECT request_content:model AS model, date_diff('ms', request_time, response_time)"
        " AS latency FROM table(llm_calls))"
        " SELECT max(latency), min(latency), avg(latency), p90(latency), model FROM llm_latency GROUP BY model"
    )
    assert " ".join(without_comments(paths.sql_folder("proton") / "latency_by_model.sql").split()) == specified


def test_the_readme_tells_every_setting_and_file() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    options = {option.variable for option in OPTIONS}
    for field in dataclasses.fields(Settings):
        variable = f"PROTON_{field.name.upper()}"
        default = (
            str(field.default).lower() if isinstance(field.default, bool) else f"{field.default}".removesuffix(".0")
        )
        assert variable in options or f"| `{variable}` | `{default}` |" in readme
    for file in paths.sql_folder("proton").glob("*.sql"):
        assert f"`{file.name}`" in readme
    assert without_comments(paths.sql_folder("proton") / "latency_by_model.sql") in readme
