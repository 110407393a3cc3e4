"""The exporter against a server that works."""

from __future__ import annotations

from calltracker.call import COLUMNS
from calltracker.proton.exporter import LONGEST_REST, REST, Exporter
from calltracker.proton.settings import Settings

from .conftest import add, fill, left, make_call, wait_for


def test_every_row_arrives_once_and_in_order(path, server, export):
    ids = fill(path, 1000)
    export(server.port)
    wait_for(lambda: not left(path))
    assert [row[0] for row in server.rows("llm_calls", "call_id")] == ids


def test_every_column_arrives_as_the_call_had_it(path, server, export):
    call = make_call(1, error="é\x00", first_byte_time=1_700_000_000_123, tags={}, truncated=True)
    add(path, call)
    export(server.port)
    wait_for(lambda: not left(path))
    names = [column.name for column in COLUMNS]
    assert dict(zip(names, server.rows("llm_calls", *names)[0], strict=True)) == {
        name: getattr(call, name) for name in names
    }


def test_delivery_rests_while_calls_come_and_at_no_other_time(path, monkeypatch):
    exporter = Exporter(path, Settings(host="127.0.0.1"))
    waits: list[float] = []
    monkeypatch.setattr(exporter._stopping, "wait", waits.append)
    exporter._rest(0.01)
    assert waits == []
    exporter.wake()
    exporter._rest(0.01)
    exporter._rest(60)
    assert waits == [0.01 * REST, LONGEST_REST]
