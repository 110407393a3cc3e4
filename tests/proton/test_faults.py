"""The fault matrix: whatever breaks, no row is lost and none is doubled.

Each fault strikes TIMES times while rows are being committed; then the rows at both ends are counted. The server
ignores idempotent ids, as Proton 1.6 does, unless a test says otherwise: the exporter must do without them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from calltracker import journal
from calltracker.proton.settings import Settings

from .conftest import QUICK, SHOWN_WITHIN, add, fill, left, make_call, wait_for, waiting
from .gate import Gate, Plan
from .server import Drop, Say, Server

TIMES = 20


class Load:
    """Commits rows all the while in a thread, as a worker does."""

    def __init__(self, path: Path, size: int = 3) -> None:
        self.path, self.size = path, size
        self.ids: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with contextlib.closing(journal.connect(self.path)) as connection:
            while not self._stop.wait(0.02):
                calls = [make_call(number) for number in range(self.size)]
                with journal.transaction(connection):
                    journal.add(connection, calls, for_proton=True)
                self.ids += [call.call_id for call in calls]

    def __enter__(self) -> Load:
        journal.connect(self.path).close()  # the file is made by one alone
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def assert_each_once(server: Server, ids: list[str]) -> None:
    counted = Counter(row[0] for row in server.rows("llm_calls", "call_id"))
    doubled = [call_id for call_id, count in counted.items() if count > 1]
    lost = set(ids) - set(counted)
    assert (len(doubled), len(lost), len(counted)) == (0, 0, len(ids))


def strike_each(stage: str, act, times: int = TIMES):
    """A hook that acts on every second INSERT that comes to a stage, so often; and an event when it is done."""
    seen = itertools.count()
    struck = itertools.count(1)
    done = threading.Event()

    def hook(at: str, stream: str, rows: int) -> None:
        if at == stage and next(seen) % 2 == 0 and not done.is_set():
            if next(struck) >= times:
                done.set()
            act()

    return hook, done


def say(code: int, message: str = "trouble"):
    def act() -> None:
        raise Say(code, message)

    return act


def drop() -> None:
    raise Drop


def test_the_server_is_away_at_first_and_comes(path, server, export):
    server.stop()
    ids = fill(path, 500)
    exporter = export(server.port)
    wait_for(lambda: "nothing listens" in exporter.status()["error"])
    server.start()
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)
    assert exporter.status()["error"] == ""


def test_the_server_restarts_under_load(path, server, export):
    with Load(path) as load:
        export(server.port)
        for _ in range(TIMES):
            before = server.count()
            wait_for(lambda before=before: server.count() > before)
            server.stop()
            time.sleep(random.uniform(0, 0.03))
            server.start()
    wait_for(lambda: not left(path))
    assert_each_once(server, load.ids)


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "reset"])
def test_the_connection_is_cut_at_any_byte_on_the_way_up(path, server, export, reset):
    cuts = [random.randrange(60, 60_000) for _ in range(TIMES)] + [None] * 10_000
    plans = iter(cuts)
    with Gate(server.port, lambda: Plan(cut_up=next(plans), reset=reset)) as gate:
        with Load(path, 10) as load:
            export(gate.port)
            wait_for(lambda: gate.connections > TIMES)
        wait_for(lambda: not left(path))
    assert_each_once(server, load.ids)


def test_the_connection_is_cut_at_any_byte_on_the_way_down(path, server, export):
    # A conversation: hello, describe, then some 1,900 bytes for each INSERT's sample block and its end
    cuts = [random.choice([random.randrange(1, 4000), random.randrange(3000, 12_000)]) for _ in range(TIMES)]
    plans = iter(cuts + [None] * 10_000)
    with Gate(server.port, lambda: Plan(cut_down=next(plans))) as gate:
        with Load(path) as load:
            export(gate.port)
            wait_for(lambda: gate.connections > TIMES)
        wait_for(lambda: not left(path))
    assert_each_once(server, load.ids)


def test_the_answer_never_comes(path, server, export):
    """The INSERT is applied; the driver times out."""
    hook, done = strike_each("applied", lambda: time.sleep(0.2))
    server.hook = hook
    with Load(path) as load:
        export(server.port, timeout=0.1)
        wait_for(done.is_set)
    wait_for(lambda: not left(path))
    assert_each_once(server, load.ids)


def test_the_block_is_applied_after_the_driver_gave_up(path, server, export):
    """The server hangs with the whole block in its hands, and takes it when the driver is long gone."""
    hook, done = strike_each("block", lambda: time.sleep(0.3))
    server.hook = hook
    with Load(path) as load:
        export(server.port, timeout=0.1)
        wait_for(done.is_set)
    wait_for(lambda: not left(path))
    assert_each_once(server, load.ids)


def test_the_server_hangs(path, server, export):
    """It accepts connections and says nothing, for twice as long as the driver waits: a minute, on a small scale."""
    with Load(path) as load:
        export(server.port, timeout=0.15, connect_timeout=0.15)
        for _ in range(TIMES):
            before = server.count()
            wait_for(lambda before=before: server.count() > before)
            server.running.clear()
            time.sleep(0.32)
            server.running.set()
    wait_for(lambda: not left(path))
    assert_each_once(server, load.ids)


@pytest.mark.parametrize("stage", ["query", "block", "applied", "end"])
def test_the_server_drops_the_connection(path, server, export, stage):
    hook, done = strike_each(stage, drop)
    server.hook = hook
    with Load(path) as load:
        export(server.port)
        wait_for(done.is_set)
    wait_for(lambda: not left(path))
    assert_each_once(server, load.ids)


@pytest.mark.parametrize(
    ("code", "stage"),
    [(243, "block"), (252, "query"), (252, "block"), (241, "block"), (241, "applied"), (394, "applied")],
)
def test_the_server_has_trouble_of_its_own(path, server, export, code, stage):
    hook, done = strike_each(stage, say(code))
    server.hook = hook
    with Load(path) as load:
        export(server.port)
        wait_for(done.is_set)
    wait_for(lambda: not left(path))
    assert_each_once(server, load.ids)


def test_a_full_disk_for_a_while_refuses_no_row(path, server, export):
    server.hook = lambda stage, stream, rows: say(243, "Cannot reserve 1.00 MiB")() if stage == "block" else None
    ids = fill(path, 300)
    exporter = export(server.port)
    wait_for(lambda: "disk is full" in exporter.status()["error"])
    asked = len(server.queries)
    wait_for(lambda: len(server.queries) > asked + 20)  # several tries
    assert waiting(path) == 300
    server.hook = lambda stage, stream, rows: None
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)


def test_an_unknown_refusal_of_everything_refuses_no_row(path, server, export):
    """A code that we do not know, for every block: it is the server, not the rows."""
    server.hook = lambda stage, stream, rows: say(7777, "out of cheese")() if stage == "block" else None
    ids = fill(path, 4)
    exporter = export(server.port, visibility=0.1)
    wait_for(lambda: "out of cheese" in exporter.status()["error"])
    wait_for(lambda: len(server.queries) > 40)
    assert waiting(path) == 4
    server.hook = lambda stage, stream, rows: None
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)


def test_the_password_is_changed_and_changed_back(path, server, export):
    with Load(path) as load:
        exporter = export(server.port)
        for _ in range(TIMES):
            before = server.count()
            wait_for(lambda before=before: server.count() > before)
            server.users["default"] = "another"
            server.stop()
            server.start()
            wait_for(lambda: "PROTON_PASSWORD" in exporter.status()["error"])
            server.users["default"] = ""
    wait_for(lambda: not left(path))
    assert_each_once(server, load.ids)


def test_records_that_are_too_large_are_halved(path, server, export):
    """Thirty rows of 1 MB in one batch are three records."""
    ids = fill(path, 30, response_text="x" * 1_000_000)
    export(server.port, batch_bytes=1 << 30, timeout=10.0)
    wait_for(lambda: not left(path))
    assert_each_once(server, ids)


def test_a_row_that_is_too_large_is_set_apart(path, server, export):
    ids = fill(path, 20)
    add(path, make_call(response_text="x" * 10_485_760, call_id="huge"))
    ids += fill(path, 20)
    export(server.port, timeout=10.0)
    wait_for(lambda: not waiting(path))
    ((_, call_id, reason),) = left(path)
    assert call_id == "huge"
    assert "10 MiB" in reason
    assert_each_once(server, ids)


def test_rows_that_are_too_large_come_again_and_again(path, server, export, monkeypatch):
    """Under load, and with a limit that is lower than the real one, for speed."""
    monkeypatch.setattr("proton.server.RECORD_LIMIT", 100_000)
    large = [make_call(response_text="x" * 100_000) for _ in range(TIMES)]
    with Load(path) as load:
        export(server.port)
        for call in large:
            before = len(load.ids)
            wait_for(lambda before=before: len(load.ids) > before)
            add(path, call)
    wait_for(lambda: not waiting(path))
    assert sorted(row[1] for row in left(path)) == sorted(call.call_id for call in large)
    assert_each_once(server, load.ids)


@pytest.mark.parametrize("where", [0, 500, 999])
@pytest.mark.parametrize("poison", ["surrogate", "map", "status"])
def test_a_poison_row_among_a_thousand_is_set_apart(path, server, export, where, poison):
    import sqlite3

    ids = fill(path, 1000)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        value = {
            "surrogate": ("error", b"a\xed\xa0\xbd"),
            "map": ("tags", '{"a": 1}'),
            "status": ("response_status_code", 2**40),
        }
        column, content = value[poison]
        text = "CAST(? AS TEXT)" if poison == "surrogate" else "?"
        connection.execute(f"UPDATE llm_calls SET {column} = {text} WHERE call_id = ?", (content, ids[where]))
    export(server.port, batch_rows=1000)
    wait_for(lambda: not waiting(path))
    ((_, call_id, reason),) = left(path)
    assert call_id == ids[where]
    assert reason
    assert_each_once(server, [i for i in ids if i != call_id])


def test_rows_that_the_server_refuses_with_a_strange_code_are_set_apart(path, server, export):
    """What the server says of a row that it alone minds, with a code that is in none of our lists."""
    ids = fill(path, 50)
    bad = ids[20]
    export_hook_calls: list[int] = []
    original = Server.__dict__["_serve"]
    assert original
    from . import server as module

    apply = module._Session._apply

    def refuse(self, stream, columns, rows, idempotent_id, number):
        if bad in columns["call_id"]:
            export_hook_calls.append(rows)
            raise Say(8888, "I do not like this one")
        apply(self, stream, columns, rows, idempotent_id, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Session, "_apply", refuse)
        export(server.port, visibility=0.12)
        wait_for(lambda: not waiting(path))
    ((_, call_id, reason),) = left(path)
    assert (call_id, "do not like" in reason) == (bad, True)
    assert_each_once(server, [i for i in ids if i != bad])


def test_a_proton_3_that_knows_idempotent_ids(path, export):
    with Server(version=(3, 0, 1), visibility=SHOWN_WITHIN) as server:
        hook, done = strike_each("applied", drop)
        server.hook = hook
        with Load(path) as load:
            export(server.port)
            wait_for(done.is_set)
        wait_for(lambda: not left(path))
        assert_each_once(server, load.ids)
        assert all(block.idempotent_id for block in server.streams["llm_calls"].blocks)


def test_a_stream_of_the_eight_specified_columns(path, server, export):
    from proton_driver import Client

    from .test_commands import EIGHT

    Client("127.0.0.1", server.port).execute(EIGHT)
    hook, done = strike_each("applied", drop, 10)
    server.hook = hook
    numbers = itertools.count()
    sent: list[str] = []
    exporter = export(server.port)

    def dropped_often_enough() -> bool:
        texts = [f"answer {len(sent) + i}" for i in range(5)]
        add(path, *(make_call(next(numbers), response_text=text) for text in texts))
        sent.extend(texts)
        exporter.wake()
        time.sleep(0.02)
        return done.is_set()

    wait_for(dropped_often_enough)
    wait_for(lambda: not left(path))
    texts = [row[0] for row in server.rows("llm_calls", "response_text")]
    assert sorted(texts) == sorted(sent)


WORKER = """
import sys, time, pathlib
from calltracker.proton.exporter import Exporter
from calltracker.proton.settings import Settings
import json
exporter = Exporter(pathlib.Path(sys.argv[1]), Settings.from_dict(json.loads(sys.argv[2])))
exporter.start()
print("started", flush=True)
time.sleep(600)
"""


class Worker:
    """An exporter in a process of its own."""

    def __init__(self, path: Path, settings: Settings) -> None:
        import json

        addon = Path(__file__).parents[2] / "addon"
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), json.dumps(settings.to_dict())],
            env=os.environ | {"PYTHONPATH": str(addon)},
            stdout=subprocess.PIPE,
        )

    def started(self) -> Worker:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"started\n"
        return self

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


def test_the_worker_is_killed_at_random_instants(path, server):
    settings = Settings(host="127.0.0.1", port=server.port, **QUICK)
    server.hook = lambda stage, stream, rows: time.sleep(random.uniform(0, 0.01))
    following = Worker(path, settings)
    with Load(path) as load:
        for _ in range(TIMES):
            worker = following.started()
            following = Worker(path, settings)  # waits for the lock meanwhile
            before = server.count()
            wait_for(lambda before=before: server.count() > before)
            time.sleep(random.uniform(0, 0.05))
            worker.kill()
    following.started()
    try:
        wait_for(lambda: not left(path))
    finally:
        following.kill()
    assert_each_once(server, load.ids)


def test_two_proxies_share_a_stream_and_a_journal(path, tmp_path, server):
    other = tmp_path / "other" / "journal.sqlite3"
    settings = Settings(host="127.0.0.1", port=server.port, **QUICK)
    hook, done = strike_each("applied", drop)
    server.hook = hook
    with Load(path) as first, Load(other) as second:
        workers = [Worker(where, settings).started() for where in (path, path, other, other)]
        try:
            wait_for(done.is_set)
            workers.pop(0).kill()
            time.sleep(0.2)
        except BaseException:
            for worker in workers:
                worker.kill()
            raise
    try:
        wait_for(lambda: not left(path) and not left(other))
    finally:
        for worker in workers:
            worker.kill()
    assert_each_once(server, first.ids + second.ids)


def test_a_backlog_is_delivered_with_flat_memory(path, export):
    """The million rows of scripts/bench/delivery.py, on a small scale."""
    import resource

    with Server(keep_rows=False) as server:
        ids = fill(path, 20_000)
        settings = Settings(host="127.0.0.1", port=server.port, **(QUICK | {"timeout": 10.0}))
        worker = Worker(path, settings).started()
        try:
            status = Path(f"/proc/{worker.process.pid}/status")
            wait_for(lambda: server.count() > 4_000)
            before = _resident(status)
            wait_for(lambda: not left(path))
            after = _resident(status)
        finally:
            worker.kill()
        assert_each_once(server, ids)
    assert after - before < 16 << 20
    assert resource.getpagesize()


def _resident(status: Path) -> int:
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10
