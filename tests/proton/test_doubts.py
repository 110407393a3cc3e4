"""Ways in which a row that is in doubt could be lost or doubled, each tried on purpose."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import subprocess
import sys
import time
from typing import Any

import pytest
from calltracker import journal, retention
from calltracker.proton import exporter as exporter_module
from calltracker.proton import outbox
from calltracker.proton.exporter import lock_path
from proton_driver import Client

from .conftest import add, fill, left, make_call, wait_for
from .server import Drop, Say, Server
from .test_commands import EIGHT
from .test_faults import assert_each_once

ALTER = "ALTER STREAM llm_calls ADD COLUMN mine string"


def after_applying(times: int = 1) -> Any:
    """A hook that takes so many blocks and drops the connection instead of saying so."""
    left_over = iter(range(times))

    def hook(stage: str, stream: str, rows: int) -> None:
        if stage == "applied" and next(left_over, None) is not None:
            raise Drop

    return hook


def in_doubt(path: Any) -> int:
    with contextlib.closing(journal.connect_to_read(path)) as connection:
        return outbox.counts(connection).unconfirmed


def deliver(path: Any, server: Server, export: Any, count: int) -> list[str]:
    """Deliver some rows and wait until table() shows them; the exporter is stopped again."""
    ids = fill(path, count)
    one = export(server.port)
    wait_for(lambda: not left(path))
    one.stop(5)
    stream = server.streams["llm_calls"]
    wait_for(lambda: sum(block.rows for block in server.shown(stream)) == count)
    return ids


@pytest.mark.parametrize("witnesses", [0, 5], ids=["nothing-since", "rows-since"])
def test_what_is_sent_after_an_alter_is_not_sent_twice(path, server, export, caplog, witnesses):
    """On 1.6 it is missing from table() until the server is restarted, however long one waits."""
    ids = deliver(path, server, export, witnesses or 1)
    Client("127.0.0.1", server.port).execute(ALTER)
    server.hook = after_applying()
    ids += fill(path, 3)
    delivering = export(server.port, visibility=0.1)
    wait_for(lambda: delivering.status()["unconfirmed"] == 3)
    if witnesses:
        ids += fill(path, 2)  # acknowledged, and not shown either
        wait_for(lambda: len(left(path)) == 3)
    else:
        delivering.stop(0)  # … and the next worker knows no more than the journal
        delivering = export(server.port, visibility=0.1)
    with caplog.at_level(logging.WARNING):
        wait_for(lambda: "restart the server" in caplog.text)
    assert in_doubt(path) == 3
    server.stop()
    server.start()
    if not witnesses:
        ids += fill(path, 1)
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)


def test_what_a_restarted_server_does_not_show_at_once_is_not_sent_twice(path, server, export):
    """The server takes a batch, ends before table() shows it, and needs a while when it is there again."""
    server.visibility = 1e9
    server.hook = after_applying()
    ids = fill(path, 10)
    delivering = export(server.port, visibility=0.3)
    wait_for(lambda: delivering._doubts and delivering._doubts[0].over_at)
    server.stop()
    wait_for(lambda: "nothing listens" in delivering.status()["error"])
    time.sleep(0.3)  # the outage is longer than what is waited for table()
    for block in server.streams["llm_calls"].blocks:
        block.visible_at = float("inf")
    server.restart_shows_all = False
    server.start()
    time.sleep(0.2)
    for block in server.streams["llm_calls"].blocks:
        block.visible_at = 0.0
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)


@pytest.mark.parametrize("name", ["delivered", "take", "returned"])
def test_a_full_disk_of_the_journal_doubles_nothing(path, server, export, monkeypatch, name):
    """What was sent is written down before; what cannot be struck out is looked for."""
    real = getattr(outbox, name)
    failing = iter(range(10))

    def full(*arguments: Any) -> Any:
        if next(failing, None) is not None:
            raise sqlite3.OperationalError("database or disk is full")
        return real(*arguments)

    monkeypatch.setattr(outbox, name, full)
    if name == "returned":
        busy = iter(range(10))
        server.hook = lambda stage, *_: (
            (_ for _ in ()).throw(Say(252, "Too many parts"))
            if stage == "query" and next(busy, None) is not None
            else None
        )
    ids = fill(path, 300)
    export(server.port, visibility=0.15)
    wait_for(lambda: not left(path))
    assert next(failing, None) is None
    assert_each_once(server, ids)


def test_a_batch_that_is_refused_as_a_whole_is_sent_in_halves(path, server, export):
    """A limit of the server's memory that every large INSERT exceeds."""

    def hook(stage: str, stream: str, rows: int) -> None:
        if stage == "block" and rows > 20:
            raise Say(241, "Memory limit (for query) exceeded")

    server.hook = hook
    ids = fill(path, 100)
    export(server.port, visibility=0.1)
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)


def test_other_rows_go_on_at_full_speed_while_some_are_in_doubt(path, server, export):
    server.hook = after_applying()
    server.visibility = 1e9
    ids = fill(path, 1)
    delivering = export(server.port, visibility=60.0, batch_rows=1, backoff_first=1.0, backoff_most=1.0)
    wait_for(lambda: delivering.status()["unconfirmed"] == 1)
    ids += fill(path, 50)
    wait_for(lambda: server.count() == 51, 10)  # one backoff, and not fifty
    wait_for(lambda: len(left(path)) == 1)
    for block in server.streams["llm_calls"].blocks:
        block.visible_at = 0.0
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)


def test_no_more_is_sent_than_can_be_kept_in_doubt(path, server, export):
    server.hook = after_applying(10)
    server.visibility = 1e9
    ids = fill(path, 30)
    delivering = export(server.port, batch_rows=2, visibility=10.0)
    most = exporter_module._MOST_UNCONFIRMED
    wait_for(lambda: in_doubt(path) == most * 2)
    asked = len(server.queries)
    wait_for(lambda: len(server.queries) > asked + 2 * most)  # they are looked for, and nothing else is done
    assert server.count() == in_doubt(path) == most * 2
    server.visibility = 0.0
    for block in server.streams["llm_calls"].blocks:
        block.visible_at = 0.0
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)
    wait_for(lambda: delivering.status()["error"] == "")


def test_links_to_a_journal_lead_to_one_lock(path, tmp_path):
    fill(path, 1)
    link = tmp_path / "link.sqlite3"
    link.symlink_to(path)
    assert lock_path(link) == lock_path(path)


def test_retention_keeps_what_is_in_doubt(path, server, export):
    old = int(time.time() * 1000) - 90 * 86_400_000
    server.hook = after_applying()
    server.visibility = 1e9
    ids = fill(path, 4, request_time=old, response_time=old)
    delivering = export(server.port, visibility=10.0)
    wait_for(lambda: delivering.status()["unconfirmed"] == 4)
    with contextlib.closing(journal.connect(path)) as connection:
        with journal.transaction(connection):
            assert retention.prune(connection, keep_days=1, keep_bytes=1) == 0
        server.streams["llm_calls"].blocks[0].visible_at = 0.0
        wait_for(lambda: not left(path))
        with journal.transaction(connection):
            assert retention.prune(connection, keep_days=1, keep_bytes=1) == 4
    assert_each_once(server, ids)


def test_rows_that_were_removed_from_the_journal_do_not_wait(path, server, export):
    ids = fill(path, 6)
    with contextlib.closing(journal.connect(path)) as connection:
        connection.execute("DELETE FROM llm_calls WHERE call_id = ?", (ids.pop(),))
    export(server.port)
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)
    with contextlib.closing(journal.connect_to_read(path)) as connection:
        assert outbox.counts(connection) == outbox.Counts(rows=5, waiting=0, unconfirmed=0, refused=0)


# Streams without call_id

SAME = {"request_time": 1_760_000_000_000, "response_time": 1_760_000_000_100, "request_content": "{}"}


@pytest.mark.parametrize("stage", ["block", "applied"])
def test_equal_calls_are_told_apart_by_their_number(path, server, export, stage):
    """Of calls that agree in all eight columns some were delivered before, and others are in doubt."""
    Client("127.0.0.1", server.port).execute(EIGHT)
    fill(path, 5, **SAME)
    first = export(server.port)
    wait_for(lambda: not left(path))
    first.stop(5)
    struck = iter(range(1))

    def hook(at: str, stream: str, rows: int) -> None:
        if at == stage and next(struck, None) is not None:
            raise Drop

    server.hook = hook
    fill(path, 3, **SAME)
    export(server.port)
    wait_for(lambda: not left(path))
    assert server.count() == 8


def test_a_stream_that_gets_its_call_id_while_rows_are_in_doubt(path, export):
    with Server(version=(3, 0, 1), visibility=0.01) as server:
        driver = Client("127.0.0.1", server.port)
        driver.execute(EIGHT)
        server.hook = after_applying()
        fill(path, 3)
        add(path, make_call(3, call_id="later"))
        delivering = export(server.port, batch_rows=3, visibility=1.0)
        wait_for(lambda: delivering.status()["unconfirmed"] == 3)
        driver.execute("ALTER STREAM llm_calls ADD COLUMN call_id string DEFAULT ''")
        delivering.stop(0)
        export(server.port, batch_rows=3, visibility=0.1)
        wait_for(lambda: not left(path))
        assert server.count() == 4


def test_another_program_may_close_the_journal_while_it_is_delivered(path, server, export):
    """Were the locks of this process lost, the other one would take the write-ahead log away with what is in it."""
    writer = journal.connect(path)  # as the worker's, in the exporter's process
    delivering = export(server.port)
    wait_for(lambda: delivering.status()["state"] == "delivering")
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA user_version = 7'); c.close()"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    calls = [make_call(number) for number in range(5)]
    with journal.transaction(writer):
        assert journal.add(writer, calls, for_proton=True) == 5
    wait_for(lambda: not left(path))
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM llm_calls").fetchone() == (5,)
    writer.close()
    assert_each_once(server, [call.call_id for call in calls])
